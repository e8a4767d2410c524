"""From scores to probabilities: Platt scaling, and prevalences of other sites.

All of it acts on the logit of the probability, ``log p / (1 - p)`` in float64, so that a
table of probabilities is all that is needed.
"""

import dataclasses

import numpy as np
from scipy import optimize
from scipy.special import expit, logit

from cxr_jax.errors import DataError
from cxr_jax.metrics.ranking import FEW, FEW_POSITIVE_PATIENTS, LabelCount

UNCALIBRATED = "score, uncalibrated"
# Between this and its complement float32 tells probabilities apart on both sides.
SMALLEST = 2.0**-24
_Z95 = 1.959963984540054


@dataclasses.dataclass(frozen=True, kw_only=True)
class Platt:
    """A map from the logit of a score to the logit of a probability.

    Attributes:
        slope: None where nothing was fitted.
        intercept: None where nothing was fitted.
        temperature: T of the map ``logit / T`` without an intercept, for comparison; None
            where it does not exist. Of no use after oversampling: it cannot shift.
        prevalence: share of positives among the films it was fitted on, None without any.
        n: films with a known label.
        positives: films labelled positive.
        positive_patients: patients with at least one such film.
        smoothed: the labels were separable, so Platt's smoothed targets were used.
        reason: why nothing was fitted, or None.
    """

    slope: float | None
    intercept: float | None
    temperature: float | None = None
    prevalence: float | None
    n: int
    positives: int
    positive_patients: int
    smoothed: bool = False
    reason: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Calibration slope and intercept, measured; 1 and 0 are perfect.

    Attributes:
        slope: below 1: probabilities too extreme.
        slope_low, slope_high: 95% interval.
        intercept: at the fitted slope.
        intercept_low, intercept_high: 95% interval.
        in_the_large: intercept at slope 1; above 0: probabilities too low throughout.
        reason: why the fields are None, or None.
    """

    slope: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    intercept: float | None = None
    intercept_low: float | None = None
    intercept_high: float | None = None
    in_the_large: float | None = None
    reason: str | None = None


def logits_of(probs: np.ndarray) -> np.ndarray:
    """``log p / (1 - p)`` in float64, kept finite: p within [2⁻²⁴, 1 - 2⁻²⁴].

    Beyond that, ±16.6 in logits, a float32 table of probabilities knows no difference.
    """
    probs = np.asarray(probs, dtype=np.float64)
    return logit(np.clip(probs, SMALLEST, 1 - SMALLEST))


def fit_platt(probs: np.ndarray, labels: np.ndarray, *, count: LabelCount) -> Platt:
    """Fits ``P(y = 1) = σ(slope · logit(p) + intercept)`` by maximum likelihood.

    Args:
        probs: ``[N]`` in [0, 1], of one class.
        labels: ``[N]`` in {0, 1} or NaN (left out).
        count: of this class, with its patients.

    Returns:
        The map; not fitted, with the reason, where fewer than 20 patients are positive,
        one label is missing, or the score does not rise with the label.

    Reference: Platt, Probabilistic outputs for support vector machines, in Advances in
    Large Margin Classifiers (1999).
    Deviation: Platt's smoothed targets, (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2), only where
    the labels are separable and the likelihood has no maximum; elsewhere the labels
    themselves, so that the mean probability equals the prevalence.
    """
    known = np.isfinite(labels)
    x, y = logits_of(probs[known]), labels[known].astype(np.float64)
    found = {
        "prevalence": float(y.mean()) if len(y) else None,
        "n": count.n,
        "positives": count.positives,
        "positive_patients": count.positive_patients,
    }
    reason = count.undefined
    if reason is None and count.positive_patients < FEW_POSITIVE_PATIENTS:
        reason = FEW
    if reason is None and np.ptp(x) == 0:
        reason = "all scores are equal"
    if reason is None and x[y == 1].mean() <= x[y == 0].mean():
        reason = "the score does not rise with the label"
    if reason is not None:
        return Platt(
            slope=None, intercept=None, reason=f"{UNCALIBRATED}: {reason}", **found
        )
    smoothed = bool(x[y == 1].min() >= x[y == 0].max())
    target = _smooth(y) if smoothed else y
    slope, intercept = _maximise(np.stack([x, np.ones_like(x)], 1), target)
    (inverse,) = _maximise(x[:, None], target)
    return Platt(
        slope=float(slope),
        intercept=float(intercept),
        temperature=float(1 / inverse) if inverse > 0 else None,
        smoothed=smoothed,
        **found,
    )


def apply_platt(probs: np.ndarray, platt: Platt) -> np.ndarray | None:
    """``σ(slope · logit(p) + intercept)``, float64; None where nothing was fitted."""
    if platt.slope is None or platt.intercept is None:
        return None
    return expit(platt.slope * logits_of(probs) + platt.intercept)


def reweight(
    probs: np.ndarray,
    from_prevalence: float | np.ndarray,
    to_prevalence: float | np.ndarray,
) -> np.ndarray:
    """Probabilities for a site where the finding is rarer or more frequent.

    The odds are multiplied by ``(π' / (1 - π')) / (π / (1 - π))``: films of each label
    are assumed to look alike at both sites, only their shares differ (label shift).

    Args:
        probs: calibrated, in [0, 1], at ``from_prevalence``.
        from_prevalence: π in (0, 1), of the films that calibration was fitted on; a number
            or one per class (last axis).
        to_prevalence: π' in (0, 1), likewise.

    Returns:
        float64, the shape of ``probs``.

    Raises:
        DataError: a prevalence outside (0, 1).

    Reference: Saerens, Latinne and Decaestecker, Neural Computation 14 (2002), eq. 2.4.
    """
    old, new = (np.asarray(p, np.float64) for p in (from_prevalence, to_prevalence))
    for value in (old, new):
        if not ((value > 0) & (value < 1)).all():
            raise DataError(
                f"a prevalence of {value} was given; allowed is a share between 0 and 1,"
                " both excluded, such as 0.0128"
            )
    ratio = new / (1 - new) * (1 - old) / old
    probs = np.asarray(probs, np.float64)
    weighted = probs * ratio
    return weighted / (weighted + (1 - probs))


def measure_spread(probs: np.ndarray, labels: np.ndarray, units: np.ndarray) -> Spread:
    """Calibration slope and intercept: ``logit P(y = 1) = intercept + slope · logit(p)``.

    Intervals are ±1.96 robust standard errors, ``H⁻¹ (Σ_u s_u s_uᵀ) H⁻¹`` with the score
    vectors s summed over the films of each patient u.

    Args:
        probs: ``[N]`` in [0, 1], as they are to be judged.
        labels: ``[N]`` in {0, 1} or NaN (left out).
        units: int ``[N]``, the patient of each film.

    Returns:
        The measurement, or its reason for being none.

    Reference: Cox, Biometrika 45 (1958); Van Calster et al., J Clin Epidemiol 74 (2016).
    """
    known = np.isfinite(labels)
    x, y = logits_of(probs[known]), labels[known].astype(np.float64)
    if len(np.unique(y)) < 2:
        return Spread(reason="undefined: one label only")
    if np.ptp(x) == 0:
        return Spread(reason="undefined: all scores are equal")
    above = x[y == 1].min() >= x[y == 0].max()
    if above or x[y == 0].min() >= x[y == 1].max():
        return Spread(reason="undefined: the labels are separable")
    design = np.stack([x, np.ones_like(x)], axis=1)
    found = _maximise(design, y)
    p = expit(design @ found)
    bread = np.linalg.inv((design * (p * (1 - p))[:, None]).T @ design)
    _, unit = np.unique(units[known], return_inverse=True)
    score = np.zeros((unit.max() + 1, 2))
    np.add.at(score, unit, design * (y - p)[:, None])
    reach = _Z95 * np.sqrt(np.diag(bread @ (score.T @ score) @ bread))
    low, high = found - reach, found + reach
    return Spread(
        slope=float(found[0]),
        slope_low=float(low[0]),
        slope_high=float(high[0]),
        intercept=float(found[1]),
        intercept_low=float(low[1]),
        intercept_high=float(high[1]),
        in_the_large=float(_maximise(np.ones_like(x)[:, None], y, offset=x)[0]),
    )


def _smooth(labels: np.ndarray) -> np.ndarray:
    positives = labels.sum()
    negatives = len(labels) - positives
    return np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _maximise(
    design: np.ndarray, target: np.ndarray, *, offset: np.ndarray | float = 0.0
) -> np.ndarray:
    """The maximum of the mean Bernoulli log-likelihood, ``logit P = design · w + offset``.

    Args:
        design: float64 ``[N, K]``.
        target: float64 ``[N]`` in [0, 1].
        offset: added, without a weight.
    """

    def loss(w: np.ndarray) -> float:
        z = design @ w + offset
        return float(np.mean(np.logaddexp(0, z) - target * z))

    def slope(w: np.ndarray) -> np.ndarray:
        return design.T @ (expit(design @ w + offset) - target) / len(target)

    def curve(w: np.ndarray) -> np.ndarray:
        p = expit(design @ w + offset)
        return (design * (p * (1 - p) / len(target))[:, None]).T @ design

    start = np.zeros(design.shape[1])
    found = optimize.minimize(
        loss, start, jac=slope, hess=curve, method="trust-exact", options={"gtol": 1e-9}
    ).x
    # Where the loss is flat to the last digit, Newton's own steps still gain on it.
    for _ in range(3):
        found = found - np.linalg.solve(curve(found), slope(found))
    return found
