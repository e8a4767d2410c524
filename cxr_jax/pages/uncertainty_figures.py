"""Figures of uncertainty: coverage against risk and prevalence, and passes as histograms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.pages import figures
from cxr_jax.passes import SHOWN, Passes

Block = Mapping[str, Any]

# Way to order films → words and line.
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "std": ("std over masks", {"color": figures.BLUE, "lw": 1.6}),
    "information": (
        "mutual information",
        {"color": figures.BLUE, "lw": 1.0, "ls": "--"},
    ),
    "max_probability": (
        "maximum probability",
        {"color": figures.ORANGE, "lw": 1.4},
    ),
    "oracle": ("oracle", {"color": figures.FAINT, "lw": 0.9, "ls": ":"}),
}
BINS = 16


def means(coverages: np.ndarray, blocks: Sequence[Block]) -> bytes:
    """Mean risk of several classes, and beside it what positives are left.

    Args:
        coverages: ``[P]`` in (0, 1], the last one 1.
        blocks: of ``result.json``, one per class, with ``curves``.

    Returns:
        SVG.
    """

    def mean(what: str, name: str) -> np.ndarray:
        found = np.array([block["curves"][what][name] for block in blocks])
        if what == "prevalence":
            found = found / found[:, -1:]
        return found.mean(axis=0)

    def draw() -> Figure:
        figure = Figure(figsize=(figures.WIDTH, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes, what in ((left, "brier"), (right, "prevalence")):
            for name, (words, style) in LINES.items():
                if (what, name) != ("prevalence", "oracle"):
                    axes.plot(coverages, mean(what, name), label=words, **style)
            _level(axes, float(mean(what, "std")[-1]), "random rejection")
            axes.set(xlim=(0, 1.01), xlabel="coverage: share of films kept")
            axes.set_ylim(bottom=0)
            axes.grid(color=figures.GRID, lw=0.5)
            axes.set_axisbelow(True)
        left.set_ylabel("mean Brier score of films kept")
        right.set_ylabel("share of positives, relative to all films")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
        return figure

    return figures.svg(draw)


def per_class(coverages: np.ndarray, blocks: Mapping[str, Block], what: str) -> bytes:
    """One small panel per class.

    Args:
        coverages: ``[P]``.
        blocks: class → block with ``curves``.
        what: ``brier``, ``log_loss`` or ``prevalence``.

    Returns:
        SVG.
    """

    def panel(axes: Axes, name: str) -> None:
        curves = blocks[name]["curves"][what]
        for kind, (words, style) in LINES.items():
            if (what, kind) != ("prevalence", "oracle"):
                axes.plot(coverages, curves[kind], label=words, **style)
        _level(axes, curves["std"][-1], "random rejection")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
        axes.locator_params(nbins=3)

    words = {"brier": "Brier score", "log_loss": "log-loss", "prevalence": "positives"}
    return figures.grid(
        list(blocks), panel, x="coverage", y=f"{words[what]}, films kept", legend=True
    )


def histograms(passes: Passes) -> bytes:
    """Each finding over the first passes and over all.

    Args:
        passes: of a few findings.

    Returns:
        SVG.
    """
    numbers = [n for n in SHOWN if n <= passes.probs.shape[1]]

    def draw() -> Figure:
        rows = len(passes.ids)
        size = (figures.WIDTH, 1.9 * rows + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, len(numbers), squeeze=False)
        for k, line in enumerate(panels):
            # One scale for all numbers of passes of a finding.
            span = _span(passes.probs[k])
            for axes, number in zip(line, numbers, strict=True):
                name = str(passes.classes[k]).replace("_", " ")
                axes.set_title(f"{name}, {passes.ids[k]}: {number} passes")
                _histogram(axes, passes.probs[k, :number], span)
            line[0].set_ylabel("passes")
        for axes in panels[-1]:
            axes.set_xlabel("probability")
        return figure

    return figures.svg(draw)


def _histogram(axes: Axes, probs: np.ndarray, span: tuple[float, float]) -> None:
    mean, std = float(probs.mean()), float(probs.std())
    band = {"color": figures.ORANGE, "alpha": 0.15, "lw": 0, "zorder": 0}
    axes.axvspan(max(mean - std, span[0]), min(mean + std, span[1]), **band)
    axes.hist(probs, bins=BINS, range=span, color=figures.BLUE, alpha=0.75)
    axes.axvline(mean, color=figures.ORANGE, lw=1.5)
    axes.set_title(f"{axes.get_title()}\nmean {mean:.3g}, std {std:.3g}")
    axes.set_xlim(span)
    axes.yaxis.get_major_locator().set_params(integer=True)


def _span(probs: np.ndarray) -> tuple[float, float]:
    """Ends of the axis: a little beyond the passes, within [0, 1]."""
    low, high = float(probs.min()), float(probs.max())
    edge = max(0.08 * (high - low), 1e-4)
    return max(0.0, low - edge), min(1.0, high + edge)


def _level(axes: Axes, value: float, words: str) -> None:
    axes.axhline(value, color=figures.FAINT, lw=0.9, ls="--", label=words)
