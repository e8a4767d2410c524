"""Sex, age, view and their intersections: does the model serve all alike?"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.evaluators.probabilities import NOTHING_FROZEN, frozen_platt, in_sample
from cxr_jax.metrics import disparity, gaps, scaling, subgroups
from cxr_jax.metrics.disparity import MISSED, PER_CLASS, Calls, Measured
from cxr_jax.metrics.gaps import Gap
from cxr_jax.metrics.subgroups import Contrast, Group
from cxr_jax.metrics.sums import bounds, bounds_of_rate
from cxr_jax.predictions import Predictions

# Further axes: what is observed of films under this prefix, as text.
GROUP = "group/"
SUPPRESSED = f"suppressed: fewer than {disparity.FEWEST_PATIENTS} positive patients"
NO_NEGATIVES = f"suppressed: fewer than {disparity.FEWEST_PATIENTS} negative patients"
NO_FINDINGS = (
    f"suppressed: fewer than {disparity.FEWEST_PATIENTS} patients with a finding"
)
NO_THRESHOLD = "no threshold"
WORDS = {
    "auroc": "AUROC",
    "tpr": "true positive rate at the frozen threshold",
    "fpr": "false positive rate at the frozen threshold",
    "calibration": "mean calibrated probability less the frequency",
    MISSED: "films with a finding of which no class is called, of all with a finding",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subgroups(Evaluator):
    """Figures of each group, and gaps between groups.

    Judged against the true state where it is known, else against the labels. Gaps are in
    two families, means over classes and single classes; Holm's correction runs over all
    gaps of a family, whatever their axis and measure.

    Attributes:
        point: the frozen operating point at which films are called.
        crossed: most axes in an intersection.
    """

    point: str = "youden"
    crossed: int = 3
    requires: ClassVar[tuple[str, ...]] = ("probs", "labels")

    def calls_at(self) -> str:
        """The point of the rates at a threshold."""
        return self.point

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """The block ``subgroups``; none where neither age, sex nor view is known."""
        frozen = frozen or {}
        axes = subgroups.make_axes(
            sex=predictions.sex,
            age=predictions.age,
            view=predictions.view,
            more={
                name.removeprefix(GROUP): column
                for name, column in predictions.observed.items()
                if name.startswith(GROUP)
            },
        )
        if not axes:
            return {}
        groups = subgroups.make_groups(axes, crossed=self.crossed)
        contrasts = subgroups.make_contrasts(axes, groups)
        calls = self._calls(predictions, frozen)
        found = disparity.measure_groups(
            calls, groups, key=jax.random.key(self.seed), resamples=self.resamples
        )
        classes = predictions.classes
        differences, families = self._gaps(found, contrasts, classes)
        thresholds = frozen.get("operating_points")
        return {
            "subgroups": {
                "reference": "labels" if predictions.truth is None else "truth",
                "operating_point": self.point,
                "reason": None if thresholds else NOTHING_FROZEN,
                "in_sample": in_sample(predictions, frozen),
                "never_called": [
                    name
                    for name, threshold in zip(classes, calls.thresholds, strict=True)
                    if np.isnan(threshold)
                ],
                "resampling_unit": calls.units.name,
                "resamples": self.resamples,
                "measures": WORDS,
                "axes": {
                    axis.name: {"levels": axis.levels, "reference": axis.reference}
                    for axis in axes
                },
                "age_bands": "whole years; unknown: not known, below 0 or above 120",
                "groups": {
                    group.name: _group(group, g, found, calls, classes)
                    for g, group in enumerate(groups)
                },
                "gaps": differences,
                "multiplicity": families,
            }
        }

    def _calls(self, predictions: Predictions, frozen: Mapping[str, Any]) -> Calls:
        points = frozen.get("operating_points") or {}
        thresholds = [
            points.get(name, {}).get(self.point, {}).get("threshold")
            for name in predictions.classes
        ]
        platt = frozen_platt(frozen, predictions.classes)
        probs = np.full(predictions.probs.shape, np.nan)
        for c, name in enumerate(predictions.classes):
            if name in platt and platt[name].slope is not None:
                probs[:, c] = scaling.apply_platt(predictions.probs[:, c], platt[name])
        truth = predictions.truth
        return Calls(
            scores=predictions.probs,
            labels=predictions.labels if truth is None else truth,
            thresholds=np.array(
                [np.nan if t is None else t for t in thresholds], np.float64
            ),
            probs=probs,
            units=units_of(predictions),
        )

    def _gaps(
        self, found: Measured, contrasts: Sequence[Contrast], classes: tuple[str, ...]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """All contrasts, and how much chance there is in so many."""
        listed, names = self.listed(classes), [*PER_CLASS, MISSED]
        means, single = {}, {}
        for k, contrast in enumerate(contrasts):
            for name in names:
                gap = functools.partial(gaps.measure_gap, found, name, contrast)
                means[k, name] = gap(columns=None if name == MISSED else listed)
                for c in range(len(classes)) if name != MISSED else ():
                    single[k, name, c] = gap(columns=[c])
        means = dict(zip(means, gaps.correct([*means.values()]), strict=True))
        single = dict(zip(single, gaps.correct([*single.values()]), strict=True))
        differences = [
            {
                "name": contrast.name,
                "axis": contrast.axis,
                "within": dict(contrast.within),
                "mean": {n: _gap(means[k, n], classes) for n in names},
                "per_class": {
                    cls: {n: _gap(single[k, n, c], ()) for n in PER_CLASS}
                    for c, cls in enumerate(classes)
                },
            }
            for k, contrast in enumerate(contrasts)
        ]
        families = {
            "mean": _family(means.values()),
            "per_class": _family(single.values()),
        }
        return differences, families


def _group(
    group: Group, g: int, found: Measured, calls: Calls, classes: tuple[str, ...]
) -> dict[str, Any]:
    support = found.with_finding[g]
    missed = _interval(found, MISSED, (g,), support.positive_patients) | {
        "films": support.positives,
        "patients": support.positive_patients,
    }
    missed["reason"] = None
    if support.positive_patients < disparity.FEWEST_PATIENTS:
        missed["reason"] = NO_FINDINGS
    elif np.isnan(calls.thresholds).all():
        missed["reason"] = NO_THRESHOLD
    return {
        "levels": dict(group.levels),
        "films": int(group.member.sum()),
        "patients": len(np.unique(calls.units.patients[group.member])),
        MISSED: missed,
        "per_class": {
            name: _class(found, g, c, called=bool(np.isfinite(calls.thresholds[c])))
            for c, name in enumerate(classes)
        },
    }


def _class(found: Measured, g: int, c: int, *, called: bool) -> dict[str, Any]:
    """Figures of one class in one group; suppressed ones give the reason alone."""
    count = found.counts[g][c]
    block: dict[str, Any] = dataclasses.asdict(count)
    if count.positive_patients < disparity.FEWEST_PATIENTS:
        return block | {"reason": SUPPRESSED}
    negatives = int(found.negative_patients[g, c])
    scarce = negatives < disparity.FEWEST_PATIENTS
    patients = {"tpr": count.positive_patients, "fpr": negatives}
    block |= {"reason": NO_NEGATIVES if scarce else None, "flag": count.flag}
    block |= {
        name: _interval(found, name, (g, c), patients.get(name, 0))
        for name in PER_CLASS
    }
    for name in ("tpr", "fpr"):
        if not called:
            block[name]["reason"] = NO_THRESHOLD
    block["mean_probability"] = found.mean_probability[g, c]
    block["frequency"] = found.frequency[g, c]
    block["ece"] = found.ece[g, c]
    if not np.isfinite(found.mean_probability[g, c]):
        block["calibration"]["reason"] = scaling.UNCALIBRATED
    return block


def _interval(
    found: Measured, name: str, at: tuple[int, ...], patients: int = 0
) -> dict[str, Any]:
    """A value with its interval; ``patients`` of a rate, which may be 0 or 1."""
    measure = found.measures[name]
    value, drawn = float(measure.value[at]), measure.drawn[(slice(None), *at)]
    ends = bounds_of_rate(value, drawn, patients) if patients else bounds(drawn)
    return {"value": value, "low": ends.low, "high": ends.high}


def _gap(gap: Gap, classes: tuple[str, ...]) -> dict[str, Any]:
    if gap.value is None:
        return {"value": None, "reason": gap.reason}
    block = dataclasses.asdict(gap)
    used = block.pop("classes")
    if classes and used:
        block["classes"] = [classes[c] for c in used]
    return block


def _family(found: Iterable[Gap]) -> dict[str, Any]:
    """How many gaps were looked at, and how many say something."""
    tested = [gap for gap in found if gap.p is not None]
    apart = [g for g in tested if g.low is not None and (g.low > 0 or g.high < 0)]
    return {
        "gaps": len(tested),
        "intervals_without_0": len(apart),
        "expected_by_chance": round(gaps.LEVEL * len(tested), 1),
        "beyond_chance": sum(bool(gap.beyond_chance) for gap in tested),
        "method": f"Holm over all gaps of the family, level {gaps.LEVEL}; Student's"
        " t of the gap over its bootstrap standard error, by the patients of the smaller"
        " support",
    }
