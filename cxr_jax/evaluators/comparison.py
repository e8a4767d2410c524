"""Two models on the same films: the difference, its interval, and what may be said of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.metrics import bootstrap, comparison, ranking
from cxr_jax.predictions import Predictions

ALPHA = 0.05
NOTES = (
    (
        "Differences are of the same films. Intervals: paired bootstrap over patients,"
        " 95%, each for itself; verdicts after Holm's correction over the classes, the"
        " mean by itself."
    ),
    "DeLong's test takes films as independent: a check, not the claim.",
    "No difference detected does not mean that both are comparable.",
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Comparison(Evaluator):
    """Differences of AUROC and average precision, ours minus theirs, on the same films.

    The patient bootstrap is paired; Holm's correction runs over the classes; DeLong's
    test stands beside it as a check that takes films as independent.

    Attributes:
        theirs: float ``[N, C]``, the other scores, row by row and class by class as ours.
        rows: bool ``[N]``, films that both scored.
        names: of both, in words.
        margin: of non-inferiority, in AUROC (and AP), named before the figures were
            seen; None claims none.
    """

    theirs: np.ndarray
    rows: np.ndarray
    names: tuple[str, str] = ("ours", "theirs")
    margin: float | None = None
    requires: ClassVar[tuple[str, ...]] = ("probs", "labels")

    def __post_init__(self) -> None:
        if self.margin is not None and not 0 < self.margin < 1:
            raise ConfigError(f"margin={self.margin}: a number in (0, 1) is allowed")

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """The block ``comparison``."""
        del frozen
        classes = predictions.classes
        ours, theirs = predictions.probs[self.rows], self.theirs[self.rows]
        labels = predictions.labels[self.rows]
        units = units_of(predictions, self.rows)
        counts = ranking.count_labels(labels, units.patients)
        pair = None
        if self.resamples:
            key = jax.random.key(self.seed)  # The patients of every other interval.
            pair = comparison.paired_bootstrap(
                key, ours, theirs, labels, units, resamples=self.resamples
            )
        metrics = {}
        for name, metric in ranking.METRICS.items():
            values = np.stack([metric(ours, labels), metric(theirs, labels)])
            drawn = None if pair is None else pair.difference(name)
            metrics[name] = self._metric(classes, values, drawn, counts)
        self._check_by_delong(metrics["auroc"], ours, theirs, labels, classes)
        return {
            "comparison": {
                "names": list(self.names),
                "n": int(self.rows.sum()),
                "left_out": int((~self.rows).sum()),
                "resampling_unit": units.name,
                "resamples": self.resamples,
                "alpha": ALPHA,
                "margin": self.margin,
                "metrics": metrics,
                "notes": self._notes(sum(c.undefined is None for c in counts)),
            }
        }

    def _metric(
        self,
        classes: tuple[str, ...],
        values: np.ndarray,
        drawn: np.ndarray | None,
        counts: list[ranking.LabelCount],
    ) -> dict[str, Any]:
        per_class = {}
        for c, name in enumerate(classes):
            column = None if drawn is None else drawn[:, c]
            block = dataclasses.asdict(counts[c])
            block |= {"flag": counts[c].flag, "reason": counts[c].undefined}
            per_class[name] = block | self._difference(values[:, c], column)
        listed = self.listed(classes)
        used = [c for c in listed if counts[c].undefined is None]
        means = values[:, used].mean(axis=1) if used else np.full(2, np.nan)
        column = None if drawn is None or not used else drawn[:, used].mean(axis=1)
        mean = self._difference(means, column)
        self._judge(list(per_class.values()))
        self._judge([mean])
        mean["classes"] = [classes[c] for c in used]
        mean["reason"] = None if used else "undefined: no class has both labels"
        return {"per_class": per_class, "mean": mean}

    def _difference(
        self, values: np.ndarray, drawn: np.ndarray | None
    ) -> dict[str, Any]:
        ours, theirs = (float(v) if np.isfinite(v) else None for v in values)
        block: dict[str, Any] = {
            "ours": ours,
            "theirs": theirs,
            "value": None if ours is None else ours - theirs,
        }
        if drawn is None:
            block |= {"low": None, "high": None, "discarded": 0, "p": None}
            return block if self.margin is None else block | {"p_inferior": None}
        block |= dataclasses.asdict(bootstrap.percentile_interval(drawn))
        block["p"] = comparison.bootstrap_p(drawn)
        if self.margin is not None:
            block["p_inferior"] = comparison.superiority_p(drawn, null=-self.margin)
        return block

    def _judge(self, family: list[dict[str, Any]]) -> None:
        """Adjusted p-values, and the words that they allow."""
        tests = sum(block["p"] is not None for block in family)
        adjusted = comparison.holm([block["p"] for block in family])
        for block, p in zip(family, adjusted, strict=True):
            block["p_holm"] = p
            block["verdict"] = self._verdict(block, tests)
        if self.margin is None or not self.resamples:
            return
        adjusted = comparison.holm([block["p_inferior"] for block in family])
        for block, p in zip(family, adjusted, strict=True):
            block["p_inferior_holm"] = p
            # One-sided at half of alpha: as the lower end of the 95% interval says it.
            shown = p is not None and p <= ALPHA / 2
            block["non_inferior"] = None if p is None else shown
            if p is not None:
                block["verdict"] += (
                    f"; not inferior by more than {self.margin:g}"
                    if shown
                    else f"; non-inferiority (margin {self.margin:g}) not shown"
                )

    def _verdict(self, block: Mapping[str, Any], tests: int) -> str:
        if block["value"] is None:
            return "Undefined"
        if block["p"] is None:
            return "No interval, no claim"
        interval = f"(interval {block['low']:+.4f} to {block['high']:+.4f})"
        interval = interval.replace("-", "−")
        if self.resamples < enough(tests):
            return f"Too few resamples to tell {interval}"
        if block["p_holm"] > ALPHA:
            return f"No difference detected {interval}"
        better = self.names[0 if block["value"] > 0 else 1]
        return f"{better} is higher {interval}"

    def _check_by_delong(
        self,
        metric: dict[str, Any],
        ours: np.ndarray,
        theirs: np.ndarray,
        labels: np.ndarray,
        classes: tuple[str, ...],
    ) -> None:
        found = [
            comparison.delong(ours[:, c], theirs[:, c], labels[:, c])
            for c in range(len(classes))
        ]
        adjusted = comparison.holm([None if d is None else d.p for d in found])
        for name, test, p in zip(classes, found, adjusted, strict=True):
            block = None
            if test is not None:
                block = {k: getattr(test, k) for k in ("error", "low", "high", "p")}
                block["p_holm"] = p
            metric["per_class"][name]["delong"] = block

    def _notes(self, tests: int) -> list[str]:
        notes = list(NOTES)
        if self.margin is not None:
            notes.append(
                f"Non-inferiority: margin {self.margin:g}, named beforehand; one-sided"
                f" at {ALPHA / 2:g}, after Holm's correction over the classes."
            )
        if 0 < self.resamples < enough(tests):
            notes.append(
                f"{self.resamples} resamples are too few: after Holm's correction over"
                f" {tests} classes neither a difference nor non-inferiority can be shown"
                f" with fewer than {enough(tests)}."
            )
        return notes


def enough(tests: int) -> int:
    """Resamples below which Holm's correction over so many tests can reject nothing.

    The smallest two-sided p-value is ``2 / (R + 1)``; it has to pass ``ALPHA / tests``.
    """
    return int(np.ceil(2 * tests / ALPHA)) - 1
