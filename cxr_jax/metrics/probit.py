"""The pooled-probit reader curve: one ROC through the points of several readers.

The mean of points on a concave curve lies below it: averaging sensitivity and
specificity makes readers look worse than each of them is. Averaged after the probit
transform, readers on one binormal curve of unit slope stay on it, wherever each of them
put the threshold.
"""

import numpy as np
from scipy.special import ndtr, ndtri

from cxr_jax.metrics.agreement import weighted_mean


def separation(counts: np.ndarray, *, drawn: np.ndarray | None = None) -> np.ndarray:
    """d' of the panel: the mean over readers of ``z(sensitivity) - z(1 - specificity)``.

    z is the inverse of the normal distribution function. A rate of 0 or 1 over n films
    is taken as 1/(2n) or 1 - 1/(2n). The slope is fixed at 1: a handful of points does
    not determine it.

    Args:
        counts: outcomes of each reader, ``[…, R, C, 4]``.
        drawn: ``[…, R]``, how often each reader was drawn; once each where None.

    Returns:
        ``[…, C]``; NaN where a reader's reference lacks one of both labels.

    Reference: Macmillan and Kaplan, Psychological Bulletin 98 (1985), on group data.
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    each = _probit(tp, tp + fn) - _probit(fp, fp + tn)
    drawn = np.ones(each.shape[-2]) if drawn is None else drawn
    return weighted_mean(each, drawn)


def area(separation: np.ndarray) -> np.ndarray:
    """Area under the curve, ``Φ(d' / √2)``."""
    return ndtr(separation / np.sqrt(2))


def sensitivity_at(separation: float, false_positives: np.ndarray) -> np.ndarray:
    """The curve itself: ``Φ(d' + z(1 - specificity))``.

    Args:
        separation: d'.
        false_positives: 1 - specificity, in [0, 1].
    """
    return ndtr(separation + ndtri(np.asarray(false_positives, dtype=np.float64)))


def _probit(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    some = np.where(whole > 0, whole, np.nan)
    return ndtri(np.clip(part / some, 0.5 / some, 1 - 0.5 / some))
