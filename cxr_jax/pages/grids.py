"""A table for a page or a terminal: a row per class, a column per run, means below."""

import dataclasses
import textwrap
from collections.abc import Container, Mapping, Sequence

from cxr_jax.pages import html, tables

HEAD_WIDTH = 24
BEST = (
    "Bold: the highest of a row among our runs on the same films; whether by chance, the"
    " intervals tell, not the type."
)
Column = tuple[str, Mapping[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A table for a page or a terminal.

    Attributes:
        heads: line breaks are kept; the first is of the column of names.
        rows: cells, as many as heads; the last row is of means.
        caption: stands above.
        best: row and column of the cells that stand out on a page.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    best: frozenset[tuple[int, int]] = frozenset()

    def page(self) -> str:
        """HTML."""
        caption = " ".join(filter(None, [self.caption, BEST if self.best else ""]))
        return html.table(
            self.heads, self.rows, caption=caption, total=True, best=self.best
        )

    def text(self) -> str:
        """Plain text, in columns as wide as their cells."""
        lines = [
            [piece for line in head.split("\n") for piece in wrap(line, HEAD_WIDTH)]
            for head in self.heads
        ]
        deep = max(map(len, lines))
        columns = [[""] * (deep - len(head)) + head for head in lines]
        top = [list(row) for row in zip(*columns, strict=True)]
        *body, last = [list(row) for row in self.rows]
        widths = [max(map(len, c)) for c in zip(*top, *body, last, strict=True)]
        rule = ["-" * width for width in widths]
        shown = [_line(row, widths) for row in (*top, rule, *body, rule, last)]
        return "\n".join([*wrap(self.caption), *shown])


def grid(
    names: Sequence[str],
    shown: Sequence[Column],
    *,
    mean: str,
    caption: str = "",
    best: Mapping[str, Container[str]] | None = None,
) -> Grid:
    """A row per class, dashes where a column has nothing; means below.

    Args:
        names: of the classes.
        shown: columns: head, and class → cell.
        mean: what the last row is called.
        caption: stands above.
        best: class, or the mean → heads of the columns that stand out in its row.
    """
    rows = [
        [tables.words(name), *(cells.get(name, "–") for _, cells in shown)]
        for name in names
    ]
    rows.append([mean, *(cells.get(tables.MEAN, "–") for _, cells in shown)])
    heads, best = [head for head, _ in shown], best or {}
    return Grid(
        heads=["Class", *heads],
        rows=rows,
        caption=caption,
        best=frozenset(
            (row, column)
            for row, name in enumerate((*names, tables.MEAN))
            for column, head in enumerate(heads, start=1)
            if head in best.get(name, ())
        ),
    )


def wrap(text: str, width: int = 88) -> list[str]:
    """Lines of at most so many characters; words and numbers stay whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = row
    cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
    return "  ".join([first.ljust(widths[0]), *cells]).rstrip()
