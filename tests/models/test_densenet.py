"""DenseNet: counts, an independent implementation, modes, types and creation."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx
from keras.src.applications.densenet import DenseNet  # the only way to fewer layers

from cxr_jax.errors import ConfigError
from cxr_jax.models import densenet
from cxr_jax.models.heads import Classifier, PoolThenClassify
from cxr_jax.models.layers import BatchNorm, Moments, dropout, max_pool


def classifier(build, classes, key, **kwargs):
    rngs = nnx.Rngs(params=key)
    backbone = build(rngs=rngs, **kwargs)
    head = PoolThenClassify(backbone.num_features(), classes, rngs=rngs)
    return Classifier(backbone, head)


def abstract(create):
    return nnx.eval_shape(create, jax.eval_shape(lambda: jax.random.key(0)))


def size(model, kind):
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, kind)))


def tiny(key=0, **kwargs):
    return densenet.densenet_tiny(rngs=nnx.Rngs(key), **kwargs)


# torchvision counts trainable parameters; Keras' table adds batch statistics.
@pytest.mark.parametrize(
    ("build", "trainable", "with_statistics"),
    [
        (densenet.densenet121, 7_978_856, 8_062_504),
        (densenet.densenet169, 14_149_480, 14_307_880),
        pytest.param(densenet.densenet161, 28_681_000, None, marks=pytest.mark.long),
        pytest.param(
            densenet.densenet201, 20_013_928, 20_242_984, marks=pytest.mark.long
        ),
    ],
)
def test_parameter_counts_are_the_published_ones(build, trainable, with_statistics):
    model = abstract(functools.partial(classifier, build, 1000))
    assert size(model, nnx.Param) == trainable
    if with_statistics:
        statistics = size(model, nnx.BatchStat)
        assert trainable + statistics == with_statistics


def keras_layers(model, blocks):
    """Our name → the Keras layer of the same role."""
    pairs = {
        ("stem",): "conv1_conv",
        ("stem_norm",): "conv1_bn",
        ("norm",): "bn",
    }
    for b, depth in enumerate(blocks):
        for i in range(depth):
            ours, theirs = (
                ("blocks", b, "layers", i),
                f"conv{b + 2}_block{i + 1}",
            )
            pairs |= {
                (*ours, "norm1"): f"{theirs}_0_bn",
                (*ours, "conv1"): f"{theirs}_1_conv",
                (*ours, "norm2"): f"{theirs}_1_bn",
                (*ours, "conv2"): f"{theirs}_2_conv",
            }
        if b:
            pairs[("transitions", b - 1, "norm")] = f"pool{b + 1}_bn"
            pairs[("transitions", b - 1, "conv")] = f"pool{b + 1}_conv"
    return {ours: model.get_layer(theirs) for ours, theirs in pairs.items()}


def values_of(layer):
    # Not `get_weights()`, whose `numpy()` NumPy 2 warns about.
    return [np.asarray(w.value) for w in layer.weights]


def randomise(model, seed):
    """Weights that keep activations of order one, moving statistics included."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = []
        for w in layer.weights:
            draw = rng.standard_normal(w.shape).astype(np.float32)
            if w.path.endswith("kernel"):
                draw *= np.sqrt(2 / np.prod(w.shape[:-1]))
            elif w.path.endswith(("gamma", "moving_variance")):
                draw = 1 + 0.2 * np.tanh(draw)
            else:
                draw *= 0.1
            values.append(draw)
        layer.set_weights(values)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("the same with few layers", (1, 2, 1, 2)),
        pytest.param("DenseNet121", (6, 12, 24, 16), marks=pytest.mark.long),
        pytest.param("DenseNet169", (6, 12, 32, 32), marks=pytest.mark.long),
    ],
)
def test_logits_equal_those_of_keras(name, blocks):
    shape = (64, 64, 3)
    few = functools.partial(DenseNet, list(blocks))
    theirs = getattr(keras.applications, name, few)(
        weights=None, input_shape=shape, classes=14, classifier_activation=None
    )
    randomise(theirs, seed=1)
    build = functools.partial(densenet.DenseNet, blocks, epsilon=1.001e-5)
    model = abstract(functools.partial(classifier, build, 14))
    graphdef, state = nnx.split(model)
    arrays = nnx.to_pure_dict(state)
    for path, layer in keras_layers(theirs, blocks).items():
        node = functools.reduce(lambda t, k: t[k], path, arrays["backbone"])
        weights = values_of(layer)
        names = ("scale", "bias", "mean", "var") if len(weights) == 4 else ("kernel",)
        for leaf, value in zip(names, weights, strict=True):
            assert value.size == node[leaf].size
            node[leaf] = value.reshape(node[leaf].shape)
    kernel, bias = values_of(theirs.get_layer("predictions"))
    arrays["head"]["linear"] = {"kernel": kernel, "bias": bias}
    assert not any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(arrays))
    nnx.replace_by_pure_dict(state, arrays)

    films = np.random.default_rng(2).standard_normal((2, *shape)).astype(np.float32)
    with jax.numpy_rank_promotion("allow"):  # Keras' Dense adds its bias as it is
        expected, _ = jax.jit(theirs.stateless_call)(
            [v.value for v in theirs.trainable_variables],
            [v.value for v in theirs.non_trainable_variables],
            films,
        )
    logits = jax.jit(lambda s, x: nnx.merge(graphdef, s)(x))(state, films)
    scale = np.abs(expected).max()
    assert scale > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * scale)


def test_features_are_read_before_and_after_the_last_norm():
    model = tiny()
    model.norm.bias[...] = jnp.linspace(-1.0, 1.0, 16)
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))

    @jax.jit
    def read(model, x):
        return {tap: model.features(x, tap=tap) for tap in model.taps} | {
            "default": model(x),
            "chosen": tiny(tap="block1")(x),
        }

    found = read(model, x)
    assert found["block1"].shape == found["norm"].shape == (2, 8, 8, 16)
    assert found["norm"].min() < 0
    np.testing.assert_allclose(
        found["norm"], model.norm(found["block1"]), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(found["relu"], np.maximum(found["norm"], 0))
    np.testing.assert_array_equal(found["default"], found["relu"])
    np.testing.assert_array_equal(found["chosen"], found["block1"])


def test_taps_have_the_widths_they_announce():
    build = functools.partial(
        densenet.DenseNet, (2, 3, 1), growth=4, stem_width=8, in_channels=1
    )
    model = abstract(lambda key: build(rngs=nnx.Rngs(params=key)))
    x = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    cells = {"block1": 16, "block2": 8, "block3": 4, "norm": 4, "relu": 4}
    assert model.taps == tuple(cells)
    for tap, side in cells.items():
        features = nnx.eval_shape(lambda m, x, t=tap: m.features(x, tap=t), model, x)
        assert features.shape == (1, side, side, model.num_features(tap))


def test_what_lies_behind_a_tap_is_not_built():
    create = functools.partial(densenet.densenet121, until="block4")
    model = abstract(lambda key: create(rngs=nnx.Rngs(params=key)))
    # Keras counts the same up to conv5_block16_concat.
    assert size(model, nnx.Param) + size(model, nnx.BatchStat) == 7_033_408
    assert (model.tap, model.num_features()) == ("block4", 1024)
    whole, cut = tiny(), tiny(until="block1")
    names = [{p for p, _ in nnx.to_flat_state(nnx.state(m))} for m in (whole, cut)]
    assert {path[0] for path in names[0] - names[1]} == {"norm"} and names[1] < names[0]
    x = jax.random.normal(jax.random.key(1), (1, 8, 8, 3))
    np.testing.assert_array_equal(cut(x), whole.features(x, tap="block1"))
    with pytest.raises(ConfigError, match="'relu': choose one of block1$"):
        cut.features(x, tap="relu")
    with pytest.raises(ConfigError, match="until='block2'.*block1, norm, relu"):
        tiny(until="block2")


def test_unknown_tap_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match="norm5.*block1, norm, relu"):
        tiny(tap="norm5")


@pytest.mark.parametrize(
    ("stem", "cells"),
    [
        ({"stem_stride": 1}, 16),
        ({}, 8),
        ({"stem_pool": True}, 4),
        ({"stem_kernel": 7, "stem_pool": True}, 4),
    ],
)
def test_stem_decides_how_fine_the_maps_are(stem, cells):
    create = functools.partial(densenet.densenet_tiny, in_channels=1, **stem)
    model = abstract(lambda key: create(rngs=nnx.Rngs(params=key)))
    x = jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.float32)
    assert nnx.eval_shape(lambda m, x: m(x), model, x).shape == (1, cells, cells, 16)


def test_bfloat16_stays_close_and_keeps_float32_state():
    x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    single, half = tiny(), tiny(dtype="bfloat16")
    for model in (single, half):
        model.train()
    # As under `jax.jit` in training, statistics written along the way come out too.
    run = jax.jit(lambda model, x: (model(x), nnx.state(model)))
    (expected, _), (found, state) = run(single, x), run(half, x)
    assert found.dtype == jnp.bfloat16
    error = jnp.linalg.norm(found.astype(jnp.float32) - expected)
    assert error < 0.02 * jnp.linalg.norm(expected)
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(state))


def test_shared_moments_equal_those_of_the_joined_features():
    model = tiny()
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 8))
    x, moments = jax.jit(lambda block, x: block(x))(model.blocks[0], x)
    joined = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    np.testing.assert_allclose(moments.mean, joined.mean(0), atol=1e-6)
    np.testing.assert_allclose(moments.var, joined.var(0), rtol=1e-5)


def test_batch_norm_trains_on_the_batch_and_reads_the_running_average():
    norm = BatchNorm(3, momentum=0.9)
    norm.scale[...], norm.bias[...] = jnp.array([1.0, 2.0, 3.0]), jnp.arange(3.0)
    x = 5 + 2 * jax.random.normal(jax.random.key(1), (4, 5, 5, 3))
    exact = np.asarray(x, np.float64)
    mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2))

    def expected(mean, var):
        return (exact - mean) / np.sqrt(var + 1e-5) * [1, 2, 3] + np.arange(3)

    np.testing.assert_allclose(norm(x), expected(0, 1), rtol=1e-5, atol=1e-5)
    training = nnx.view(norm, use_running_average=False)
    np.testing.assert_allclose(training(x), expected(mean, var), rtol=1e-4, atol=1e-4)
    # The view shares its variables with the layer it is a view of.
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var, rtol=1e-5)
    known = training(x, Moments.of(x))
    np.testing.assert_array_equal(known, training(x))


@pytest.mark.parametrize(("training", "far"), [(False, 100), (True, 10)])
def test_batch_norm_far_from_zero_equals_float64(training, far):
    """Means of so many standard deviations: known moments, and those of one pass."""
    spread = jax.random.normal(jax.random.key(0), (8, 6, 6, 4))
    x = 0.3 * (far + spread)
    weights = jax.random.normal(jax.random.key(1), spread.shape)
    norm = BatchNorm(4)
    norm.scale.set_value(jnp.array([0.5, 1.0, 2.0, 3.0]))
    norm.bias.set_value(jnp.arange(4.0))
    norm.mean.set_value(jnp.full(4, 0.3 * far))
    norm.var.set_value(jnp.full(4, 0.09))
    static, params, rest = nnx.split(norm, nnx.Param, ...)

    def loss(params, x):
        model = nnx.merge(static, params, rest, copy=True)
        y = nnx.view(model, use_running_average=not training)(x)
        return (y * weights).sum(), y

    (_, y), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)
    x, weights, scale = (
        np.asarray(a, np.float64) for a in (x, weights, norm.scale[...])
    )
    axes = (0, 1, 2)
    mean, var = np.full(4, np.float32(0.3 * far)), np.full(4, np.float32(0.09))
    if training:
        mean, var = x.mean(axes), x.var(axes)
    normal = (x - mean) / np.sqrt(var + norm.epsilon)
    close = {"rtol": 2e-3, "atol": 2e-3}
    np.testing.assert_allclose(y, normal * scale + np.arange(4), **close)
    np.testing.assert_allclose(
        grads[0]["scale"][...], (weights * normal).sum(axes), rtol=2e-3, atol=0.02
    )
    np.testing.assert_allclose(grads[0]["bias"][...], weights.sum(axes), rtol=1e-4)
    inner = weights
    if training:  # Ioffe and Szegedy, ICML 2015, section 3.
        through = normal * (weights * normal).mean(axes)
        inner = weights - weights.mean(axes) - through
    wanted = inner * scale / np.sqrt(var + norm.epsilon)
    np.testing.assert_allclose(grads[1], wanted, rtol=2e-3, atol=2e-2)


def test_statistics_keep_their_type():
    """float64 activations over float32 parameters, as in an experiment on exactness."""
    with jax.enable_x64(True):
        norm = BatchNorm(2)
        norm.set_view(use_running_average=False)
        norm(jnp.ones((3, 2), jnp.float64))
        assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32


def test_no_variable_is_written_in_part_while_a_network_is_traced(monkeypatch):
    """To write ``variable[...]`` asks for shardings, which tracers answer at length."""
    written = []

    def write(self, index, value):
        written.append(index)
        self.set_value(value)

    monkeypatch.setattr(nnx.Variable, "__setitem__", write)

    @nnx.jit
    def train(key, x):
        model = densenet.densenet_tiny(rngs=nnx.Rngs(params=key))
        before = model.norm.mean[...]
        written.clear()  # The library counts the keys that it gives out.
        nnx.view(model, use_running_average=False)(x)
        return before, model.norm.mean[...]

    before, after = train(
        jax.random.key(0), jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    )
    assert not np.array_equal(before, after) and not written


@pytest.mark.parametrize("side", [8, 9])
def test_max_pool_equals_the_library_and_needs_no_scatter(side):
    x = jax.random.normal(jax.random.key(0), (2, side, side, 3))

    def library(x):
        return nnx.max_pool(
            x, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1))
        )

    np.testing.assert_array_equal(max_pool(x), library(x))
    ours, theirs = (
        jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(x) for f in (max_pool, library)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    text = jax.jit(jax.grad(lambda x: max_pool(x).sum())).lower(x).as_text()
    assert "scatter" not in text


def test_dropout_keeps_the_mean_and_needs_a_key():
    x = jnp.ones((200, 200))
    assert dropout(x, 0.5, None) is x
    dropped = dropout(x, 0.25, jax.random.key(0))
    assert set(np.unique(dropped)) == {0.0, np.float32(4 / 3)}
    assert abs(float(dropped.mean()) - 1) < 0.02


def test_initial_weights_have_the_published_spread():
    model = tiny(growth=32, stem_width=128)
    for layer, fan_in in (
        (model.stem, 3 * 9),
        (model.blocks[0].layers[0].conv1, 128),
        (model.blocks[0].layers[0].conv2, 128 * 9),
    ):
        kernel = np.asarray(layer.kernel[...])
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.05)
        # A normal that was cut off at two sigma has none of these.
        assert np.abs(kernel).max() > 2.5 * np.sqrt(2 / fan_in)
    head = PoolThenClassify(400, 50, rngs=nnx.Rngs(0))
    kernel = np.asarray(head.kernel)
    assert np.abs(kernel).max() <= 1 / 20
    assert kernel.std() == pytest.approx(1 / 20 / np.sqrt(3), rel=0.05)
    assert not head.linear.bias[...].any()
