"""Four simulated readers, each with a stated sensitivity and specificity per class.

A reader calls a finding of severity s with probability ``expit(a + 4 (s - 1/2))``, with
a such that the mean over the distribution of severity is the stated sensitivity: subtle
findings are missed more often. A third of the false calls are shared among readers:
films that hold a mimic (a rib crossing, a nipple shadow) mislead all of them more.
"""

import functools

import numpy as np

from cxr_jax.labels import NIH14
from data_builders.phantom_chest import prevalence
from data_builders.phantom_chest.cohort import CLASSES, Cohort, Visit, stream

NAMES = ("reader1", "reader2", "reader3", "reader4")
STEEP = 4.0
MIMIC_RATE = 0.08

# Sensitivity and specificity of a reader of average skill.
AVERAGE = {
    "Atelectasis": (0.72, 0.91),
    "Cardiomegaly": (0.86, 0.95),
    "Effusion": (0.84, 0.95),
    "Infiltration": (0.62, 0.87),
    "Mass": (0.78, 0.95),
    "Nodule": (0.58, 0.93),
    "Pneumonia": (0.60, 0.93),
    "Pneumothorax": (0.80, 0.98),
    "Consolidation": (0.72, 0.94),
    "Edema": (0.76, 0.95),
    "Emphysema": (0.70, 0.95),
    "Fibrosis": (0.62, 0.95),
    "Pleural_Thickening": (0.58, 0.95),
    "Hernia": (0.80, 0.99),
}
# Readers differ: some call more (higher sensitivity, lower specificity).
CHANGE = ((0.06, -0.02), (0.02, 0.005), (-0.03, 0.008), (-0.08, 0.009))


def stated(reader: int) -> np.ndarray:
    """``[14, 2]`` sensitivity and specificity of one of the four readers."""
    table = np.array([AVERAGE[name] for name in NIH14]) + np.array(CHANGE[reader])
    return np.clip(table, 0.02, 0.998)


@functools.cache
def _offset(sensitivity: float) -> float:
    """a such that the mean of ``expit(a + STEEP (s - 1/2))`` is the sensitivity."""
    s = prevalence.severity_of((np.arange(512) + 0.5) / 512)
    low, high = -12.0, 12.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        mean = np.mean(1 / (1 + np.exp(-(middle + STEEP * (s - 0.5)))))
        low, high = (middle, high) if mean < sensitivity else (low, middle)
    return 0.5 * (low + high)


@functools.cache
def _offsets(reader: int) -> np.ndarray:
    return np.array([_offset(round(float(p), 6)) for p in stated(reader)[:, 0]])


def detection(sensitivity: float, severity: np.ndarray) -> np.ndarray:
    """Chance that a reader of this mean sensitivity sees a finding of a severity."""
    x = _offset(round(float(sensitivity), 6)) + STEEP * (np.asarray(severity) - 0.5)
    return 1 / (1 + np.exp(-x))


def read(cohort: Cohort, visit: Visit) -> dict[str, np.ndarray]:
    """Calls of the four readers on one film: name → ``[14]`` in {0, 1}."""
    rng = stream(cohort, visit.patient.number, visit.film, "readers")
    mimic = rng.random(CLASSES) < MIMIC_RATE
    u = rng.random((len(NAMES), CLASSES))
    calls = {}
    for k, name in enumerate(NAMES):
        specificity = stated(k)[:, 1]
        x = _offsets(k) + STEEP * (visit.severity - 0.5)
        seen = 1 / (1 + np.exp(-x))
        wrong = false_call(1 - specificity, mimic)
        calls[name] = np.where(visit.severity > 0, u[k] < seen, u[k] < wrong)
    return {name: value.astype(np.uint8) for name, value in calls.items()}


def false_call(rate: np.ndarray, mimic: np.ndarray) -> np.ndarray:
    """Chance of a false call, higher on films with a mimic; the mean is ``rate``."""
    high = np.minimum(rate / 3 / MIMIC_RATE, 0.9)
    low = (rate - MIMIC_RATE * high) / (1 - MIMIC_RATE)
    return np.where(mimic, high, low)
