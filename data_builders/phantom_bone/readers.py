"""Six simulated readers of studies, each with a stated sensitivity and specificity.

A reader calls an abnormal study whose worst abnormality has severity s with probability
``expit(a + 4 (s - 1/2))``, with a such that the mean over abnormal studies is the stated
sensitivity: subtle abnormalities are missed more often, by all readers alike. Given the
severity readers are independent, and so are their false calls on normal studies.
"""

import functools

import numpy as np

from data_builders.phantom_bone import cohort as cohorts
from data_builders.phantom_bone.cohort import Cohort, Study

# Name → sensitivity, specificity.
READERS = {
    "reader1": (0.90, 0.93),
    "reader2": (0.87, 0.96),
    "reader3": (0.84, 0.91),
    "reader4": (0.92, 0.89),
    "reader5": (0.81, 0.95),
    "reader6": (0.86, 0.92),
}
STEEP = 4.0


def worst_severities(ease: float, *, points: int = 512) -> np.ndarray:
    """Quantiles of the worst severity of an abnormal study.

    With n kinds of severities ``u^ease`` each, ``P(worst < x) = x^(n / ease)``; n follows
    the chances of the kinds, given that one occurs.
    """
    counts = np.ones(1)
    for q in cohorts.kind_chances():
        counts = np.convolve(counts, (1 - q, q))
    share = counts[1:] / counts[1:].sum()
    x = np.linspace(0, 1, 4001)
    below = sum(w * x ** ((n + 1) / ease) for n, w in enumerate(share))
    return np.interp((np.arange(points) + 0.5) / points, below, x)


@functools.cache
def offset(sensitivity: float, ease: float) -> float:
    """a such that the mean of ``expit(a + STEEP (s - 1/2))`` is the sensitivity."""
    s = worst_severities(ease)
    low, high = -15.0, 15.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        mean = np.mean(1 / (1 + np.exp(-(middle + STEEP * (s - 0.5)))))
        low, high = (middle, high) if mean < sensitivity else (low, middle)
    return 0.5 * (low + high)


def chance(reader: str, study: Study, ease: float) -> float:
    """Probability that a reader calls a study abnormal."""
    sensitivity, specificity = READERS[reader]
    if not study.abnormal:
        return 1 - specificity
    x = offset(sensitivity, ease) + STEEP * (study.worst - 0.5)
    return float(1 / (1 + np.exp(-x)))


def read(cohort: Cohort, study: Study) -> dict[str, int]:
    """Calls of the six readers on one study: name → 0 or 1."""
    key = (study.patient, study.order, cohorts.STUDY, "readers")
    u = cohorts.stream(cohort, *key).random(len(READERS))
    return {
        name: int(draw < chance(name, study, cohort.ease))
        for name, draw in zip(READERS, u, strict=True)
    }
