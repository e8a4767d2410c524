"""The fusion network: counts, attention, resizing, what backbones see, Keras' numbers."""

import functools

import cv2
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx

from cxr_jax.errors import ConfigError
from cxr_jax.models import fusion, heads
from cxr_jax.models.fusion import AttentionFusion, SelfAttention

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONSTANTS = 7  # Keras' EfficientNet begins with mean, variance and a count
TINY = {
    "dense": {"name": "cxr_jax.models.densenet.densenet_tiny", "until": "block1"},
    "efficient": {
        "name": "cxr_jax.models.efficientnet.efficientnet_tiny",
        "until": "block1b_expand",
    },
    "width": 6,
}


def abstract(create):
    return nnx.eval_shape(create, jax.eval_shape(lambda: jax.random.key(0)))


def size(state):
    return sum(x.size for x in jax.tree.leaves(state))


def tiny(key=0, **kwargs):
    return AttentionFusion(**TINY | kwargs, rngs=nnx.Rngs(key))


# Counts --------------------------------------------------------------------------------


def whole(key):
    rngs = nnx.Rngs(params=key)
    backbone = AttentionFusion(rngs=rngs)
    head = heads.PoolThenClassify(512, 14, dropout=0.5, rngs=rngs)
    return heads.Classifier(backbone, head)


def test_counts_are_the_published_ones():
    model = abstract(whole)
    parts = {
        "dense": 7_033_408,
        "efficient": 2_338_417 - CONSTANTS,
        "dense_conv": 262_400,
        "efficient_conv": 209_152,
    }
    backbone = model.backbone
    for name, count in parts.items():
        assert size(nnx.state(getattr(backbone, name))) == count, name
    attention = backbone.attention
    convs = (attention.query, attention.key, attention.value)
    assert sum(size(nnx.state(conv)) for conv in convs) == 787_968
    assert attention.gamma.size == 1
    assert size(nnx.state(model.head)) == 7_182
    assert size(nnx.state(model)) + CONSTANTS == 10_638_528
    assert size(nnx.state(model, nnx.Param)) == 10_521_273
    assert size(nnx.state(model, nnx.BatchStat)) + CONSTANTS == 81_600 + 35_655


def test_features_have_the_cells_of_the_dense_map():
    model = abstract(whole)
    for side, cells in ((64, 2), (224, 7), (300, 9)):
        x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        features = nnx.eval_shape(lambda m, x: m.features(x), model, x)
        assert features.shape == (1, cells, cells, 512)
    assert model.backbone.num_features() == 512


# Attention -----------------------------------------------------------------------------


def attention(features=8, key=0, dtype=jnp.float32):
    module = SelfAttention(features, dtype=jnp.dtype(dtype), param_dtype=jnp.float32)
    keys = iter(jax.random.split(jax.random.key(key), 6))
    for conv in (module.query, module.key, module.value):
        conv.kernel[...] = jax.random.normal(next(keys), conv.kernel.shape)
        conv.bias[...] = jax.random.normal(next(keys), conv.bias.shape)
    return module


def exact_attention(module, x):
    """In float64, position by position."""
    get = functools.partial(np.asarray, dtype=np.float64)
    flat = get(x).reshape(len(x), -1, x.shape[-1])
    query, key, value = (
        flat @ get(conv.kernel[...]) + get(conv.bias[...])
        for conv in (module.query, module.key, module.value)
    )
    found = np.zeros_like(flat)
    for b in range(len(flat)):
        for at, asked in enumerate(query[b]):
            scores = key[b] @ asked / np.sqrt(flat.shape[-1])
            weights = np.exp(scores - scores.max())
            found[b, at] = weights @ value[b] / weights.sum()
    return get(x) + float(module.gamma[...]) * found.reshape(x.shape)


def test_attention_starts_as_nothing_and_yet_learns():
    model = tiny()
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    joined, attended = jax.jit(
        lambda x: (model.features(x, tap="joined"), model.features(x))
    )(x)
    np.testing.assert_array_equal(attended, joined)
    weigh = jax.random.normal(jax.random.key(2), joined.shape)
    gradient = nnx.jit(nnx.grad(lambda m: jnp.sum(m(joined) * weigh)))(
        attention(joined.shape[-1])
    )
    assert abs(float(gradient["gamma"][...])) > 0.1
    assert not gradient["query"]["kernel"][...].any()


def test_attention_equals_numpy_and_one_position_sees_itself():
    module = attention()
    module.gamma[...] = jnp.array(0.7)
    x = jax.random.normal(jax.random.key(1), (3, 2, 5, 8))
    np.testing.assert_allclose(module(x), exact_attention(module, x), atol=2e-5)
    alone = x[:, :1, :1]
    expected = alone + 0.7 * module.value(alone)
    np.testing.assert_allclose(module(alone), expected, atol=1e-5)


def test_attention_forgets_where_positions_are():
    module = attention()
    module.gamma[...] = jnp.array(1.0)
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    moved = module(jnp.roll(x, (1, 2), (1, 2)))
    np.testing.assert_allclose(moved, jnp.roll(module(x), (1, 2), (1, 2)), atol=1e-5)


def test_attention_is_right_in_bfloat16():
    """Scores of a thousand: rounded to bfloat16 they would be off by four."""
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 64)).astype(jnp.bfloat16)
    half = attention(64, dtype=jnp.bfloat16)
    half.gamma[...] = jnp.array(1.0)
    for conv in (half.query, half.key):
        # The identity and no bias: what goes into the scores is exact.
        conv.kernel[...] = 11.0 * jnp.eye(64)
        conv.bias[...] = jnp.zeros(64)
    x = x / jnp.linalg.norm(x.astype(jnp.float32), axis=-1, keepdims=True)
    x = (8 * x).astype(jnp.bfloat16)
    found = half(x)
    assert found.dtype == jnp.bfloat16
    # The queries and keys that it computes with, as bfloat16 holds them.
    seen = np.asarray((11 * x).astype(jnp.float32), np.float64).reshape(2, 16, 64)
    scores = seen @ seen.transpose(0, 2, 1) / 8
    assert scores.max() > 900
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    value = np.asarray(half.value(x).astype(jnp.float32), np.float64)
    expected = np.asarray(x.astype(jnp.float32)) + (
        weights @ value.reshape(2, 16, 64)
    ).reshape(x.shape)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=0.01 * scale)


def test_without_attention_there_is_nothing_of_it():
    off, learned = tiny(attention="off"), tiny()
    names = {path[0] for path, _ in nnx.to_flat_state(nnx.state(off))}
    assert names == {"dense", "efficient", "dense_conv", "efficient_conv"}
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    assert jax.eval_shape(learned.features, x).shape == (2, 8, 8, 12)
    found = jax.jit(lambda x: (off.features(x), off.features(x, tap="joined")))(x)
    assert found[0].shape == (2, 8, 8, 12)
    np.testing.assert_array_equal(*found)
    with pytest.raises(ConfigError, match="'none': choose one of learned, off"):
        tiny(attention="none")


# Resizing ------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [(7, 7), (9, 5), (28, 28), (14, 3), (14, 14)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_maps_are_resized_at_half_pixels_without_a_filter(cells, dtype):
    x = np.random.default_rng(0).standard_normal((14, 14, 4)).astype(np.float32)
    x = np.asarray(jnp.asarray(x, dtype).astype(jnp.float32))
    expected = cv2.resize(x, cells[::-1], interpolation=cv2.INTER_LINEAR)
    found = fusion.resized(jnp.asarray(x[None], dtype), cells)
    assert found.dtype == jnp.dtype(dtype)
    atol = 1e-5 if dtype == "float32" else 0.02
    np.testing.assert_allclose(found[0].astype(jnp.float32), expected, atol=atol)


def test_halving_is_the_mean_of_four():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    expected = [[2.5, 4.5], [10.5, 12.5]]
    np.testing.assert_allclose(fusion.resized(x, (2, 2))[0, :, :, 0], expected)


# What the backbones see ----------------------------------------------------------------


def test_each_reading_of_the_scaling_gives_what_it_says():
    film = np.random.default_rng(0).random((2, 4, 4, 3))
    seen = ((film - MEAN) / STD).astype(np.float32)
    once = (seen / 255 - np.array(MEAN)) / STD
    for films, dense, efficient in (
        ("normalised", seen, seen),
        ("rescaled", seen, once),
        ("pixels", 255 * film, seen),
    ):
        found = tiny(films=films, mean=MEAN, std=STD).scaled(jnp.asarray(seen))
        np.testing.assert_allclose(found[0], dense, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(found[1], efficient, rtol=1e-5, atol=1e-4)


def test_features_come_from_what_each_backbone_sees():
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 1))
    given = {"films": "rescaled", "mean": (0.4,), "std": (0.3,), "in_channels": 1}
    model, plain = tiny(**given), tiny(in_channels=1)
    joined, other = jax.jit(
        lambda x: [m.features(x, tap="joined") for m in (model, plain)]
    )(x)
    np.testing.assert_array_equal(joined[..., :6], other[..., :6])
    assert not np.allclose(joined[..., 6:], other[..., 6:])
    first, second = model.scaled(x)
    assert first is x
    seen = jax.jit(model.efficient.features)(second)
    wanted = fusion.resized(nnx.relu(model.efficient_conv(seen)), (8, 8))
    np.testing.assert_allclose(joined[..., 6:], wanted, atol=1e-6)


def test_readings_and_means_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="'raw': choose one of normalised, rescaled"):
        tiny(films="raw")
    with pytest.raises(ConfigError, match="3 and 3 are given for 1"):
        tiny(films="pixels", in_channels=1)


# The whole -----------------------------------------------------------------------------


def test_random_depth_reaches_the_backbone_and_needs_a_key():
    efficient = TINY["efficient"] | {"drop_connect": 1.8, "until": "block1b"}
    model = tiny(efficient=efficient)
    x = jax.random.normal(jax.random.key(1), (8, 8, 8, 3))
    classifier = heads.Classifier(
        model, heads.PoolThenClassify(12, 3, rngs=nnx.Rngs(0))
    )
    run = jax.jit(lambda x, key: classifier(x, key=key))
    plain, drawn = run(x, None), run(x, jax.random.key(2))
    np.testing.assert_array_equal(drawn, run(x, jax.random.key(2)))
    np.testing.assert_array_equal(plain, run(x, None))
    assert not np.allclose(plain, drawn)


def test_types_reach_the_backbones_unless_they_name_theirs():
    dense = TINY["dense"] | {"dtype": "float32"}
    model = tiny(dense=dense, dtype="bfloat16")
    assert (model.dense.dtype, model.efficient.dtype) == (jnp.float32, jnp.bfloat16)
    features = jax.eval_shape(model.features, jnp.ones((1, 16, 16, 3)))
    assert features.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("f4")}


def test_what_joins_starts_as_in_keras():
    model = tiny(width=64)
    for conv, given in ((model.dense_conv, 16), (model.efficient_conv, 16)):
        limit = np.sqrt(6 / (given + 64))
        kernel = np.asarray(conv.kernel[...])
        assert 0.98 * limit < np.abs(kernel).max() <= limit
    query = np.asarray(model.attention.query.kernel[...])
    assert np.abs(query).max() <= np.sqrt(6 / 256)
    # And the backbones as they would alone: nobody drew over them.
    dense = np.asarray(model.dense.blocks[0].layers[0].conv1.kernel[...])
    assert np.abs(dense).max() > np.sqrt(6 / 24)
    assert not np.array_equal(query, np.asarray(model.attention.key.kernel[...]))


class Gamma(keras.layers.Layer):
    """γ · a + f with γ of the layer."""

    def build(self, _):
        self.gamma = self.add_weight(name="gamma", shape=(), initializer="zeros")

    def call(self, attended, given):
        return self.gamma * attended + given


def of_the_paper(dense, efficient, width, classes):
    """The network as the paper draws it, on outputs of two networks of Keras."""
    layers, ops = keras.layers, keras.ops
    first = layers.Conv2D(width, 1, activation="relu", name="dense_1x1")(dense)
    second = layers.Conv2D(width, 1, activation="relu", name="efficient_1x1")(efficient)
    cells = first.shape[1:3]
    second = layers.Resizing(*cells, interpolation="bilinear")(second)
    joined = layers.Concatenate(name="joined")([first, second])
    flat = layers.Reshape((-1, 2 * width))
    query, key, value = (
        flat(layers.Conv2D(2 * width, 1, name=name)(joined))
        for name in ("query", "key", "value")
    )
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1))) / np.sqrt(2.0 * width)
    attended = ops.matmul(ops.softmax(scores, axis=-1), value)
    attended = ops.reshape(attended, (-1, *cells, 2 * width))
    found = Gamma(name="gamma")(attended, joined)
    return layers.Dense(classes, name="logits")(layers.GlobalAveragePooling2D()(found))


def compare(of_keras, dense, efficient, ends, width, create, side):
    """Ours and Keras' on the same films: the joined features and the logits."""
    outputs = [
        network.get_layer(end).output
        for network, end in zip((dense, efficient), ends, strict=True)
    ]
    logits = of_the_paper(*outputs, width, 14)
    theirs = keras.Model([dense.input, efficient.input], logits)
    of_keras.randomise(theirs, seed=3)
    theirs.get_layer("gamma").set_weights([np.float32(0.8)])
    names = of_keras.names_of_densenet(theirs, "backbone/dense")
    names |= of_keras.names_of_efficientnet(theirs, "backbone/efficient")
    names |= {"dense_1x1": "backbone/dense_conv", "logits": "head/linear"}
    names |= {"efficient_1x1": "backbone/efficient_conv"}
    names |= {n: f"backbone/attention/{n}" for n in ("query", "key", "value")}
    arrays = of_keras.weights(theirs, names)
    arrays["backbone/attention/gamma"] = np.float32(0.8)
    graphdef, state = of_keras.filled(create, arrays)

    films = np.random.default_rng(2).random((2, side, side, 3))
    seen = ((films - MEAN) / STD).astype(np.float32)
    pixels = (255 * films).astype(np.float32)
    expected = of_keras.outputs(theirs, ["joined", "logits"], [seen, pixels])

    @jax.jit
    def run(state, x):
        model = nnx.merge(graphdef, state)
        return model.backbone.features(x, tap="joined"), model(x)

    for found, wanted in zip(run(state, seen), expected, strict=True):
        scale = np.abs(wanted).max()
        assert scale > 0.1
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * scale)


STAGES = ((1, 3, 2, 1, 8), (1, 5, 2, 4, 16), (1, 3, 2, 4, 16))


@pytest.mark.long
def test_logits_equal_those_of_keras(of_keras):
    side = 80  # 2 cells of the dense map, 5 of the efficient one
    dense = of_keras.densenet(
        [1, 1, 1, 1], include_top=False, input_shape=(side, side, 3)
    )
    efficient = of_keras.efficientnet(
        *(1.0, 1.0, side),
        blocks_args=of_keras.stages((*STAGES, (1, 3, 2, 4, 8))),
        include_top=False,
        input_shape=(side, side, 3),
    )
    ends = ("conv5_block1_concat", "block4a_expand_activation")

    def create(key):
        rngs = nnx.Rngs(params=key)
        backbone = AttentionFusion(
            dense={
                "name": "cxr_jax.models.densenet.DenseNet",
                "blocks": (1, 1, 1, 1),
                "epsilon": 1.001e-5,
                "until": "block4",
            },
            efficient={
                "name": "cxr_jax.models.efficientnet.EfficientNet",
                "stages": (*STAGES, (1, 3, 2, 4, 8)),
                "until": "block4a_expand",
            },
            width=16,
            rngs=rngs,
        )
        return heads.Classifier(backbone, heads.PoolThenClassify(32, 14, rngs=rngs))

    compare(of_keras, dense, efficient, ends, 16, create, side)


@pytest.mark.long  # Keras takes its time to make two networks
def test_logits_of_the_whole_network_equal_those_of_keras(of_keras):
    shape = (96, 96, 3)
    dense = keras.applications.DenseNet121(
        weights=None, include_top=False, input_shape=shape
    )
    efficient = keras.applications.EfficientNetB3(
        weights=None, include_top=False, input_shape=shape
    )
    ends = ("conv5_block16_concat", "block6a_expand_activation")

    def create(key):
        rngs = nnx.Rngs(params=key)
        dense = fusion.DENSE | {"epsilon": 1.001e-5}
        backbone = AttentionFusion(dense=dense, rngs=rngs)
        return heads.Classifier(backbone, heads.PoolThenClassify(512, 14, rngs=rngs))

    compare(of_keras, dense, efficient, ends, 256, create, 96)
