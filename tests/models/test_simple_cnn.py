"""The simple CNN: count, Keras' numbers, shapes, initial spread."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx

from cxr_jax.errors import ConfigError
from cxr_jax.models import heads, simple_cnn


def classifier(key, **kwargs):
    rngs = nnx.Rngs(params=key)
    network = simple_cnn.SimpleCNN(rngs=rngs)
    head = heads.PoolHiddenClassify(
        network.num_features(),
        14,
        rngs=rngs,
        **{"hidden": 256, "dropout": 0.0} | kwargs,
    )
    return heads.Classifier(network, head)


def abstract(create):
    return nnx.eval_shape(create, jax.eval_shape(lambda: jax.random.key(0)))


def test_the_count_is_the_published_one():
    state = nnx.state(abstract(classifier))
    assert sum(x.size for x in jax.tree.leaves(state)) == 129_870


@pytest.mark.parametrize("side", [32, 45])
def test_logits_equal_those_of_keras(side, of_keras):
    layers = keras.layers
    theirs = keras.Sequential([keras.Input((side, side, 3))])
    for n, width in enumerate((32, 64, 128)):
        theirs.add(layers.Conv2D(width, 3, activation="relu", name=f"conv{n}"))
        theirs.add(layers.MaxPooling2D())
    theirs.add(layers.GlobalAveragePooling2D())
    theirs.add(layers.Dense(256, activation="relu", name="hidden"))
    theirs.add(layers.Dense(14, name="logits"))
    of_keras.randomise(theirs, seed=side)
    names = {f"conv{n}": f"backbone/convs/{n}" for n in range(3)}
    names |= {"hidden": "head/hidden", "logits": "head/linear"}
    arrays = of_keras.weights(theirs, names)
    graphdef, state = of_keras.filled(classifier, arrays)
    x = np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(np.float32)
    (expected,) = of_keras.outputs(theirs, ["logits"], x)
    found = jax.jit(lambda s, x: nnx.merge(graphdef, s)(x))(state, x)
    scale = np.abs(expected).max()
    assert scale > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(("side", "cells"), [(64, (31, 14, 6)), (224, (111, 54, 26))])
def test_taps_have_the_shapes_they_announce(side, cells):
    create = functools.partial(simple_cnn.SimpleCNN, in_channels=1)
    model = abstract(lambda key: create(rngs=nnx.Rngs(params=key)))
    x = jax.ShapeDtypeStruct((1, side, side, 1), jnp.float32)
    for tap, side_of_map in zip(model.taps, cells, strict=True):
        found = nnx.eval_shape(lambda m, x, t=tap: m.features(x, tap=t), model, x)
        assert found.shape == (1, side_of_map, side_of_map, model.num_features(tap))
    with pytest.raises(ConfigError, match="'block4': choose one of block1, block2"):
        model.num_features("block4")


def test_initial_weights_have_the_spread_of_keras():
    model = simple_cnn.SimpleCNN(rngs=nnx.Rngs(0))
    for conv, given, width in zip(model.convs, (3, 32, 64), (32, 64, 128), strict=True):
        kernel = np.asarray(conv.kernel[...])
        limit = np.sqrt(6 / (9 * (given + width)))
        assert 0.98 * limit < np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
        assert not conv.bias[...].any()


def test_bfloat16_is_the_type_of_features_and_not_of_weights():
    model = simple_cnn.SimpleCNN(dtype="bfloat16", rngs=nnx.Rngs(0))
    assert model(jnp.ones((1, 22, 22, 3))).dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("f4")}
