"""kinds.csv: what kind of abnormality a study shows; optional, beside ``records.csv``.

``study`` and one column per kind, 0 or 1; one line per study that was looked at.
"""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from cxr_jax.errors import DataError

NAME = "kinds.csv"


def read_kinds(directory: epath.PathLike) -> dict[str, dict[str, bool]]:
    """Reads ``kinds.csv`` of a dataset.

    Args:
        directory: the version directory, ``DATA/NAME/CONFIG/VERSION``.

    Returns:
        Study → kind → whether it shows it; nothing where there is no file.

    Raises:
        DataError: a header without kinds, a line of another length, a cell other than 0
            and 1, a study that came before; the message names file and line.
    """
    path = epath.Path(directory) / NAME
    if not path.exists():
        return {}
    header, *rows = [*csv.reader(io.StringIO(path.read_text()))] or [[]]
    if len(header) < 2 or header[0] != "study":
        raise DataError(
            f"{path}: the header is {','.join(header[:3])}; allowed is study and one name"
            " per kind; build the dataset again"
        )
    found: dict[str, dict[str, bool]] = {}
    for line, row in enumerate(rows, start=2):
        study, *cells = row or [""]
        if len(row) != len(header) or set(cells) - {"0", "1"} or study in found:
            raise DataError(
                f"{path}, line {line}: {','.join(row)[:80]}; allowed are a study that did"
                f" not come before and {len(header) - 1} cells of 0 or 1; build the"
                " dataset again"
            )
        found[study] = dict(zip(header[1:], (c == "1" for c in cells), strict=True))
    return found


def format_kinds(
    studies: Sequence[str], columns: Mapping[str, Sequence[bool | int]]
) -> str:
    """The text of ``kinds.csv``; ``read_kinds`` is its inverse."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["study", *columns])
    cells = np.column_stack([*columns.values()]).astype(int).tolist()
    writer.writerows([study, *row] for study, row in zip(studies, cells, strict=True))
    return out.getvalue()
