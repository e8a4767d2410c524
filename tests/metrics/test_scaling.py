"""Platt scaling: what it undoes, what it refuses; prevalences; Cox's slope."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cxr_jax.errors import DataError
from cxr_jax.metrics import ranking, scaling

NATURAL = 0.0128


def table(*, films=40_000, slope=1.0, shift=0.0, seed=0, prevalence=0.05, apart=2.0):
    """Probabilities that are right but for a known slope and shift of their logits."""
    rng = np.random.default_rng(seed)
    # Normal scores, d apart: the log-likelihood ratio is d x - d² / 2.
    labels = (rng.random(films) < prevalence).astype(np.float64)
    x = rng.normal(size=films) + apart * labels
    right = apart * x - apart**2 / 2 + logit(prevalence)
    return expit((right - shift) / slope), labels, expit(right)


def fit(probs, labels, units=None):
    units = np.arange(len(labels)) if units is None else units
    count = ranking.count_labels(labels[:, None], units)[0]
    return scaling.fit_platt(probs, labels, count=count)


@pytest.mark.parametrize("slope", [0.6, 1.0, 2.5])
@pytest.mark.parametrize("shift", [-4.35, 0.0, 1.5])
def test_a_known_slope_and_shift_are_undone(slope, shift):
    # Logits stay within the ±16.6 that a table of float32 can tell apart.
    probs, labels, right = table(slope=slope, shift=shift, apart=1.0)
    same, _, _ = table(apart=1.0)
    found = fit(probs, labels)
    plain = fit(same, labels)  # what sampling alone does to slope 1 and shift 0
    np.testing.assert_allclose(
        scaling.apply_platt(probs, found), scaling.apply_platt(same, plain), atol=1e-6
    )
    assert found.slope / slope == pytest.approx(1, abs=0.06)
    assert found.intercept == pytest.approx(shift, abs=0.15)
    np.testing.assert_allclose(scaling.apply_platt(probs, found), right, atol=0.03)


def test_oversampling_is_undone_and_temperature_cannot():
    """Half positive in training against 1.28% outside: logits are 4.35 too high."""
    drawn, labels, right = table(prevalence=NATURAL, films=60_000)
    shift = logit(0.5) - logit(NATURAL)
    assert shift == pytest.approx(4.35, abs=0.005)
    oversampled = expit(logit(drawn) + shift)
    assert expit(logit(0.85) - shift) == pytest.approx(0.068, abs=5e-4)
    found = fit(oversampled, labels)
    natural = scaling.apply_platt(oversampled, found)
    assert natural.mean() == pytest.approx(labels.mean(), rel=1e-9)
    assert found.intercept == pytest.approx(-shift, abs=0.2)
    np.testing.assert_allclose(natural, right, atol=0.06)
    cooled = expit(scaling.logits_of(oversampled) / found.temperature)
    assert cooled.mean() > 10 * labels.mean()


def test_equals_scikit_learn_without_penalty():
    probs, labels, _ = table(films=2_000, slope=1.7, shift=1.0)
    probs = probs.astype(np.float32)
    labels[::7] = np.nan
    found = fit(probs, labels)
    known = np.isfinite(labels)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(scaling.logits_of(probs[known])[:, None], labels[known])
    assert found.slope == pytest.approx(model.coef_[0, 0], rel=1e-5)
    assert found.intercept == pytest.approx(model.intercept_[0], rel=1e-5)
    assert found.n == known.sum()
    assert found.prevalence == pytest.approx(labels[known].mean())
    alone = LogisticRegression(C=np.inf, tol=1e-10, fit_intercept=False)
    alone.fit(scaling.logits_of(probs[known])[:, None], labels[known])
    assert 1 / found.temperature == pytest.approx(alone.coef_[0, 0], rel=1e-5)


def test_separable_labels_get_platts_targets_and_say_so():
    labels = np.repeat([0.0, 1.0], 30)
    probs = np.where(labels == 1, 0.9, 0.2) + np.linspace(-0.05, 0.05, 60)
    found = fit(probs, labels)
    assert found.smoothed and found.reason is None
    # At a maximum the mean probability is the mean target: 31/32 and 1/32 here.
    assert scaling.apply_platt(probs, found).mean() == pytest.approx(0.5, abs=1e-9)
    # Two scores only: each group's probability is its target, exactly.
    probs = np.where(labels == 1, 0.9, 0.2)
    two = scaling.apply_platt(probs, fit(probs, labels))
    np.testing.assert_allclose(two, np.where(labels == 1, 31 / 32, 1 / 32), atol=1e-9)


def test_what_cannot_be_calibrated_stays_a_score():
    probs, labels, _ = table(films=400, prevalence=0.3)
    few = np.where(np.cumsum(labels) > 19, 0.0, labels)
    assert few.sum() == 19
    found = fit(probs, few)
    assert found.slope is None and scaling.apply_platt(probs, found) is None
    assert found.reason == "score, uncalibrated: fewer than 20 positive patients"
    # Many films of few patients are few patients.
    one = fit(probs, labels, units=np.arange(len(labels)) // 40)
    assert one.positives > 100 and one.reason.endswith("20 positive patients")
    assert fit(probs, labels).reason is None
    assert "no film has a label" in fit(probs, np.full(400, np.nan)).reason
    assert "all scores are equal" in fit(np.full(400, 0.3), labels).reason
    assert "does not rise" in fit(1 - probs, labels).reason


def test_certain_probabilities_stay_finite():
    probs, labels, _ = table(films=2_000, prevalence=0.3)
    probs[:5], probs[-5:] = 1.0, 0.0
    found = fit(probs.astype(np.float32), labels)
    assert np.isfinite(scaling.apply_platt(probs, found)).all()


def test_reweighting_is_bayes_rule():
    """By hand: likelihood ratio 9 at prevalence 1/10 is even odds; at 1/2, 9 to 1."""
    assert scaling.reweight(np.array([0.5]), 0.1, 0.5)[0] == pytest.approx(0.9)
    probs = np.array([[0.0, 0.2], [1.0, 0.7]])
    np.testing.assert_allclose(scaling.reweight(probs, 0.3, 0.3), probs)
    there = scaling.reweight(probs, np.array([0.1, 0.2]), np.array([0.3, 0.05]))
    back = scaling.reweight(there, np.array([0.3, 0.05]), np.array([0.1, 0.2]))
    np.testing.assert_allclose(back, probs, atol=1e-15)
    np.testing.assert_array_equal(there[:, 0], probs[:, 0])  # certainty stays
    for bad in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(DataError, match="between 0 and 1"):
            scaling.reweight(probs, 0.1, bad)


def test_reweighting_gives_the_other_sites_prevalence():
    _, labels, right = table(prevalence=0.2, films=200_000)
    rng = np.random.default_rng(1)
    # A site where nine of ten positive films are absent.
    kept = (labels == 0) | (rng.random(len(labels)) < 0.1)
    there = scaling.reweight(right[kept], labels.mean(), labels[kept].mean())
    assert there.mean() == pytest.approx(labels[kept].mean(), rel=0.03)


def test_slope_of_right_probabilities_is_one_within_its_interval():
    _, labels, right = table()
    found = scaling.measure_spread(right, labels, np.arange(len(labels)))
    assert found.slope_low < 1 < found.slope_high
    assert found.intercept_low < 0 < found.intercept_high
    assert abs(found.in_the_large) < 0.1
    extreme = expit(2 * logit(right) + 1)
    found = scaling.measure_spread(extreme, labels, np.arange(len(labels)))
    assert found.slope == pytest.approx(0.5, abs=0.03)
    assert found.slope_high < 1


def test_repeated_films_widen_the_slopes_interval():
    _, labels, right = table(films=500, prevalence=0.3)
    once = scaling.measure_spread(right, labels, np.arange(500))
    many = np.repeat(right, 4), np.repeat(labels, 4)
    units = np.repeat(np.arange(500), 4)
    four = scaling.measure_spread(*many, units)
    # The same patients tell the same, however often each film is listed.
    assert four.slope_low == pytest.approx(once.slope_low, abs=1e-6)
    blind = scaling.measure_spread(*many, np.arange(2000))
    width = (once.slope_high - once.slope_low) / (blind.slope_high - blind.slope_low)
    assert width == pytest.approx(2, abs=1e-6)


def test_a_slope_that_does_not_exist_says_why():
    labels = np.array([0.0, 0, 1, 1])
    units = np.arange(4)
    found = scaling.measure_spread(np.array([0.1, 0.2, 0.3, 0.4]), labels, units)
    assert found.slope is None and "separable" in found.reason
    assert "one label" in scaling.measure_spread(labels, labels * 0, units).reason
    assert "equal" in scaling.measure_spread(labels * 0 + 0.5, labels, units).reason
