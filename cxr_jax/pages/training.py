"""How training went: losses and validated metrics by epoch, of one run or of several."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.pages import figures, html
from cxr_jax.pages.evidence import Evidence, apart
from cxr_jax.pages.figures import BLUE, FAINT, GRID, INK, ORANGE, WIDTH

Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """What a run logged, by epoch.

    Attributes:
        train: lines of the training part.
        val: of the validation part, one for each time it was read.
        switches: epochs at which a further phase begins.
        best: epoch of the evaluated checkpoint, or None.
    """

    train: Sequence[Line]
    val: Sequence[Line]
    switches: Sequence[float]
    best: float | None

    @classmethod
    def of(cls, evidence: Evidence) -> "History":
        """From the lines of ``metrics.jsonl``."""
        lines, step = evidence.lines, evidence.main["checkpoint_step"]
        val = [line for line in lines if line.get("split") == "val"]
        switches = [
            first["epoch"]
            for first, second in itertools.pairwise(lines)
            if first.get("phase", 0) < second.get("phase", 0)
        ]
        return cls(
            train=[line for line in lines if line.get("split") == "train"],
            val=val,
            switches=switches,
            best=next((line["epoch"] for line in val if line["step"] == step), None),
        )

    def training_loss(self) -> list[tuple[float, float]]:
        """Epoch → mean training loss since the validation before, each step once."""
        points, sums, before = [], [], 0
        lines = sorted((*self.train, *self.val), key=lambda k: (k["step"], k["split"]))
        for line in lines:
            if line["split"] == "train" and line.get("loss") is not None:
                sums.append((line["step"] - before, line["loss"]))
                before = line["step"]
            elif line["split"] == "val" and sums:
                weights, values = zip(*sums, strict=True)
                points.append(
                    (line["epoch"], float(np.average(values, weights=weights)))
                )
                sums = []
        return points

    def validation(self, name: str) -> list[tuple[float, float]]:
        """Epoch → value, where it was defined."""
        return [(k["epoch"], k[name]) for k in self.val if k.get(name) is not None]


def section(evidence: Evidence, *others: Evidence) -> str:
    """The run's own curves, and the losses of all runs side by side."""
    if "scored" in evidence.main:
        return ""
    drawing = curves(History.of(evidence))
    if drawing is None:
        own = html.paragraph("No training log was found.")
    else:
        caption = "Loss, and metrics of the validation part, after each epoch."
        own = html.figure(drawing, caption, alt="loss and metrics by epoch")
    return html.section("Training", own, *map(_panels, apart(evidence, *others)))


def curves(history: History) -> bytes | None:
    """Loss, and the validated metrics, against epochs; None where nothing was logged."""
    if not any("loss" in line for line in (*history.train, *history.val)):
        return None
    names = {"auroc": "mean AUROC", "average_precision": "mean AP"}
    metrics = [n for n in names if any(n in line for line in history.val)]

    def draw() -> Figure:
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, 2 if metrics else 1))
        points = [(k["epoch"], k["loss"]) for k in history.train if k.get("loss")]
        _line(axes[0], points, "training", color=FAINT, lw=0.9)
        points = history.validation("loss")
        _line(axes[0], points, "validation", color=BLUE, marker="o", ms=3)
        axes[0].set_ylabel("loss")
        for name, color in zip(metrics, (BLUE, ORANGE), strict=False):
            points = history.validation(name)
            _line(axes[1], points, names[name], color=color, marker="o", ms=3)
        if metrics:
            axes[1].set_ylabel("validation")
        for ax in axes:
            _moments(ax, history)
            ax.legend()
        return figure

    return figures.svg(draw)


def _panels(runs: Sequence[Evidence]) -> str:
    """Training and validation loss of several runs, a panel each."""
    histories = {run.name: History.of(run) for run in runs}
    histories = {name: h for name, h in histories.items() if h.validation("loss")}
    if len(histories) < 2:
        return ""
    terms = [(run.config.get("task") or {}).get("terms") for run in runs]
    same = all(term == terms[0] for term in terms)
    caption = (
        "Training and validation loss of each run, means of an epoch. Training films are"
        " augmented and read with dropout, validation films are not: the training loss"
        " may lie above."
    )
    if not same:
        caption += (
            " Losses differ, and so do the scales: heights are not to be compared."
        )
    drawing = figures.svg(lambda: _draw_panels(histories, same=same))
    return html.figure(drawing, caption, alt="losses of each run by epoch")


def _draw_panels(histories: Mapping[str, History], *, same: bool) -> Figure:
    rows = math.ceil(len(histories) / 2)
    figure = Figure(figsize=(WIDTH, 2.5 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, 2, sharey=same, squeeze=False).ravel()
    for ax, (name, history) in zip(axes, histories.items(), strict=False):
        _line(ax, history.training_loss(), "training", color=FAINT, marker="o", ms=2.5)
        points = history.validation("loss")
        _line(ax, points, "validation", color=BLUE, marker="o", ms=2.5)
        _moments(ax, history)
        ax.set_title(name)
        ax.set_ylabel("loss")
        ax.legend()
    for ax in axes[len(histories) :]:
        ax.set_visible(False)
    return figure


def _moments(ax: Axes, history: History) -> None:
    """What happened when: the evaluated epoch, and where a phase began."""
    for number, epoch in enumerate(history.switches, start=2):
        ax.axvline(epoch, color=ORANGE, lw=0.8, ls="--", label=f"phase {number} begins")
    if history.best is not None:
        ax.axvline(history.best, color=INK, lw=0.8, ls=":", label="evaluated")
    ax.set_xlabel("epoch")
    ax.grid(color=GRID, lw=0.5)
    ax.set_axisbelow(True)


def _line(
    ax: Axes, points: Sequence[tuple[float, float]], label: str, **style: Any
) -> None:
    if points:
        ax.plot(*zip(*points, strict=True), label=label, **style)
