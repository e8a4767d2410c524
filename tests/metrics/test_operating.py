"""Operating points against scikit-learn and by hand; decision curves by hand."""

import jax
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from cxr_jax.metrics import bootstrap, operating, ranking, sums

KEY = jax.random.key(3)


def table(*, films=600, classes=3, patients=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((films, classes)) < 0.2).astype(np.float32)
    scores = (rng.normal(size=labels.shape) + 1.2 * labels).astype(np.float32)
    labels[rng.random(labels.shape) < 0.05] = np.nan
    units = bootstrap.resampling_units(
        [f"p{i}" for i in rng.integers(0, patients, films)]
    )
    return scores, labels, units


def choose(scores, labels, **wanted):
    count = ranking.count_labels(labels[:, None], np.arange(len(labels)))[0]
    return operating.choose_points(scores, labels, count=count, **wanted)


def brute(scores, labels):
    """Sensitivity, specificity and F1 at every score, one after the other."""
    known = np.isfinite(labels)
    s, y = scores[known], labels[known] == 1
    for t in np.unique(s):
        called = s >= t
        yield t, called[y].mean(), (~called[~y]).mean(), sk.f1_score(y, called)


def test_points_are_the_best_of_all_thresholds():
    scores, labels, _ = table(classes=1)
    found = choose(scores[:, 0], labels[:, 0])
    rows = list(brute(scores[:, 0], labels[:, 0]))
    assert found["youden"].threshold == max(rows, key=lambda r: r[1] + r[2])[0]
    assert found["sensitivity@0.9"].threshold == max(
        t for t, se, *_ in rows if se >= 0.9
    )
    assert found["specificity@0.9"].threshold == min(
        t for t, _, sp, _ in rows if sp >= 0.9
    )
    assert found["f1"].threshold == max(rows, key=lambda r: r[3])[0]
    for point in found.values():
        _, se, sp, _ = next(r for r in rows if r[0] == point.threshold)
        assert (point.sensitivity, point.specificity) == pytest.approx((se, sp))


def test_fixed_rates_are_reached_and_no_higher_threshold_reaches_them():
    scores, labels, _ = table(classes=1)
    found = choose(scores[:, 0], labels[:, 0], sensitivity=0.75, specificity=0.99)
    assert set(found) == {"youden", "sensitivity@0.75", "specificity@0.99", "f1"}
    assert found["sensitivity@0.75"].sensitivity >= 0.75
    assert found["specificity@0.99"].specificity >= 0.99


def test_unattainable_is_null_with_a_reason():
    labels = np.array([1, 1, 0, 0], np.float32)
    constant = choose(np.full(4, 0.5, np.float32), labels)
    assert all(p.threshold is None for p in constant.values())
    assert "without calling every film" in constant["youden"].reason
    # The lowest score is a positive one: nine in ten of them means calling all.
    upside = choose(np.array([0.1, 0.9, 0.2, 0.3], np.float32), labels)
    assert upside["sensitivity@0.9"].threshold is None
    assert upside["specificity@0.9"].threshold == pytest.approx(0.9)
    backwards = choose(1 - labels, labels)
    assert backwards["youden"].threshold is None
    none = choose(np.zeros(4, np.float32), np.zeros(4, np.float32))
    assert none["f1"].reason == "undefined: no positive film"


def test_counts_and_rates_equal_scikit_learn():
    scores, labels, units = table()
    called = scores >= np.array([0.2, 0.8, 1.5])
    counts = operating.count_calls(called, labels, units).sum(axis=0)
    got = operating.rates(counts)
    for c in range(3):
        known = np.isfinite(labels[:, c])
        y, p = labels[known, c], called[known, c]
        tn, fp, fn, tp = sk.confusion_matrix(y, p).ravel()
        np.testing.assert_array_equal(counts[c], [tp, fp, tn, fn])
        want = {
            "sensitivity": sk.recall_score(y, p),
            "specificity": sk.recall_score(y, p, pos_label=0),
            "ppv": sk.precision_score(y, p),
            "npv": sk.precision_score(y, p, pos_label=0),
            "f1": sk.f1_score(y, p),
            "flags_per_100": 100 * p.mean(),
        }
        positive, negative = sk.class_likelihood_ratios(y, p)
        want |= {"lr_positive": positive, "lr_negative": negative}
        for name, value in want.items():
            assert got[name][c] == pytest.approx(value, rel=1e-12), name


def test_undefined_rates_are_null_not_zero():
    nothing = operating.rates(np.array([0, 0, 9, 0]))  # no positive, none called
    assert np.isnan(nothing["f1"])  # by the rule of the protocol; not 0
    assert np.isnan(nothing["sensitivity"]) and np.isnan(nothing["ppv"])
    assert operating.rates(np.array([0, 1, 8, 0]))["f1"] == 0
    assert operating.rates(np.array([0, 0, 8, 1]))["f1"] == 0
    block = operating.rate("f1", nothing["f1"], None)
    assert block.value is None and "none is called" in block.reason
    sure = operating.rates(np.array([5, 0, 9, 5]))["lr_positive"]
    assert np.isposinf(sure)
    assert operating.rate("lr_positive", sure, None).value is None


def test_an_open_interval_says_so():
    drawn = np.r_[np.full(80, 4.0), np.full(18, np.inf), np.nan, np.nan]
    got = operating.rate("lr_positive", 5.0, drawn)
    assert (got.value, got.low, got.high, got.discarded) == (5.0, 4.0, None, 2)
    assert got.reason.startswith("open interval")


def test_none_of_twenty_is_not_certain():
    """All 20 patients found: 1 in every resample, yet at least 0.832 by the exact law."""
    per_unit = np.tile([[1.0, 0, 1, 0]], (20, 1))
    drawn = operating.rates(sums.resample_sums(KEY, per_unit, resamples=20))
    got = operating.rate("sensitivity", 1.0, drawn["sensitivity"], per_unit=per_unit)
    assert (got.low, got.high) == (pytest.approx(0.8316, abs=1e-4), 1.0)
    exact = stats.binomtest(0, 20).proportion_ci(0.95, method="exact")
    none = sums.bounds_of_rate(0.0, np.zeros(20), 20)
    assert (none.low, none.high) == (0.0, pytest.approx(exact.high))
    some = sums.bounds_of_rate(0.5, np.array([0.4, 0.6]), 20)
    assert 0.4 <= some.low < some.high <= 0.6


def test_resampled_counts_are_those_of_the_drawn_patients():
    scores, labels, units = table()
    called = scores >= 0.8
    per_unit = operating.count_calls(called, labels, units)
    got = sums.resample_sums(KEY, per_unit, resamples=7, chunk=3)
    for r in range(7):
        key = jax.random.fold_in(KEY, r)
        weights = np.asarray(bootstrap.draw_weights(key, units.count))[units.code]
        for c in range(3):
            known = np.isfinite(labels[:, c])
            matrix = sk.confusion_matrix(
                labels[known, c], called[known, c], sample_weight=weights[known]
            )
            tn, fp, fn, tp = matrix.ravel()
            np.testing.assert_array_equal(got[r, c], [tp, fp, tn, fn])


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Sensitivity 0.7 of independent patients: 95 of 100 intervals, within chance."""
    inside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        called = rng.random((150, 1)) < 0.7
        units = bootstrap.resampling_units([f"p{i}" for i in range(150)])
        counts = operating.count_calls(called, np.ones((150, 1)), units)
        key = jax.random.key(seed)
        drawn = sums.resample_sums(key, counts, resamples=300)
        found = sums.bounds(operating.rates(drawn)["sensitivity"][:, 0])
        inside += found.low <= 0.7 <= found.high
    assert 88 <= inside <= 99  # binomial(100, 0.95): 4 standard deviations below


def test_predictive_values_by_hand():
    """1000 people, 10 ill: 9 found, 99 false alarms; PPV 1/12, NPV 891/892."""
    at = operating.predictive_values(0.9, 0.9, np.array([0.01, 0.5]))
    np.testing.assert_allclose(at.ppv, [9 / 108, 0.9])
    np.testing.assert_allclose(at.npv, [891 / 892, 0.9])
    assert np.isnan(operating.predictive_values(0.0, 1.0, np.array([0.1])).ppv[0])


def test_decision_curve_by_hand():
    """Ten films, four positive.

    At t = 0.2 (odds 1/4) five are called, three rightly: 3/10 - 2/10 / 4 = 0.25; all
    called: 4/10 - 6/10 / 4 = 0.25. At t = 0.5 (odds 1) two, both rightly: 0.2; all: -0.2.
    """
    probs = np.array([0.9, 0.6, 0.3, 0.1, 0.3, 0.2, 0.1, 0.1, 0.0, 0.1])[:, None]
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0.0])[:, None]
    units = bootstrap.resampling_units([""] * 10)
    got = operating.decision_curve(
        probs, labels, units, thresholds=np.array([0.2, 0.5]), key=KEY, resamples=200
    )
    np.testing.assert_allclose(got.model, [[0.25, 0.2]], atol=1e-12)
    np.testing.assert_allclose(got.treat_all, [[0.25, -0.2]], atol=1e-12)
    assert (got.low < got.model).all() and (got.model < got.high).all()


def test_decision_curve_laws():
    _, labels, units = table(films=4000)
    thresholds = np.array([0.01, 0.1, 0.3, 0.6])
    known = np.nan_to_num(labels)
    perfect = operating.decision_curve(known, labels, units, thresholds=thresholds)
    prevalence = np.nanmean(labels, axis=0)
    # A perfect model is worth the prevalence at every threshold.
    np.testing.assert_allclose(
        perfect.model, np.repeat(prevalence[:, None], 4, 1), rtol=1e-6
    )
    constant = np.full(labels.shape, 0.999)
    everybody = operating.decision_curve(constant, labels, units, thresholds=thresholds)
    np.testing.assert_allclose(everybody.model, everybody.treat_all, atol=1e-12)
    nobody = operating.decision_curve(
        np.zeros(labels.shape), labels, units, thresholds=thresholds
    )
    np.testing.assert_array_equal(nobody.model, 0)
    assert nobody.low is None
