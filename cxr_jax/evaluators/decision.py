"""The paper's own rule: a fixed threshold on raw scores, judged against the labels."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.metrics import confusion, estimates, ranking, sums
from cxr_jax.predictions import Predictions

# Shares, and the outcomes that each rests on, by number in ``confusion.OUTCOMES``.
RESTS_ON = {"sensitivity": [0, 2], "specificity": [1, 3]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision(Evaluator):
    """F1, Cohen's kappa, sensitivity and specificity of calls above a threshold.

    Reference: Rajpurkar et al., MURA, 2017: abnormal above 0.5, judged by F1; by kappa in
    its later version.

    Attributes:
        threshold: a case is called above it.
    """

    threshold: float = 0.5
    requires: ClassVar[tuple[str, ...]] = ("probs", "labels")

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """The block ``decision``."""
        del frozen
        labels = predictions.labels
        units = units_of(predictions)
        called = predictions.probs.astype(np.float64) > self.threshold
        cells = confusion.outcomes(called.astype(np.float64), labels)
        per_unit = sums.sum_by_unit(cells.astype(np.float32), units)
        drawn = None
        if self.resamples:
            key = jax.random.key(self.seed)  # the same patients for every metric
            drawn = sums.resample_sums(key, per_unit, resamples=self.resamples)
        counts = ranking.count_labels(labels, units.patients)
        total = per_unit.sum(axis=0, dtype=np.float64)
        found: dict[str, Any] = {
            name: dataclasses.asdict(counts[c]) | {"flag": counts[c].flag}
            for c, name in enumerate(predictions.classes)
        }
        for metric, function in confusion.METRICS.items():
            many = None if drawn is None else function(drawn)
            values = estimates.estimates(function(total), many, None)
            for c, value in enumerate(values):
                known = dataclasses.asdict(value)
                known = {k: v for k, v in known.items() if not k.endswith("_readers")}
                if value.value is None:
                    known["reason"] = confusion.UNDEFINED[metric]
                if many is not None and metric in RESTS_ON and value.value is not None:
                    rests = per_unit[:, c, RESTS_ON[metric]].sum(axis=-1) > 0
                    known |= dataclasses.asdict(
                        sums.bounds_of_rate(value.value, many[:, c], int(rests.sum()))
                    )
                found[predictions.classes[c]][metric] = known
        return {
            "decision": {
                "threshold": self.threshold,
                "rule": "called above the threshold",
                "resampling_unit": units.name,
                "resamples": self.resamples,
                "per_class": found,
            }
        }
