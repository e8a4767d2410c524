"""A worklist in order of suspicion: what it moves ahead, and what it would miss."""

import dataclasses

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """Where positive cases stand in a list ordered by falling score.

    Attributes:
        mean: of their ranks, 1 for the head of the list; None without a positive.
        chance: what a list in any order would give, (n + 1) / 2.
        best: what a perfect list would give.
    """

    mean: float | None
    chance: float
    best: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Missed:
    """Positive cases below a threshold.

    Attributes:
        count: of them.
        below: cases below the threshold.
        upper: upper end of the one-sided exact 95% interval of ``count / below``; None
            where nothing is below.
    """

    count: int
    below: int
    upper: float | None


def ranks(scores: np.ndarray, labels: np.ndarray) -> Ranks:
    """Ranks of the positive cases; equal scores share the mean of their ranks.

    With A positives, N negatives and the AUROC, the mean rank is
    ``1 + (A - 1) / 2 + N (1 - AUROC)``.

    Args:
        scores: ``[n]``.
        labels: ``[n]`` in {0, 1}; NaN is in the list, and neither.
    """
    positive = labels == 1
    found = stats.rankdata(-np.asarray(scores, np.float64))[positive]
    count = int(positive.sum())
    return Ranks(
        mean=float(found.mean()) if count else None,
        chance=(len(scores) + 1) / 2,
        best=(count + 1) / 2 if count else None,
    )


def missed(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Missed:
    """What a threshold would leave unread, were nobody to read what is below it.

    Args:
        scores: ``[n]``.
        labels: ``[n]`` in {0, 1}, NaN left out.
        threshold: a case is called where its score is at least this.

    Reference: Clopper and Pearson, Biometrika 26 (1934).
    """
    below = (scores < threshold) & np.isfinite(labels)
    count, total = int((labels[below] == 1).sum()), int(below.sum())
    upper = None
    if total:
        upper = (
            1.0 if count == total else stats.beta.ppf(0.95, count + 1, total - count)
        )
    return Missed(
        count=count, below=total, upper=None if upper is None else float(upper)
    )
