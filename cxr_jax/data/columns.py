"""CSV files of other programs: a film a line, a class a column, whatever they are called.

Nothing is guessed in silence: what was read as what comes back with the values, and
columns that could be meant in two ways are refused.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import numpy as np
from etils import epath

from cxr_jax.data import manifest as manifests
from cxr_jax.data import tables
from cxr_jax.errors import DataError
from cxr_jax.labels import NIH14

# As ``canonical`` writes them.
ID_NAMES = ("id", "image_index", "image", "image_id", "image_name", "image_path")
ID_NAMES += ("filename", "file_name", "file", "path")
ABOUT_NAMES = {
    "patient": ("patient", "patient_id"),
    "study": ("study", "study_id"),
    "follow_up": ("follow_up",),
    "age": ("age", "patient_age"),
    "sex": ("sex", "gender", "patient_gender", "patient_sex"),
    "view": ("view", "view_position"),
}
SPLIT_PREFIX = "split_"
_ABOUT = {name: key for key, names in ABOUT_NAMES.items() for name in names}
_SPELLED = {name.lower(): name for name in NIH14}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """What the cells of the class columns may hold, and how that is said."""

    read: Callable[[str], float]
    allowed: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FilmTable:
    """N films of a CSV file.

    Attributes:
        path: the file.
        sha256: of its bytes.
        classes: names of the C classes, in the order of ``values``.
        columns: class → the header it was read from.
        unused: headers that were not read.
        id: str ``[N]``, unique; of a path, the file name.
        line: int ``[N]``, where each film stands.
        values: float64 ``[N, C]``; NaN where a label is empty.
        about: ``patient``, ``study``, ``age``, … and ``split_SCHEME`` → str ``[N]``, for
            the columns that are there.
    """

    path: str
    sha256: str
    classes: tuple[str, ...]
    columns: Mapping[str, str]
    unused: tuple[str, ...]
    id: np.ndarray
    line: np.ndarray
    values: np.ndarray
    about: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.id)


def probability(cell: str) -> float:
    """A number in [0, 1].

    Raises:
        ValueError: it is none.
    """
    value = float(cell)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def label(cell: str) -> float:
    """0 or 1; NaN for nothing.

    Raises:
        ValueError: it is none of these.
    """
    value = float(cell) if cell else np.nan
    if value not in (0, 1) and cell:
        raise ValueError
    return value


PROBABILITY = Column(read=probability, allowed="a probability in [0, 1] is allowed")
LABEL = Column(read=label, allowed="0, 1 or nothing (unknown) is allowed")


def canonical(name: str) -> str:
    """A header without case, blanks and hyphens: ``Pleural Thickening`` and others."""
    return re.sub(r"[\s\-.]+", "_", name.strip()).lower()


def read_films(
    path: epath.PathLike,
    column: Column,
    *,
    classes: Sequence[str] | None = None,
    subset: bool = False,
    pattern: str | None = None,
) -> FilmTable:
    """Reads a CSV file of films, plain or gzipped.

    The film's name stands in one of the columns ``id``, ``Image Index``, ``image``,
    ``file``, ``path`` and alike. A class is found whatever its case, with blanks,
    hyphens or underlines, and between a prefix and a suffix that are the same for all
    classes, such as ``prob_``.

    Args:
        path: the file.
        column: what its class columns hold.
        classes: the classes wanted, in that order; None takes every column that is not
            about the film, as labels files have them.
        subset: whether classes may be missing; at least one is needed.
        pattern: header of the classes with ``*`` for the class, such as ``prob_*``,
            where a file has several sets of columns.

    Returns:
        The table.

    Raises:
        DataError: no such file, no column of names or of a class, two that could be
            meant, or a cell that is not allowed; the message names file and line.
    """
    rows = csv.reader(io.StringIO(tables.read_text(path), newline=""))
    header = next(rows, [])
    key, about = _key_columns(path, header)
    left = {k: h for k, h in enumerate(header) if k != key and k not in about.values()}
    if classes is None:
        found = {_spelled(h): k for k, h in left.items() if h.strip()}
        if len(found) < sum(bool(h.strip()) for h in left.values()):
            raise DataError(f"{path}: two columns hold one class; every name once")
    else:
        found = _class_columns(path, left, classes, pattern=pattern, subset=subset)
    if not found:
        raise DataError(
            f"{path}: the header {_shown(header)} names no class; a film a line, and a"
            " column a class are allowed"
        )
    ids, lines, values, cells = _body(
        path, rows, len(header), key, about, found, column
    )
    used = set(found.values())
    return FilmTable(
        path=str(path),
        sha256=manifests.sha256_of(path),
        classes=tuple(found),
        columns={name: header[k] for name, k in found.items()},
        unused=tuple(h for k, h in left.items() if k not in used),
        id=np.asarray(ids, dtype=str),
        line=np.asarray(lines, dtype=int),
        values=np.asarray(values, np.float64).reshape(len(ids), len(found)),
        about={name: np.asarray(c, dtype=str) for name, c in cells.items()},
    )


def _key_columns(path: epath.PathLike, header: list[str]) -> tuple[int, dict[str, int]]:
    names = [canonical(h) for h in header]
    keys = [k for k, name in enumerate(names) if name in ID_NAMES]
    if len(keys) != 1:
        raise DataError(
            f"{path}: the header {_shown(header)} has {len(keys)} columns of film names;"
            f" one of {', '.join(ID_NAMES)} is allowed: rename or remove columns"
        )
    about: dict[str, int] = {}
    for k, name in enumerate(names):
        known = name if name.startswith(SPLIT_PREFIX) else _ABOUT.get(name)
        if known in about:
            raise DataError(f"{path}: two columns hold the {known}; one is allowed")
        if known:
            about[known] = k
    return keys[0], about


def _class_columns(
    path: epath.PathLike,
    headers: Mapping[int, str],
    classes: Sequence[str],
    *,
    pattern: str | None,
    subset: bool,
) -> dict[str, int]:
    """Class → column, all between the same prefix and suffix."""
    sets: dict[str, dict[str, int]] = {}
    for k, header in headers.items():
        for name in classes:
            before, match, after = canonical(header).rpartition(canonical(name))
            whole = (not before or before[-1] == "_") and (not after or after[0] == "_")
            if not match or not whole:
                continue
            found = sets.setdefault(f"{before}*{after}", {})
            if name in found:
                raise DataError(f"{path}: two columns hold {name}; one is allowed")
            found[name] = k
    if pattern is not None:
        sets = {k: v for k, v in sets.items() if k == canonical(pattern)}
    most = max(map(len, sets.values()), default=0)
    best = [k for k, found in sets.items() if len(found) == most]
    if len(best) > 1:
        raise DataError(
            f"{path}: {len(best)} sets of columns hold {most} classes each:"
            f" {', '.join(best)}; say which with --columns, such as --columns={best[0]}"
        )
    found = sets[best[0]] if best else {}
    missing = [name for name in classes if name not in found]
    if missing and not (subset and found):
        raise DataError(
            f"{path}: no column for {', '.join(missing)}; the header has"
            f" {_shown(list(headers.values()))}: rename its columns, or name the classes"
            " to be scored with --classes"
        )
    return {name: found[name] for name in classes if name in found}


def _body(
    path: epath.PathLike,
    rows: "csv.Reader",
    width: int,
    key: int,
    about: Mapping[str, int],
    classes: Mapping[str, int],
    column: Column,
) -> tuple[list[str], list[int], list[list[float]], dict[str, list[str]]]:
    seen: dict[str, int] = {}
    values: list[list[float]] = []
    cells: dict[str, list[str]] = {name: [] for name in about}
    try:
        for row in rows:
            if not any(row):
                continue
            line = rows.line_num
            if len(row) != width:
                _refuse(path, line, f"{len(row)} cells, but the header has {width}")
            name = re.split(r"[\\/]", row[key].strip())[-1]
            if not name:
                _refuse(path, line, "no film name; every line needs one")
            if seen.setdefault(name, line) != line:
                _refuse(path, line, f"film {name} is also in line {seen[name]}")
            values.append(
                [_cell(path, line, n, row[k], column) for n, k in classes.items()]
            )
            for about_name, k in about.items():
                cells[about_name].append(row[k].strip())
    except csv.Error as error:
        _refuse(path, rows.line_num, f"not a table ({error})")
    if not seen:
        raise DataError(f"{path}: has a header and no film; at least 1 is allowed")
    return list(seen), list(seen.values()), values, cells


def _cell(
    path: epath.PathLike, line: int, name: str, cell: str, column: Column
) -> float:
    try:
        return column.read(cell.strip())
    except ValueError:
        _refuse(path, line, f"{name} is {cell!r}; {column.allowed}")


def _spelled(header: str) -> str:
    """As ``labels.NIH14`` spells it, if it is one of those classes."""
    return _SPELLED.get(canonical(header), header.strip())


def _shown(header: Sequence[str]) -> str:
    return repr(",".join(header)[:120])


def _refuse(path: epath.PathLike, line: int, what: str) -> NoReturn:
    raise DataError(f"{path}, line {line}: {what}")
