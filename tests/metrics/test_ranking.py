"""AUROC and average precision: laws, hand-computed cases, refusals."""

import itertools

import numpy as np
import pytest

from cxr_jax.errors import DataError
from cxr_jax.metrics import ranking

NAN = np.nan


def column(*values) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)[:, None]


def by_pairs(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUROC by its definition, pair by pair."""
    won = [
        (p > n) + 0.5 * (p == n)
        for p, n in itertools.product(scores[labels == 1], scores[labels == 0])
    ]
    return float(np.mean(won))


def test_auroc_equals_the_share_of_pairs_won_ties_count_half():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (60, 3)).astype(np.float32)  # six values: many ties
    labels = (rng.random((60, 3)) < 0.3).astype(np.float32)
    expected = [by_pairs(s, y) for s, y in zip(scores.T, labels.T, strict=True)]
    np.testing.assert_allclose(ranking.auroc(scores, labels), expected, rtol=1e-12)


def test_average_precision_by_hand():
    # Thresholds .9 (1 of 1), .8 (2 of 3, one tie), .1 (3 of 4): ⅓·1 + ⅓·⅔ + ⅓·¾.
    scores, labels = column(0.9, 0.8, 0.8, 0.1), column(1, 1, 0, 1)
    value = ranking.average_precision(scores, labels)
    np.testing.assert_allclose(value, [29 / 36], rtol=1e-12)


def test_constant_scores_rank_nothing():
    labels = column(1, 0, 0, 0, 1)
    np.testing.assert_allclose(ranking.auroc(np.ones((5, 1)), labels), [0.5])
    np.testing.assert_allclose(ranking.average_precision(np.ones((5, 1)), labels), 0.4)


def test_auroc_of_negated_scores_is_the_complement():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(80, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (80, 2)).astype(np.float32)
    total = ranking.auroc(scores, labels) + ranking.auroc(-scores, labels)
    np.testing.assert_allclose(total, 1, rtol=1e-12)


def test_only_films_with_a_known_label_count():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.1, 0.6]])
    labels = np.array([[1, NAN], [0, 1], [NAN, 0], [1, 1]])
    expected = [by_pairs(scores[[0, 1, 3], 0], labels[[0, 1, 3], 0])]
    expected += [by_pairs(scores[1:, 1], labels[1:, 1])]
    np.testing.assert_allclose(ranking.auroc(scores, labels), expected)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0, 0, 0], "no positive"),
        ([1, 1, NAN], "no negative"),
        ([NAN, NAN, NAN], "no film has a label"),
    ],
)
def test_a_class_without_both_labels_is_undefined(labels, reason):
    labels = column(*labels)
    for metric in ranking.METRICS.values():
        assert np.isnan(metric(column(0.1, 0.2, 0.3), labels)).all()
    (count,) = ranking.count_labels(labels, np.arange(3))
    assert reason in count.undefined


def test_counts_are_of_films_and_of_patients():
    labels = np.array([[1, 0], [1, NAN], [0, 1], [1, 1]])
    first, second = ranking.count_labels(labels, np.array([7, 7, 7, 9]))
    assert (first.n, first.positives, first.positive_patients) == (4, 3, 2)
    assert (second.n, second.positives, second.positive_patients) == (3, 2, 2)
    assert first.undefined is None and "20 positive patients" in first.flag
    (many,) = ranking.count_labels(np.ones((20, 1)), np.arange(20))
    assert many.flag is None


def test_roc_curve_keeps_corners_and_area_when_thinned():
    rng = np.random.default_rng(2)
    labels = (rng.random(5000) < 0.1).astype(np.float32)
    scores = rng.normal(size=5000).astype(np.float32) + labels
    curve = ranking.roc_curve(scores, labels, points=100)
    assert len(curve.fpr) <= 102
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(curve.fpr) >= 0).all() and (np.diff(curve.tpr) >= 0).all()
    area = ranking.auroc(scores[:, None], labels[:, None])[0]
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(area, abs=2e-3)


def test_scores_that_are_not_finite_are_refused_by_name():
    scores = np.array([[0.1], [NAN], [np.inf]])
    with pytest.raises(DataError, match=r"2 of 3 films .* first: b\.png, c\.png"):
        ranking.check_table(scores, np.zeros((3, 1)), ids=["a.png", "b.png", "c.png"])


def test_odd_labels_and_shapes_are_refused():
    with pytest.raises(DataError, match="label other than 0, 1"):
        ranking.check_table(np.zeros((2, 1)), column(0, 2))
    with pytest.raises(DataError, match=r"\[films, classes\]"):
        ranking.check_table(np.zeros((2, 1)), np.zeros((2, 2)))
