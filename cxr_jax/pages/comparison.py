"""Two models on the same films: a figure of the differences, and the tables behind it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cxr_jax.pages import figures, html, tables
from cxr_jax.pages.evidence import Evidence

METRICS = {"auroc": "AUROC", "average_precision": "Average precision"}


def section(evidence: Evidence) -> str:
    """The block ``comparison`` of the result; nothing where there is none."""
    block = evidence.main.get("comparison")
    if not block:
        return ""
    ours, theirs = block["names"]
    films = f"{block['n']:,} films"
    if block["left_out"]:
        films += f" ({block['left_out']:,} that only the first scored are left out)"
    parts = [
        html.paragraph(
            f"First: {ours}. Second: {theirs}. Both on the same {films}; differences are"
            f" the first minus the second. {_mean_words(block)}"
        ),
        html.figure(
            _drawing(block),
            "Difference of AUROC, the first minus the second, with its 95% interval;"
            " right of the line the first is higher."
            + (
                " Dotted: the margin of non-inferiority."
                if block["margin"] is not None
                else ""
            ),
            alt="difference of AUROC and its interval for each class",
        ),
    ]
    for name, words in METRICS.items():
        parts.append(html.heading(words, level=3))
        parts.append(_table(block, name))
    parts += [html.paragraph(note, kind="note") for note in block["notes"]]
    return html.section("Comparison", *parts)


def _mean_words(block: Mapping[str, Any]) -> str:
    mean = block["metrics"]["auroc"]["mean"]
    if mean["value"] is None:
        return f"Mean AUROC: {mean['reason']}."
    ours, theirs = (tables.number(mean[k], 4) for k in ("ours", "theirs"))
    return f"Mean AUROC {ours} and {theirs}: {mean['verdict']}."


def _table(block: Mapping[str, Any], metric: str) -> str:
    found = block["metrics"][metric]
    listed = set(found["mean"]["classes"])
    headers = [
        "Class",
        "First",
        "Second",
        "Difference",
        "p, Holm",
        *_more(block, metric),
    ]
    headers += ["After Holm's correction", "Remark"]
    rows = [
        _row(tables.words(n) + ("" if n in listed else " *"), value, block, metric)
        for n, value in found["per_class"].items()
    ]
    rows.append(_row(tables.MEAN, found["mean"], block, metric))
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    caption = (
        "95% intervals in brackets: paired bootstrap,"
        f" {block['resamples']:,} resamples, resampling unit: {block['resampling_unit']}."
    )
    if len(listed) < len(found["per_class"]):
        caption += " * not in the mean."
    words = ("After Holm's correction", "Remark")
    text = tuple(k for k, head in enumerate(headers) if head in words)
    return html.table(headers, rows, caption=caption, total=True, text=text)


def _more(block: Mapping[str, Any], metric: str) -> list[str]:
    """Columns that are not always there."""
    heads = ["DeLong\np, Holm"] if metric == "auroc" else []
    if block["margin"] is not None:
        heads.append(f"Not inferior\nby {block['margin']:g}")
    return heads


def _row(
    name: str, value: Mapping[str, Any], block: Mapping[str, Any], metric: str
) -> list[str]:
    row = [name, *(tables.number(value[k]) for k in ("ours", "theirs"))]
    row += [_signed(value), _p(value["p_holm"])]
    if metric == "auroc":
        row.append(_p((value.get("delong") or {}).get("p_holm")))
    if block["margin"] is not None:
        shown = {True: "shown", False: "not shown", None: "–"}
        row.append(shown[value["non_inferior"]])
    said = [value.get("reason"), value.get("flag")]
    if value["discarded"] and value["value"] is not None:
        said.append(f"{value['discarded']:,} resamples discarded")
    return [*row, _finding(value, block), "; ".join(text for text in said if text)]


def _finding(value: Mapping[str, Any], block: Mapping[str, Any]) -> str:
    """The verdict without its interval, which stands in a column of its own."""
    if value["p_holm"] is None or value["p_holm"] > block["alpha"]:
        return value["verdict"].partition(" (interval")[0]
    return f"{'First' if value['value'] > 0 else 'Second'} is higher"


def _signed(value: Mapping[str, Any]) -> str:
    """``+0.012 [−0.003, +0.027]``."""
    if value["value"] is None:
        return "undefined"
    cells = [
        "–" if v is None else f"{v:+.3f}".replace("-", "−")
        for v in (value["value"], value["low"], value["high"])
    ]
    return cells[0] if value["low"] is None else f"{cells[0]} [{cells[1]}, {cells[2]}]"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _drawing(block: Mapping[str, Any]) -> bytes:
    found = block["metrics"]["auroc"]
    values = [*found["per_class"].values(), found["mean"]]
    names = [*map(tables.words, found["per_class"]), tables.MEAN]

    def draw() -> Figure:
        size = (figures.WIDTH, 0.7 + 0.27 * len(names))
        figure = Figure(figsize=size, layout="constrained")
        axes, y = figure.subplots(), -np.arange(len(names), dtype=float)
        low, high, middle = (_column(values, k) for k in ("low", "high", "value"))
        axes.axvline(0, color=figures.INK, lw=0.8)
        if block["margin"] is not None:
            axes.axvline(-block["margin"], color=figures.ORANGE, lw=1, ls=":")
        axes.hlines(y, low, high, color=figures.BLUE, lw=1.4, alpha=0.55)
        axes.plot(middle, y, "o", color=figures.BLUE, ms=4)
        axes.axhline(y[-1] + 0.5, color=figures.FAINT, lw=0.6)
        axes.set_yticks(y, names)
        axes.set_ylim(y[-1] - 0.7, 0.7)
        reach = 1.1 * max(np.nanmax(np.abs([low, high, middle]), initial=0.01), 0.01)
        axes.set_xlim(-reach, reach)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=figures.GRID, lw=0.5)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("difference of AUROC, with 95% interval")
        return figure

    return figures.svg(draw)


def _column(values: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.asarray([value[name] for value in values], dtype=np.float64)
