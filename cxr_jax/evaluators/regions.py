"""How well predicted regions lie on the true ones, beside each region's usual place."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax import boxes
from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.labels import REGIONS29
from cxr_jax.metrics import bootstrap
from cxr_jax.metrics.detection import overlaps
from cxr_jax.predictions import Predictions
from cxr_jax.types import Batch, Prediction

USUAL = "usual_regions"
NOWHERE = "undefined: on no film"
EVERYWHERE = "undefined: absent from no film"
NO_USUAL_PLACE = "unknown: on no film of the validation part"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionQuality(Evaluator):
    """Mean IoU per region, over films where it is there, and how presence is told.

    Presence: the share of present regions that the task takes for there, and of absent
    ones that it does.
    A region that is on no film of the validation part has no usual place: it is left out
    where that is compared with.

    Attributes:
        regions: their names.
    """

    regions: tuple[str, ...] = REGIONS29
    requires: ClassVar[tuple[str, ...]] = ("regions", "predicted_boxes")

    def observe(self, prediction: Prediction, batch: Batch) -> dict[str, jax.Array]:
        """The true regions, and how far the predicted ones overlap them."""
        true, found = batch.regions, prediction.regions
        return {
            "regions/iou": boxes.iou(found.xyxy, true.xyxy),
            "regions/found": found.found,
            "regions/xyxy": true.xyxy,
            "regions/there": true.presence,
        }

    def freeze(self, predictions: Predictions) -> dict[str, Any]:
        """Mean box of each region: where it usually is."""
        xyxy, there = (predictions.observed[f"regions/{k}"] for k in ("xyxy", "there"))
        return {
            USUAL: {
                name: np.asarray(xyxy[there[:, a], a], float).mean(axis=0).tolist()
                for a, name in enumerate(self.regions)
                if there[:, a].any()
            }
        }

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """Per region and on average over regions."""
        measured = self._measured(predictions, (frozen or {}).get(USUAL, {}))
        units = units_of(predictions)
        once = np.ones((1, len(predictions)))
        point = {name: one.means(once)[0] for name, one in measured.items()}
        drawn = self._resampled(measured, units)
        there = np.asarray(predictions.observed["regions/there"], bool)
        block = {
            "n": len(there),
            "resampling_unit": units.name,
            "resamples": self.resamples,
            "mean": self._told(slice(None), point, drawn, measured),
            "per_region": {
                name: self._told(a, point, drawn, measured)
                | {"n": int(there[:, a].sum()), "absent": int((~there[:, a]).sum())}
                for a, name in enumerate(self.regions)
            },
        }
        return {"regions": block}

    def _measured(
        self, predictions: Predictions, usual: Mapping[str, Any]
    ) -> dict[str, "_Measured"]:
        seen = predictions.observed
        there = np.asarray(seen["regions/there"], bool)
        found = np.asarray(seen["regions/found"], bool)
        iou = np.asarray(seen["regions/iou"], float)
        measured = {"iou": _Measured(values=iou, counts=there, lacking=NOWHERE)}
        if usual:
            place = self._usual(seen["regions/xyxy"], usual)
            for name, values in (("usual", place), ("difference", iou - place)):
                measured[name] = _Measured(
                    values=values, counts=there, lacking=NO_USUAL_PLACE
                )
        return measured | {
            "found": _Measured(values=found, counts=there, lacking=NOWHERE),
            "falsely_found": _Measured(values=found, counts=~there, lacking=EVERYWHERE),
        }

    def _usual(self, xyxy: np.ndarray, usual: Mapping[str, Any]) -> np.ndarray:
        """IoU of each true region with its usual place, ``[N, A]``; NaN where unknown."""
        out = np.full(xyxy.shape[:2], np.nan)
        for a, name in enumerate(self.regions):
            if name in usual:
                box = np.asarray([usual[name]], float)
                out[:, a] = overlaps(np.asarray(xyxy[:, a], float), box)[0][:, 0]
        return out

    def _resampled(
        self, measured: Mapping[str, "_Measured"], units: bootstrap.Units
    ) -> dict[str, np.ndarray] | None:
        """Name → ``[R, A]``."""
        if not self.resamples:
            return None
        drawn = bootstrap.weights_in_chunks(
            jax.random.key(self.seed), units.count, resamples=self.resamples, chunk=256
        )
        parts = []
        for weights in drawn:
            films = np.asarray(weights)[:, units.code]
            parts.append({name: one.means(films) for name, one in measured.items()})
        return {
            name: np.concatenate([part[name] for part in parts])[: self.resamples]
            for name in measured
        }

    def _told(
        self,
        a: int | slice,
        point: Mapping[str, np.ndarray],
        drawn: Mapping[str, np.ndarray] | None,
        measured: Mapping[str, "_Measured"],
    ) -> dict[str, Any]:
        """Figures of one region, or their means over several."""
        out = {}
        for name, values in point.items():
            value = float(_over(values[None, a])[0])
            interval = bootstrap.Interval(low=None, high=None, discarded=0)
            if drawn is not None:
                interval = bootstrap.percentile_interval(_over(drawn[name][:, a]))
            out[name] = {
                "value": None if np.isnan(value) else value,
                "low": interval.low,
                "high": interval.high,
                "reason": measured[name].reason(a) if np.isnan(value) else None,
            }
        return out


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """A figure of each region on each film.

    Attributes:
        values: ``[N, A]``, NaN for regions of which it is unknown.
        counts: bool ``[N, A]``, films over which it is averaged.
        lacking: why there is none.
    """

    values: np.ndarray
    counts: np.ndarray
    lacking: str

    def means(self, films: np.ndarray) -> np.ndarray:
        """By how often films are drawn, ``[R, N]`` → ``[R, A]``; NaN where undefined."""
        values = np.where(self.counts, self.values, 0.0)
        total, count = films @ values, films @ self.counts.astype(float)
        return np.divide(
            total, count, out=np.full(total.shape, np.nan), where=count > 0
        )

    def reason(self, a: int | slice) -> str:
        """Why a region has no figure: films first, then what it is compared with."""
        if self.lacking == NO_USUAL_PLACE and not self.counts[:, a].any():
            return NOWHERE
        return self.lacking


def _over(values: np.ndarray) -> np.ndarray:
    """Of one region as it is, of several the mean of those that have one."""
    if values.ndim == 1:
        return values
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
