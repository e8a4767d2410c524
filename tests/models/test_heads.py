"""Pooling, head and classifier."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx

from cxr_jax.errors import ConfigError
from cxr_jax.models import densenet, efficientnet, layers, pooling
from cxr_jax.models.heads import Classifier, PoolHiddenClassify, PoolThenClassify


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


# A hidden layer ------------------------------------------------------------------------


def size(state):
    return sum(x.size for x in jax.tree.leaves(state))


def hidden(features=64, classes=3, **kwargs):
    return PoolHiddenClassify(features, classes, rngs=nnx.Rngs(0), **kwargs)


def test_counts_of_densenet_with_a_hidden_layer_are_the_published_ones():
    def create(key):
        rngs = nnx.Rngs(params=key)
        return Classifier(
            densenet.densenet121(rngs=rngs), PoolHiddenClassify(1024, 14, rngs=rngs)
        )

    model = nnx.eval_shape(create, jax.eval_shape(lambda: jax.random.key(0)))
    assert size(nnx.state(model)) == 7_569_486
    assert size(nnx.state(model.head)) == 531_982


def test_logits_equal_those_of_keras(of_keras):
    layers, shape = keras.layers, (64, 64, 3)
    base = of_keras.densenet([2, 1, 1, 1], include_top=False, input_shape=shape)
    x = layers.Dropout(0.4)(layers.GlobalAveragePooling2D()(base.output))
    x = layers.Dropout(0.4)(layers.Dense(24, activation="relu", name="hidden")(x))
    theirs = keras.Model(base.input, layers.Dense(14, name="logits")(x))
    of_keras.randomise(theirs, seed=5)

    def create(key):
        rngs = nnx.Rngs(params=key)
        net = densenet.DenseNet((2, 1, 1, 1), epsilon=1.001e-5, rngs=rngs)
        head = PoolHiddenClassify(net.num_features(), 14, hidden=24, rngs=rngs)
        return Classifier(net, head)

    names = of_keras.names_of_densenet(theirs)
    names |= {"hidden": "head/hidden", "logits": "head/linear"}
    graphdef, state = of_keras.filled(create, of_keras.weights(theirs, names))
    films = np.random.default_rng(2).standard_normal((2, *shape)).astype(np.float32)
    (expected,) = of_keras.outputs(theirs, ["logits"], films)
    found = jax.jit(lambda s, x: nnx.merge(graphdef, s)(x))(state, films)
    scale = np.abs(expected).max()
    assert scale > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def test_a_hidden_layer_is_two_layers_with_a_kink():
    head = hidden(features=5, hidden=7)
    head.hidden.bias[...] = jnp.linspace(-1.0, 1.0, 7)
    features = np.random.default_rng(0).standard_normal((4, 3, 3, 5))
    inner = features.mean((1, 2)) @ np.asarray(head.hidden.kernel[...], np.float64)
    inner = np.maximum(inner + np.linspace(-1, 1, 7), 0)
    assert (inner == 0).any() and (inner > 0).any()
    expected = inner @ np.asarray(head.linear.kernel[...], np.float64)
    found = head(jnp.asarray(features, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_a_hidden_layer_without_evidence_gives_the_prior(prior):
    found = jax.nn.sigmoid(hidden(prior=prior)(jnp.zeros((2, 4, 4, 64))))
    np.testing.assert_allclose(found, prior, rtol=1e-6)
    with pytest.raises(ConfigError, match="prior=1"):
        hidden(prior=1)


def test_the_two_dropouts_have_masks_of_their_own():
    """Where nothing but the masks differs: identity kernels, ones everywhere."""
    head = hidden(features=64, classes=64, hidden=64, dropout=0.5)
    for layer in (head.hidden, head.linear):
        layer.kernel[...] = jnp.eye(64)
    features = jnp.ones((200, 1, 1, 64))
    plain, first, again, other = (
        head(features, key=key)
        for key in (None, jax.random.key(1), jax.random.key(1), jax.random.key(2))
    )
    np.testing.assert_array_equal(plain, 1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # The same mask twice would keep a half; two of them keep a quarter.
    assert set(np.unique(first)) == {0.0, 4.0}
    assert abs(np.mean(first == 4.0) - 0.25) < 0.02
    # Each film has its own.
    assert not np.array_equal(first[0], first[1])


def test_a_hidden_layer_starts_as_in_keras():
    head = hidden(features=300, hidden=200)
    for layer, sizes in ((head.hidden, 500), (head.linear, 203)):
        kernel, limit = np.asarray(layer.kernel[...]), np.sqrt(6 / sizes)
        assert 0.98 * limit < np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.06)
        assert not layer.bias[...].any()


def test_a_classifier_gives_its_head_the_key_itself_and_its_backbone_another():
    rngs = nnx.Rngs(0)
    backbone = efficientnet.efficientnet_tiny(drop_connect=0.9, rngs=rngs)
    model = Classifier(backbone, PoolThenClassify(16, 3, dropout=0.5, rngs=rngs))
    x = jax.random.normal(jax.random.key(1), (16, 8, 8, 3))
    key = jax.random.key(2)
    features = jax.jit(lambda key: backbone.features(x, key=key))
    logits = jax.jit(lambda key: model(x, key=key))
    deep = features(jax.random.fold_in(key, 1))
    assert not np.allclose(deep, features(None))
    np.testing.assert_allclose(logits(key), model.head(deep, key=key), atol=1e-6)
    np.testing.assert_allclose(logits(None), model.head(features(None)), atol=1e-6)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_a_dropout_that_is_none_is_refused(rate):
    with pytest.raises(ConfigError, match="give a rate in"):
        layers.dropout(jnp.ones(3), rate, jax.random.key(0))
