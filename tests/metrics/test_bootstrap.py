"""The jitted bootstrap against scikit-learn on the same resamples, and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from cxr_jax.metrics import bootstrap, ranking

KEY = jax.random.key(7)


def table(*, films=400, classes=3, patients=90, levels=None, seed=0):
    """Scores (rounded to ``levels`` values if given), labels with gaps, patients."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((films, classes)) < 0.15).astype(np.float32)
    scores = rng.normal(size=(films, classes)) + 0.8 * labels
    if levels:
        scores = np.round(scores * levels / 6)
    labels[rng.random(labels.shape) < 0.05] = np.nan
    names = [f"p{i}" for i in rng.integers(0, patients, films)]
    return scores.astype(np.float32), labels, bootstrap.resampling_units(names)


def by_sklearn(scores, labels, weights):
    """Both metrics of one class in float64; NaN where one label is left."""
    used = np.isfinite(labels) & (weights > 0)
    y, s, w = labels[used], scores[used].astype(np.float64), weights[used]
    if len(np.unique(y)) < 2:
        return np.nan, np.nan
    auroc = sk.roc_auc_score(y, s, sample_weight=w)
    return auroc, sk.average_precision_score(y, s, sample_weight=w)


def expected(scores, labels, units, weights):
    found = [
        [
            by_sklearn(scores[:, c], labels[:, c], w[units.code].astype(np.float64))
            for c in range(scores.shape[1])
        ]
        for w in np.asarray(weights).T
    ]
    return np.moveaxis(np.asarray(found), 2, 0)


def drawn_weights(units, resamples):
    keys = [jax.random.fold_in(KEY, r) for r in range(resamples)]
    return np.stack([bootstrap.draw_weights(k, units.count) for k in keys], axis=1)


@pytest.mark.parametrize("levels", [None, 8, 1])
def test_equals_scikit_learn_on_the_same_resamples(levels):
    scores, labels, units = table(levels=levels)
    got = bootstrap.bootstrap(KEY, scores, labels, units, resamples=20)
    auroc, precision = expected(scores, labels, units, drawn_weights(units, 20))
    np.testing.assert_allclose(got.auroc, auroc, atol=1e-5)
    np.testing.assert_allclose(got.average_precision, precision, atol=1e-5)


def test_one_label_only_makes_a_resample_undefined():
    scores, labels, units = table(films=40, patients=12, classes=4)
    labels[:, 1], labels[:, 2], labels[:, 3] = 0, np.nan, 1
    labels[1:, 0] = 0
    labels[0, 0] = 1  # one positive film: absent from about e⁻¹ of the resamples
    got = bootstrap.bootstrap(KEY, scores, labels, units, resamples=200)
    auroc, precision = expected(scores, labels, units, drawn_weights(units, 200))
    np.testing.assert_allclose(got.auroc, auroc, atol=1e-5)  # NaN in the same places
    np.testing.assert_allclose(got.average_precision, precision, atol=1e-5)
    interval = bootstrap.percentile_interval(got.auroc[:, 0])
    assert interval.discarded == np.isnan(auroc[:, 0]).sum() > 40
    nothing = bootstrap.percentile_interval(got.auroc[:, 1])
    assert (nothing.low, nothing.high, nothing.discarded) == (None, None, 200)


def test_unit_weights_give_the_point_estimate():
    scores, labels, units = table(levels=8)
    rank = bootstrap.rank_films(scores, labels, units)
    got = bootstrap.weighted_metrics(rank, jnp.ones((units.count, 1)))
    np.testing.assert_allclose(got.auroc[0], ranking.auroc(scores, labels), atol=1e-6)
    precision = ranking.average_precision(scores, labels)
    np.testing.assert_allclose(got.average_precision[0], precision, atol=1e-6)


def test_weighting_a_patient_twice_equals_listing_its_films_twice():
    scores, labels, units = table(levels=8)
    weights = np.ones((units.count, 1), np.float32)
    weights[3] = 2
    rank = bootstrap.rank_films(scores, labels, units)
    got = bootstrap.weighted_metrics(rank, jnp.asarray(weights))
    twice = np.concatenate([np.arange(len(scores)), np.flatnonzero(units.code == 3)])
    want = ranking.auroc(scores[twice], labels[twice])
    np.testing.assert_allclose(got.auroc[0], want, atol=1e-6)


def test_order_of_films_does_not_matter():
    scores, labels, units = table(levels=5)
    perm = np.random.default_rng(3).permutation(len(scores))
    moved = bootstrap.Units(code=units.code[perm], count=units.count, name="patient")
    one = bootstrap.bootstrap(KEY, scores, labels, units, resamples=8)
    two = bootstrap.bootstrap(KEY, scores[perm], labels[perm], moved, resamples=8)
    np.testing.assert_allclose(one.auroc, two.auroc, atol=1e-6)
    np.testing.assert_allclose(one.average_precision, two.average_precision, atol=1e-6)


def test_resamples_depend_on_key_and_number_not_on_the_chunk():
    scores, labels, units = table(films=60, patients=20)
    whole = bootstrap.bootstrap(KEY, scores, labels, units, resamples=12)
    parts = bootstrap.bootstrap(KEY, scores, labels, units, resamples=10, chunk=3)
    np.testing.assert_array_equal(whole.auroc[:10], parts.auroc)
    other = bootstrap.bootstrap(jax.random.key(8), scores, labels, units, resamples=12)
    assert not np.array_equal(whole.auroc, other.auroc)


def test_weights_are_draws_with_replacement():
    weights = jax.vmap(lambda k: bootstrap.draw_weights(k, 50))(
        jax.random.split(KEY, 2000)
    )
    np.testing.assert_array_equal(weights.sum(axis=1), 50)
    np.testing.assert_allclose(weights.mean(), 1)
    # Binomial(50, 1/50): variance 0.98, P(0) = 0.98⁵⁰ = 0.364.
    assert weights.var() == pytest.approx(0.98, abs=0.03)
    assert (weights == 0).mean() == pytest.approx(0.98**50, abs=0.01)


def test_repeated_films_of_a_patient_widen_the_interval():
    """Each patient's film listed five times adds no information at patient level."""
    rng = np.random.default_rng(5)
    labels = np.repeat((rng.random((80, 1)) < 0.4).astype(np.float32), 5, axis=0)
    scores = np.repeat(rng.normal(size=(80, 1)), 5, axis=0).astype(np.float32) + labels
    names = np.repeat([f"p{i}" for i in range(80)], 5)

    def width(units):
        got = bootstrap.bootstrap(KEY, scores, labels, units, resamples=600)
        interval = bootstrap.percentile_interval(got.auroc[:, 0])
        return interval.high - interval.low

    by_patient = width(bootstrap.resampling_units(names))
    by_image = width(bootstrap.resampling_units([""] * 400))
    assert by_patient / by_image == pytest.approx(np.sqrt(5), rel=0.2)


def test_units_say_what_was_drawn():
    units = bootstrap.resampling_units(["a", "b", "a", "c"])
    assert (units.count, units.name) == (3, "patient")
    assert units.code[0] == units.code[2]
    single = bootstrap.resampling_units(["", "", ""])
    assert (single.count, single.name) == (3, "image-level, likely too narrow")
    mixed = bootstrap.resampling_units(["a", "", "a", ""])
    assert mixed.count == 3 and "2 films of unknown patient" in mixed.name


def test_sums_stay_exact_beyond_the_integers_of_float32():
    """2·P·N is 5e9 here, three hundred times float32's last exact integer."""
    rng = np.random.default_rng(6)
    labels = (rng.random((100_000, 1)) < 0.5).astype(np.float32)
    scores = (rng.normal(size=labels.shape) + labels).astype(np.float32)
    units = bootstrap.Units(
        code=np.arange(100_000, dtype=np.int32), count=100_000, name="image"
    )
    rank = bootstrap.rank_films(scores, labels, units)
    weights = rng.multinomial(100_000, np.full(100_000, 1e-5), size=2).T
    got = jax.jit(bootstrap.weighted_metrics)(rank, weights.astype(np.float32))
    auroc, precision = expected(scores, labels, units, weights)
    np.testing.assert_allclose(got.auroc, auroc, rtol=5e-7)
    np.testing.assert_allclose(got.average_precision, precision, rtol=5e-7)
