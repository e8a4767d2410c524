"""Files of boxes: one a line, scored where they are predicted; whoever made them."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NoReturn

import numpy as np
from etils import epath

from cxr_jax.data import columns, tables
from cxr_jax.data import manifest as manifests
from cxr_jax.errors import DataError
from cxr_jax.types import Boxes

CORNERS = ("x1", "y1", "x2", "y2")
HEADER = ("id", "class", "score", *CORNERS)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BoxTable:
    """K boxes of a file.

    Attributes:
        path: the file.
        sha256: of its bytes.
        id: str ``[K]``, film of each.
        name: str ``[K]``, class of each.
        score: float64 ``[K]`` in [0, 1]; None where the file has none.
        xyxy: float64 ``[K, 4]`` in [0, 1].
        line: int ``[K]``, where each stands; None where they are of no CSV file.
    """

    path: str
    sha256: str
    id: np.ndarray
    name: np.ndarray
    score: np.ndarray | None
    xyxy: np.ndarray
    line: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.id)


def format_boxes(ids: Sequence[str], classes: Sequence[str], boxes: Boxes) -> str:
    """``boxes.csv``: a box a line, film by film, with 9 significant digits.

    Args:
        ids: of N films.
        classes: that ``boxes.label`` counts in.
        boxes: NumPy arrays ``[N, S, …]`` with scores.

    Returns:
        CSV text with the header ``id,class,score,x1,y1,x2,y2``.
    """
    return format_lines(
        (
            ids[film],
            classes[int(boxes.label[film, slot])],
            (boxes.score[film, slot], *boxes.xyxy[film, slot]),
        )
        for film, slot in zip(*np.nonzero(boxes.mask), strict=True)
    )


def format_lines(lines: Iterable[tuple[str, str, Sequence[float]]]) -> str:
    """``boxes.csv`` of film, class, and score with corners."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for film, name, numbers in lines:
        writer.writerow([film, name, *(f"{x:.9g}" for x in numbers)])
    return text.getvalue()


def read_boxes(
    path: epath.PathLike, *, classes: Sequence[str], scored: bool = True
) -> BoxTable:
    """Reads a file of boxes, plain or gzipped.

    Args:
        path: CSV with the columns ``id,class,score,x1,y1,x2,y2``, in any order; corners
            in [0, 1], relative to the film, y downwards. Other columns are not read.
        classes: names that are allowed, spelled in any case, with blanks or underlines.
        scored: whether scores are needed.

    Raises:
        DataError: a column is missing, a class is unknown, a number is out of its range,
            or a box has no inside; the message names the line.
    """
    reader = csv.reader(io.StringIO(tables.read_text(path), newline=""))
    wanted = HEADER if scored else tuple(n for n in HEADER if n != "score")
    spelled = {columns.canonical(name): name for name in classes}
    rows, lines = [], []
    for line, cells in _cells(path, reader, wanted):
        rows.append(_row(path, line, cells, spelled))
        lines.append(line)
    return BoxTable(
        path=str(path),
        sha256=manifests.sha256_of(epath.Path(path)),
        id=np.asarray([row["id"] for row in rows], str),
        name=np.asarray([row["class"] for row in rows], str),
        score=np.asarray([row["score"] for row in rows], float) if scored else None,
        xyxy=np.asarray([row["xyxy"] for row in rows], float).reshape(-1, 4),
        line=np.asarray(lines, int),
    )


def padded(table: BoxTable, *, ids: Sequence[str], classes: Sequence[str]) -> Boxes:
    """The boxes of films in their order, as many slots as the fullest film has.

    Args:
        table: boxes; those of other films are left out.
        ids: of N films, unique.
        classes: that ``label`` counts in; boxes of others are left out too.

    Returns:
        NumPy arrays ``[N, S, …]``; corners in float32, as records and runs hold them, so
        that boxes of a run that were written are its boxes again.
    """
    place = {name: k for k, name in enumerate(ids)}
    column = {name: k for k, name in enumerate(classes)}
    pairs = zip(table.id.tolist(), table.name.tolist(), strict=True)
    rows = [
        (place[film], k)
        for k, (film, name) in enumerate(pairs)
        if film in place and name in column
    ]
    slots: dict[int, int] = {}
    most = max(np.bincount([film for film, _ in rows]), default=0) if rows else 0
    shape = len(place), max(int(most), 1)
    xyxy, label = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.int32)
    score, mask = np.zeros(shape), np.zeros(shape, bool)
    for film, k in rows:
        slot = slots.get(film, 0)
        slots[film] = slot + 1
        xyxy[film, slot], mask[film, slot] = table.xyxy[k], True
        label[film, slot] = column[str(table.name[k])]
        score[film, slot] = 0.0 if table.score is None else table.score[k]
    given = None if table.score is None else score
    return Boxes(xyxy=xyxy, label=label, mask=mask, score=given)


def _cells(
    path: epath.PathLike, reader: "csv.Reader", wanted: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of every row, by the names of their columns."""
    try:
        header = [columns.canonical(name) for name in next(reader, [])]
        if not header:
            raise DataError(
                f"{path} is empty; a file of boxes has the header {','.join(wanted)}, and"
                " no line for a film without a box"
            )
        if wrong := [name for name in wanted if header.count(name) != 1]:
            raise DataError(
                f"{path}, line 1: {', '.join(wrong)} is no column, or several; a file of"
                f" boxes has the header {','.join(wanted)}"
            )
        for row in reader:
            if not any(row):
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} cells, but the header"
                    f" has {len(header)}"
                )
            named = dict(zip(header, row, strict=True))
            yield reader.line_num, {name: named[name] for name in wanted}
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: not a table ({error})"
        ) from None


def _row(
    path: epath.PathLike,
    line: int,
    cells: Mapping[str, str],
    spelled: Mapping[str, str],
) -> dict[str, object]:
    def refuse(what: str) -> NoReturn:
        raise DataError(f"{path}, line {line}: {what}")

    name = spelled.get(columns.canonical(cells["class"]))
    if name is None:
        refuse(f"class is {cells['class']!r}; allowed: {', '.join(spelled.values())}")
    if not cells["id"].strip():
        refuse("id is empty; name the film")
    numbers = {}
    for key in (*CORNERS, *(("score",) if "score" in cells else ())):
        try:
            numbers[key] = columns.probability(cells[key])
        except ValueError:
            how = " (pixels over the film's width or height)" if key in CORNERS else ""
            refuse(f"{key} is {cells[key]!r}; a number in [0, 1]{how} is allowed")
    x1, y1, x2, y2 = (numbers[key] for key in CORNERS)
    if x1 >= x2 or y1 >= y2:
        refuse(
            f"the box {x1:g}, {y1:g}, {x2:g}, {y2:g} has no inside: x1 < x2, y1 < y2"
        )
    film = cells["id"].strip().replace("\\", "/").rpartition("/")[2]
    return {
        "id": film,
        "class": name,
        "score": numbers.get("score"),
        "xyxy": (x1, y1, x2, y2),
    }
