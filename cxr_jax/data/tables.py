"""Label, box and split tables, as released; odd headers and all.

Every reader takes plain or gzipped text, refuses what it does not understand with file,
line and what is allowed, and guesses nothing.

Reference: Wang et al., "ChestX-ray8", CVPR 2017, and the release's own tables.
"""

import csv
import dataclasses
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
from etils import epath

from cxr_jax.errors import DataError
from cxr_jax.labels import CXR8, NIH14, NO_FINDING

AGE_MAX = 100
# The frame of the released films and of their boxes, in pixels.
NIH_FRAME = 1024

# The field names contain commas and are not quoted: a CSV reader sees eleven columns.
# The 2017 table ends its header with one comma more.
ENTRY_HEADER = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
    "OriginalImage[Width",
    "Height]",
    "OriginalImagePixelSpacing[x",
    "y]",
)
# Three nameless columns follow in the header, but not in the rows.
BOX_HEADER = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
BOX_LABELS = {**{name: name for name in CXR8}, "Infiltrate": "Infiltration"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row of ``Data_Entry_2017*.csv``.

    Attributes:
        image: file name.
        findings: names of ``labels.NIH14``; empty for "No Finding".
        patient: eight digits.
        follow_up: number of the film within its patient.
        age: whole years; None where the table's age is above 100 (typing errors).
        sex: ``M`` or ``F``.
        view: ``PA`` or ``AP``.
    """

    image: str
    findings: frozenset[str]
    patient: str
    follow_up: int
    age: int | None
    sex: str
    view: str

    @property
    def labels(self) -> np.ndarray:
        """float32 ``[14]`` in {0, 1}, in the order of ``labels.NIH14``."""
        return np.array([name in self.findings for name in NIH14], np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReleasedBox:
    """One row of ``BBox_List_2017.csv``.

    Attributes:
        image: file name.
        label: a name of ``labels.CXR8`` (the table's ``Infiltrate`` is Infiltration).
        xyxy: corners in [0, 1], relative to the film.
    """

    image: str
    label: str
    xyxy: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NameList:
    """A list of films, one a line.

    Attributes:
        names: file names, in order.
        labels: float32 ``[N, 14]`` where the list carries the 14 labels, else None.
    """

    names: tuple[str, ...]
    labels: np.ndarray | None


def read_entries(path: epath.PathLike) -> dict[str, Entry]:
    """Reads the label table of ChestX-ray14, of 2017 or v2020.

    Args:
        path: ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv``, may be gzipped.

    Returns:
        File name → entry, in the order of the table.

    Raises:
        DataError: wrong header, unknown label, duplicate film, impossible cell.
    """
    entries: dict[str, Entry] = {}
    for line, row in _rows(path, ENTRY_HEADER):
        entry = _entry(row, path, line)
        if entry.image in entries:
            _refuse(path, line, f"film {entry.image} is there twice; once is allowed")
        entries[entry.image] = entry
    return entries


def read_boxes(path: epath.PathLike) -> list[ReleasedBox]:
    """Reads ``BBox_List_2017.csv``.

    Raises:
        DataError: wrong header, unknown label, a box that leaves the frame.
    """
    return [_box(row, path, line) for line, row in _rows(path, BOX_HEADER)]


def read_list(path: epath.PathLike) -> NameList:
    """Reads a split list: a file name a line, or a file name and 14 labels.

    Raises:
        DataError: another number of words, a label that is not 0 or 1, a film twice.
    """
    names: dict[str, int] = {}
    labels: list[list[str]] = []
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        name, *flags = text.split() or [""]
        if not name:
            continue
        if name in names:
            _refuse(path, line, f"film {name} is also in line {names[name]}")
        if len(flags) not in (0, len(NIH14)) or set(flags) - {"0", "1"}:
            _refuse(
                path, line, f"{text[:60]!r}; a file name, or one and 14 times 0 or 1"
            )
        names[name] = line
        labels.append(flags)
    if len(set(map(len, labels))) > 1:
        raise DataError(f"{path}: some lines carry labels and some do not; all or none")
    if not names:
        raise DataError(f"{path}: names no film; one file name a line is allowed")
    with_labels = bool(labels[0])
    return NameList(
        names=tuple(names), labels=np.array(labels, np.float32) if with_labels else None
    )


def _entry(row: list[str], path: epath.PathLike, line: int) -> Entry:
    image, tokens, follow_up, patient, age, sex, view = row[:7]
    if not image:
        _refuse(path, line, "no file name in column 'Image Index'")
    if sex not in ("M", "F"):
        _refuse(path, line, f"'Patient Gender' is {sex!r}; M or F is allowed")
    if view not in ("PA", "AP"):
        _refuse(path, line, f"'View Position' is {view!r}; PA or AP is allowed")
    return Entry(
        image=image,
        findings=_findings(tokens, path, line),
        patient=f"{_whole(patient, 'Patient ID', path, line):08d}",
        follow_up=_whole(follow_up, "Follow-up #", path, line),
        age=_age(age, path, line),
        sex=sex,
        view=view,
    )


def _findings(text: str, path: epath.PathLike, line: int) -> frozenset[str]:
    tokens = text.split("|")
    for token in tokens:
        if token not in (*NIH14, NO_FINDING):
            _refuse(
                path,
                line,
                f"finding {token!r} is unknown; allowed: {', '.join(NIH14)}, or"
                f" {NO_FINDING} alone",
            )
    if NO_FINDING in tokens and len(tokens) > 1:
        _refuse(path, line, f"{text!r}: {NO_FINDING} is allowed alone only")
    return frozenset(tokens) - {NO_FINDING}


def _age(text: str, path: epath.PathLike, line: int) -> int | None:
    # Old copies write years, months or days: "058Y", "011M", "003D".
    unit = {"Y": 1, "M": 12, "D": 365}.get(text[-1:], 1)
    years = _whole(text.rstrip("YMD"), "Patient Age", path, line) // unit
    return years if years <= AGE_MAX else None


def _whole(text: str, column: str, path: epath.PathLike, line: int) -> int:
    if not (text.isascii() and text.isdigit()):
        _refuse(path, line, f"{column!r} is {text!r}; a whole number is allowed")
    return int(text)


def _box(row: list[str], path: epath.PathLike, line: int) -> ReleasedBox:
    if row[1] not in BOX_LABELS:
        _refuse(
            path, line, f"label {row[1]!r} is unknown; allowed: {', '.join(BOX_LABELS)}"
        )
    try:
        x, y, width, height = (float(cell) for cell in row[2:6])
    except ValueError:
        _refuse(path, line, f"{row[2:6]}; four numbers x, y, w, h are allowed")
    corners = (x, y, x + width, y + height)
    inside = 0 <= x < corners[2] <= NIH_FRAME and 0 <= y < corners[3] <= NIH_FRAME
    if not inside:  # Also where a cell is NaN.
        _refuse(
            path,
            line,
            f"box {row[2:6]} leaves the frame or is empty; x, y, w, h of a box within"
            f" {NIH_FRAME} x {NIH_FRAME} pixels are allowed",
        )
    return ReleasedBox(
        image=row[0],
        label=BOX_LABELS[row[1]],
        xyxy=tuple(corner / NIH_FRAME for corner in corners),
    )


def _rows(
    path: epath.PathLike, header: tuple[str, ...]
) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row under the expected header."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    found = next(reader, [])
    if tuple(found[: len(header)]) != header or any(found[len(header) :]):
        raise DataError(
            f"{path}, line 1: the header is {','.join(found)[:120]!r}, but"
            f" {','.join(header)!r} is allowed (with or without trailing commas)"
        )
    count = 0
    try:
        for row in reader:
            if not any(row):
                continue
            count += 1
            if len(row) < len(header):
                _refuse(
                    path,
                    reader.line_num,
                    f"{len(row)} cells; {len(header)} are allowed",
                )
            yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        _refuse(path, reader.line_num, f"not a table ({error})")
    if not count:
        raise DataError(f"{path}: has a header and no row; at least 1 is allowed")


def read_text(path: epath.PathLike) -> str:
    """The text of a UTF-8 file, plain or gzipped.

    Raises:
        DataError: no such file, damaged, or not text.
    """
    try:
        data = epath.Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: damaged or not text ({error}); UTF-8 text, plain or gzipped, is"
            " allowed"
        ) from None


def _refuse(path: epath.PathLike, line: int, what: str) -> NoReturn:
    raise DataError(f"{path}, line {line}: {what}")
