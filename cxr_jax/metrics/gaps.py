"""Gaps between subgroups, and whether they are beyond chance."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from cxr_jax.metrics.comparison import holm
from cxr_jax.metrics.disparity import Measured
from cxr_jax.metrics.subgroups import Contrast
from cxr_jax.metrics.sums import bounds

LEVEL = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """A difference between two groups.

    Attributes:
        value: None where it is undefined; ``reason`` says why.
        low, high: 95% interval of its own, not corrected for the other gaps.
        p: two-sided, of ``value`` over its standard error, by Student's t with
            ``patients - 1`` degrees of freedom; see ``measure_gap``.
        p_holm: corrected for all gaps of its family.
        beyond_chance: ``p_holm`` is below 0.05; None without an interval.
        patients: that the least supported of its figures rests on: positive ones for
            ``tpr``, negative ones for ``fpr``, the fewer of both for ``auroc``, all of a
            known label for ``calibration``; with a finding for ``falsely_no_finding``.
        classes: columns that a mean runs over.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    beyond_chance: bool | None = None
    discarded: int = 0
    patients: int | None = None
    classes: tuple[int, ...] = ()
    reason: str | None = None


def measure_gap(
    found: Measured, name: str, contrast: Contrast, *, columns: Sequence[int] | None
) -> Gap:
    """The difference between two groups, of the mean over some classes.

    A rate near 0 or 1 in ten patients hardly varies between resamples, and would make any
    gap certain. Hence the standard error is at least the one with a common variance per
    patient, ``v (1 / n_a + 1 / n_b)``, as if there were no gap, and p is Student's.

    Args:
        found: of all groups.
        name: of the measure.
        contrast: which two.
        columns: classes of the mean, of which those that either group lacks are left
            out; one class for its own gap; None for a measure of films.

    Returns:
        The gap, without the correction, which needs all gaps: ``correct``.
    """
    measure, pair = found.measures[name], [contrast.group, contrast.against]
    value = measure.value[pair[0]] - measure.value[pair[1]]
    drawn = measure.drawn[:, pair].astype(np.float64)
    used: tuple[int, ...] = ()
    if columns is not None:
        used = tuple(c for c in columns if np.isfinite(value[c]))
        value = value[list(used)].mean() if used else np.nan
        drawn = drawn[..., list(used)].mean(axis=-1) if used else drawn[..., 0]
    if not np.isfinite(value):
        return Gap(value=None, reason="suppressed or undefined in one of both")
    patients = measure.patients[pair]
    if columns is not None:
        patients = patients[:, list(used)].min(axis=1)
    ends = bounds(drawn[:, 0] - drawn[:, 1])
    return Gap(
        value=float(value),
        low=ends.low,
        high=ends.high,
        p=_p(float(value), drawn[np.isfinite(drawn).all(axis=1)], patients),
        discarded=ends.discarded,
        patients=int(patients.min()),
        classes=used,
    )


def correct(gaps: Sequence[Gap]) -> list[Gap]:
    """Holm's correction over one family of gaps; those without a p are not counted."""
    adjusted = holm([gap.p for gap in gaps])
    return [
        dataclasses.replace(
            gap, p_holm=p, beyond_chance=None if p is None else bool(p < LEVEL)
        )
        for gap, p in zip(gaps, adjusted, strict=True)
    ]


def _p(value: float, drawn: np.ndarray, patients: np.ndarray) -> float | None:
    """None where resamples do not vary, or are missing.

    Args:
        value: of the gap.
        drawn: ``[R, 2]``, both groups on each resample.
        patients: int ``[2]``, that they rest on.
    """
    if len(drawn) < 2 or not drawn.std(axis=0).any():
        return None
    own = drawn.var(axis=0, ddof=1) * patients  # of one patient, so to speak
    common = (own @ patients) / patients.sum() * (1 / patients).sum()
    apart = (drawn[:, 0] - drawn[:, 1]).var(ddof=1)
    least = patients.min()
    error = np.sqrt(max(common, apart) * least / (least - 1))
    return float(2 * student.sf(abs(value) / error, df=least - 1))
