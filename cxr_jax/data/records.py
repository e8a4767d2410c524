"""``records.csv``: one row per record, so that nothing but pixels is read from shards.

Row k describes record number k, which is ``Batch.index``.
"""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from cxr_jax.errors import DataError
from cxr_jax.labels import NO_FINDING

NAME = "records.csv"
SPLIT_PREFIX = "split_"
PARTS = ("train", "val", "test", "train_val")
COLUMNS = ("id", "patient", "study", "follow_up", "age", "sex", "view")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """The table of a dataset, column by column; N rows in record order.

    Attributes:
        classes: names of the label columns, in order.
        id: str ``[N]``, unique.
        patient: str ``[N]``; ``""`` where unknown.
        study: str ``[N]``; ``""`` where unknown.
        follow_up: float32 ``[N]``, number of the film within its patient; NaN unknown.
        age: float32 ``[N]``, whole years; NaN where unknown or impossible.
        sex: str ``[N]``, ``M``, ``F`` or ``""``.
        view: str ``[N]``, ``PA``, ``AP`` or ``""``.
        labels: float32 ``[N, C]`` in {0, 1}; NaN where unknown.
        splits: scheme → str ``[N]`` of ``train``, ``val``, ``test``, ``train_val`` or
            ``""``: the part that a released list (or the phantom) gives each record.
    """

    classes: tuple[str, ...]
    id: np.ndarray
    patient: np.ndarray
    study: np.ndarray
    follow_up: np.ndarray
    age: np.ndarray
    sex: np.ndarray
    view: np.ndarray
    labels: np.ndarray
    splits: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.id)

    def missing(self, classes: Sequence[str]) -> list[str]:
        """Those that ``pick`` cannot give."""
        return [name for name in classes if name not in (*self.classes, NO_FINDING)]

    def pick(
        self, classes: Sequence[str], table: np.ndarray | None = None
    ) -> np.ndarray:
        """Columns by name, ``[n, C']``.

        Args:
            classes: none of them ``missing``. ``labels.NO_FINDING``, where no column is
                called so, is 1 where all labels are 0, 0 where one is 1, else NaN.
            table: ``[n, C]``, such as true labels; the table's own where None.
        """
        table = self.labels if table is None else table
        column = {name: table[:, k] for k, name in enumerate(self.classes)}
        if NO_FINDING not in column:
            # A sum of zeros is 0; with an unknown label among them it is NaN.
            some = (table == 1).any(axis=1)
            column[NO_FINDING] = np.where(some, 0.0, 1 + table.sum(axis=1))
        picked = [column[name] for name in classes]
        return np.stack(picked, axis=1).astype(np.float32) if picked else table[:, :0]


def read_records(directory: epath.PathLike) -> Records:
    """Reads ``records.csv`` of a dataset.

    Args:
        directory: the version directory, ``DATA/NAME/CONFIG/VERSION``.

    Raises:
        DataError: it is missing, or a cell is not what its column allows; the message
            names file and line.
    """
    path = epath.Path(directory) / NAME
    try:
        rows = list(csv.reader(io.StringIO(path.read_text())))
    except FileNotFoundError:
        raise DataError(
            f"{path}: not found; build the dataset with `python -m data_builders NAME`"
        ) from None
    header = rows[0] if rows else []
    if tuple(header[: len(COLUMNS)]) != COLUMNS:
        raise DataError(
            f"{path}: the header must begin with {','.join(COLUMNS)};"
            " build the dataset again"
        )
    body = rows[1:]
    for line, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells, but the header has"
                f" {len(header)}; build the dataset again"
            )
    columns = {name: [row[k] for row in body] for k, name in enumerate(header)}
    rest = header[len(COLUMNS) :]
    schemes = [name for name in rest if name.startswith(SPLIT_PREFIX)]
    classes = tuple(name for name in rest if not name.startswith(SPLIT_PREFIX))
    labels = [_numbers(columns[name], path, name) for name in classes]
    return Records(
        classes=classes,
        **{name: _words(columns[name]) for name in ("id", "patient", "study")},
        follow_up=_numbers(columns["follow_up"], path, "follow_up"),
        age=_numbers(columns["age"], path, "age"),
        sex=_choices(columns["sex"], path, "sex", ("M", "F", "")),
        view=_choices(columns["view"], path, "view", ("PA", "AP", "")),
        labels=np.stack(labels, axis=1)
        if labels
        else np.zeros((len(body), 0), np.float32),
        splits={
            name.removeprefix(SPLIT_PREFIX): _choices(
                columns[name], path, name, (*PARTS, "")
            )
            for name in schemes
        },
    )


def format_records(records: Records) -> str:
    """The text of ``records.csv``; ``read_records`` is its inverse."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    schemes = list(records.splits)
    header = [*COLUMNS, *records.classes, *(SPLIT_PREFIX + s for s in schemes)]
    writer.writerow(header)
    for k in range(len(records)):
        writer.writerow(
            [
                records.id[k],
                records.patient[k],
                records.study[k],
                _cell(records.follow_up[k]),
                _cell(records.age[k]),
                records.sex[k],
                records.view[k],
                *map(_cell, records.labels[k]),
                *(records.splits[s][k] for s in schemes),
            ]
        )
    return out.getvalue()


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:g}"


def _words(cells: list[str]) -> np.ndarray:
    return np.array(cells, dtype=np.str_)


def _numbers(cells: list[str], path: epath.Path, column: str) -> np.ndarray:
    try:
        return np.array([float(c) if c else np.nan for c in cells], np.float32)
    except ValueError:
        line, bad = next((k, c) for k, c in enumerate(cells, start=2) if _bad(c))
        raise DataError(
            f"{path}, line {line}: column {column!r} holds {bad!r}; a number or nothing"
            " is allowed; build the dataset again"
        ) from None


def _bad(cell: str) -> bool:
    try:
        float(cell or 0)
    except ValueError:
        return True
    return False


def _choices(
    cells: list[str], path: epath.Path, column: str, allowed: tuple[str, ...]
) -> np.ndarray:
    for line, cell in enumerate(cells, start=2):
        if cell not in allowed:
            raise DataError(
                f"{path}, line {line}: column {column!r} holds {cell!r}; allowed:"
                f" {', '.join(allowed[:-1])} or nothing; build the dataset again"
            )
    return _words(cells)
