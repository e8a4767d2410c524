"""A worklist: cases in order of suspicion, and what stands below a frozen threshold."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.metrics import confusion, sums, triage
from cxr_jax.predictions import Predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Triage(Evaluator):
    """Orders the cases of one column by their scores.

    Nothing below the threshold is called normal: the threshold was frozen on the
    validation part for a sensitivity below 1, and what it misses is counted.

    Reference: Rajpurkar et al., MURA, 2017, section 7.

    Attributes:
        point: the frozen operating point that cuts the list.
        column: whose scores order it; the last one where empty (all studies).
    """

    point: str = "sensitivity@0.95"
    column: str = ""
    requires: ClassVar[tuple[str, ...]] = ("probs", "labels")

    def calls_at(self) -> str:
        """The point that cuts the list."""
        return self.point

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """The block ``triage``: figures, and the list itself."""
        name = self.column or predictions.classes[-1]
        c = predictions.classes.index(name)
        own = np.ones(len(predictions), bool)
        if predictions.member is not None:
            own = predictions.member[:, c]
        scores = predictions.probs[own, c].astype(np.float64)
        labels = predictions.labels[own, c]
        points = ((frozen or {}).get("operating_points") or {}).get(name, {})
        point = points.get(self.point, {"reason": "no threshold was frozen"})
        threshold = point.get("threshold")
        block: dict[str, Any] = {
            "column": name,
            "point": self.point,
            "threshold": threshold,
            "reason": point.get("reason"),
            "n": len(scores),
            "positives": int((labels == 1).sum()),
            "negatives": int((labels == 0).sum()),
            "rank": dataclasses.asdict(triage.ranks(scores, labels)),
            "list": _list(predictions, own, scores, labels, threshold),
        }
        if threshold is not None:
            below = scores[labels == 0] < threshold
            block["ruled_out"] = float(below.mean()) if len(below) else None
            normal = labels == 0
            cells = np.column_stack([normal & (scores < threshold), normal])
            block |= self._interval(block["ruled_out"], cells, predictions, own)
            block["missed"] = dataclasses.asdict(
                triage.missed(scores, labels, threshold)
            )
        return {"triage": block}

    def _interval(
        self,
        share: float | None,
        cells: np.ndarray,
        predictions: Predictions,
        own: np.ndarray,
    ) -> dict[str, Any]:
        """Of the share of the second column of ``cells`` that is in the first."""
        if not self.resamples or share is None:
            return {}
        units = units_of(predictions, own)
        per_unit = sums.sum_by_unit(cells.astype(np.float32), units)
        key = jax.random.key(self.seed)
        drawn = sums.resample_sums(key, per_unit, resamples=self.resamples)
        shares = confusion.ratio(drawn[:, 0], drawn[:, 1])
        rests = int((per_unit[:, 1] > 0).sum())
        found = dataclasses.asdict(sums.bounds_of_rate(share, shares, rests))
        return {f"ruled_out_{name}": value for name, value in found.items()}


def _list(
    predictions: Predictions,
    own: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float | None,
) -> list[dict[str, Any]]:
    """The rows that are the column's own, the most suspicious first."""
    ids, kinds = predictions.ids[own], [""] * len(scores)
    if predictions.member is not None:
        first = predictions.member[own, :-1].argmax(axis=1)
        kinds = [predictions.classes[k] for k in first]
    return [
        {
            "id": str(ids[k]),
            "category": kinds[k],
            "score": float(scores[k]),
            "above": None if threshold is None else bool(scores[k] >= threshold),
            "label": None if np.isnan(labels[k]) else int(labels[k]),
        }
        for k in np.argsort(-scores, kind="stable")
    ]
