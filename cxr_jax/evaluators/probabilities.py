"""Operating points and Platt scaling: frozen on validation, judged everywhere else."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax.data.splits import ids_sha256
from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.metrics import calibration, operating, ranking, scaling, sums
from cxr_jax.metrics.bootstrap import Units
from cxr_jax.predictions import Predictions

NOTHING_FROZEN = "nothing was frozen: there is no validation part of the same weights"
# Prevalences of other sites, and threshold probabilities of the decision curve.
PREVALENCES = np.round(np.geomspace(0.001, 0.5, 16), 5)
THRESHOLDS = np.round(np.geomspace(0.002, 0.6, 32), 5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probabilities(Evaluator):
    """What a threshold does, and what a calibrated probability means.

    Thresholds act on raw probabilities. Platt scaling acts on their logits, and so do the
    re-weighting of odds and the decision curve, which need probabilities that mean
    something.

    Attributes:
        sensitivity: of the point chosen for a fixed sensitivity.
        specificity: of the point chosen for a fixed specificity.
    """

    sensitivity: float = 0.9
    specificity: float = 0.9
    requires: ClassVar[tuple[str, ...]] = ("probs", "labels")

    def freezes(self) -> tuple[str, ...]:
        """Four points; two carry their targets in their names."""
        return operating.point_names(
            sensitivity=self.sensitivity, specificity=self.specificity
        )

    def freeze(self, predictions: Predictions) -> dict[str, Any]:
        """Thresholds and scalings of every class, and the films they were chosen on."""
        units = units_of(predictions)
        counts = ranking.count_labels(predictions.labels, units.patients)
        points, platt = {}, {}
        for c, name in enumerate(predictions.classes):
            probs, labels = predictions.probs[:, c], predictions.labels[:, c]
            chosen = operating.choose_points(
                probs,
                labels,
                count=counts[c],
                sensitivity=self.sensitivity,
                specificity=self.specificity,
            )
            points[name] = {k: dataclasses.asdict(v) for k, v in chosen.items()}
            fitted = scaling.fit_platt(probs, labels, count=counts[c])
            platt[name] = dataclasses.asdict(fitted)
        return {
            "operating_points": points,
            "platt": platt,
            "chosen_on": {
                "n": len(predictions),
                "ids_sha256": ids_sha256(predictions.ids.tolist()),
            },
        }

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """Reports on the labels, and on the truth where it is known."""
        frozen = frozen or {}
        units = units_of(predictions)
        chosen = frozen.get("operating_points") or {}
        platt = frozen_platt(frozen, predictions.classes)
        about = {
            "chosen_on": frozen.get("chosen_on"),
            "in_sample": in_sample(predictions, frozen),
            "reason": None if chosen else NOTHING_FROZEN,
        }
        points = about | {
            "rule": "called where the raw probability is at least the threshold",
            "resampling_unit": units.name,
            "resamples": self.resamples,
            "prevalences": PREVALENCES,
        }
        if chosen:
            points["per_class"] = self._points(
                predictions, predictions.labels, units, chosen
            )
            points["decision_curves"] = self._decisions(predictions, units, platt)
            if predictions.truth is not None:
                points["per_class@truth"] = self._points(
                    predictions, predictions.truth, units, chosen
                )
        per_class = {
            name: _scaled(
                predictions.probs[:, c],
                predictions.labels[:, c],
                units,
                platt.get(name),
            )
            for c, name in enumerate(predictions.classes)
        }
        return {
            "operating_points": points,
            "calibration": {"platt": about | {"per_class": per_class}},
        }

    def _points(
        self,
        predictions: Predictions,
        labels: np.ndarray,
        units: Units,
        chosen: Mapping[str, Any],
    ) -> dict[str, Any]:
        """All classes and points at once; those without a threshold say why."""
        pairs = [
            (c, name, point)
            for c, name in enumerate(predictions.classes)
            for point in chosen.get(name, {})
        ]
        threshold = np.array(
            [chosen[name][p]["threshold"] for _, name, p in pairs], np.float64
        )
        column = np.array([c for c, _, _ in pairs], int)
        called = predictions.probs.astype(np.float64)[:, column] >= threshold
        per_unit = operating.count_calls(called, labels[:, column], units)
        drawn = None
        if self.resamples:
            key = jax.random.key(self.seed)  # the same patients for every metric
            drawn = sums.resample_sums(key, per_unit, resamples=self.resamples)
        counts = ranking.count_labels(labels, units.patients)
        found: dict[str, Any] = {}
        for k, (c, name, point) in enumerate(pairs):
            block = dataclasses.asdict(counts[c]) | {"flag": counts[c].flag}
            block |= {key: chosen[name][point][key] for key in ("threshold", "reason")}
            if block["threshold"] is not None:
                resampled = None if drawn is None else drawn[:, k]
                block |= _reported(per_unit[:, k], resampled)
            found.setdefault(name, {})[point] = block
        return found

    def _decisions(
        self,
        predictions: Predictions,
        units: Units,
        platt: Mapping[str, scaling.Platt],
    ) -> dict[str, Any]:
        """Decision curves of the classes that have probabilities."""
        scaled = {n: _calibrate(predictions, n, p) for n, p in platt.items()}
        used = [n for n in predictions.classes if scaled.get(n) is not None]
        reasons = {
            n: platt[n].reason if n in platt else NOTHING_FROZEN
            for n in predictions.classes
            if n not in used
        }
        per_class: dict[str, Any] = {n: {"reason": r} for n, r in reasons.items()}
        if used:
            columns = [predictions.classes.index(n) for n in used]
            curve = operating.decision_curve(
                np.stack([scaled[n] for n in used], axis=1),
                predictions.labels[:, columns],
                units,
                thresholds=THRESHOLDS,
                key=jax.random.key(self.seed),
                resamples=self.resamples,
            )
            for k, name in enumerate(used):
                per_class[name] = {
                    "reason": None,
                    "model": curve.model[k],
                    "low": None if curve.low is None else curve.low[k],
                    "high": None if curve.high is None else curve.high[k],
                    "treat_all": curve.treat_all[k],
                    "treat_none": 0.0,
                }
        return {
            "of": "calibrated probabilities",
            "threshold_probabilities": THRESHOLDS,
            "per_class": {n: per_class[n] for n in predictions.classes},
        }


def in_sample(predictions: Predictions, frozen: Mapping[str, Any]) -> bool:
    """Whether these are the films on which points and scalings were chosen."""
    known = frozen.get("chosen_on")
    if known is None:
        return False
    return known["ids_sha256"] == ids_sha256(predictions.ids.tolist())


def frozen_platt(
    frozen: Mapping[str, Any], classes: tuple[str, ...]
) -> dict[str, scaling.Platt]:
    """Class → scaling, for those of the classes that were frozen."""
    known = frozen.get("platt") or {}
    return {name: scaling.Platt(**known[name]) for name in classes if name in known}


def _calibrate(
    predictions: Predictions, name: str, platt: scaling.Platt
) -> np.ndarray | None:
    probs = predictions.probs[:, predictions.classes.index(name)]
    return scaling.apply_platt(probs, platt)


def _reported(per_unit: np.ndarray, drawn: np.ndarray | None) -> dict[str, Any]:
    """Counts, rates with intervals, and predictive values at other prevalences."""
    counts = per_unit.sum(axis=0, dtype=np.float64)
    values = operating.rates(counts)
    resampled = None if drawn is None else operating.rates(drawn)
    block: dict[str, Any] = {
        name: int(n) for name, n in zip(operating.COUNTS, counts, strict=True)
    }
    for name, value in values.items():
        drawn_rate = None if resampled is None else resampled[name]
        found = operating.rate(name, value, drawn_rate, per_unit=per_unit)
        block[name] = dataclasses.asdict(found)
    pair = [values[k] for k in ("sensitivity", "specificity")]
    at = operating.predictive_values(*pair, PREVALENCES)
    block["at_prevalence"] = {"ppv": at.ppv, "npv": at.npv}
    if resampled is not None:
        pairs = [resampled[k][:, None] for k in ("sensitivity", "specificity")]
        spread = operating.predictive_values(*pairs, PREVALENCES)
        for name in ("ppv", "npv"):
            ends = [sums.bounds(column) for column in getattr(spread, name).T]
            block["at_prevalence"][f"{name}_low"] = [e.low for e in ends]
            block["at_prevalence"][f"{name}_high"] = [e.high for e in ends]
    return block


def _scaled(
    probs: np.ndarray, labels: np.ndarray, units: Units, platt: scaling.Platt | None
) -> dict[str, Any]:
    """The frozen scaling of one class, the slope of the raw, the errors of both."""
    block: dict[str, Any] = {"reason": NOTHING_FROZEN}
    if platt is not None:
        block = dataclasses.asdict(platt)
    raw = scaling.measure_spread(probs, labels, units.patients)
    block |= {"raw": dataclasses.asdict(raw), "calibrated": None}
    scaled = None if platt is None else scaling.apply_platt(probs, platt)
    found = None
    if scaled is not None:
        found = calibration.measure_calibration(scaled, labels)
    if found is not None:
        block["calibrated"] = dataclasses.asdict(found) | dataclasses.asdict(
            scaling.measure_spread(scaled, labels, units.patients)
        )
        block["calibrated"]["mean_probability"] = float(
            scaled[np.isfinite(labels)].mean()
        )
    if platt is not None and platt.temperature is not None:
        alone = dataclasses.replace(platt, slope=1 / platt.temperature, intercept=0.0)
        cooled = calibration.measure_calibration(
            scaling.apply_platt(probs, alone), labels
        )
        if cooled is not None:
            kept = ("ece", "brier", "brier_skill")
            block["temperature_alone"] = {k: getattr(cooled, k) for k in kept}
    return block
