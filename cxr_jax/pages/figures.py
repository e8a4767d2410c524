"""Figures of the report: drawn without a display, as SVG.

The same numbers give the same bytes: no dates, fixed identifiers.
"""

import hashlib
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from cxr_jax.predictions import RESEARCH_USE

INK, FAINT, GRID = "#1f2933", "#7b8794", "#d9dee3"
BLUE, ORANGE = "#1d6996", "#cc6d1e"
WIDTH = 9.4  # inches; the page's column

_STYLE = {
    # A user's own would lay figures out again, over the words below.
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "svg.hashsalt": "cxr_jax",
}


def intervals(
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    other: Mapping[str, Mapping[str, Any]] | None = None,
    ceilings: Mapping[str, float | None] | None = None,
    names: tuple[str, str] = ("", ""),
) -> bytes:
    """One AUROC a line, with its 95% interval.

    Args:
        rows: label and value block (``value``, ``low``, ``high``), top to bottom; the
            last one sums up the others.
        other: label → a second value block, drawn paler below the first.
        ceilings: label → best possible AUROC, drawn as a tick.
        names: what the first and the second marks are, for the legend.

    Returns:
        SVG.
    """

    def draw() -> Figure:
        figure = Figure(figsize=(WIDTH, 0.7 + 0.27 * len(rows)), layout="constrained")
        axes = figure.subplots()
        y = -np.arange(len(rows), dtype=float)
        gap = 0.14 if other else 0.0
        _marks(axes, y + gap, [block for _, block in rows], BLUE, names[0])
        if other:
            second = [other.get(name, {}) for name, _ in rows]
            _marks(axes, y - gap, second, ORANGE, names[1])
        if ceilings:
            best = [ceilings.get(name) or np.nan for name, _ in rows]
            axes.plot(best, y, "|", color=INK, ms=11, mew=1.3, label="ceiling")
        axes.axvline(0.5, color=GRID, lw=0.8, zorder=0)
        axes.axhline(y[-1] + 0.5, color=FAINT, lw=0.6)
        axes.set_yticks(y, [name.replace("_", " ") for name, _ in rows])
        axes.set_ylim(y[-1] - 0.7, 0.7)
        axes.set_xlim(right=1.005)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=GRID, lw=0.5)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("AUROC, with 95% interval")
        if other or ceilings:
            figure.legend(loc="outside upper right", ncols=3)
        return figure

    return svg(draw)


def roc_grid(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    values: Mapping[str, Mapping[str, Any]],
) -> bytes:
    """One small ROC per class.

    Args:
        curves: class → ``fpr`` and ``tpr``.
        values: class → value block of the AUROC.

    Returns:
        SVG.
    """

    def panel(ax: Axes, name: str) -> None:
        ax.plot([0, 1], [0, 1], color=GRID, lw=0.8)
        ax.set(xlim=(0, 1), ylim=(0, 1.01), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        curve = curves.get(name)
        if curve is None:
            ax.text(0.5, 0.5, "undefined", ha="center", va="center", color=FAINT)
        else:
            ax.plot(curve["fpr"], curve["tpr"], color=BLUE, lw=1.3)
            ax.fill_between(curve["fpr"], curve["tpr"], color=BLUE, alpha=0.08, lw=0)
            ax.text(0.95, 0.06, f"{values[name]['value']:.3f}", ha="right", size=9)

    return grid(list(values), panel, x="1 − specificity", y="sensitivity")


def reliability_grid(calibration: Mapping[str, Mapping[str, Any]]) -> bytes:
    """One small reliability curve per class; both axes end at the largest bin.

    Args:
        calibration: class → block of ``result.json``.

    Returns:
        SVG.
    """

    def panel(ax: Axes, name: str) -> None:
        block = calibration[name]
        if "reliability" not in block:
            ax.set(xlim=(0, 1), ylim=(0, 1))
            ax.text(0.5, 0.5, "undefined", ha="center", va="center", color=FAINT)
            return
        curve = block["reliability"]
        top = 1.12 * max(*curve["confidence"], *curve["frequency"], 1e-3)
        ax.plot([0, top], [0, top], color=GRID, lw=0.8)
        ax.plot(curve["confidence"], curve["frequency"], "o-", color=BLUE, ms=2, lw=1)
        ax.set(xlim=(0, top), ylim=(0, top))
        ax.locator_params(nbins=3)
        ax.set_title(f"{ax.get_title()}\nECE {block['ece']:.3f}", size=7.5)

    return grid(
        list(calibration),
        panel,
        x="predicted probability",
        y="observed frequency",
    )


def _marks(
    axes: Axes, y: np.ndarray, blocks: Sequence[Mapping], color: str, label: str
) -> None:
    def column(name: str) -> np.ndarray:
        return np.asarray([b.get(name) for b in blocks], dtype=np.float64)

    axes.hlines(y, column("low"), column("high"), color=color, lw=1.4, alpha=0.55)
    axes.plot(column("value"), y, "o", color=color, ms=4, label=label)


def grid(
    names: Sequence[str],
    panel: Callable[[Axes, str], None],
    *,
    x: str,
    y: str,
    legend: bool = False,
) -> bytes:
    """Square small multiples, five in a row.

    Args:
        names: of the panels, which stand above them.
        panel: draws the one of a name.
        x, y: labels common to all.
        legend: labels of the first panel's lines stand above all panels.

    Returns:
        SVG.
    """

    def draw() -> Figure:
        columns = min(5, max(1, len(names)))
        rows = max(1, math.ceil(len(names) / columns))
        size = (max(WIDTH * columns / 5, 3.4), 2.02 * rows + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, name in zip(axes, names, strict=False):
            ax.set_title(name.replace("_", " "))
            panel(ax, name)
            ax.set_box_aspect(1)
        for ax in axes[len(names) :]:
            ax.set_visible(False)
        figure.supxlabel(x, size=8)
        figure.supylabel(y, size=8)
        if legend and names:
            lines, labels = axes[0].get_legend_handles_labels()
            figure.legend(lines, labels, loc="outside upper right", ncols=len(labels))
        return figure

    return svg(draw)


def svg(draw: Callable[[], Figure]) -> bytes:
    """Draws in our style, with the words that stand on every figure."""
    out = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = draw()
        strip = 0.14 / figure.get_figheight()
        if engine := figure.get_layout_engine():  # None where axes have fixed places.
            engine.set(rect=(0, strip, 1, 1 - strip))
            _lay_out(figure)
        figure.text(0.995, 0.005, RESEARCH_USE, ha="right", size=6, color=FAINT)
        about = {"Date": None, "Description": RESEARCH_USE}
        figure.savefig(out, format="svg", metadata=about)
    return _name_clips(out.getvalue())


def _lay_out(figure: Figure) -> None:
    """Gives the axes their places: ``savefig`` would draw all of it once for that alone."""
    FigureCanvasSVG(figure)
    dpi = figure.dpi
    figure.get_layout_engine().execute(figure)
    figure.dpi = dpi  # The canvas measures in points.
    figure.set_layout_engine(None)


def _name_clips(svg: bytes) -> bytes:
    """Clips named after what is written of them, so that the same figure is the same bytes.

    matplotlib names them after floats in full; constrained layout's solver orders by
    address, so its last bits differ from drawing to drawing.
    """
    for name, body in re.findall(
        rb'<clipPath id="(\w+)">(.*?)</clipPath>', svg, re.DOTALL
    ):
        svg = svg.replace(name, b"p" + hashlib.sha256(body).hexdigest()[:10].encode())
    return svg
