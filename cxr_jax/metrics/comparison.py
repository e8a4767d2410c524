"""Is one set of scores better than another on the same films? Differences, with their doubt.

The patient bootstrap carries the claim: both sets are ranked on the same resampled
patients. DeLong's test looks at films as if they were independent; it is a check.
"""

import dataclasses
import math

import jax
import numpy as np
from scipy import stats

from cxr_jax.metrics import bootstrap


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedResamples:
    """Metrics of two sets of scores on the same resamples, side by side.

    Attributes:
        ours: metrics of the first set; NaN where a resample holds one label only.
        theirs: of the second, on the same patients.
    """

    ours: bootstrap.Resampled
    theirs: bootstrap.Resampled

    def difference(self, metric: str) -> np.ndarray:
        """float64 ``[R, C]``, ours - theirs; ``metric`` is a field of ``Resampled``."""
        ours, theirs = (
            np.asarray(getattr(r, metric), np.float64) for r in (self.ours, self.theirs)
        )
        return ours - theirs


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeLong:
    """DeLong's comparison of two AUROCs on the same films.

    Attributes:
        ours: AUROC of the first scores.
        theirs: AUROC of the second.
        error: standard error of the difference.
        low: lower end of the 95% interval of ``ours - theirs``.
        high: upper end.
        p: two-sided, of no difference.
    """

    ours: float
    theirs: float
    error: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    key: jax.Array,
    ours: np.ndarray,
    theirs: np.ndarray,
    labels: np.ndarray,
    units: bootstrap.Units,
    *,
    resamples: int,
    chunk: int = 512,
) -> PairedResamples:
    """Both sets of scores on the same resampled patients, all classes in one computation.

    With the same key the patients are those of ``bootstrap.bootstrap`` on one set alone:
    the first half of what comes back equals that set's own intervals' resamples.

    Args:
        key: of the whole bootstrap.
        ours: ``[N, C]``, finite.
        theirs: ``[N, C]``, finite.
        labels: ``[N, C]`` in {0, 1} or NaN.
        units: what is drawn.
        resamples: R, how many.
        chunk: resamples held in memory together.

    Returns:
        The metrics of both, ``[R, C]`` each.
    """
    both = bootstrap.bootstrap(
        key,
        np.concatenate([ours, theirs], axis=1),
        np.concatenate([labels, labels], axis=1),
        units,
        resamples=resamples,
        chunk=chunk,
    )
    count = ours.shape[1]
    return PairedResamples(
        ours=jax.tree.map(lambda x: x[:, :count], both),
        theirs=jax.tree.map(lambda x: x[:, count:], both),
    )


def bootstrap_p(differences: np.ndarray, *, null: float = 0.0) -> float | None:
    """The two-sided p-value that belongs to a percentile interval.

    ``p = 2 min(#{d ≤ null} + 1, #{d ≥ null} + 1) / (R + 1)``, at most 1: it is below
    0.05 where the 95% interval leaves out ``null``, up to one resample.

    Args:
        differences: ``[R]``, NaN where a resample is undefined.
        null: the difference that is to be refuted.

    Returns:
        The p-value, None where every resample is undefined.

    Reference: Davison and Hinkley, Bootstrap Methods and their Application (1997), §4.2
    (the added one) and §5.4 (tests from intervals).
    """
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return None
    tail = min((defined <= null).sum(), (defined >= null).sum()) + 1
    return min(1.0, 2 * float(tail) / (len(defined) + 1))


def superiority_p(differences: np.ndarray, *, null: float) -> float | None:
    """The one-sided p-value of "not above ``null``": ``(#{d ≤ null} + 1) / (R + 1)``.

    Args:
        differences: ``[R]``, NaN where a resample is undefined.
        null: such as minus the margin of non-inferiority.

    Returns:
        The p-value, None where every resample is undefined.
    """
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return None
    return float((defined <= null).sum() + 1) / (len(defined) + 1)


def holm(p_values: list[float | None]) -> list[float | None]:
    """Holm's adjusted p-values: ``p̃₍ᵢ₎ = max over j ≤ i of min(1, (m - j + 1) p₍ⱼ₎)``.

    Args:
        p_values: of m tests; None where there is none, which is not counted in m.

    Returns:
        The adjusted values, in the same order: at most α exactly where Holm's procedure
        rejects at a family-wise level of α.

    Reference: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    known = [(p, k) for k, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, k) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[k] = largest
    return adjusted


def delong(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray) -> DeLong | None:
    """DeLong's test of two correlated AUROCs, of one class, in O(N log N).

    With midranks T among all films and T⁺, T⁻ among those of one label, the placements
    are ``V⁺ᵢ = (Tᵢ - T⁺ᵢ) / n`` and ``V⁻ⱼ = 1 - (Tⱼ - T⁻ⱼ) / m`` for m positive and n
    negative films; the AUROC is their mean, and the difference has the variance
    ``var(V⁺ - W⁺) / m + var(V⁻ - W⁻) / n``.

    Args:
        ours: ``[N]``, finite.
        theirs: ``[N]``, finite.
        labels: ``[N]`` in {0, 1} or NaN (left out).

    Returns:
        The comparison; None with fewer than two films of either label, where no variance
        can be told.

    Reference: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); Sun and Xu, IEEE
    Signal Processing Letters 21 (2014).
    Films are taken as independent: of patients with several films the error is too small.
    """
    positive, negative = labels == 1, labels == 0
    if min(positive.sum(), negative.sum()) < 2:
        return None
    (v1, v0), (w1, w0) = (_placements(s, positive, negative) for s in (ours, theirs))
    variance = np.var(v1 - w1, ddof=1) / len(v1) + np.var(v0 - w0, ddof=1) / len(v0)
    difference, error = float(v1.mean() - w1.mean()), math.sqrt(float(variance))
    half = float(stats.norm.ppf(0.975)) * error
    if error:
        p = 2 * float(stats.norm.sf(abs(difference) / error))
    else:
        p = 0.0 if difference else 1.0
    return DeLong(
        ours=float(v1.mean()),
        theirs=float(w1.mean()),
        error=error,
        low=difference - half,
        high=difference + half,
        p=p,
    )


def _placements(
    scores: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the other label's films that each film is rightly ranked against."""
    above, below = (scores[k].astype(np.float64) for k in (positive, negative))
    ranks = stats.rankdata(np.concatenate([above, below]))
    first = (ranks[: len(above)] - stats.rankdata(above)) / len(below)
    second = 1 - (ranks[len(above) :] - stats.rankdata(below)) / len(above)
    return first, second
