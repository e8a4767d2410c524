"""Two sets of scores on the same films: pair counting, published figures, laws."""

import jax
import numpy as np
import pytest
from scipy import stats

from cxr_jax.metrics import bootstrap, comparison, ranking

KEY = jax.random.key(3)

# The data of DeLong et al. (1988), Table 1, as SAS/STAT prints them: albumin, total
# protein, Krebs-Goplerud score, outcome; the 43 patients without a gap.
OVARIAN = """
3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0
1.6 5.6 5 1 3.8 5.7 5 1 3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1
4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1
3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1
3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1
3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1
3.6 6.6 5 1
"""


def films(count=60, *, classes=3, levels=12, seed=0):
    """Two sets of scores with ties, labels with gaps, patients of several films."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, classes)) < 0.4).astype(np.float32)
    ours, theirs = (
        np.round((rng.normal(size=labels.shape) + shift * labels) * levels) / levels
        for shift in (1.2, 0.6)
    )
    labels[rng.random(labels.shape) < 0.1] = np.nan
    units = bootstrap.resampling_units([f"p{k // 3}" for k in range(count)])
    return ours, theirs, labels, units


def pair_counting(ours, theirs, labels):
    """DeLong's structural components from all pairs, as the paper writes them."""
    placed = []
    for scores in (ours, theirs):
        x, y = scores[labels == 1], scores[labels == 0]
        psi = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
        placed.append((psi.mean(1), psi.mean(0)))
    s10 = np.cov(np.stack([p[0] for p in placed]))
    s01 = np.cov(np.stack([p[1] for p in placed]))
    covariance = s10 / (labels == 1).sum() + s01 / (labels == 0).sum()
    contrast = np.array([1, -1])
    areas = np.array([p[0].mean() for p in placed])
    return areas, contrast @ covariance @ contrast


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_delong_equals_counting_all_pairs(levels):
    ours, theirs, labels, _ = films(levels=levels)
    for c in range(3):
        found = comparison.delong(ours[:, c], theirs[:, c], labels[:, c])
        areas, variance = pair_counting(ours[:, c], theirs[:, c], labels[:, c])
        np.testing.assert_allclose([found.ours, found.theirs], areas, rtol=1e-12)
        assert found.error**2 == pytest.approx(variance, rel=1e-10)
        z = (areas[0] - areas[1]) / np.sqrt(variance)
        assert found.p == pytest.approx(2 * stats.norm.cdf(-abs(z)), rel=1e-10)
        assert found.ours == pytest.approx(ranking.auroc(ours, labels)[c], abs=1e-12)


def test_delong_gives_the_figures_of_its_paper_s_data():
    """SAS/STAT, PROC LOGISTIC, "Comparing Receiver Operating Characteristic Curves"."""
    albumin, protein, score, outcome = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    first = comparison.delong(albumin, 10 - score, outcome)
    second = comparison.delong(protein, 10 - score, outcome)
    areas = [first.ours, first.theirs, second.ours]
    np.testing.assert_allclose(areas, [0.7366, 0.7258, 0.6478], atol=5e-5)
    for found, want in (
        (first, (0.0108, 0.0953, -0.1761, 0.1976, 0.9102)),
        (second, (-0.0780, 0.1046, -0.2830, 0.1271, 0.4561)),
    ):
        got = (found.ours - found.theirs, found.error, found.low, found.high, found.p)
        np.testing.assert_allclose(got, want, atol=5e-5)


def test_the_same_scores_differ_by_nothing():
    ours, _, labels, units = films()
    drawn = comparison.paired_bootstrap(KEY, ours, ours, labels, units, resamples=40)
    for metric in ("auroc", "average_precision"):
        difference = drawn.difference(metric)
        np.testing.assert_array_equal(difference, np.zeros((40, 3)))
        assert comparison.bootstrap_p(difference[:, 0]) == 1
    found = comparison.delong(ours[:, 0], ours[:, 0], labels[:, 0])
    assert (found.error, found.low, found.high, found.p) == (0, 0, 0, 1)
    up, down = (labels[:, 0] == 1).astype(float), (labels[:, 0] == 0).astype(float)
    assert comparison.delong(up, down, labels[:, 0]).p == 0


def test_exchanging_both_sets_turns_the_sign():
    ours, theirs, labels, units = films()
    there = comparison.paired_bootstrap(KEY, ours, theirs, labels, units, resamples=40)
    back = comparison.paired_bootstrap(KEY, theirs, ours, labels, units, resamples=40)
    for metric in ("auroc", "average_precision"):
        forth = there.difference(metric)
        np.testing.assert_array_equal(forth, -back.difference(metric))
        for c in range(3):
            a = bootstrap.percentile_interval(forth[:, c])
            b = bootstrap.percentile_interval(back.difference(metric)[:, c])
            np.testing.assert_allclose([a.low, a.high], [-b.high, -b.low], atol=1e-12)
            p = comparison.bootstrap_p(forth[:, c])
            assert p == comparison.bootstrap_p(-forth[:, c])
    a = comparison.delong(ours[:, 0], theirs[:, 0], labels[:, 0])
    b = comparison.delong(theirs[:, 0], ours[:, 0], labels[:, 0])
    assert (a.low, a.high) == pytest.approx((-b.high, -b.low))
    assert a.p == pytest.approx(b.p)


def test_both_sets_are_ranked_on_the_patients_of_the_plain_bootstrap():
    ours, theirs, labels, units = films()
    pair = comparison.paired_bootstrap(KEY, ours, theirs, labels, units, resamples=30)
    for scores, side in ((ours, pair.ours), (theirs, pair.theirs)):
        alone = bootstrap.bootstrap(KEY, scores, labels, units, resamples=30)
        np.testing.assert_allclose(side.auroc, alone.auroc, atol=1e-6)
        np.testing.assert_allclose(
            side.average_precision, alone.average_precision, atol=1e-6
        )


def test_pairing_narrows_the_interval_of_what_is_nearly_the_same():
    ours, _, labels, units = films(300)
    near = ours + 0.01 * np.random.default_rng(1).normal(size=ours.shape)
    pair = comparison.paired_bootstrap(KEY, ours, near, labels, units, resamples=100)
    apart = np.asarray(pair.ours.auroc) - np.asarray(pair.theirs.auroc)[::-1]
    spread = pair.difference("auroc").std(0)
    assert (spread < 0.2 * apart.std(0)).all()


def test_holm_follows_a_case_by_hand():
    # Sorted: .005 .01 .03 .04; times 4 3 2 1: .02 .03 .06 .04 → never falling.
    got = comparison.holm([0.01, 0.04, None, 0.03, 0.005])
    assert got == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert comparison.holm([0.9, 0.8]) == [1, 1]
    assert comparison.holm([None]) == [None] and comparison.holm([0.2]) == [0.2]


def test_holm_rejects_what_its_steps_reject():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(7) ** 3
        order, rejected = np.argsort(p), set()
        for step, k in enumerate(order):
            if p[k] > 0.05 / (7 - step):
                break
            rejected.add(int(k))
        adjusted = comparison.holm(p.tolist())
        assert {k for k, v in enumerate(adjusted) if v <= 0.05} == rejected


def test_p_values_count_resamples():
    d = np.array([-1.0, 2, 3, 4, 5, 6, 7, 8, 9, np.nan])
    assert comparison.bootstrap_p(d) == pytest.approx(2 * 2 / 10)
    assert comparison.superiority_p(d, null=0) == pytest.approx(2 / 10)
    assert comparison.superiority_p(d, null=-1.5) == pytest.approx(1 / 10)
    assert comparison.bootstrap_p(np.full(4, np.nan)) is None
    assert comparison.superiority_p(np.full(4, np.nan), null=0) is None


def test_one_film_of_a_label_has_no_variance():
    labels = np.array([1.0, 0, 0, 0, np.nan])
    assert comparison.delong(np.arange(5.0), np.arange(5.0), labels) is None
