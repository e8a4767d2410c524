"""Whether activation maps point at the boxed findings, beside three kinds of chance.

A film's area, the usual place of a class, and a network that learnt nothing: a map that
does not beat all three has shown nothing about where a finding is.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cxr_jax import explain
from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.labels import CXR8
from cxr_jax.metrics import bootstrap, localization, ranking
from cxr_jax.predictions import Predictions
from cxr_jax.types import Batch, Prediction

BASELINES = ("area", "location", "randomised")
_BOXES = ("xyxy", "label", "mask")
_FOUND = ("peak", "box", "energy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Localization(Evaluator):
    """Pointing game, IoU and energy of the maps, with baselines and their intervals.

    Attributes:
        boxed: classes whose boxes take part; those that the predictions lack are passed
            over.
        share: a map's box holds what is at or above this share of its maximum.
    """

    boxed: tuple[str, ...] = CXR8
    share: float = 0.5
    requires: ClassVar[tuple[str, ...]] = ("boxes", "maps")
    randomised: ClassVar[bool] = True

    def observe(self, prediction: Prediction, batch: Batch) -> dict[str, jax.Array]:
        """Each box, and what the map of its class points at, as ``[B, N, …]``.

        Only as many box slots are looked at as the fullest film of the batch fills.
        """
        boxes, maps = batch.boxes, prediction.maps
        mask = boxes.mask & batch.mask[:, None]
        shape = mask.shape
        start = {
            "peak": jnp.zeros((*shape, 2)),
            "box": jnp.zeros((*shape, 4)),
            "energy": jnp.zeros(shape),
        }

        def look(slot: jax.Array, found: dict[str, jax.Array]) -> dict[str, jax.Array]:
            label = lax.dynamic_index_in_dim(boxes.label, slot, 1)  # [B, 1]
            own = jnp.take_along_axis(maps, label[:, None, None], axis=3)
            located = explain.locate(own, share=self.share)
            same = mask & (boxes.label == label)
            new = {
                "peak": located.peak[:, 0],
                "box": located.xyxy[:, 0],
                "energy": explain.mass_inside(own[..., 0], boxes.xyxy, same),
            }
            return {
                k: lax.dynamic_update_index_in_dim(v, new[k].astype(v.dtype), slot, 1)
                for k, v in found.items()
            }

        filled = jnp.where(mask, jnp.arange(1, shape[1] + 1)[None], 0).max()
        found = lax.fori_loop(0, filled, look, start)
        found |= {"xyxy": boxes.xyxy, "label": boxes.label, "mask": mask}
        return {f"localization/{name}": leaf for name, leaf in found.items()}

    def freeze(self, predictions: Predictions) -> dict[str, Any]:
        """Mean box of each class, by name: where it usually is."""
        means = localization.mean_boxes(self._cases(predictions))
        return {
            "mean_boxes": {
                predictions.classes[c]: box.tolist() for c, box in means.items()
            }
        }

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """Per class: three measures, what chance reaches, and the differences."""
        cases = self._cases(predictions)
        usual = (frozen or {}).get("mean_boxes", {})
        measures = _measure(predictions, cases, usual)
        units = units_of(predictions)
        drawn = self._resampled(measures, cases, units, len(predictions.classes))
        known = [name for name in self.boxed if name in predictions.classes]
        per_class = {}
        for name in known:
            c = predictions.classes.index(name)
            rows = np.flatnonzero(cases.column == c)
            per_class[name] = _counts(cases, rows, units) | _class_block(
                {k: v[rows] for k, v in measures.items()},
                None if drawn is None else {k: v[:, c] for k, v in drawn.items()},
                lacking=() if name in usual else ("location",),
            )
        # Without intervals nothing is known to be ahead, nor not to be.
        ahead = [name for name, block in per_class.items() if block["ahead_of_all"]]
        ahead = None if drawn is None else ahead
        return {
            "localization": {
                "share": self.share,
                "n": len(predictions),
                "films": len(np.unique(cases.film)),
                "resampling_unit": units.name,
                "resamples": self.resamples,
                "ahead_of_all": {"classes": ahead, "of": known},
                "per_class": per_class,
            }
        }

    def _resampled(
        self,
        measures: Mapping[str, np.ndarray],
        cases: localization.Cases,
        units: bootstrap.Units,
        classes: int,
    ) -> dict[str, np.ndarray] | None:
        if not self.resamples or not len(cases):
            return None
        return localization.resample_means(
            jax.random.key(self.seed),  # the same patients as for every metric
            measures,
            column=cases.column,
            unit=units.code[cases.film],
            classes=classes,
            units=units.count,
            resamples=self.resamples,
        )

    def _cases(self, predictions: Predictions) -> localization.Cases:
        boxes = {k: predictions.observed[f"localization/{k}"] for k in _BOXES}
        names = predictions.classes
        wanted = [c for c, name in enumerate(names) if name in self.boxed]
        boxes["mask"] = boxes["mask"] & np.isin(boxes["label"], wanted)
        return localization.gather_cases(**boxes)


def _measure(
    predictions: Predictions,
    cases: localization.Cases,
    usual: Mapping[str, list[float]],
) -> dict[str, np.ndarray]:
    """Measure → value of each case; 0 where there is no usual place of its class."""
    place = (cases.film, cases.slot)

    def of(prefix: str) -> dict[str, np.ndarray]:
        observed = predictions.observed
        peak, box, energy = (
            np.asarray(observed[f"{prefix}localization/{k}"])[place] for k in _FOUND
        )
        return {
            "pointing": localization.pointing_hits(cases, peak),
            "iou": localization.best_iou(cases, box),
            "energy": np.asarray(energy, np.float64),
        }

    nowhere = [np.nan] * 4
    names = [predictions.classes[c] for c in cases.column]
    mean = np.asarray([usual.get(name, nowhere) for name in names]).reshape(-1, 4)
    found = of("") | {f"{k}@randomised": v for k, v in of("randomised/").items()}
    return found | {
        "pointing@area": cases.area,
        "energy@area": cases.area,
        "pointing@location": localization.pointing_hits(
            cases, (mean[:, :2] + mean[:, 2:]) / 2
        ),
        "iou@location": localization.best_iou(cases, mean),
    }


def _counts(
    cases: localization.Cases, rows: np.ndarray, units: bootstrap.Units
) -> dict[str, Any]:
    patients = len(np.unique(units.code[cases.film[rows]]))
    few = patients < ranking.FEW_POSITIVE_PATIENTS
    return {
        "films": len(rows),
        "boxes": sum(len(cases.boxes[k]) for k in rows),
        "positive_patients": patients,
        "flag": ranking.FEW if few else None,
    }


def _class_block(
    measures: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray] | None,
    *,
    lacking: tuple[str, ...],
) -> dict[str, Any]:
    """Measures of one class, what chance reaches, and the differences.

    Args:
        measures: name → value of each case; ``pointing@area`` is a baseline of it.
        drawn: name → resampled means, or None.
        lacking: baselines that are unknown for this class.
    """
    empty = not len(measures["pointing"])
    block: dict[str, Any] = {
        "discarded": 0 if drawn is None else int(np.isnan(drawn["pointing"]).sum()),
        "reason": "undefined: no film has a box" if empty else None,
    }
    for name in ("pointing", "iou", "energy"):
        others = {k: f"{name}@{k}" for k in BASELINES if k not in lacking}
        others = {k: other for k, other in others.items() if other in measures}
        block[name] = _value(measures, drawn, name) | {
            "baselines": {k: _value(measures, drawn, v) for k, v in others.items()},
            "differences": {
                k: _value(measures, drawn, name, less=v) for k, v in others.items()
            },
        }
    ends = [block["pointing"]["differences"].get(k, {}).get("low") for k in BASELINES]
    ahead = all(low is not None and low > 0 for low in ends)
    block["ahead_of_all"] = None if drawn is None else ahead
    return block


def _value(
    measures: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray] | None,
    name: str,
    *,
    less: str | None = None,
) -> dict[str, float | None]:
    """A mean, or the difference of two, with its interval."""
    if not len(measures[name]):
        return {"value": None, "low": None, "high": None}

    def of(values: Mapping[str, np.ndarray]) -> np.ndarray:
        return values[name] if less is None else values[name] - values[less]

    interval = bootstrap.Interval(low=None, high=None, discarded=0)
    if drawn is not None:
        interval = bootstrap.percentile_interval(of(drawn))
    mean = float(of(measures).mean())
    return {"value": mean, "low": interval.low, "high": interval.high}
