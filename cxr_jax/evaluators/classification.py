"""How well scores rank films, and how far raw probabilities are from frequencies."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.metrics import bootstrap, calibration, ranking
from cxr_jax.predictions import Predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Evaluator):
    """AUROC and average precision per class and on average, and calibration."""

    requires: ClassVar[tuple[str, ...]] = ("probs", "labels")
    monitors: ClassVar[bool] = True

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """Metrics against the labels, and against the truth where it is known."""
        del frozen
        metrics = self._metrics(predictions, predictions.labels, suffix="")
        if predictions.truth is not None:
            metrics |= self._metrics(predictions, predictions.truth, suffix="@truth")
        return {"metrics": metrics, "calibration": _calibration(predictions)}

    def _metrics(
        self, predictions: Predictions, labels: np.ndarray, *, suffix: str
    ) -> dict[str, Any]:
        classes, scores = predictions.classes, predictions.probs
        listed = self.listed(classes)
        units = units_of(predictions)
        counts = ranking.count_labels(labels, units.patients)
        drawn = None
        if self.resamples:
            key = jax.random.key(self.seed)  # the same patients for every metric
            drawn = bootstrap.bootstrap(
                key, scores, labels, units, resamples=self.resamples
            )
        blocks = {}
        for name, metric in ranking.METRICS.items():
            values = metric(scores, labels)
            resampled = None if drawn is None else getattr(drawn, name)
            per_class = {
                classes[c]: _value(values[c], counts[c], units.name, resampled, c)
                for c in range(len(classes))
            }
            mean = _mean(values, counts, units.name, resampled, listed, classes)
            positive = (
                labels[:, [classes.index(n) for n in mean["classes"]]] == 1
            ).any(axis=1)
            mean["positives"] = int(positive.sum())
            mean["positive_patients"] = len(np.unique(units.patients[positive]))
            blocks[name + suffix] = {"per_class": per_class, "mean": mean}
        return blocks


def _value(
    value: float,
    count: ranking.LabelCount,
    unit: str,
    resampled: np.ndarray | None,
    c: int,
) -> dict[str, Any]:
    interval = _interval(None if resampled is None else resampled[:, c])
    defined = count.undefined is None
    reason = count.undefined
    if defined and resampled is not None and interval.low is None:
        reason = "no interval: every resample held one label only"
    return dataclasses.asdict(
        ranking.Value(
            value=float(value) if defined else None,
            low=interval.low,
            high=interval.high,
            n=count.n,
            positives=count.positives,
            positive_patients=count.positive_patients,
            resampling_unit=unit,
            resamples=0 if resampled is None else len(resampled),
            discarded=interval.discarded,
            flag=count.flag,
            reason=reason,
        )
    )


def _mean(
    values: np.ndarray,
    counts: list[ranking.LabelCount],
    unit: str,
    resampled: np.ndarray | None,
    listed: list[int],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """The mean over the defined classes of the list; the others are named, not hidden."""
    used = [c for c in listed if counts[c].undefined is None]
    left_out = {classes[c]: counts[c].undefined for c in listed if c not in used}
    means = None
    if resampled is not None:
        # NaN if any class is undefined in a resample: it is discarded for the mean.
        means = resampled[:, used].astype(np.float64).mean(axis=1) if used else None
    interval = _interval(means)
    reason = None if used else "undefined: no class of the list has both labels"
    if used and means is not None and interval.low is None:
        reason = "no interval: in every resample a class held one label only"
    return {
        "value": float(values[used].mean()) if used else None,
        "low": interval.low,
        "high": interval.high,
        "classes": [classes[c] for c in used],
        "left_out": left_out,
        "n": max((counts[c].n for c in listed), default=0),
        "resampling_unit": unit,
        "resamples": 0 if resampled is None else len(resampled),
        "discarded": interval.discarded,
        "reason": reason,
    }


def _interval(resampled: np.ndarray | None) -> bootstrap.Interval:
    if resampled is None:
        return bootstrap.Interval(low=None, high=None, discarded=0)
    return bootstrap.percentile_interval(resampled)


def _calibration(predictions: Predictions) -> dict[str, Any]:
    per_class = {}
    units = units_of(predictions)
    counts = ranking.count_labels(predictions.labels, units.patients)
    for c, name in enumerate(predictions.classes):
        found = calibration.measure_calibration(
            predictions.probs[:, c], predictions.labels[:, c]
        )
        if found is None:
            per_class[name] = {"n": 0, "reason": counts[c].undefined}
            continue
        block = dataclasses.asdict(found)
        block["reliability"] = {k: v.tolist() for k, v in block["reliability"].items()}
        per_class[name] = dataclasses.asdict(counts[c]) | block | {"reason": None}
    return {
        "probabilities": "as the model gives them, uncalibrated",
        "bins": "at most 15 of equal mass",
        "per_class": per_class,
    }
