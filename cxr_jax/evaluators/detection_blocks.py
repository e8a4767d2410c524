"""Figures of boxes with their intervals, as ``result.json`` holds them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cxr_jax.evaluators.base import plain
from cxr_jax.metrics import bootstrap, ranking
from cxr_jax.metrics.detection import BoxList

NO_BOX = "undefined: no reference box"
# The overlap that is told where one has to do; else the one in the middle.
USUAL_OVERLAP = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Basis:
    """What the figures of some classes rest on.

    Attributes:
        counts: films and patients with a reference box, per class.
        unit: what the bootstrap draws.
    """

    counts: Mapping[str, ranking.LabelCount]
    unit: str

    @property
    def known(self) -> list[int]:
        """Classes that means run over: those with a reference box."""
        return [c for c, one in enumerate(self.counts.values()) if one.positives]

    @property
    def told(self) -> dict[str, Any]:
        """The classes of the means, and why the others are left out."""
        names = list(self.counts)
        defined = [names[c] for c in self.known]
        return {
            "classes": defined,
            "left_out": {name: NO_BOX for name in names if name not in defined},
            "reason": None if defined else NO_BOX,
        }


def count(targets: BoxList, films: int, units: bootstrap.Units) -> ranking.LabelCount:
    """Films and patients with a reference box of one class."""
    rows = np.unique(targets.film)
    return ranking.LabelCount(
        n=films,
        positives=len(rows),
        positive_patients=len(np.unique(units.patients[rows])),
    )


def shown_at(thresholds: Sequence[float]) -> float:
    """The threshold that is told where one has to do."""
    if USUAL_OVERLAP in thresholds:
        return USUAL_OVERLAP
    return thresholds[len(thresholds) // 2]


def mean(values: np.ndarray, known: Sequence[int]) -> np.ndarray:
    """``[R, C, …]`` → ``[R, …]``, over known classes; NaN where there is none."""
    if not len(known):
        return np.full((len(values), *values.shape[2:]), np.nan)
    return values[:, known].mean(axis=1)


def metric(
    values: np.ndarray, resampled: np.ndarray | None, basis: Basis
) -> dict[str, Any]:
    """Values ``[C]`` and their resamples ``[R, C]`` → per class, and their mean."""
    counts, known = basis.counts, basis.known
    told = {"resampling_unit": basis.unit}
    told["resamples"] = 0 if resampled is None else len(resampled)
    per_class = {}
    for c, (name, of) in enumerate(counts.items()):
        defined = c in known
        interval = _interval(None if resampled is None else resampled[:, c], defined)
        per_class[name] = dataclasses.asdict(
            ranking.Value(
                value=float(values[c]) if defined else None,
                low=interval.low,
                high=interval.high,
                discarded=interval.discarded,
                flag=of.flag,
                reason=None if defined else NO_BOX,
                **dataclasses.asdict(of),
                **told,
            )
        )
    means = None if resampled is None else mean(resampled, known)
    interval = _interval(means, bool(known))
    block = told | {
        "value": float(mean(values[None], known)[0]) if known else None,
        "low": interval.low,
        "high": interval.high,
        "n": max((of.n for of in counts.values()), default=0),
        "discarded": interval.discarded,
    }
    return {"per_class": per_class, "mean": block | basis.told}


def figures(
    name: str,
    values: np.ndarray,
    resampled: np.ndarray | None,
    basis: Basis,
    *,
    form: Callable[[np.ndarray], Any] = plain,
) -> dict[str, Any]:
    """Figures of which a class has several.

    Args:
        name: of the figures.
        values: ``[C, …]``; NaN where undefined.
        resampled: ``[R, C, …]``, or None.
        basis: of the classes.
        form: what becomes of the figures of one class.

    Returns:
        ``NAME``, class → its figures; ``NAME_interval``, the same at either end; and
        ``NAME_mean`` with ``value``, ``low``, ``high`` and what the mean runs over.
    """
    low, high = _ends(resampled, values.shape)
    means = None if resampled is None else mean(resampled, basis.known)
    ends = _ends(means, values.shape[1:])
    sides = {"value": mean(values[None], basis.known)[0], "low": ends[0]}
    sides |= {"high": ends[1]}

    def by_class(array: np.ndarray) -> dict[str, Any]:
        return {n: form(of) for n, of in zip(basis.counts, array, strict=True)}

    return {
        name: by_class(values),
        f"{name}_interval": {"low": by_class(low), "high": by_class(high)},
        f"{name}_mean": {k: form(of) for k, of in sides.items()} | basis.told,
    }


def _ends(
    resampled: np.ndarray | None, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of many intervals; NaN where there is none."""
    if resampled is None:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    columns = resampled.reshape(len(resampled), -1).T
    found = [bootstrap.percentile_interval(column) for column in columns]
    low, high = ([getattr(one, end) for one in found] for end in ("low", "high"))
    return np.array(low, float).reshape(shape), np.array(high, float).reshape(shape)


def _interval(resampled: np.ndarray | None, known: bool) -> bootstrap.Interval:
    if resampled is None or not known:
        return bootstrap.Interval(low=None, high=None, discarded=0)
    return bootstrap.percentile_interval(resampled)
