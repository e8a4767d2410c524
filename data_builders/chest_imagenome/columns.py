"""Tables of the releases, read by the names of their columns, whatever else they hold.

Plain or gzipped, with or without a nameless column of row numbers; a table whose header
has a tab is separated by tabs.
"""

import csv
import io
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NoReturn

from cxr_jax.data.tables import read_text
from cxr_jax.errors import DataError

Row = tuple[int, list[str]]


def read_columns(path: pathlib.Path, columns: Sequence[str]) -> Iterator[Row]:
    """Some columns of a table.

    Args:
        path: the table.
        columns: their names, in the order wanted.

    Yields:
        Line number and cells.

    Raises:
        DataError: a column that is not there, a line of another length, or no line.
    """
    header, rows = _open(path)
    absent = [name for name in columns if name not in header]
    if absent:
        raise DataError(
            f"{path}, line 1: no column {', '.join(absent)}; the header is"
            f" {','.join(header)[:120]!r}, but {', '.join(columns)} are needed"
        )
    places = [header.index(name) for name in columns]
    empty = True
    for line, row in rows:
        if len(row) != len(header):
            refuse(path, line, f"{len(row)} cells; {len(header)} are allowed")
        empty = False
        yield line, [row[k].strip() for k in places]
    if empty:
        raise DataError(f"{path}: has a header and no row; at least 1 is allowed")


def read_names(path: pathlib.Path, columns: Sequence[str]) -> set[str]:
    """Film names in those of some columns that a table has, with or without ``.dcm``."""
    header, rows = _open(path)
    places = [header.index(name) for name in columns if name in header]
    found = {row[k].strip() for _, row in rows for k in places if k < len(row)}
    return {name.removesuffix(".dcm") for name in found} - {""}


def whole(text: str, column: str, path: pathlib.Path, line: int) -> int:
    """A positive whole number; programs that met an empty cell above add ``.0``.

    Raises:
        DataError: it is none.
    """
    if not re.fullmatch(r"0*[1-9][0-9]*(\.0)?", text, re.ASCII):
        refuse(path, line, f"{column!r} is {text!r}; a whole number from 1 is allowed")
    return int(text.partition(".")[0])


def refuse(path: pathlib.Path, line: int, what: str) -> NoReturn:
    """Raises the error of one line.

    Raises:
        DataError: always.
    """
    raise DataError(f"{path}, line {line}: {what}")


def _open(path: pathlib.Path) -> tuple[list[str], Iterator[Row]]:
    text = io.StringIO(read_text(path), newline="")
    tabs = "\t" in text.readline()
    text.seek(0)
    # Sentences of reports hold quotes that close nowhere.
    how = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
    reader = csv.reader(text, **how)
    header = [name.strip() for name in next(reader, [])]
    return header, _numbered(reader, path)


def _numbered(reader: "csv.Reader", path: pathlib.Path) -> Iterator[Row]:
    try:
        for row in reader:
            if any(row):
                yield reader.line_num, row
    except csv.Error as error:
        refuse(path, reader.line_num, f"not a table ({error})")
