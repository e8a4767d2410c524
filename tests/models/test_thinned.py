"""Passes with dropout: one mask for all films, and the values that all masks together have."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from cxr_jax.models import layers, pooling, thinned
from cxr_jax.models.heads import PoolHiddenClassify, PoolThenClassify

KEY = jax.random.key(5)


class TwoDrops(nnx.Module):
    """Pool, dropout, dense, ReLU, dropout, dense; its weights are drawn by NumPy."""

    def __init__(self, features, hidden, classes, rate, seed=0):
        rng = np.random.default_rng(seed)
        self.first = nnx.Param(jnp.asarray(rng.normal(size=(features, hidden)) / 2))
        self.second = nnx.Param(jnp.asarray(rng.normal(size=(hidden, classes))))
        self.rate = rate

    def __call__(self, features, *, key=None):
        keys = (None, None) if key is None else jax.random.split(key)
        x = layers.dropout(pooling.gap(features), self.rate, keys[0])
        x = jax.nn.relu(x @ self.first[...])
        return layers.dropout(x, self.rate, keys[1]) @ self.second[...]


def linear(features=6, classes=2, rate=0.4):
    return PoolThenClassify(features, classes, dropout=rate, rngs=nnx.Rngs(0))


def films(rows=5, features=6, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(rows, 3, 2, features)), jnp.float32)


@functools.partial(jax.jit, static_argnames="samples")
def draw(head, features, key, samples):
    return thinned.passes(head, features, key=key, samples=samples)


def hidden():
    return PoolHiddenClassify(6, 2, hidden=9, dropout=0.4, rngs=nnx.Rngs(0))


HEADS = {
    "linear": linear,
    "hidden": hidden,
    "two dropouts": lambda: TwoDrops(6, 4, 2, 0.4),
}


@pytest.mark.parametrize("kind", HEADS)
def test_equal_films_get_equal_passes_in_any_row_of_any_batch(kind):
    head, some = HEADS[kind](), films()
    whole = draw(head, some, KEY, 9)
    assert whole.shape == (9, 5, 2)
    order = jnp.array([3, 0, 3, 1, 4, 2, 0])
    other = draw(head, some[order], KEY, 9)
    np.testing.assert_allclose(other, whole[:, order], rtol=2e-5, atol=1e-6)
    alone = draw(head, some[3:4], KEY, 9)
    np.testing.assert_allclose(alone[:, 0], whole[:, 3], rtol=2e-5, atol=1e-6)
    assert np.ptp(np.asarray(whole), axis=0).min() > 1e-3


@pytest.mark.parametrize("kind", HEADS)
def test_a_key_reproduces_its_passes_and_fewer_are_the_first_of_more(kind):
    head, some = HEADS[kind](), films()
    many = draw(head, some, KEY, 12)
    np.testing.assert_array_equal(draw(head, some, KEY, 12), many)
    np.testing.assert_allclose(draw(head, some, KEY, 5), many[:5], rtol=1e-6)
    others = draw(head, some, jax.random.key(6), 12)
    assert (np.abs(others - many) > 1e-4).any(axis=(1, 2)).all()


def test_no_two_passes_have_one_mask():
    many = draw(linear(features=40), films(features=40), KEY, 30)
    gaps = np.abs(many[:, None] - many[None]).max(axis=(2, 3))
    assert (gaps + np.eye(30) > 1e-5).all()


def test_the_mean_logit_of_a_linear_head_is_that_of_the_plain_pass():
    head, some, samples = linear(features=50), films(features=50), 4000
    drawn = np.float64(draw(head, some, KEY, samples))
    plain = np.float64(head(some))
    error = drawn.std(axis=0, ddof=1) / np.sqrt(samples)
    assert (error > 0).all()
    assert (np.abs(drawn.mean(axis=0) - plain) < 4 * error).all()
    # The variance is known too: Σ (w x)² p / (1 - p).
    pooled = np.float64(some).mean(axis=(1, 2))
    kernel = np.float64(head.kernel)
    want = (pooled**2 @ kernel**2) * 0.4 / 0.6
    np.testing.assert_allclose(drawn.var(axis=0), want, rtol=4 * np.sqrt(2 / samples))


def enumerate_masks(head, pooled, rate):
    """Weights and logits ``[2^n, B, C]`` of every pair of masks, in float64."""
    first, second = np.float64(head.first[...]), np.float64(head.second[...])
    weights, logits = [], []
    for mask in itertools.product((0, 1), repeat=sum(first.shape)):
        mask = np.array(mask)
        outer, inner = mask[: len(first)], mask[len(first) :]
        weights.append(np.prod(np.where(mask, 1 - rate, rate)))
        x = np.maximum((pooled * outer / (1 - rate)) @ first, 0)
        logits.append((x * inner / (1 - rate)) @ second)
    return np.array(weights), np.stack(logits)


def entropy(p):
    return special.entr(p) + special.entr(1 - p)


def test_passes_converge_to_the_enumeration_of_all_masks():
    rate, samples = 0.4, 20_000
    head, some = TwoDrops(6, 5, 3, rate), films(rows=4)
    weights, logits = enumerate_masks(head, np.float64(some).mean((1, 2)), rate)
    assert len(weights) == 2**11 and weights.sum() == pytest.approx(1)
    probs = special.expit(logits)
    mean = np.tensordot(weights, probs, 1)
    moment = [np.tensordot(weights, (probs - mean) ** k, 1) for k in (2, 4)]
    std = np.sqrt(moment[0])
    found = jax.jit(thinned.spread)(draw(head, some, KEY, samples))
    assert (np.abs(found.probs - mean) < 4 * std / np.sqrt(samples)).all()
    error = np.sqrt((moment[1] - moment[0] ** 2) / samples) / (2 * std)
    assert (np.abs(found.std - std) < 4 * error).all()
    gain = entropy(mean) - np.tensordot(weights, entropy(probs), 1)
    np.testing.assert_allclose(found.information, gain, rtol=0.05)
    assert std.min() > 0.01


def test_the_spread_of_given_logits_is_that_of_numpy():
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(30, 7, 3)) * [0.1, 1, 4] - [0, 3, 2]).astype(np.float32)
    found = jax.jit(thinned.spread)(logits)
    probs = special.expit(np.float64(logits))
    mean = probs.mean(axis=0)
    np.testing.assert_allclose(found.probs, mean, rtol=1e-5)
    np.testing.assert_allclose(found.logits, special.logit(mean), atol=2e-5)
    np.testing.assert_allclose(found.std, probs.std(axis=0), rtol=1e-4)
    gain = entropy(mean) - entropy(probs).mean(axis=0)
    np.testing.assert_allclose(found.information, gain, atol=3e-7)
    assert gain.max() > 0.1


def test_information_is_finite_never_negative_and_zero_without_spread():
    certain = jnp.array([-1e4, -200.0, -60, -9, 0, 9, 60, 200, 1e4])
    same = thinned.spread(jnp.tile(certain[None, :, None], (7, 1, 1)))
    for leaf in jax.tree.leaves(same):
        assert np.isfinite(leaf).all()
    assert (same.information >= 0).all() and same.information.max() < 3e-7
    np.testing.assert_allclose(same.std, 0, atol=1e-7)
    np.testing.assert_allclose(same.logits[:, 0], certain, rtol=1e-4, atol=1e-6)
    # Half of the passes sure of it and half of the contrary: one bit.
    torn = thinned.spread(jnp.array([-1e4, 1e4, -80, 80])[:, None, None])
    np.testing.assert_allclose(torn.information, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(torn.std, 0.5, rtol=1e-6)


def test_pooling_is_done_once_and_the_passes_are_one_product():
    head, samples, rows = TwoDrops(64, 32, 4, 0.5), 50, 8
    wide = jnp.zeros((rows, 40, 40, 64))
    text = draw.lower(head, wide, KEY, samples).compile()
    cost = text.cost_analysis()["flops"]
    product = 2 * samples * rows * (64 * 32 + 32 * 4)
    pooled = wide.size
    assert cost < 1.3 * (product + pooled) + 2e5, (cost, product, pooled)
    assert pooled > 0.2 * product  # were it done 50 times, it would show
