"""What the spread over dropout masks is worth: who is flagged, and what flagging gains."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.evaluators.comparison import ALPHA, enough
from cxr_jax.metrics import bootstrap, comparison, ranking, selective
from cxr_jax.predictions import MAX_STD, SPREAD, Predictions

RISKS = ("brier", "log_loss")
# Ways to order films. Entropy orders them as the maximum probability does, so that only
# the latter is resampled; random rejection and the oracle bound the others.
MEASURES = ("std", "information", "entropy", "max_probability")
DRAWN = ("std", "information", "max_probability")
RANDOM, ORACLE = "random", "oracle"
# Differences of areas; below 0, the first rejects better.
PAIRS = (
    ("std", "max_probability"),
    ("information", "max_probability"),
    ("std", RANDOM),
    ("max_probability", RANDOM),
)
COVERAGES = np.round(np.linspace(0.05, 1, 20), 2)
CALLED_AT = 0.5  # where no operating point was frozen
NOTES = (
    f"Uncertainty is {SPREAD}.",
    (
        "Films are kept in rising order of an uncertainty; risk is the mean loss of the"
        " films kept, and a smaller area under it is better. Films of equal uncertainty"
        " count as their mean over all orders."
    ),
    (
        "Rejection by maximum probability puts aside what is nearest to 0.5; the entropy"
        " of the probability gives the same order. The oracle knows the losses."
    ),
    (
        "Intervals of differences: patients resampled, 95%, each for itself; verdicts"
        " after Holm's correction over the classes, the mean by itself."
    ),
    "Loss and error are against the labels.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty(Evaluator):
    """Flags by the spread over dropout masks, and coverage-risk curves.

    Reference: Geifman and El-Yaniv, Selective classification for deep neural networks,
    NeurIPS 2017.

    Attributes:
        threshold: a finding with a larger standard deviation is flagged.

    Raises:
        ConfigError: a threshold below 0.
    """

    threshold: float = MAX_STD
    requires: ClassVar[tuple[str, ...]] = ("probs", "labels", "std", "information")

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ConfigError(
                f"Uncertainty: threshold={self.threshold}; at least 0 is allowed"
            )

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """The block ``uncertainty``."""
        units = units_of(predictions)
        counts = ranking.count_labels(predictions.labels, units.patients)
        losses = losses_of(predictions)
        orders = orders_of(predictions)
        drawn = self._drawn(predictions, orders, losses, units)
        per_class = {}
        for c, name in enumerate(predictions.classes):
            block = dataclasses.asdict(counts[c])
            block |= {"flag": counts[c].flag, "reason": counts[c].undefined}
            block |= self._spread(predictions, losses, c, _called_at(frozen, name))
            if counts[c].undefined is None:
                column = None if drawn is None else drawn[..., c]
                block |= _selective(predictions, orders, losses, c, column)
            per_class[name] = block
        mean = self._mean(per_class, drawn, predictions.classes)
        self._judge([block for block in per_class.values() if "differences" in block])
        self._judge([mean] if "differences" in mean else [])
        flagged = predictions.std > self.threshold
        return {
            "uncertainty": {
                "threshold": self.threshold,
                "rule": f"flagged where std > {self.threshold:g}",
                "notes": list(NOTES),
                "resampling_unit": units.name,
                "resamples": self.resamples,
                "coverages": COVERAGES,
                "n": len(predictions),
                "films_flagged": int(flagged.any(axis=1).sum()),
                "mean_std": float(predictions.std.mean(dtype=np.float64)),
                "per_class": per_class,
                "mean": mean,
            }
        }

    def _drawn(
        self,
        predictions: Predictions,
        orders: Mapping[str, np.ndarray],
        losses: Mapping[str, np.ndarray],
        units: bootstrap.Units,
    ) -> np.ndarray | None:
        """Areas ``[R, measure, risk, C]`` of ``DRAWN`` and random rejection."""
        if not self.resamples:
            return None
        return selective.resampled_areas(
            jax.random.key(self.seed),  # the patients of every other interval
            np.stack([orders[name] for name in DRAWN]),
            np.stack([losses[name] for name in RISKS]),
            predictions.labels,
            units,
            resamples=self.resamples,
        )

    def _spread(
        self,
        predictions: Predictions,
        losses: Mapping[str, np.ndarray],
        c: int,
        called_at: float,
    ) -> dict[str, Any]:
        """Means of the spread, and how the flagged findings of a class do."""
        std, labels = predictions.std[:, c], predictions.labels[:, c]
        wrong = (predictions.probs[:, c] >= called_at) != (labels == 1)
        flagged = std > self.threshold
        values = {name: losses[name][:, c] for name in RISKS}
        values |= {"error": np.where(np.isfinite(labels), wrong, np.nan)}
        values |= {"prevalence": labels.astype(np.float64)}
        probs = predictions.probs[:, c]
        return {
            "mean_std": float(std.mean(dtype=np.float64)),
            "mean_information": float(
                predictions.information[:, c].mean(dtype=np.float64)
            ),
            "mean_entropy": float(selective.entropy(probs).mean()),
            "share_flagged": float(flagged.mean()),
            "called_at": called_at,
            "flagged": _side(flagged, values),
            "unflagged": _side(~flagged, values),
        }

    def _judge(self, family: list[dict[str, Any]]) -> None:
        """Adjusted p-values of each difference over a family, and what they allow."""
        for risk in RISKS:
            for k in range(len(PAIRS)):
                gaps = [block["differences"][risk][k] for block in family]
                tests = sum(gap["p"] is not None for gap in gaps)
                adjusted = comparison.holm([gap["p"] for gap in gaps])
                for gap, p in zip(gaps, adjusted, strict=True):
                    gap["p_holm"] = p
                    gap["verdict"] = self._verdict(gap, tests)

    def _verdict(self, gap: Mapping[str, Any], tests: int) -> str:
        if gap["p"] is None:
            return "no interval, no verdict"
        if self.resamples < enough(tests):
            return "too few resamples to tell"
        if gap["p_holm"] > ALPHA:
            return "no difference detected"
        return f"{gap['of']} {'better' if gap['value'] < 0 else 'worse'}"

    def _mean(
        self,
        per_class: Mapping[str, Any],
        drawn: np.ndarray | None,
        classes: tuple[str, ...],
    ) -> dict[str, Any]:
        """Means over the defined classes of the list; the others are named."""
        listed = self.listed(classes)
        used = [c for c in listed if "area" in per_class[classes[c]]]
        left_out = {
            classes[c]: per_class[classes[c]]["reason"] for c in listed if c not in used
        }
        block: dict[str, Any] = {"classes": [classes[c] for c in used]}
        block["left_out"] = left_out
        if not used:
            return block | {"reason": "undefined: no class of the list has both labels"}
        blocks = [per_class[classes[c]] for c in used]
        means = None if drawn is None else drawn[..., used].mean(axis=-1)
        area = {
            risk: {
                name: float(np.mean([b["area"][risk][name] for b in blocks]))
                for name in (*MEASURES, RANDOM, ORACLE)
            }
            for risk in RISKS
        }
        return block | {
            "reason": None,
            "area": area,
            "differences": _differences(area, means),
        }


def losses_of(predictions: Predictions) -> dict[str, np.ndarray]:
    """Kind of risk → loss of each film and class, NaN where the label is unknown."""
    probs, labels = predictions.probs, predictions.labels.astype(np.float64)
    return {
        "brier": selective.brier(probs, labels),
        "log_loss": selective.log_loss(probs, labels, logits=predictions.logits),
    }


def orders_of(predictions: Predictions) -> dict[str, np.ndarray]:
    """Measure of uncertainty → ``[N, C]``."""
    return {
        "std": predictions.std,
        "information": predictions.information,
        "entropy": selective.entropy(predictions.probs),
        "max_probability": selective.doubt(predictions.probs),
    }


def _called_at(frozen: Mapping[str, Any] | None, name: str) -> float:
    """The threshold of calls: Youden's, where one was frozen."""
    points = ((frozen or {}).get("operating_points") or {}).get(name) or {}
    found = (points.get("youden") or {}).get("threshold")
    return CALLED_AT if found is None else found


def _side(rows: np.ndarray, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Means over some films, those with an unknown label left out."""
    known = rows & np.isfinite(values["prevalence"])
    means = {
        name: float(column[known].mean()) if known.any() else None
        for name, column in values.items()
    }
    return {"n": int(rows.sum()), "labelled": int(known.sum())} | means


def _selective(
    predictions: Predictions,
    orders: Mapping[str, np.ndarray],
    losses: Mapping[str, np.ndarray],
    c: int,
    drawn: np.ndarray | None,
) -> dict[str, Any]:
    """Areas, curves and differences of a class that has both labels."""
    labels = predictions.labels[:, c]
    # Both losses rise with |p - y|: one order is the best for either.
    ranked = {name: order[:, c] for name, order in orders.items()}
    ranked[ORACLE] = np.abs(predictions.probs[:, c].astype(np.float64) - labels)
    known = np.isfinite(labels)
    area: dict[str, dict[str, float]] = {}
    curves: dict[str, dict[str, Any]] = {"prevalence": {}}
    for risk in RISKS:
        column = losses[risk][:, c]
        area[risk] = {
            name: selective.area(order[known], column[known])
            for name, order in ranked.items()
        }
        area[risk][RANDOM] = float(column[known].mean())
        curves[risk] = _curves(ranked, column, known)
    curves["prevalence"] = _curves(ranked, labels, known)
    return {
        "area": area,
        "differences": _differences(area, drawn),
        "curves": curves,
    }


def _curves(
    ranked: Mapping[str, np.ndarray], values: np.ndarray, known: np.ndarray
) -> dict[str, np.ndarray]:
    """Means of what is kept at each coverage; entropy's are those of its twin."""
    return {
        name: selective.curve(order[known], values[known], COVERAGES).mean.round(6)
        for name, order in ranked.items()
        if name != "entropy"
    }


def _differences(
    area: Mapping[str, Mapping[str, float]], drawn: np.ndarray | None
) -> dict[str, list[dict[str, Any]]]:
    """Per risk, the differences of ``PAIRS`` with their intervals.

    Args:
        area: risk → measure → area.
        drawn: ``[R, measure, risk]`` on resampled patients, or None.
    """
    places = {name: k for k, name in enumerate((*DRAWN, RANDOM))}
    found: dict[str, list[dict[str, Any]]] = {}
    for r, risk in enumerate(RISKS):
        found[risk] = []
        for first, second in PAIRS:
            block: dict[str, Any] = {"of": first, "minus": second}
            block["value"] = area[risk][first] - area[risk][second]
            interval, p = bootstrap.Interval(low=None, high=None, discarded=0), None
            if drawn is not None:
                gaps = drawn[:, places[first], r] - drawn[:, places[second], r]
                interval = bootstrap.percentile_interval(gaps)
                p = comparison.bootstrap_p(gaps)
            found[risk].append(block | dataclasses.asdict(interval) | {"p": p})
    return found
