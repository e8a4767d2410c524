"""ROC of the model with the readers' points: one class in full, all classes small."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.metrics import probit
from cxr_jax.pages import figures

GREEN = "#2c7a3f"
AGAINST = {
    "majority": "against the majority of the other readers",
    "truth": "against the true state",
}


def roc_in_full(block: Mapping[str, Any]) -> bytes:
    """The class in focus, one panel per protocol that has a ROC.

    Args:
        block: ``readers`` of ``result.json``.

    Returns:
        SVG.
    """
    names = [name for name in AGAINST if name in block["protocols"]]

    def draw() -> Figure:
        size = (figures.WIDTH * max(len(names), 1.35) / 2, 4.75)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for ax, name in zip(panels, names, strict=True):
            found = block["protocols"][name]["per_class"][block["focus"]]
            _panel(ax, found, size=7.0)
            _groups(ax, found["roc"])
            ax.set_title(AGAINST[name] + "\n" + _areas(found["roc"]))
            ax.set(xlabel="1 − specificity", ylabel="sensitivity")
            ax.grid(color=figures.GRID, lw=0.5)
            ax.set_axisbelow(True)
        lines, labels = panels[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=3)
        return figure

    return figures.svg(draw)


def roc_panels(block: Mapping[str, Any], protocol: str) -> bytes:
    """All classes, small, by one protocol.

    Args:
        block: ``readers`` of ``result.json``.
        protocol: one that has a ROC.

    Returns:
        SVG.
    """
    per_class = block["protocols"][protocol]["per_class"]

    def panel(ax: Axes, name: str) -> None:
        _panel(ax, per_class[name], size=3.2)
        area = per_class[name]["roc"]["pooled"]["value"]
        if area is not None:
            ax.text(0.95, 0.06, f"{area:.3f}", ha="right", size=9)

    return figures.grid(list(per_class), panel, x="1 − specificity", y="sensitivity")


def _panel(ax: Axes, found: Mapping[str, Any], *, size: float) -> None:
    ax.plot([0, 1], [0, 1], color=figures.GRID, lw=0.8)
    ax.set(xlim=(0, 1), ylim=(0, 1.01), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    ax.set_box_aspect(1)
    roc = found["roc"]
    if roc["curve"] is None:
        ax.text(0.5, 0.5, "undefined", ha="center", va="center", color=figures.FAINT)
        return
    pooled = "model, groupings pooled" if len(roc["groups"]) > 1 else "model"
    ax.plot(
        roc["curve"]["fpr"],
        roc["curve"]["tpr"],
        color=figures.BLUE,
        lw=1.5,
        label=pooled,
    )
    separation = roc["separation"]["value"]
    if separation is not None:
        x = np.linspace(0, 1, 201)
        y = probit.sensitivity_at(separation, x)
        ax.plot(x, y, color=GREEN, lw=1.1, ls="--", label="pooled-probit reader curve")
    kinds = (
        ("model", "s", figures.BLUE, "model, at its threshold"),
        ("readers", "o", figures.ORANGE, "readers"),
        ("average", "D", GREEN, "average of the readers"),
    )
    for kind, marker, color, label in kinds:
        y = _values(found["sensitivity"][kind])
        x = 1 - _values(found["specificity"][kind])
        style = {"ms": size, "mec": "white", "mew": size / 9, "clip_on": False}
        ax.plot(x, y, marker, color=color, label=label, zorder=4, **style)


def _groups(ax: Axes, roc: Mapping[str, Any]) -> None:
    """One pale curve per grouping, below all else."""
    style: dict[str, Any] = {
        "color": figures.BLUE,
        "lw": 0.7,
        "alpha": 0.4,
        "zorder": 1,
    }
    for k, curve in enumerate(c for c in roc.get("group_curves", ()) if c):
        label = None if k else "model, against each grouping"
        ax.plot(curve["fpr"], curve["tpr"], label=label, **style)


def _values(block: Mapping[str, Any]) -> np.ndarray:
    """Of one estimate or of several by name; NaN, which is not drawn, where undefined."""
    several = [block] if "value" in block else list(block.values())
    return np.array([estimate["value"] for estimate in several], np.float64)


def _areas(roc: Mapping[str, Any]) -> str:
    pooled, mean = roc["pooled"]["value"], roc["mean"]["value"]
    if pooled is None:
        return "undefined"
    if len(roc["groups"]) == 1:
        return f"AUROC {pooled:.3f}"
    each = "undefined" if mean is None else f"{mean:.3f}"
    return f"AUROC {pooled:.3f} pooled, {each} mean of {len(roc['groups'])} groupings"
