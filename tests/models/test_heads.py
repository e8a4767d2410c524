"""Pooling, head and classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cxr_jax.errors import ConfigError
from cxr_jax.models import densenet, pooling
from cxr_jax.models.heads import Classifier, PoolThenClassify


def test_gap_is_the_mean_over_space_in_float32():
    x = jax.random.normal(jax.random.key(0), (2, 31, 33, 4)).astype(jnp.bfloat16)
    pooled = pooling.gap(x)
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(
        pooled, np.asarray(x, np.float64).mean((1, 2)), atol=1e-6
    )


def test_gap_forgets_where_things_are():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    np.testing.assert_allclose(
        pooling.gap(x), pooling.gap(jnp.roll(x, (1, 2), (1, 2))), atol=1e-6
    )


def test_head_is_linear_in_the_pooled_features():
    head = PoolThenClassify(5, 3, rngs=nnx.Rngs(0))
    head.linear.bias[...] = jnp.arange(3.0)
    features = jax.random.normal(jax.random.key(1), (2, 4, 4, 5))
    expected = np.asarray(features).mean((1, 2)) @ np.asarray(head.kernel)
    np.testing.assert_allclose(head(features), expected + np.arange(3), atol=1e-5)


@pytest.mark.parametrize("prior", [0.5, 0.1, 0.01])
def test_a_film_without_evidence_is_given_the_prior(prior):
    head = PoolThenClassify(5, 3, prior=prior, rngs=nnx.Rngs(0))
    found = jax.nn.sigmoid(head(jnp.zeros((2, 4, 4, 5))))
    np.testing.assert_allclose(found, prior, rtol=1e-6)


def test_a_prior_of_certainty_is_refused():
    with pytest.raises(ConfigError, match="prior=0"):
        PoolThenClassify(5, 3, prior=0, rngs=nnx.Rngs(0))


def test_dropout_is_drawn_from_the_key_alone():
    head = PoolThenClassify(64, 3, dropout=0.5, rngs=nnx.Rngs(0))
    features = jnp.ones((2, 2, 2, 64))
    plain, first, again, other = (
        head(features, key=key)
        for key in (None, jax.random.key(1), jax.random.key(1), jax.random.key(2))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, plain)
    # Each film has a mask of its own.
    assert not np.allclose(first[0], first[1])
    draws = jax.vmap(lambda k: head(features, key=k))(
        jax.random.split(jax.random.key(3), 4000)
    )
    np.testing.assert_allclose(draws.mean(0), plain, atol=0.05)


def test_no_random_state_lives_in_a_model():
    rngs = nnx.Rngs(0)
    head = PoolThenClassify(16, 3, dropout=0.5, rngs=rngs)
    model = Classifier(densenet.densenet_tiny(rngs=rngs), head)
    kinds = {type(v) for _, v in nnx.to_flat_state(nnx.state(model))}
    assert kinds == {nnx.Param, nnx.BatchStat}


def test_classifier_is_head_after_features():
    rngs = nnx.Rngs(0)
    backbone = densenet.densenet_tiny(rngs=rngs, dtype="bfloat16")
    model = Classifier(backbone, PoolThenClassify(16, 3, rngs=rngs))
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    logits = model(x)
    assert logits.shape == (2, 3)
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, model.head(model.features(x)))
