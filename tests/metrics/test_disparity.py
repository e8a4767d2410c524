"""Figures of subgroups against scikit-learn, and gaps that chance does not make."""

import jax
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from cxr_jax.metrics import bootstrap, disparity, gaps, subgroups
from cxr_jax.metrics.disparity import MISSED, Calls

KEY = jax.random.key(1)


def make_calls(*, films=900, classes=3, seed=0, gap=0.0, alarm=0.0, lean=0.0):
    """Films of two sexes.

    Scores of women are ``gap`` lower where a finding is and ``alarm`` higher where none
    is; the logits of their probabilities are ``lean`` higher.
    """
    rng = np.random.default_rng(seed)
    patient = rng.permutation(np.arange(films) // 2)
    sex = np.where(patient % 2 == 0, "M", "F")
    labels = (rng.random((films, classes)) < 0.2).astype(np.float32)
    women = (sex == "F")[:, None]
    scores = rng.normal(size=labels.shape) + (2 - gap * women) * labels
    scores += alarm * women * (1 - labels)
    labels[rng.random(labels.shape) < 0.02] = np.nan
    calls = Calls(
        scores=scores.astype(np.float32),
        labels=labels,
        thresholds=np.full(classes, 1.0),
        probs=1 / (1 + np.exp(2.4 - 2 * scores - lean * women)),
        units=bootstrap.resampling_units([f"p{k}" for k in patient]),
    )
    axes = subgroups.make_axes(sex=sex)
    groups = subgroups.make_groups(axes)
    return calls, groups, subgroups.make_contrasts(axes, groups)


def test_figures_equal_scikit_learn_in_every_group():
    calls, groups, _ = make_calls()
    got = disparity.measure_groups(calls, groups)
    for g, group in enumerate(groups):
        for c in range(3):
            used = group.member & np.isfinite(calls.labels[:, c])
            y, s, p = (t[used, c] for t in (calls.labels, calls.scores, calls.probs))
            want = {
                "auroc": sk.roc_auc_score(y, s),
                "tpr": sk.recall_score(y, s >= 1),
                "fpr": 1 - sk.recall_score(y, s >= 1, pos_label=0),
                "calibration": p.mean() - y.mean(),
            }
            for name, value in want.items():
                found = got.measures[name].value[g, c]
                assert found == pytest.approx(value, abs=2e-6), name
            assert got.mean_probability[g, c] == pytest.approx(p.mean(), rel=1e-5)
            assert got.counts[g][c].n == len(y)


def test_a_finding_nobody_calls_by_hand():
    """Four films with a finding: called rightly, called wrongly, missed, missed."""
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 0], [0, 0]], np.float32)
    scores = np.array([[1, 0], [0, 1], [0, 0], [0, 0], [0, 0], [1, 1]], np.float32)
    many = 20  # patients of each film, so that nothing is suppressed
    calls = Calls(
        scores=np.tile(scores, (many, 1)),
        labels=np.tile(labels, (many, 1)),
        thresholds=np.array([0.5, 0.5]),
        probs=np.full((6 * many, 2), np.nan),
        units=bootstrap.resampling_units([f"{k}" for k in range(6 * many)]),
    )
    everyone = [subgroups.Group(levels={}, member=np.ones(6 * many, bool))]
    got = disparity.measure_groups(calls, everyone, key=KEY, resamples=50)
    assert got.measures[MISSED].value[0] == 0.5
    assert got.with_finding[0].positives == 4 * many
    assert 0 < got.measures[MISSED].drawn[:, 0].std() < 0.1
    assert np.isnan(got.measures["calibration"].value).all()  # uncalibrated
    mute = Calls(**{**vars(calls), "thresholds": np.full(2, np.nan)})
    got = disparity.measure_groups(mute, everyone, key=KEY, resamples=5)
    assert np.isnan(got.measures[MISSED].value).all()
    assert np.isnan(got.measures["tpr"].value).all()
    assert np.isfinite(got.measures["auroc"].value).all()


def test_few_positive_patients_are_suppressed():
    calls, groups, contrasts = make_calls()
    women = groups[1].member
    kept = np.flatnonzero(women & (calls.labels[:, 0] == 1))
    _, first = np.unique(calls.units.code[kept], return_index=True)
    labels = calls.labels.copy()
    labels[kept, 0] = 0
    labels[kept[first[:9]], 0] = 1  # nine patients
    fewer = Calls(**{**vars(calls), "labels": labels})
    got = disparity.measure_groups(fewer, groups, key=KEY, resamples=20)
    assert got.counts[1][0].positive_patients == 9
    for name in disparity.PER_CLASS:
        assert np.isnan(got.measures[name].value[1, 0])
        assert np.isnan(got.measures[name].drawn[:, 1, 0]).all()
        assert np.isfinite(got.measures[name].value[1, 1:]).all()
        assert np.isfinite(got.measures[name].value[2]).all()
    assert np.isnan(got.ece[1, 0]) and np.isnan(got.mean_probability[1, 0])
    gap = gaps.measure_gap(got, "tpr", contrasts[0], columns=[0])
    assert gap.value is None and "suppressed" in gap.reason
    mean = gaps.measure_gap(got, "tpr", contrasts[0], columns=[0, 1, 2])
    assert mean.classes == (1, 2)
    labels[kept[first[9]], 0] = 1  # the tenth
    got = disparity.measure_groups(Calls(**{**vars(calls), "labels": labels}), groups)
    assert np.isfinite(got.measures["tpr"].value[1, 0])


def test_resamples_of_a_group_are_those_of_its_patients():
    calls, groups, _ = make_calls(films=300)
    got = disparity.measure_groups(calls, groups, key=KEY, resamples=6)
    for r in range(6):
        key = jax.random.fold_in(KEY, r)
        weights = np.asarray(bootstrap.draw_weights(key, calls.units.count))
        weights = weights[calls.units.code]
        for g, group in enumerate(groups):
            used = group.member & np.isfinite(calls.labels[:, 1]) & (weights > 0)
            y, s, w = calls.labels[used, 1], calls.scores[used, 1], weights[used]
            area = sk.roc_auc_score(y, s, sample_weight=w)
            assert got.measures["auroc"].drawn[r, g, 1] == pytest.approx(area, abs=1e-5)
            tpr = sk.recall_score(y, s >= 1, sample_weight=w)
            assert got.measures["tpr"].drawn[r, g, 1] == pytest.approx(tpr, abs=1e-6)


def measured(**about):
    calls, groups, contrasts = make_calls(**about)
    found = disparity.measure_groups(calls, groups, key=KEY, resamples=200)
    return found, contrasts[0]


def test_a_planted_gap_is_found_and_has_a_sign():
    found, contrast = measured(gap=1.0)
    gap = gaps.measure_gap(found, "tpr", contrast, columns=[0, 1, 2])
    assert contrast.name == "sex: F - M"
    # P(z > -1) - P(z > 0) of a normal score that is 1 lower.
    assert gap.value == pytest.approx(0.5 - 0.8413, abs=0.08)
    assert gap.low < gap.value < gap.high < 0 and gap.p < 1e-6
    turned = subgroups.Contrast(
        axis="sex", group=contrast.against, against=contrast.group, within={}, name="-"
    )
    back = gaps.measure_gap(found, "tpr", turned, columns=[0, 1, 2])
    assert back.value == pytest.approx(-gap.value) and back.p == pytest.approx(gap.p)
    assert (back.low, back.high) == pytest.approx((-gap.high, -gap.low))
    alarm = gaps.measure_gap(found, "fpr", contrast, columns=[0, 1, 2])
    assert alarm.low < 0 < alarm.high


def test_planted_false_alarms_are_found_and_nothing_else():
    found, contrast = measured(alarm=0.5)
    gap = gaps.measure_gap(found, "fpr", contrast, columns=[0, 1, 2])
    # P(z > 0.5) - P(z > 1) of a normal score.
    assert gap.value == pytest.approx(0.3085 - 0.1587, abs=0.05)
    assert 0 < gap.low < gap.value < gap.high and gap.p < 1e-6
    assert gap.patients == found.negative_patients[1:].min()
    hit = gaps.measure_gap(found, "tpr", contrast, columns=[0, 1, 2])
    assert hit.low < 0 < hit.high and hit.p > 0.05


def test_planted_overconfidence_is_found_and_nothing_else():
    found, contrast = measured(lean=0.8)
    gap = gaps.measure_gap(found, "calibration", contrast, columns=[0, 1, 2])
    assert 0.05 < gap.value < 0.2
    assert 0 < gap.low < gap.value < gap.high and gap.p < 1e-4
    for name in ("auroc", "tpr", "fpr"):  # neither order nor calls are touched
        other = gaps.measure_gap(found, name, contrast, columns=[0, 1, 2])
        assert other.low < 0 < other.high and other.p > 0.05


def sparse_findings():
    """12 women with a finding and 3,000 without; 600 men with and 3,000 without.

    One film of each. False alarms: .20 of the women, .10 of the men; probabilities of
    women are 0.03 above what is due.
    """
    sex = np.array(["F"] * 3012 + ["M"] * 3600)
    label = np.r_[np.ones(12), np.zeros(3000), np.ones(600), np.zeros(3000)]
    score = label.copy()
    score[12 : 12 + 600] = score[3612 : 3612 + 300] = 1
    probs = np.where(sex == "F", 12 / 3012 + 0.03, 1 / 6)
    calls = Calls(
        scores=score[:, None].astype(np.float32),
        labels=label[:, None].astype(np.float32),
        thresholds=np.array([0.5]),
        probs=probs[:, None],
        units=bootstrap.resampling_units([f"{k}" for k in range(len(sex))]),
    )
    axes = subgroups.make_axes(sex=sex)
    groups = subgroups.make_groups(axes)
    found = disparity.measure_groups(calls, groups, key=KEY, resamples=400)
    contrast = subgroups.make_contrasts(axes, groups)[0]
    return calls, lambda name: gaps.measure_gap(found, name, contrast, columns=[0])


def test_each_measure_rests_on_its_own_patients():
    _, measure = sparse_findings()
    patients = {n: measure(n).patients for n in disparity.PER_CLASS}
    assert patients == {"auroc": 12, "tpr": 12, "fpr": 3000, "calibration": 3012}


@pytest.mark.long
def test_scarce_findings_hide_no_false_alarms():
    """As certain as the test of two proportions, which has nothing of findings."""
    _, measure = sparse_findings()
    gap = measure("fpr")
    assert gap.value == pytest.approx(0.1)
    table = np.array([[600, 2400], [300, 2700]])
    z = np.sqrt(stats.chi2_contingency(table, correction=False).statistic)
    assert stats.t.isf(gap.p / 2, 2999) == pytest.approx(z, rel=0.1)
    assert (gap.high - gap.low) / 3.92 == pytest.approx(0.1 / z, rel=0.15)


@pytest.mark.long
def test_scarce_findings_hide_no_overconfidence():
    """As certain as the t test of probability less finding, patient by patient."""
    calls, measure = sparse_findings()
    gap = measure("calibration")
    assert gap.value == pytest.approx(0.03, abs=1e-6)
    each = calls.probs[:, 0] - calls.labels[:, 0]
    plain = stats.ttest_ind(each[:3012], each[3012:])
    t = stats.t.isf(gap.p / 2, 3011)
    assert 0.8 * plain.statistic < t < 1.1 * plain.statistic


@pytest.mark.parametrize("negatives", [15, 40])
def test_an_area_rests_on_its_smaller_side(negatives):
    """Findings in nearly everyone: what is scarce is a film without one."""
    calls, groups, contrasts = make_calls(films=800, classes=1)
    labels = np.ones_like(calls.labels)
    for group in groups[1:]:
        rows = np.flatnonzero(group.member)
        _, first = np.unique(calls.units.code[rows], return_index=True)
        labels[rows[first[:negatives]]] = 0
    few = Calls(**{**vars(calls), "labels": labels})
    found = disparity.measure_groups(few, groups, key=KEY, resamples=50)
    patients = {
        n: gaps.measure_gap(found, n, contrasts[0], columns=[0]).patients
        for n in disparity.PER_CLASS
    }
    assert patients["auroc"] == patients["fpr"] == negatives
    assert patients["tpr"] > 150 and patients["calibration"] == 200


@pytest.mark.long
def test_without_a_gap_p_is_rarely_small():
    """20 tables of one law: at most a few p below 0.05, none beyond correction."""
    found = []
    for seed in range(20):
        got, contrast = measured(films=400, classes=2, seed=seed)
        found += [
            gaps.measure_gap(got, name, contrast, columns=[0, 1])
            for name in disparity.PER_CLASS
        ]
    p = np.array([gap.p for gap in found])
    assert (p < 0.05).mean() <= 0.12  # binomial(80, 0.05): 2.9 standard errors
    assert not any(gap.beyond_chance for gap in gaps.correct(found))


def test_a_rate_that_cannot_vary_is_no_certainty():
    """None of 12 missed against 1 in 20: zero does not vary, but proves nothing."""
    films = 12 + 400
    sex = np.array(["F"] * 12 + ["M"] * 400)
    scores = np.ones((films, 1), np.float32)
    scores[12 : 12 + 20] = 0
    calls = Calls(
        scores=scores,
        labels=np.ones((films, 1), np.float32),
        thresholds=np.array([0.5]),
        probs=np.full((films, 1), np.nan),
        units=bootstrap.resampling_units([f"{k}" for k in range(films)]),
    )
    axes = subgroups.make_axes(sex=sex)
    groups = subgroups.make_groups(axes)
    got = disparity.measure_groups(calls, groups, key=KEY, resamples=300)
    contrast = subgroups.make_contrasts(axes, groups)[0]
    gap = gaps.measure_gap(got, MISSED, contrast, columns=None)
    assert gap.value == pytest.approx(-0.05) and gap.high < 0  # by percentiles alone
    assert gap.p > 0.3  # Fisher's exact test says 1


def test_correction_is_over_the_family():
    some = [gaps.Gap(value=0.1, p=p) for p in (0.01, 0.04, None, 0.02)]
    got = gaps.correct(some)
    # Three tests: 0.01 · 3, 0.02 · 2, and 0.04 not below its predecessor.
    assert [g.p_holm for g in got] == [0.03, 0.04, None, 0.04]
    assert [g.beyond_chance for g in got] == [True, True, None, True]
