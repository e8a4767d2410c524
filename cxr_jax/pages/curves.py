"""ROC and reliability: a panel per class of one run, a panel per run of several."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.pages import figures, html
from cxr_jax.pages.evidence import Evidence, apart
from cxr_jax.pages.figures import GRID, WIDTH
from cxr_jax.pages.tables import number, words

# Seven hues that differ in lightness too; a second round is dashed.
HUES = ("#1d6996", "#cc6d1e", "#3f8f57", "#8b3f7c", "#b8a11f", "#5c5f66", "#d4586a")
STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))


def section(evidence: Evidence, *others: Evidence) -> str:
    """ROC and reliability of the run, and the ROC of all runs side by side.

    Nothing where the run has no probabilities.
    """
    if "auroc" not in evidence.main["metrics"]:
        return ""
    values = evidence.main["metrics"]["auroc"]["per_class"]
    calibration = evidence.main["calibration"].get("per_class", {})
    parts = [
        html.figure(
            figures.roc_grid(evidence.curves, values),
            "ROC curves against the labels, with the area under each.",
            alt="one ROC curve per class",
        )
    ]
    if calibration:
        parts.append(
            html.figure(
                figures.reliability_grid(calibration),
                "Reliability against the labels, in at most 15 bins of equal mass; axes"
                " end at the largest bin. ECE: mean gap between both. On the diagonal,"
                " a probability means what it says.",
                alt="one reliability curve per class",
            )
        )
    return html.section(
        "ROC and reliability", *parts, *map(_panels, apart(evidence, *others))
    )


def _panels(runs: Sequence[Evidence]) -> str:
    """All classes of a run in a panel, with the area under each curve."""
    runs = [run for run in runs if run.curves]
    if len(runs) < 2:
        return ""
    every = [name for run in runs for name in run.main["metrics"]["auroc"]["per_class"]]
    drawn = {name for run in runs for name in run.curves}
    names = [name for name in dict.fromkeys(every) if name in drawn]
    caption = (
        "ROC curves of each run against the labels, all classes together, with the area"
        " under each. A class has the same line in every panel. Above: the part, and the"
        " mean over the classes of the run's own list."
    )
    drawing = figures.svg(lambda: _draw(runs, names))
    return html.figure(drawing, caption, alt="ROC curves of each run")


def _draw(runs: Sequence[Evidence], names: Sequence[str]) -> Figure:
    rows = math.ceil(len(runs) / 2)
    figure = Figure(figsize=(WIDTH, 4.75 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for k, (ax, run) in enumerate(zip(axes, runs, strict=False)):
        mean = run.main["metrics"]["auroc"]["mean"]["value"]
        below = f"{run.main['dataset']}, {run.main['split']}; mean {number(mean)}"
        ax.set_title(f"({chr(ord('a') + k)}) {run.name}\n{below}")
        _panel(ax, run, _lines(names))
        ax.set_box_aspect(1)
    for ax in axes[len(runs) :]:
        ax.set_visible(False)
    return figure


def _lines(names: Sequence[str]) -> dict[str, dict[str, object]]:
    """How each class is drawn."""
    return {
        name: {
            "color": HUES[k % len(HUES)],
            "ls": STYLES[k // len(HUES) % len(STYLES)],
            "lw": 1.0,
        }
        for k, name in enumerate(names)
    }


def _panel(ax: Axes, run: Evidence, lines: Mapping[str, Mapping[str, object]]) -> None:
    values = run.main["metrics"]["auroc"]["per_class"]
    ax.plot([0, 1], [0, 1], color=GRID, lw=0.8)
    for name, style in lines.items():
        if name in run.curves:
            curve, area = run.curves[name], number(values[name]["value"])
            label = f"{area}  {words(name)}"
            ax.plot(curve["fpr"], curve["tpr"], label=label, **style)
    ax.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="1 − specificity", ylabel="sensitivity")
    ax.set_xticks([0, 0.5, 1])
    ax.set_yticks([0, 0.5, 1])
    ax.legend(loc="lower right", fontsize=6, labelspacing=0.25, handlelength=2.4)
