"""Coverage and risk against integrals film by film, all orders of ties, resampled tables."""

import functools
import itertools

import jax
import numpy as np
import pytest
from scipy import integrate, special, stats

from cxr_jax.metrics import bootstrap, selective


def drawn(films=40, ties=8, seed=0):
    """Uncertainties with ties, and losses that go with them a little."""
    rng = np.random.default_rng(seed)
    uncertainty = rng.integers(0, ties, films) / ties
    return uncertainty, rng.random(films) * (0.3 + uncertainty)


def integral(uncertainty, losses):
    """∫ risk, film by film, by quadrature; tied films share their mean loss."""
    order = np.argsort(uncertainty, kind="stable")
    u, sorted_losses = uncertainty[order], losses[order]
    total, area = 0.0, 0.0
    for k in range(len(u)):
        share = sorted_losses[u == u[k]].mean()
        risk = functools.partial(
            lambda x, t, s, k: (t + s * (x - k)) / x if x else s, t=total, s=share, k=k
        )
        area += integrate.quad(risk, k, k + 1, epsabs=1e-13)[0]
        total += share
    return area / len(u)


def stepwise(losses):
    """The usual sum over whole films, given in the order in which they are kept."""
    return (np.cumsum(losses) / np.arange(1, len(losses) + 1)).mean()


@pytest.mark.parametrize("ties", [1, 3, 8, 10_000])
def test_the_area_is_the_integral_of_the_risk(ties):
    uncertainty, losses = drawn(ties=ties)
    found = selective.area(uncertainty, losses)
    assert found == pytest.approx(integral(uncertainty, losses), rel=1e-10)


def test_ties_are_the_mean_over_all_orders_they_could_have():
    uncertainty = np.array([0.1, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9])
    losses = np.array([0.2, 0.0, 0.7, 0.1, 0.4, 1.0, 0.3])
    areas = [
        selective.area(np.arange(7.0), losses[[0, *middle, *last]])
        for middle in itertools.permutations((1, 2, 3, 4))
        for last in itertools.permutations((5, 6))
    ]
    assert len(areas) == 48 and np.ptp(areas) > 0.01
    assert selective.area(uncertainty, losses) == pytest.approx(np.mean(areas))


def test_a_single_uncertainty_is_random_rejection():
    _, losses = drawn()
    found = selective.area(np.full(40, 0.3), losses)
    assert found == pytest.approx(losses.mean(), rel=1e-12)
    curve = selective.curve(np.full(40, 0.3), losses, np.linspace(0.01, 1, 9))
    np.testing.assert_allclose(curve.mean, losses.mean(), rtol=1e-12)
    orders = np.random.default_rng(1).permuted(np.tile(losses, (4000, 1)), axis=1)
    areas = [selective.area(np.arange(40), some) for some in orders]
    error = np.std(areas) / np.sqrt(len(areas))
    assert abs(np.mean(areas) - losses.mean()) < 4 * error


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_below_the_oracle_or_above_its_contrary(seed):
    uncertainty, losses = drawn(seed=seed)
    least, most = selective.area(losses, losses), selective.area(-losses, losses)
    assert least <= selective.area(uncertainty, losses) <= most
    assert least < losses.mean() < most
    # At every coverage, not in the area alone.
    coverage = np.linspace(0.05, 1, 20)
    curves = [
        selective.curve(order, losses, coverage).mean
        for order in (losses, uncertainty, -losses)
    ]
    assert (np.diff(curves, axis=0) >= -1e-12).all()
    np.testing.assert_allclose([c[-1] for c in curves], losses.mean())


def test_doubled_films_have_the_same_area_and_many_films_the_usual_sum():
    uncertainty, losses = drawn()
    twice = selective.area(np.tile(uncertainty, 2), np.tile(losses, 2))
    assert selective.area(uncertainty, losses) == pytest.approx(twice, rel=1e-12)
    uncertainty, losses = drawn(films=5000, ties=10**9)
    usual = stepwise(losses[np.argsort(uncertainty)])
    found = selective.area(uncertainty, losses)
    assert abs(found - usual) < np.log(5000) / 5000
    assert abs(found - losses.mean()) > 10 * np.log(5000) / 5000


def test_unknown_labels_are_left_out():
    uncertainty, losses = drawn()
    losses[::7] = np.nan
    known = np.isfinite(losses)
    found = selective.area(uncertainty, losses)
    assert found == pytest.approx(selective.area(uncertainty[known], losses[known]))
    assert np.isnan(selective.area(uncertainty, np.full(40, np.nan)))


def test_what_is_kept_is_counted_film_by_film():
    uncertainty = np.array([0.3, 0.1, 0.2, 0.2])
    labels = np.array([1.0, 0.0, 1.0, 0.0])
    curve = selective.curve(uncertainty, labels, np.array([0.25, 0.5, 0.75, 1]))
    np.testing.assert_allclose(curve.mean, [0, 0.25, 1 / 3, 0.5])


def test_losses_and_entropies_are_those_of_scipy():
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(size=50) * 5, [-300, 300, -40, 40, 0]])
    labels = (rng.random(55) < 0.4).astype(float)
    labels[-5:] = (1, 0, 1, 0, 1)
    labels[3] = np.nan
    probs = special.expit(logits)
    known = np.isfinite(labels)
    found = selective.log_loss(probs, labels, logits=logits)
    want = -special.log_expit(np.where(labels == 1, logits, -logits))
    np.testing.assert_allclose(found[known], want[known], rtol=1e-9, atol=1e-12)
    assert np.isnan(found[~known]).all() and found[known].max() > 250
    # From probabilities alone, what rounds to 0 or 1 costs a finite loss.
    rough = selective.log_loss(probs, labels)
    near = known & (np.abs(logits) < 14)
    np.testing.assert_allclose(rough[near], want[near], rtol=1e-6)
    assert np.isfinite(rough[known]).all()
    np.testing.assert_allclose(
        selective.brier(probs, labels)[known], ((probs - labels) ** 2)[known]
    )
    pairs = np.stack([probs, 1 - probs])
    np.testing.assert_allclose(
        selective.entropy(probs), stats.entropy(pairs, axis=0), atol=1e-12
    )


def test_entropy_orders_films_as_the_maximum_probability_does():
    rng = np.random.default_rng(0)
    probs = rng.beta(0.4, 2, 300).astype(np.float32)
    losses = rng.random(300)
    areas = [
        selective.area(measure(probs), losses)
        for measure in (selective.entropy, selective.doubt)
    ]
    assert areas[0] == pytest.approx(areas[1], rel=1e-12)


def table(films=60, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    uncertainties = rng.integers(0, 12, (2, films, classes)) / 12
    losses = rng.random((2, films, classes)) + uncertainties[:1]
    labels = (rng.random((films, classes)) < [0.5, 0.3, 0.1]).astype(np.float32)
    labels[rng.random((films, classes)) < 0.1] = np.nan
    labels[:, 2] = np.where(np.arange(films) == 7, 1, labels[:, 2] * 0)
    patients = [f"p{k}" for k in rng.integers(0, 25, films)]
    return uncertainties, losses, labels, bootstrap.resampling_units(patients)


def test_resampled_areas_are_areas_of_resampled_tables():
    uncertainties, losses, labels, units = table()
    key = jax.random.key(3)
    found = selective.resampled_areas(
        key, uncertainties, losses, labels, units, resamples=30, chunk=8
    )
    assert found.shape == (30, 3, 2, 3)
    undefined = 0
    for r in range(30):
        weights = bootstrap.draw_weights(jax.random.fold_in(key, r), units.count)
        rows = np.repeat(np.arange(60), np.int64(weights)[units.code])
        for c in range(3):
            known = rows[np.isfinite(labels[rows, c])]
            if len(np.unique(labels[known, c])) < 2:
                undefined += 1
                assert np.isnan(found[r, :, :, c]).all()
                continue
            for k in range(2):
                some = losses[k, known, c]
                want = [selective.area(u[known, c], some) for u in uncertainties]
                np.testing.assert_allclose(
                    found[r, :, k, c], [*want, some.mean()], rtol=2e-6
                )
    assert 0 < undefined < 45


def test_resamples_depend_on_the_key_and_not_on_how_they_are_divided():
    given = table()
    areas = functools.partial(selective.resampled_areas, resamples=9)
    whole = areas(jax.random.key(0), *given)
    np.testing.assert_allclose(areas(jax.random.key(0), *given, chunk=4), whole)
    assert (np.nan_to_num(areas(jax.random.key(1), *given) - whole, nan=1) != 0).any()
