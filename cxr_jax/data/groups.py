"""groups.csv: further attributes of films, for subgroups beyond sex, age and view.

Optional, beside ``records.csv``: ``id`` and one column per attribute, a word per film,
empty where unknown. Films that are not listed are unknown.
"""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from cxr_jax.errors import DataError

NAME = "groups.csv"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Categories:
    """One attribute of films as numbers.

    Attributes:
        names: the values that occur in the dataset, sorted.
        code: int32 ``[N]``, which of them each film has.
    """

    names: tuple[str, ...]
    code: np.ndarray


def read_groups(directory: epath.PathLike, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads ``groups.csv`` of a dataset.

    Args:
        directory: the version directory, ``DATA/NAME/CONFIG/VERSION``.
        ids: of the N films wanted, in that order.

    Returns:
        Attribute → str ``[N]``, empty where unknown; nothing where there is no file.

    Raises:
        DataError: no ``id`` column, a line of another length, or an id that came before;
            the message names file and line.
    """
    path = epath.Path(directory) / NAME
    if not path.exists():
        return {}
    header, *rows = [*csv.reader(io.StringIO(path.read_text()))] or [[]]
    if len(header) < 2 or header[0] != "id":
        raise DataError(
            f"{path}: the header is {','.join(header[:3])}; allowed is id and one name per"
            " attribute; build the dataset again"
        )
    known: dict[str, list[str]] = {}
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header) or row[0] in known:
            raise DataError(
                f"{path}, line {line}: {len(row)} cells, first {row[:1]}; allowed are"
                f" {len(header)} cells, and each id once; build the dataset again"
            )
        known[row[0]] = row[1:]
    unknown = [""] * (len(header) - 1)
    table = [known.get(str(name), unknown) for name in ids]
    return {
        name: np.array([row[k] for row in table], np.str_)
        for k, name in enumerate(header[1:])
    }


def format_groups(ids: Sequence[str], columns: Mapping[str, Sequence[str]]) -> str:
    """The text of ``groups.csv``; ``read_groups`` is its inverse."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", *columns])
    writer.writerows(zip(ids, *columns.values(), strict=True))
    return out.getvalue()


def read_categories(
    directory: epath.PathLike, ids: Sequence[str], name: str
) -> Categories:
    """One column of ``groups.csv``, known of every film.

    Args:
        directory: the version directory.
        ids: of all N films of the dataset.
        name: of the column.

    Raises:
        DataError: no such column, or a film without a value.
    """
    known = read_groups(directory, ids)
    if name not in known:
        raise DataError(
            f"data.group={name!r}: the dataset tells {', '.join(known) or 'nothing'} of"
            f" its films in {NAME}; name one of these, or leave it empty"
        )
    names, code = np.unique(known[name], return_inverse=True)
    if "" in names:
        film = ids[int(np.flatnonzero(known[name] == "")[0])]
        raise DataError(
            f"data.group={name!r}: film {film} has none; every film needs one: build the"
            " dataset again"
        )
    return Categories(names=tuple(names.tolist()), code=code.astype(np.int32))
