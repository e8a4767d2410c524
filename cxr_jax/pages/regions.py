"""How well predicted regions lie on the true ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cxr_jax.pages import figures, html, tables
from cxr_jax.pages.evidence import Evidence

COLUMNS = {
    "iou": "Mean IoU",
    "usual": "Usual place",
    "difference": "Difference",
    "found": "Present\nand found",
    "falsely_found": "Absent\nbut found",
}


def section(evidence: Evidence) -> str:
    """Mean IoU per region, beside that of its usual place; nothing without regions."""
    block = evidence.main.get("regions")
    if not block:
        return ""
    shown = {k: words for k, words in COLUMNS.items() if k in block["mean"]}
    rows = [
        [name, f"{found['n']:,}", *(tables.or_dash(found[k]) for k in shown)]
        for name, found in block["per_region"].items()
    ]
    rows.append(
        ["Mean over regions", "", *(tables.or_dash(block["mean"][k]) for k in shown)]
    )
    caption = (
        "IoU of each predicted region with the true one, over films where it is there;"
        f" {block['n']:,} films, {block['resamples']:,} resamples, resampling unit:"
        f" {block['resampling_unit']}. Usual place: the mean box of the region on the"
        f" validation part, the same on every film.{_unknown(block)}{_presence(block)}"
    )
    return html.section(
        "Anatomical regions",
        html.figure(
            figures.svg(lambda: _draw(block)),
            "Mean IoU of each region with its 95% interval; hollow: its usual place.",
            alt="mean IoU of each region beside its usual place",
        ),
        html.folded(
            "All regions",
            html.table(
                ["Region", "Films", *shown.values()], rows, caption=caption, total=True
            ),
        ),
    )


def _unknown(block: Mapping[str, Any]) -> str:
    """Regions without a usual place; means of different regions are not subtracted."""
    names = [
        name
        for name, found in block["per_region"].items()
        if "usual" in found and found["usual"]["value"] is None and found["n"]
    ]
    if not names:
        return ""
    return (
        f" It is unknown of {', '.join(names)}, on no film of the validation part: the"
        " means of usual place and difference leave them out."
    )


def _presence(block: Mapping[str, Any]) -> str:
    if "found" not in block["mean"]:
        return ""
    return (
        " Share of the films where a region is, and of those where it is not, on which it"
        " is found: taken for there, so that its findings may have boxes."
    )


def _draw(block: Mapping[str, Any]) -> Figure:
    per_region = dict(
        sorted(
            block["per_region"].items(),
            key=lambda item: -(item[1]["iou"]["value"] or 0),
        )
    )
    figure = Figure(
        figsize=(figures.WIDTH, 0.6 + 0.2 * len(per_region)), layout="constrained"
    )
    axes = figure.subplots()
    y = -np.arange(len(per_region), dtype=float)
    low, value, high = (
        np.array([found["iou"][k] for found in per_region.values()], float)
        for k in ("low", "value", "high")
    )
    axes.hlines(y, low, high, color=figures.BLUE, lw=1.6, alpha=0.6)
    axes.plot(value, y, "o", color=figures.BLUE, ms=4.5, label="predicted")
    if "usual" in block["mean"]:
        usual = [found["usual"]["value"] for found in per_region.values()]
        style = {"mfc": "white", "mec": figures.ORANGE, "ms": 4.5, "mew": 1.2}
        axes.plot(np.array(usual, float), y, "D", label="usual place", **style)
    axes.set_yticks(y, list(per_region))
    axes.set(xlim=(0, 1), ylim=(y[-1] - 0.7, 0.7), xlabel="mean IoU")
    axes.tick_params(axis="y", length=0)
    axes.grid(color=figures.GRID, lw=0.5)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2)
    return figure
