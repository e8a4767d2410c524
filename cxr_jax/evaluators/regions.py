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


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionQuality(Evaluator):
    """Mean IoU per region, over films where it is there, and presence.

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
            "regions/found": found.presence,
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
        seen = predictions.observed
        there = np.asarray(seen["regions/there"], bool)
        values = {"iou": np.asarray(seen["regions/iou"], float)}
        usual = (frozen or {}).get(USUAL, {})
        if usual:
            values["usual"] = self._usual(seen["regions/xyxy"], usual)
            values["difference"] = values["iou"] - values["usual"]
        units = units_of(predictions)
        drawn = {name: [] for name in values}
        if self.resamples:
            key = jax.random.key(self.seed)
            for weights in bootstrap.weights_in_chunks(
                key, units.count, resamples=self.resamples, chunk=256
            ):
                films = np.asarray(weights)[:, units.code]
                for name, value in values.items():
                    drawn[name].append(_means(value, there, films))
        point = {
            name: _means(v, there, np.ones((1, len(v))))[0]
            for name, v in values.items()
        }
        resampled = {
            name: np.concatenate(parts)[: self.resamples] if parts else None
            for name, parts in drawn.items()
        }
        return {"regions": self._block(point, resampled, there, units.name)}

    def _usual(self, xyxy: np.ndarray, usual: Mapping[str, Any]) -> np.ndarray:
        """IoU of each true region with its usual place, ``[N, A]``."""
        out = np.zeros(xyxy.shape[:2])
        for a, name in enumerate(self.regions):
            if name in usual:
                box = np.asarray([usual[name]], float)
                out[:, a] = overlaps(np.asarray(xyxy[:, a], float), box)[0][:, 0]
        return out

    def _block(
        self,
        point: Mapping[str, np.ndarray],
        resampled: Mapping[str, np.ndarray | None],
        there: np.ndarray,
        unit: str,
    ) -> dict[str, Any]:
        def told(a: int | slice) -> dict[str, Any]:
            out = {}
            for name, values in point.items():
                drawn = resampled[name]
                drawn = None if drawn is None else _over(drawn[:, a])
                interval = bootstrap.Interval(low=None, high=None, discarded=0)
                if drawn is not None:
                    interval = bootstrap.percentile_interval(drawn)
                out[name] = {
                    "value": float(_over(values[None, a])[0]),
                    "low": interval.low,
                    "high": interval.high,
                }
            return out

        per_region = {
            name: told(a) | {"n": int(there[:, a].sum())}
            for a, name in enumerate(self.regions)
        }
        return {
            "n": len(there),
            "resampling_unit": unit,
            "resamples": self.resamples,
            "mean": told(slice(None)),
            "per_region": per_region,
        }


def _means(values: np.ndarray, there: np.ndarray, films: np.ndarray) -> np.ndarray:
    """Means over films where a region is there, ``[R, A]``; NaN where it never is."""
    total, count = films @ (values * there), films @ there.astype(float)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _over(values: np.ndarray) -> np.ndarray:
    """Of one region as it is, of several their mean."""
    return values if values.ndim == 1 else np.nanmean(values, axis=1)
