"""The same scores against adjudicated labels and, on the same films, against mined ones."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from cxr_jax.evaluators.base import Blocks, Evaluator
from cxr_jax.evaluators.classification import Classification
from cxr_jax.predictions import Predictions


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Adjudicated(Evaluator):
    """Metrics against labels that readers agreed on, where there are any.

    Each class is measured on the films that are adjudicated for it and labelled in the
    usual table too, so that both figures are of the same films.

    Attributes:
        labels: float ``[N, C]`` in {0, 1}, NaN where a film is not adjudicated.
        name: of the labels, in words.
    """

    labels: np.ndarray
    name: str = ""
    requires: ClassVar[tuple[str, ...]] = ("probs", "labels")

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """The block ``adjudicated``: ``metrics``, and ``mined`` on the same films."""
        del frozen
        common = np.isfinite(self.labels) & np.isfinite(predictions.labels)
        rows = common.any(axis=1)
        measure = Classification(
            mean_classes=self._mean_classes(predictions, common),
            resamples=self.resamples,
            seed=self.seed,
        )
        found = {}
        for key, labels in (
            ("metrics", self.labels),
            ("mined", predictions.labels),
        ):
            seen = dataclasses.replace(
                predictions,
                labels=np.where(common, labels, np.nan)[rows].astype(np.float32),
                **_taken(predictions, rows),
            )
            found[key] = measure(seen)["metrics"] if rows.any() else {}
        agree = (self.labels == predictions.labels).sum(0) / np.maximum(
            common.sum(0), 1
        )
        return {
            "adjudicated": {
                "reference": f"Reference: adjudicated labels ({self.name}).",
                "n": int(rows.sum()),
                "adjudicated_only": int(
                    (np.isfinite(self.labels) & ~np.isfinite(predictions.labels)).sum()
                ),
                "agreement": {
                    name: float(agree[c]) if common[:, c].any() else None
                    for c, name in enumerate(predictions.classes)
                },
                **found,
            }
        }

    def _mean_classes(
        self, predictions: Predictions, common: np.ndarray
    ) -> tuple[str, ...]:
        """Of the list, those that anything was adjudicated for."""
        return tuple(
            predictions.classes[c]
            for c in self.listed(predictions.classes)
            if common[:, c].any()
        )


def _taken(predictions: Predictions, rows: np.ndarray) -> dict[str, Any]:
    """The other columns that ranking needs, of these films; the rest is left out."""
    names = ("ids", "patients", "studies", "index", "probs")
    rest = {"truth": None, "logits": None, "observed": {}}
    rest |= {"age": None, "sex": None, "view": None}
    return {name: getattr(predictions, name)[rows] for name in names} | rest
