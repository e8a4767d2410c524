"""Sensitivity by kind of abnormality: fracture, hardware, degenerative change, other."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax.data import kinds
from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.metrics import sums
from cxr_jax.predictions import Predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kinds(Evaluator):
    """Share of the abnormal studies of each kind that are called, and of all of them.

    A study may show several kinds. The kinds come from ``kinds.csv``; without it there is
    no block.

    Reference: Rajpurkar et al., MURA, 2017, section 2.3: of 100 abnormal studies 53 had
    fractures, 48 hardware, 35 degenerative joint disease, 29 other abnormalities.

    Attributes:
        threshold: a study is called above it.
        directory: of the prepared dataset.
    """

    threshold: float = 0.5
    directory: str = ""
    requires: ClassVar[tuple[str, ...]] = ("probs", "labels")

    def rehearse(self, predictions: Predictions) -> None:
        """Refuses a damaged file."""
        del predictions
        if self.directory:
            kinds.read_kinds(self.directory)

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """The block ``kinds``."""
        del frozen
        known = kinds.read_kinds(self.directory) if self.directory else {}
        ill = predictions.labels[:, -1] == 1  # A line may stand for a normal study.
        names = predictions.ids.tolist()
        rows = [k for k, name in enumerate(names) if ill[k] and name in known]
        if not rows:
            return {}
        names = list(next(iter(known.values())))
        told = [known[name] for name in predictions.ids[rows].tolist()]
        shows = np.array([[one[name] for name in names] for one in told])
        shows = np.column_stack([shows, np.ones(len(rows), bool)])
        called = predictions.probs[rows, -1].astype(np.float64) > self.threshold
        units = units_of(predictions, rows)
        cells = np.stack([shows & called[:, None], shows], axis=-1)
        per_unit = sums.sum_by_unit(cells.astype(np.float32), units)
        drawn = None
        if self.resamples:
            key = jax.random.key(self.seed)
            drawn = sums.resample_sums(key, per_unit, resamples=self.resamples)
        found = {
            name: _sensitivity(per_unit[:, k], None if drawn is None else drawn[:, k])
            | {"positive_patients": len(np.unique(units.patients[shows[:, k]]))}
            for k, name in enumerate((*names, "all"))
        }
        return {
            "kinds": {
                "threshold": self.threshold,
                "n": len(rows),
                "resampling_unit": units.name,
                "resamples": self.resamples,
                "per_kind": found,
            }
        }


def _sensitivity(per_unit: np.ndarray, drawn: np.ndarray | None) -> dict[str, Any]:
    called, positives = per_unit.sum(axis=0, dtype=np.float64)
    block: dict[str, Any] = {"positives": int(positives), "called": int(called)}
    if not positives:
        return block | {"value": None, "low": None, "high": None}
    found = sums.Bounds(low=None, high=None, discarded=0)
    if drawn is not None:
        with np.errstate(invalid="ignore"):
            shares = drawn[:, 0] / drawn[:, 1]
        patients = int((per_unit[:, 1] > 0).sum())
        found = sums.bounds_of_rate(called / positives, shares, patients)
    return block | {
        "value": called / positives,
        "low": found.low,
        "high": found.high,
        "discarded": found.discarded,
    }
