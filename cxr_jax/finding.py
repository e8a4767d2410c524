"""What a model says about one film: numbers, a table, a picture. No JAX is needed here."""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_jax.errors import ConfigError
from cxr_jax.metrics.scaling import UNCALIBRATED
from cxr_jax.plots import Panel, Plot, draw
from cxr_jax.predictions import MAX_STD, RESEARCH_USE, SPREAD

ABOVE, BELOW, NO_THRESHOLD = "above threshold", "below threshold", "no threshold"
FLAGGED = "flagged"
# A class below its threshold is not called normal: the model was not asked that.
COLUMNS = (
    *("class", "probability", "calibrated"),
    *("threshold", "reading", "prevalence"),
)
SPREAD_COLUMN = "score ± spread"
SHOWN = 3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Finding:
    """One film as a model reads it.

    Attributes:
        name: of the film, as it was given.
        classes: names of the C classes.
        probs: float64 ``[C]``, calibrated where ``calibrated``, else ``raw``.
        raw: float32 ``[C]``, as the model gives them.
        logits: float32 ``[C]``, before the sigmoid.
        calibrated: bool ``[C]``.
        reasons: per class why it is not calibrated; empty where it is.
        thresholds: float64 ``[C]``, operating points on ``raw``; NaN for none.
        shown_thresholds: the same points on the scale of ``probs``.
        prevalence: float64 ``[C]``, share of positives that ``probs`` hold for: of the
            calibration films, or of the site that was asked for; NaN where unknown.
        site: whether that prevalence was asked for, bool ``[C]``.
        film: uint8 ``[S, S]``, reduced: what the network saw.
        shape: height and width of the film before that, in pixels.
        maps: float32 ``[h, w, C]``, in ``unit``, or None.
        unit: what the maps are, in a few words.
        std: float32 ``[C]``, spread of ``raw`` over dropout masks, or None. Low spread
            does not mean correct.
        information: float32 ``[C]``, mutual information of label and mask in nats, or
            None.
        max_std: above this ``std`` a finding is flagged.
        boxes: list of ``(class, score, (x1, y1, x2, y2))`` in [0, 1], or None.
        padded: whether ``film`` has the proportions of before: within a black square, or cut
            to one.
        trained_on: name of the dataset that trained and calibrated the model; empty where
            unknown. What holds there need not hold for this film.
    """

    name: str
    classes: tuple[str, ...]
    probs: np.ndarray
    raw: np.ndarray
    logits: np.ndarray
    calibrated: np.ndarray
    reasons: tuple[str, ...]
    thresholds: np.ndarray
    shown_thresholds: np.ndarray
    prevalence: np.ndarray
    site: np.ndarray
    film: np.ndarray
    shape: tuple[int, int]
    maps: np.ndarray | None = None
    unit: str = "map"
    std: np.ndarray | None = None
    information: np.ndarray | None = None
    max_std: float = MAX_STD
    boxes: list[tuple[str, float, tuple[float, ...]]] | None = None
    padded: bool = False
    trained_on: str = ""

    @property
    def readings(self) -> tuple[str, ...]:
        """Per class ``ABOVE``, ``BELOW`` or ``NO_THRESHOLD``; decided on raw outputs."""
        raw = self.raw.astype(np.float64)
        words = np.where(raw >= self.thresholds, ABOVE, BELOW)
        return tuple(np.where(np.isfinite(self.thresholds), words, NO_THRESHOLD))

    @property
    def flagged(self) -> np.ndarray:
        """Bool ``[C]``: whose spread exceeds ``max_std``; none where there is no spread."""
        if self.std is None:
            return np.zeros(len(self.classes), bool)
        return self.std > self.max_std

    def table(self) -> "Table":
        """Every class with its probability, threshold and reading; prints as text.

        Where dropout was sampled, a column more: the score with its spread. A calibrated
        probability is another number on another scale, so the spread is not beside it.
        """
        rows = []
        for c, name in enumerate(self.classes):
            prob = f"{self.probs[c]:.4f}"
            scored = "" if self.calibrated[c] else f" ({UNCALIBRATED})"
            asked = " (asked for)" if self.site[c] else ""
            rows.append(
                (
                    name,
                    prob + scored,
                    "yes" if self.calibrated[c] else "no",
                    _number(self.shown_thresholds[c]),
                    self.readings[c],
                    _number(self.prevalence[c]) + asked,
                    *self._spread(c),
                )
            )
        columns = COLUMNS if self.std is None else (*COLUMNS, SPREAD_COLUMN)
        return Table(
            title=self.name, rows=tuple(rows), notes=self._notes(), columns=columns
        )

    def _spread(self, column: int) -> tuple[str, ...]:
        if self.std is None:
            return ()
        flag = f" ({FLAGGED})" if self.flagged[column] else ""
        return (f"{self.raw[column]:.4f} ± {self.std[column]:.4f}{flag}",)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        for reason in dict.fromkeys(r for r in self.reasons if r):
            names = [
                c
                for c, r in zip(self.classes, self.reasons, strict=True)
                if r == reason
            ]
            who = "all classes" if len(names) == len(self.classes) else ", ".join(names)
            notes.append(f"Uncalibrated ({who}): {reason}.")
        if np.isfinite(self.thresholds).any():
            notes.append(
                "Threshold: highest sensitivity + specificity on validation films; below"
                " it is not the same as normal."
            )
        if self.calibrated.any():
            notes.append(
                "Prevalence: the share of positives that a probability holds for: that"
                " of the calibration films, unless asked for."
            )
        if self.std is not None:
            notes.append(
                f"Score: as the model gives it; ±: {SPREAD}. Flagged: spread above"
                f" {self.max_std:g}."
            )
        if self.trained_on:
            what = "trained and calibrated" if self.calibrated.any() else "trained"
            notes.append(
                f"The model was {what} on {self.trained_on}: nothing is known of how it"
                " does on other films."
            )
        return (*notes, RESEARCH_USE)

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON holds them; maps and pixels are left out."""
        columns = {
            "probability": self.probs,
            "raw": self.raw,
            "logit": self.logits,
            "threshold": self.thresholds,
            "prevalence": self.prevalence,
        }
        if self.std is not None:
            columns |= {"std": self.std, "information": self.information}
        found = {}
        for c, name in enumerate(self.classes):
            found[name] = {key: _plain(values[c]) for key, values in columns.items()}
            if self.std is not None:
                found[name]["flagged"] = bool(self.flagged[c])
            found[name]["calibrated"] = bool(self.calibrated[c])
            if self.reasons[c]:
                found[name]["uncalibrated_because"] = self.reasons[c]
            found[name]["reading"] = self.readings[c]
        boxes = {} if self.boxes is None else {"boxes": self.boxes}
        origin = {"trained_on": self.trained_on} if self.trained_on else {}
        if self.std is not None:
            origin |= {"std_of": "raw"}
        if np.isfinite(self.thresholds).any():
            origin |= {"threshold_of": "raw"}
        note = {"note": RESEARCH_USE}
        return {"name": self.name, "findings": found, **boxes, **origin, **note}

    def plot(self, classes: Sequence[str] | None = None, *, side: float = 2.6) -> Plot:
        """The film, and under the map of each class again, with its boxes.

        What speaks for a class (above 0) is coloured, the more opaque the more it says;
        all panels share one scale, from 0 to the highest value among them.

        Args:
            classes: to show; by default the three that are farthest above, or least
                below, their thresholds.
            side: height of a panel, in inches.

        Returns:
            A matplotlib figure; a notebook shows it.

        Raises:
            ConfigError: a class that is not there, or a finding without maps and boxes.
        """
        columns = self._columns(classes)
        if self.maps is None and self.boxes is None:
            raise ConfigError(
                "plot: this finding holds neither maps nor boxes; predict with maps=True,"
                " and a task that gives maps"
            )
        origin = f"\ntrained on {self.trained_on}" if self.trained_on else ""
        panels = [
            Panel(
                title=self._caption(column),
                heat=None if self.maps is None else self.maps[..., column],
                boxes=[box for name, _, box in self.boxes or () if name == c],
            )
            for column, c in ((k, self.classes[k]) for k in columns)
        ]
        return draw(
            self.film,
            panels,
            title=f"{self.name}\nfilm as the model saw it{origin}",
            shape=self.film.shape if self.padded else self.shape,
            unit=self.unit,
            side=side,
        )

    def _columns(self, classes: Sequence[str] | None) -> list[int]:
        if classes is None:
            with np.errstate(divide="ignore"):
                bar = np.log(self.thresholds) - np.log1p(-self.thresholds)
            margin = self.logits - np.where(np.isfinite(bar), bar, 0.0)
            return np.argsort(-margin, kind="stable")[:SHOWN].tolist()
        names = [classes] if isinstance(classes, str) else list(classes)
        unknown = [name for name in names if name not in self.classes]
        if unknown or not names:
            raise ConfigError(
                f"plot: classes={names}; give some of {', '.join(self.classes)}"
            )
        return [self.classes.index(name) for name in names]

    def _caption(self, column: int) -> str:
        kind = "probability" if self.calibrated[column] else "score, uncalibrated:"
        name = self.classes[column].replace("_", " ")
        return f"{name}\n{kind} {self.probs[column]:.3f}, {self.readings[column]}"

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Table:
    """A finding as rows of words: text where printed, HTML in a notebook.

    Attributes:
        title: name of the film.
        rows: one per class, in the order of ``columns``.
        notes: what must be read with it.
        columns: their heads.
    """

    title: str
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    columns: tuple[str, ...] = COLUMNS

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        text = [
            "  ".join(f"{cell:{w}}" for cell, w in zip(line, widths)).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, *text, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(tag: str, cells: Sequence[str]) -> str:
            inner = (f'<{tag} style="text-align:left">{html.escape(c)}' for c in cells)
            return "<tr>" + "".join(f"{cell}</{tag}>" for cell in inner) + "</tr>"

        body = "".join(row("td", cells) for cells in self.rows)
        notes = "<br>".join(html.escape(note) for note in self.notes)
        return (
            f"<table><caption>{html.escape(self.title)}</caption>"
            f"{row('th', self.columns)}{body}</table><p><small>{notes}</small></p>"
        )


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "–"


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
