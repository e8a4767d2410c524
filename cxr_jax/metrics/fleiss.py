"""Fleiss' kappa: agreement of many readers beyond chance.

It follows from sums over films alone, so that a resample's kappa follows from weighted
sums.
"""

import numpy as np


def terms(counts: np.ndarray) -> np.ndarray:
    """What each film adds to the sums that kappa follows from.

    Args:
        counts: ``[…, K]``, how many readers chose each of K categories.

    Returns:
        float ``[…, K + 2]``: 1, the share P_i of pairs of readers that agree, and the
        share of readers in each category; all 0 for films with fewer than two readers.
    """
    counts = np.asarray(counts, dtype=np.float64)
    readers = counts.sum(axis=-1, keepdims=True)
    used = readers >= 2
    pairs = np.where(used, readers * (readers - 1), 1)
    agree = (counts * (counts - 1)).sum(axis=-1, keepdims=True) / pairs
    shares = counts / np.where(used, readers, 1)
    found = np.concatenate([np.ones_like(agree), agree, shares], axis=-1)
    return np.where(used, found, 0)


def kappa(sums: np.ndarray) -> np.ndarray:
    """Fleiss' kappa, ``(P - P_e) / (1 - P_e)``.

    P is the mean of P_i over films, and P_e = Σ_k p_k² with p_k the mean share of
    category k. With the same number of readers on every film this is Fleiss' of 1971;
    where readers are missing, the pairs of those present count, and every film counts
    the same.

    Args:
        sums: of ``terms`` over films, ``[…, K + 2]``.

    Returns:
        ``[…]``; NaN without a film, or where all calls are of one category.

    Reference: Fleiss, Psychological Bulletin 76 (1971); for missing calls, Gwet, Handbook
    of Inter-Rater Reliability, 4th edition (2014), chapter 2.
    """
    sums = np.asarray(sums, dtype=np.float64)
    films = sums[..., 0]
    some = np.where(films > 0, films, 1)
    agree, shares = sums[..., 1] / some, sums[..., 2:] / some[..., None]
    chance = (shares**2).sum(axis=-1)
    # Rounding must not turn unanimity into a quotient of two dusts.
    beyond = np.where((films > 0) & (1 - chance > 1e-9), 1 - chance, np.nan)
    return (agree - chance) / beyond


def binary_counts(calls: np.ndarray) -> np.ndarray:
    """Readers who called each film negative and positive.

    Args:
        calls: ``[N, R, C]`` in {0, 1} or NaN.

    Returns:
        ``[N, C, 2]``.
    """
    return np.stack([(calls == 0).sum(axis=1), (calls == 1).sum(axis=1)], axis=-1)
