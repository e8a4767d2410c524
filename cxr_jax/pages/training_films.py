"""A sheet of training films with their labels."""

import math
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.pages import figures, html
from cxr_jax.pages.evidence import Evidence
from cxr_jax.pages.tables import words
from cxr_jax.sheet import Sheet

COLUMNS = 5
LINE = 30  # characters below a film


def section(evidence: Evidence) -> str:
    """The films of ``training_films.npz``; nothing where there are none."""
    sheet = evidence.sheet
    if sheet is None:
        return ""
    caption = (
        "A training film of each label, and one without any, with what else is labelled"
        " below it. Of each label the first film by the digest of its id that no label"
        " before it took: nobody picked them."
    )
    drawing = figures.svg(lambda: _draw(sheet))
    return html.section(
        "Training films", html.figure(drawing, caption, alt="training films by label")
    )


def _draw(sheet: Sheet) -> Figure:
    columns = min(COLUMNS, len(sheet))
    rows = math.ceil(len(sheet) / columns)
    # A film, its title, and as many lines as the fullest one needs below.
    lines = max(_below(sheet, row).count("\n") + 1 for row in range(len(sheet)))
    height = figures.WIDTH / COLUMNS + 0.25 + 0.13 * lines
    size = (figures.WIDTH * columns / COLUMNS, height * rows + 0.2)
    figure = Figure(figsize=(max(size[0], 3.4), size[1]), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for k, ax in enumerate(axes):
        if k < len(sheet):
            _film(ax, sheet, k)
        else:
            ax.set_visible(False)
    return figure


def _film(ax: Axes, sheet: Sheet, row: int) -> None:
    # Pixels as they are: the page decides their size.
    ax.imshow(sheet.films[row], cmap="gray", vmin=0, vmax=255, interpolation="none")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(words(str(sheet.titles[row])), size=8, weight="bold")
    ax.set_xlabel(_below(sheet, row), size=6.5, color=figures.INK)


def _below(sheet: Sheet, row: int) -> str:
    """What else is labelled, in lines."""
    title = str(sheet.titles[row])
    others = [n for n in str(sheet.labels[row]).split("\n") if n and n != title]
    return textwrap.fill(", ".join(map(words, others)), LINE)
