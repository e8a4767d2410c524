"""Do probabilities mean what they say? Reliability, ECE and Brier score of one class."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reliability:
    """A reliability curve over equal-mass bins, in rising order of probability.

    Attributes:
        confidence: float64 ``[K]``, mean predicted probability in the bin.
        frequency: float64 ``[K]``, share of positives in the bin.
        count: int ``[K]``, films in the bin.
    """

    confidence: np.ndarray
    frequency: np.ndarray
    count: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration of one class.

    Attributes:
        n: films with a known label.
        prevalence: share of positives.
        ece: expected calibration error in [0, 1].
        brier: mean squared error in [0, 1].
        brier_skill: 1 - brier / (prevalence · (1 - prevalence)); None if one label only.
        reliability: the curve.
    """

    n: int
    prevalence: float
    ece: float
    brier: float
    brier_skill: float | None
    reliability: Reliability


def reliability(
    probs: np.ndarray, labels: np.ndarray, *, bins: int = 15
) -> Reliability:
    """Mean probability against observed frequency, in bins of equal mass.

    Equal probabilities always share a bin, so the curve does not depend on the order of films;
    with ties, bins can be fewer and less equal than asked for.

    Args:
        probs: ``[N]`` in [0, 1].
        labels: ``[N]`` in {0, 1} or NaN (left out); at least one known.
        bins: number of bins asked for.

    Returns:
        The curve, at most ``bins`` points.
    """
    known = np.isfinite(labels)
    probs = probs[known].astype(np.float64)
    labels = labels[known].astype(np.float64)
    ranked = np.sort(probs)
    starts = (np.arange(1, bins) * len(ranked)) // bins
    bin_of = np.searchsorted(np.unique(ranked[starts]), probs, side="right")
    _, bin_of, count = np.unique(bin_of, return_inverse=True, return_counts=True)
    return Reliability(
        confidence=np.bincount(bin_of, weights=probs) / count,
        frequency=np.bincount(bin_of, weights=labels) / count,
        count=count,
    )


def measure_calibration(
    probs: np.ndarray, labels: np.ndarray, *, bins: int = 15
) -> Calibration | None:
    """Measures calibration: ``ECE = Σ_b n_b / N · |p̄_b - ȳ_b|``, ``Brier = mean (p - y)²``.

    Args:
        probs: ``[N]`` in [0, 1].
        labels: ``[N]`` in {0, 1} or NaN (left out).
        bins: equal-mass bins of the ECE.

    Returns:
        The figures, or None where no label is known.

    Reference: Naeini et al., AAAI 2015 (ECE); Brier 1950.
    Deviation: bins of equal mass, not of equal width: at a prevalence of 1% nearly all films
    would fall into the first of equal width.
    """
    known = np.isfinite(labels)
    if not known.any():
        return None
    curve = reliability(probs, labels, bins=bins)
    gap = np.abs(curve.confidence - curve.frequency)
    truth = labels[known].astype(np.float64)
    brier = float(np.mean((probs[known].astype(np.float64) - truth) ** 2))
    prevalence = float(truth.mean())
    chance = prevalence * (1 - prevalence)
    return Calibration(
        n=int(known.sum()),
        prevalence=prevalence,
        ece=float(np.sum(curve.count * gap) / curve.count.sum()),
        brier=brier,
        brier_skill=1 - brier / chance if chance > 0 else None,
        reliability=curve,
    )
