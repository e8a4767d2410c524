"""A whole reader study: its intervals, and the phantom's readers, who are known."""

import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from cxr_jax.labels import NIH14
from cxr_jax.metrics import agreement, bootstrap, confusion, reader_bootstrap
from cxr_jax.metrics import reader_study as study
from cxr_jax.metrics.agreement import Votes
from data_builders.phantom_chest import cohort, readers

KEY = jax.random.key(11)


def panel(*, films=90, count=4, classes=2, patients=40, seed=0, levels=8, spread=0.0):
    """A panel with tied scores; ``spread`` makes readers differ in sensitivity."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((films, classes)) < 0.3).astype(float)
    skill = 0.75 + spread * np.linspace(-1, 1, count)
    right = rng.random((films, count, classes)) < skill[:, None]
    calls = np.where(right, truth[:, None], 1 - truth[:, None])
    scores = np.round(levels * (rng.random(truth.shape) + truth) / 2) / levels
    return study.Panel(
        calls=calls,
        scores=scores,
        model=(scores >= 0.5).astype(float),
        truth=truth,
        units=bootstrap.resampling_units(
            [f"p{k}" for k in rng.integers(0, patients, films)]
        ),
    )


@pytest.fixture(scope="module")
def phantom():
    """Thousands of films that need not be drawn to be read."""
    many = cohort.Cohort(films=5000, size=64, seed=23)
    rows = [
        (visit.patient.number, visit.truth, readers.read(many, visit))
        for patient in cohort.schedule(many)
        for visit in cohort.visits(many, patient)
    ]
    calls = [np.stack([said[name] for name in readers.NAMES]) for _, _, said in rows]
    truth = np.stack([t for _, t, _ in rows]).astype(float)
    return study.Panel(
        calls=np.stack(calls).astype(float),
        scores=truth,
        model=truth,
        truth=truth,
        units=bootstrap.resampling_units([f"p{number}" for number, _, _ in rows]),
    )


def test_the_parameters_of_the_phantoms_readers_come_back(phantom):
    """Ratio of sums over patients: the error of a clustered proportion."""
    found = study.study_readers(phantom, ["truth"], key=KEY, resamples=0)
    metrics = found.protocols["truth"].metrics
    code, z = phantom.units.code, []
    for k, name in enumerate(("sensitivity", "specificity")):
        for r in range(len(readers.NAMES)):
            stated = readers.stated(r)[:, k]
            for c in range(len(NIH14)):
                value = metrics[name][c].readers[r].value
                among = phantom.truth[:, c] == 1 - k
                right = phantom.calls[:, r, c] == phantom.truth[:, c]
                off = np.bincount(code, among * (right - value))
                error = np.sqrt((off**2).sum()) / among.sum()
                z.append((value - stated[c]) / error)
    assert len(z) == 112 and np.abs(z).max() < 4
    assert np.std(z) == pytest.approx(1, abs=0.25)  # and the errors are what they say


def test_the_majority_of_the_phantoms_readers_is_a_biased_truth(phantom):
    found = study.study_readers(phantom, ["majority", "truth"], key=KEY, resamples=0)
    majority, truth = (found.protocols[k].metrics for k in ("majority", "truth"))
    lower = [
        m.average.value < t.average.value
        for m, t in zip(majority["sensitivity"], truth["sensitivity"], strict=True)
    ]
    assert sum(lower) >= 12  # of 14
    # One reader and class by hand, with Python's own integers.
    c, votes = NIH14.index("Pneumonia"), []
    for said in phantom.calls[:, :, c].astype(int).tolist():
        votes.append((said[1], int(said[0] + said[2] + said[3] >= 2)))
    seen = [a for a, b in votes if b]
    value = majority["sensitivity"][c].readers[1].value
    assert value == pytest.approx(sum(seen) / len(seen), abs=1e-12)
    # The model here is the truth itself, and yet is found wanting.
    assert truth["sensitivity"][c].model.value == 1
    assert majority["sensitivity"][c].model.value < 0.8


def drawn(units, count, resamples):
    """What the bootstrap draws, one resample at a time."""
    for r in range(resamples):
        key = jax.random.fold_in(KEY, r)
        weights = bootstrap.draw_weights(key, units.count)
        people = bootstrap.draw_weights(jax.random.fold_in(key, 1), count)
        yield np.asarray(weights)[units.code].astype(float), np.asarray(people)


def test_resampled_areas_and_sums_equal_scikit_learn_on_the_same_resamples():
    p = panel()
    references = agreement.votes_of_others(p.calls)
    references = np.concatenate([references, p.truth[:, None]], axis=1)
    references[::9, 1] = np.nan
    table = np.random.default_rng(1).integers(0, 2, (90, 7))
    ranked = reader_bootstrap.rank_groups(p.scores, references, p.units)
    got = reader_bootstrap.resample(
        KEY, table, ranked, p.units, readers=4, resamples=12, chunk=5
    )
    for s, (weights, people) in enumerate(drawn(p.units, 4, 12)):
        np.testing.assert_array_equal(got.sums[s], weights @ table)
        np.testing.assert_array_equal(got.readers[s], people)
        for c in range(2):
            for g in range(5):
                value = area(p.scores[:, c], references[:, g, c], weights)
                assert got.auroc[s, g, c] == pytest.approx(value, abs=1e-5)
            scores = np.repeat(p.scores[:, c], 4)
            labels = references[:, :4, c].reshape(-1)
            once = np.repeat(weights, 4)
            assert got.pooled[s, c] == pytest.approx(
                area(scores, labels, once), abs=1e-5
            )
            value = area(scores, labels, once * np.tile(people, 90))
            assert got.pooled_drawn[s, c] == pytest.approx(value, abs=1e-5)


def area(scores, labels, weights):
    used = np.isfinite(labels) & (weights > 0)
    return sk.roc_auc_score(labels[used], scores[used], sample_weight=weights[used])


def test_one_label_only_leaves_an_area_undefined():
    p = panel()
    references = np.zeros((90, 4, 2))
    references[0, :, 0] = 1  # on one film: absent from about e⁻¹ of the resamples
    ranked = reader_bootstrap.rank_groups(p.scores, references, p.units)
    got = reader_bootstrap.resample(
        KEY, np.zeros((90, 1)), ranked, p.units, readers=4, resamples=100
    )
    assert np.isnan(got.auroc[:, :, 1]).all() and np.isnan(got.pooled[:, 1]).all()
    absent = [w[0] == 0 for w, _ in drawn(p.units, 4, 100)]
    np.testing.assert_array_equal(np.isnan(got.pooled[:, 0]), absent)
    assert 10 < sum(absent) < 70


def test_resamples_depend_on_key_and_number_not_on_the_chunk():
    p = panel(films=40)
    references = agreement.votes_of_others(p.calls)
    ranked = reader_bootstrap.rank_groups(p.scores, references, p.units)

    def run(**sizes):
        return reader_bootstrap.resample(
            KEY, p.calls.reshape(40, -1), ranked, p.units, readers=4, **sizes
        )

    one, two = run(resamples=12), run(resamples=9, chunk=4)
    np.testing.assert_array_equal(one.sums[:9], two.sums)
    np.testing.assert_array_equal(one.auroc[:9], two.auroc)


def test_intervals_are_those_of_repeating_the_whole_study():
    """Each resample spelled out: films listed as often as drawn, protocol run anew."""
    p, resamples = panel(films=60, patients=30, levels=40), 40
    found = study.study_readers(p, agreement.NAMES, key=KEY, resamples=resamples)
    values = {name: [] for name in agreement.NAMES}
    for weights, _ in drawn(p.units, 4, resamples):
        rows = np.repeat(np.arange(60), weights.astype(int))
        for name in agreement.NAMES:
            c = agreement.compare(
                name, p.calls[rows], p.model[rows], truth=p.truth[rows]
            )
            parts = [c.readers.sum(0), c.model.sum(0), c.paired.sum(0)]
            values[name].append(
                agreement.average(*map(confusion.f1, parts)).difference[0]
            )
    for name in agreement.NAMES:
        figure = found.protocols[name].metrics["f1"][0].difference
        low, high = np.percentile(values[name], [2.5, 97.5])
        assert (figure.low, figure.high) == pytest.approx((low, high), abs=1e-6)


def test_pooled_and_mean_are_two_readings_of_one_figure():
    p = panel(films=200, levels=50)
    found = study.study_readers(p, ["majority"], key=KEY, resamples=0)
    references = agreement.votes_of_others(p.calls)
    for c, ranked in enumerate(found.protocols["majority"].ranked):
        each = [sk.roc_auc_score(references[:, g, c], p.scores[:, c]) for g in range(4)]
        assert [e.value for e in ranked.groups] == pytest.approx(each)
        assert ranked.mean.value == pytest.approx(np.mean(each))
        whole = sk.roc_auc_score(
            references[:, :, c].T.ravel(), np.tile(p.scores[:, c], 4)
        )
        assert ranked.pooled.value == pytest.approx(whole)
        assert ranked.pooled.low is None


def test_drawing_readers_too_widens_intervals_of_readers_who_differ():
    def widths(spread):
        p = panel(films=400, patients=400, spread=spread)
        found = study.study_readers(p, ["truth"], key=KEY, resamples=400)
        e = found.protocols["truth"].metrics["sensitivity"][0].average
        return e.high - e.low, e.high_readers - e.low_readers

    narrow, wide = widths(0.2)
    assert wide > 1.5 * narrow
    # Of one film each: close to the error of a proportion over four readers.
    p = panel(films=400, patients=10**9)
    n, rate = 4 * p.truth[:, 0].sum(), 0.75
    assert widths(0.0)[0] == pytest.approx(
        3.92 * np.sqrt(rate * (1 - rate) / n), rel=0.25
    )


@pytest.mark.long
def test_the_interval_over_cases_holds_the_truth_about_as_often_as_it_says():
    """Difference of two equal calls is 0: 95% of the intervals hold it."""
    held = []
    for seed in range(60):
        p = panel(films=150, patients=10**9, seed=seed, classes=3)
        rng = np.random.default_rng(1000 + seed)
        right = rng.random(p.truth.shape) < 0.75  # as skilled as every reader
        model = np.where(right, p.truth, 1 - p.truth)
        p = study.Panel(**(vars(p) | {"model": model}))
        found = study.study_readers(p, ["truth"], key=KEY, resamples=200)
        for figure in found.protocols["truth"].metrics["sensitivity"]:
            held.append(figure.difference.low <= 0 <= figure.difference.high)
    assert 0.89 < np.mean(held) < 0.99


def test_missing_calls_are_left_out_of_votes_and_counts():
    p = panel()
    p.calls[3, 2] = np.nan
    found = study.study_readers(p, ["majority", "truth"], key=KEY, resamples=20)
    counts = found.protocols["majority"].counts[0]
    # Three are left: they vote on the reader who is missing, and on nobody else.
    assert [count.n for count in counts] == [89, 89, 90, 89]
    low = study.study_readers(
        p, ["majority"], key=KEY, resamples=0, votes=Votes(least=2)
    )
    assert [k.n for k in low.protocols["majority"].counts[0]] == [90] * 4
    assert found.fleiss[0].low < found.fleiss[0].value < found.fleiss[0].high


def test_six_readers_and_no_model_calls():
    p = panel(count=6)
    p.model[:, 1] = np.nan
    found = study.study_readers(p, agreement.NAMES, key=KEY, resamples=10)
    majority = found.protocols["majority"].metrics["kappa"]
    assert len(majority[0].readers) == 6 and majority[0].model.value is not None
    assert majority[1].model.value is None and majority[1].average.value is not None
    assert majority[1].difference.value is None
    alone = found.protocols["each_other"].metrics["f1"][1]  # readers among themselves
    assert alone.average.value is not None and alone.model.value is None
    assert alone.difference.value is None
