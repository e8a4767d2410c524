"""Calls of human readers: ``id,reader,CLASS…``, one line per film and reader.

``id`` is a film of the dataset, ``reader`` any name, and every class column holds 0 or 1:
no blanks, no probabilities. A file may name fewer classes than the dataset has. A reader
need not have read every film, as long as at least three read each film that was not read
by all; protocols that compare readers two by two take complete files only.
"""

import csv
import dataclasses
import io
from collections.abc import Collection, Sequence
from typing import NoReturn

import numpy as np
from etils import epath

from cxr_jax.errors import DataError

NAME = "readers.csv"
KEYS = ("id", "reader")
LEAST_PRESENT = 3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReaderCalls:
    """What R readers called on N films.

    Attributes:
        path: the file, for messages.
        ids: str ``[N]``, films in the order of the file.
        readers: names of the R readers, in the order of the file.
        classes: names of the C columns.
        calls: float32 ``[N, R, C]`` in {0, 1}; NaN where a reader did not read a film.
        lines: int ``[N]``, first line of each film in the file.
    """

    path: str
    ids: np.ndarray
    readers: tuple[str, ...]
    classes: tuple[str, ...]
    calls: np.ndarray
    lines: np.ndarray

    @property
    def absent(self) -> np.ndarray:
        """bool ``[N, R]``, the reader–film pairs that are not there."""
        return np.isnan(self.calls[:, :, 0])

    def select(self, ids: Sequence[str], classes: Sequence[str]) -> "ReaderCalls":
        """The same for some films and classes, in the order given.

        Args:
            ids: films that were read.
            classes: names of class columns.

        Raises:
            DataError: a film nobody read, or a class without a column.
        """
        row = {name: k for k, name in enumerate(self.ids)}
        column = {name: k for k, name in enumerate(self.classes)}
        missing = [n for n in ids if n not in row]
        missing += [n for n in classes if n not in column]
        if missing:
            raise DataError(
                f"{self.path} holds no calls of {', '.join(missing[:3])}; it has"
                f" {len(self.ids)} films and the classes {', '.join(self.classes)}"
            )
        rows = np.asarray([row[n] for n in ids], dtype=int)
        columns = np.asarray([column[n] for n in classes], dtype=int)
        return dataclasses.replace(
            self,
            ids=self.ids[rows],
            classes=tuple(classes),
            calls=self.calls[rows][:, :, columns],
            lines=self.lines[rows],
        )

    def require_complete(self, protocol: str) -> None:
        """Refuses a missing reader–film pair, for a protocol that needs them all.

        Raises:
            DataError: names the first film's line, and who is missing.
        """
        rows = np.flatnonzero(self.absent.any(axis=1))
        if len(rows):
            k = rows[np.argmin(self.lines[rows])]
            raise DataError(
                f"{self.path}, line {self.lines[k]}: film {self.ids[k]} has no calls of"
                f" {_absent_names(self.readers, self.absent[k])}, which the protocol"
                f" {protocol!r} needs; add them, or leave the protocol out"
            )


def read_readers(
    path: epath.PathLike, *, ids: Collection[str], classes: Sequence[str]
) -> ReaderCalls:
    """Reads a file of reader calls.

    Args:
        path: CSV with the header ``id,reader,CLASS…``.
        ids: of all films that may occur.
        classes: names of all classes that may occur.

    Returns:
        The calls of the films and classes that do occur.

    Raises:
        DataError: an unknown film or class, a call other than 0 or 1, a film read twice
            by one reader, or a film with fewer than 3 readers that others read too; the
            message names the line.
    """
    path = epath.Path(path)
    rows = csv.reader(io.StringIO(_text(path), newline=""))
    header = tuple(cell.strip() for cell in next(rows, []))
    _check_header(header, path, classes)
    known, wanted = set(ids), len(header)
    calls: dict[tuple[str, str], list[float]] = {}
    lines: dict[tuple[str, str], int] = {}
    try:
        for row in rows:
            if not row:
                continue
            line, cells = rows.line_num, [cell.strip() for cell in row]
            if len(cells) != wanted:
                _refuse(path, line, f"{len(cells)} cells; {wanted} are allowed")
            pair = cells[0], cells[1]
            _check_pair(pair, known, path, line)
            if pair in lines:
                _refuse(
                    path,
                    line,
                    f"reader {pair[1]} read film {pair[0]} in line {lines[pair]} already;"
                    " one line per reader and film is allowed",
                )
            calls[pair], lines[pair] = _calls(cells, header, path, line), line
    except csv.Error as error:
        _refuse(path, rows.line_num, f"not a table ({error}); correct the line")
    if not calls:
        raise DataError(f"{path}: has a header and no row; at least 1 is allowed")
    return _arrange(calls, lines, header[len(KEYS) :], path)


def _arrange(
    calls: dict[tuple[str, str], list[float]],
    lines: dict[tuple[str, str], int],
    classes: tuple[str, ...],
    path: epath.Path,
) -> ReaderCalls:
    films = {name: k for k, name in enumerate(dict.fromkeys(f for f, _ in calls))}
    readers = {name: k for k, name in enumerate(dict.fromkeys(r for _, r in calls))}
    table = np.full((len(films), len(readers), len(classes)), np.nan, np.float32)
    first = np.full(len(films), np.iinfo(np.int64).max)
    for (film, reader), values in calls.items():
        table[films[film], readers[reader]] = values
        first[films[film]] = min(first[films[film]], lines[film, reader])
    found = ReaderCalls(
        path=str(path),
        ids=np.asarray(list(films), dtype=np.str_),
        readers=tuple(readers),
        classes=classes,
        calls=table,
        lines=first,
    )
    present = (~found.absent).sum(axis=1)
    few = np.flatnonzero((present < len(readers)) & (present < LEAST_PRESENT))
    if len(few):
        k = few[0]
        _refuse(
            path,
            int(first[k]),
            f"film {found.ids[k]} has calls of {present[k]} of {len(readers)} readers"
            f" (not of {_absent_names(found.readers, found.absent[k])}); all, or at least"
            f" {LEAST_PRESENT}, are allowed: complete the film, or take its lines out",
        )
    return found


def _check_header(
    header: tuple[str, ...], path: epath.Path, classes: Sequence[str]
) -> None:
    names = header[len(KEYS) :]
    if header[: len(KEYS)] != KEYS or not names or len(set(names)) < len(names):
        _refuse(
            path,
            1,
            f"the header is {','.join(header)[:80]!r}; {','.join(KEYS)} and then each"
            " class once is allowed",
        )
    if unknown := [name for name in names if name not in classes]:
        _refuse(
            path,
            1,
            f"class {', '.join(map(repr, unknown))} is unknown; allowed:"
            f" {', '.join(classes)}",
        )


def _check_pair(
    pair: tuple[str, str], known: set[str], path: epath.Path, line: int
) -> None:
    if pair[0] not in known:
        _refuse(
            path,
            line,
            f"film {pair[0]!r} is unknown; allowed are {len(known)} names such as"
            f" {min(known, default='')!r} (of studies, where studies are judged)",
        )
    if not pair[1]:
        _refuse(path, line, "no name in column 'reader'; every call needs its reader")


def _calls(
    cells: list[str], header: tuple[str, ...], path: epath.Path, line: int
) -> list[float]:
    for name, cell in zip(header[len(KEYS) :], cells[len(KEYS) :], strict=True):
        if cell not in ("0", "1"):
            _refuse(path, line, f"{name!r} is {cell!r}; 0 or 1 is allowed")
    return [float(cell) for cell in cells[len(KEYS) :]]


def _absent_names(readers: Sequence[str], absent: np.ndarray) -> str:
    return ", ".join(np.asarray(readers)[absent])


def _text(path: epath.Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DataError(
            f"{path}: cannot be read ({why}); give a CSV file of reader calls"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not text ({error.reason}); UTF-8 is allowed"
        ) from None


def _refuse(path: epath.Path, line: int, what: str) -> NoReturn:
    raise DataError(f"{path}, line {line}: {what}")
