"""Reliability, ECE and Brier: laws and hand-computed cases."""

import numpy as np
import pytest

from cxr_jax.metrics import calibration


def test_by_hand():
    probs = np.array([0.1, 0.3, 0.6, 0.8])
    labels = np.array([0, 1, 1, 1])
    got = calibration.measure_calibration(probs, labels, bins=2)
    np.testing.assert_allclose(got.reliability.confidence, [0.2, 0.7])
    np.testing.assert_allclose(got.reliability.frequency, [0.5, 1.0])
    np.testing.assert_array_equal(got.reliability.count, [2, 2])
    assert got.ece == pytest.approx((0.3 + 0.3) / 2)
    assert got.brier == pytest.approx((0.01 + 0.49 + 0.16 + 0.04) / 4)
    assert got.brier_skill == pytest.approx(1 - 0.175 / (0.75 * 0.25))


def test_probabilities_that_mean_what_they_say_have_little_error():
    rng = np.random.default_rng(0)
    probs = rng.beta(0.5, 4, 50_000)
    labels = (rng.random(50_000) < probs).astype(np.float32)
    assert calibration.measure_calibration(probs, labels).ece < 0.005
    shifted = calibration.measure_calibration(np.clip(probs + 0.1, 0, 1), labels)
    assert shifted.ece == pytest.approx(0.1, abs=0.01)


def test_the_prevalence_itself_has_no_skill_and_no_error():
    labels = np.array([1, 0, 0, 0, 0], np.float32)
    got = calibration.measure_calibration(np.full(5, 0.2), labels)
    assert got.brier_skill == pytest.approx(0)
    assert got.ece == pytest.approx(0)
    assert len(got.reliability.count) == 1  # equal probabilities share a bin


def test_bins_hold_equal_numbers_and_ignore_order():
    rng = np.random.default_rng(1)
    probs, labels = rng.random(1003), rng.integers(0, 2, 1003).astype(np.float32)
    curve = calibration.reliability(probs, labels, bins=10)
    assert curve.count.sum() == 1003 and np.ptp(curve.count) <= 1
    perm = rng.permutation(1003)
    moved = calibration.reliability(probs[perm], labels[perm], bins=10)
    np.testing.assert_allclose(moved.frequency, curve.frequency)
    assert (np.diff(curve.confidence) > 0).all()


def test_unknown_labels_are_left_out():
    probs = np.array([0.1, 0.9, 0.3, 0.6])
    labels = np.array([0, np.nan, 1, np.nan])
    got = calibration.measure_calibration(probs, labels, bins=2)
    assert got.n == 2
    assert got.brier == pytest.approx((0.01 + 0.49) / 2)
    assert calibration.measure_calibration(probs, np.full(4, np.nan)) is None


def test_one_label_only_has_a_brier_score_but_no_skill():
    got = calibration.measure_calibration(np.array([0.1, 0.2]), np.zeros(2))
    assert got.brier == pytest.approx(0.025) and got.brier_skill is None
