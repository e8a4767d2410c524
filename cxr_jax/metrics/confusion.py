"""Calls against a reference: counts of the four outcomes, and what follows from them.

Counts are additive over films, so that a resample's counts are a weighted sum. Every
function takes any leading axes, and is NaN where it is undefined: there F1 is not 0.
"""

import numpy as np

OUTCOMES = ("true positive", "false positive", "false negative", "true negative")


def outcomes(calls: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Which of the four outcomes each call is.

    Args:
        calls: in {0, 1}, NaN where there is none.
        reference: in {0, 1}, NaN where there is none; broadcast against ``calls``.

    Returns:
        bool ``[…, 4]`` in the order of ``OUTCOMES``; all False where either is NaN.
    """
    known = np.isfinite(calls) & np.isfinite(reference)
    said, true = calls == 1, reference == 1
    pairs = (said & true, said & ~true, ~said & true, ~said & ~true)
    return np.stack([known & pair for pair in pairs], axis=-1)


def sensitivity(counts: np.ndarray) -> np.ndarray:
    """TP / (TP + FN); NaN without a positive in the reference."""
    tp, _, fn, _ = _split(counts)
    return ratio(tp, tp + fn)


def specificity(counts: np.ndarray) -> np.ndarray:
    """TN / (TN + FP); NaN without a negative in the reference."""
    _, fp, _, tn = _split(counts)
    return ratio(tn, tn + fp)


def f1(counts: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN); NaN without a positive in the reference or the calls."""
    tp, fp, fn, _ = _split(counts)
    return ratio(2 * tp, 2 * tp + fp + fn)


def kappa(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa, (p_o - p_e) / (1 - p_e); NaN where chance alone agrees always.

    For two categories this is
    ``2 (TP·TN - FP·FN) / ((TP + FP)(FP + TN) + (TP + FN)(FN + TN))``.

    Reference: Cohen, Educational and Psychological Measurement 20 (1960).
    """
    tp, fp, fn, tn = _split(counts)
    chance = (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)
    return ratio(2 * (tp * tn - fp * fn), chance)


METRICS = {
    "sensitivity": sensitivity,
    "specificity": specificity,
    "f1": f1,
    "kappa": kappa,
}
# Why one of them is NaN.
UNDEFINED = {
    "sensitivity": "undefined: no positive in the reference",
    "specificity": "undefined: no negative in the reference",
    "f1": "undefined: no positive in the reference or the calls",
    "kappa": "undefined: reference and calls have one and the same value only",
}


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """``above / below`` in float64, broadcast; NaN where ``below`` is not above 0."""
    above, below = np.broadcast_arrays(
        np.asarray(above, np.float64), np.asarray(below, np.float64)
    )
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


def _split(counts: np.ndarray) -> tuple[np.ndarray, ...]:
    counts = np.asarray(counts, dtype=np.float64)
    return tuple(counts[..., k] for k in range(4))
