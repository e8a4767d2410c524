"""Ranks and misses of a worklist, against formulas and exhaustive counting."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from cxr_jax.metrics import triage


def test_the_mean_rank_follows_from_the_auroc():
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = rng.integers(0, 2, 40).astype(float)
        labels[:2] = 0, 1
        scores = rng.integers(0, 12, 40) / 12  # with ties
        found = triage.ranks(scores, labels)
        a = int(labels.sum())
        area = roc_auc_score(labels, scores)
        assert found.mean == pytest.approx(1 + (a - 1) / 2 + (40 - a) * (1 - area))
        assert found.chance == 20.5 and found.best == (a + 1) / 2


def test_a_perfect_list_and_a_list_without_positives():
    labels = np.array([1.0, 0, 1, 0, 0])
    perfect = triage.ranks(labels, labels)
    assert perfect.mean == perfect.best == 1.5
    none = triage.ranks(labels, np.zeros(5))
    assert none.mean is None and none.best is None and none.chance == 3


def test_what_is_missed_with_its_exact_upper_end():
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    labels = np.array([0, 1, 0, np.nan, 1, 0])
    found = triage.missed(scores, labels, 0.5)  # 0.5 itself is called
    assert (found.count, found.below) == (1, 3)
    # At the upper end, one miss or fewer of three happens in 5% of worklists.
    assert stats.binom.cdf(1, 3, found.upper) == pytest.approx(0.05)
    nothing = triage.missed(scores, labels, 0.0)
    assert (nothing.count, nothing.below, nothing.upper) == (0, 0, None)
    none = triage.missed(np.zeros(30), np.zeros(30), 0.5)
    assert none.count == 0 and none.upper == pytest.approx(1 - 0.05 ** (1 / 30))
    every = triage.missed(np.zeros(3), np.ones(3), 0.5)
    assert every.upper == 1.0
