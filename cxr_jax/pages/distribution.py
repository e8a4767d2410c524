"""How often each label is given: films per class, and films without a finding."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cxr_jax.pages import figures, html
from cxr_jax.pages.evidence import Evidence
from cxr_jax.pages.tables import words

NONE = "No finding"
# From the part that has most films to that which has least: dark to light.
COLORS = {"train": figures.BLUE, "val": figures.ORANGE, "test": "#8fb8d0"}
NAMES = {"train": "training", "val": "validation", "test": "test"}

Counts = Mapping[str, Any]


def section(evidence: Evidence) -> str:
    """Films per class of the dataset and of each part; nothing where none are counted."""
    labels = evidence.labels
    if not labels:
        return ""
    rows = _rows(labels)
    parts = [name for name in NAMES if labels["films"].get(name)]
    used, all_films = _used(labels), labels["films"]["dataset"]
    caption = (
        f"Films per label in the {used:,} films of this run"
        + (f" (of {all_films:,} of the dataset)" if used < all_films else "")
        + ", by part. A film with several labels counts in each row;"
        f" “{NONE}” are films that no label calls positive."
    )
    return html.section(
        "Label distribution",
        html.figure(_draw(rows, parts), caption, alt="films per class, by part"),
        html.folded("Numbers", _table(rows, labels, parts)),
    )


def _used(labels: Counts) -> int:
    return sum(labels["films"].get(name, 0) for name in NAMES)


def _rows(labels: Counts) -> dict[str, dict[str, int]]:
    """Name of a row → part → films; the most frequent first, no finding last."""
    columns = labels["films"]
    rows = {
        words(name): {part: labels["positives"][part][name] for part in columns}
        for name in labels["classes"]
    }
    order = sorted(rows, key=lambda name: -sum(rows[name].get(p, 0) for p in NAMES))
    return {name: rows[name] for name in order} | {NONE: labels["none"]}


def _draw(rows: Mapping[str, Mapping[str, int]], parts: Sequence[str]) -> bytes:
    def draw() -> Figure:
        size = (figures.WIDTH, 0.85 + 0.24 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        # The films without a finding stand apart.
        y = -np.arange(len(rows), dtype=float)
        y[-1] -= 0.5
        left = np.zeros(len(rows))
        for part in parts:
            films = np.array([row[part] for row in rows.values()], float)
            name = NAMES[part]
            axes.barh(y, films, 0.68, left=left, color=COLORS[part], label=name)
            left += films
        for place, total in zip(y, left, strict=True):
            axes.text(total, place, f" {int(total):,}", va="center", size=7)
        axes.set_yticks(y, list(rows))
        axes.set_ylim(y[-1] - 0.6, 0.6)
        axes.set_xlim(0, 1.09 * max(left.max(), 1))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.locator_params(axis="x", integer=True)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=figures.GRID, lw=0.5)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("films")
        figure.legend(loc="outside upper right", ncols=len(parts))
        return figure

    return figures.svg(draw)


def _table(
    rows: Mapping[str, Mapping[str, int]], labels: Counts, parts: Sequence[str]
) -> str:
    films = labels["films"]
    columns = ["dataset", *parts]

    def cell(count: int, part: str) -> str:
        share = f" ({100 * count / films[part]:.1f}%)" if films[part] else ""
        return f"{count:,}{share}"

    body = [[name, *(cell(row[p], p) for p in columns)] for name, row in rows.items()]
    body.append(["All films", *(f"{films[p]:,}" for p in columns)])
    heads = ["Label", "Whole\ndataset", *(NAMES[p].capitalize() for p in parts)]
    return html.table(heads, body, total=True)
