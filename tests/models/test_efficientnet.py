"""EfficientNet: counts, Keras' numbers at every tap, modes, random depth, types."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx

from cxr_jax.errors import ConfigError
from cxr_jax.models import efficientnet, heads
from cxr_jax.models.depthwise import depthwise
from cxr_jax.models.layers import Conv, dropout

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# Keras' network begins with mean, variance and a count; here the task has them.
CONSTANTS = 7


def abstract(create):
    return nnx.eval_shape(create, jax.eval_shape(lambda: jax.random.key(0)))


def backbone(build, **kwargs):
    return abstract(lambda key: build(rngs=nnx.Rngs(params=key), **kwargs))


def size(model, kind=(nnx.Param, nnx.BatchStat)):
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return sum(x.size for k in kinds for x in jax.tree.leaves(nnx.state(model, k)))


def tiny(key=0, **kwargs):
    return efficientnet.efficientnet_tiny(rngs=nnx.Rngs(key), **kwargs)


# Counts --------------------------------------------------------------------------------


def test_counts_of_b0_are_the_published_ones():
    model = backbone(efficientnet.efficientnet_b0)
    assert size(model) + CONSTANTS == 4_049_571
    head = abstract(
        lambda key: heads.PoolHiddenClassify(1280, 14, rngs=nnx.Rngs(params=key))
    )
    assert size(head) == 663_054
    assert size(model) + CONSTANTS + size(head) == 4_712_625


def test_what_lies_behind_a_tap_is_not_built():
    model = backbone(efficientnet.efficientnet_b3, until="block6a_expand")
    assert size(model) + CONSTANTS == 2_338_417
    assert size(model, nnx.BatchStat) + CONSTANTS == 35_655
    assert model.tap == model.taps[-1] == "block6a_expand"
    assert model.num_features() == 816
    with pytest.raises(ConfigError, match="'block6a': choose one of block1a"):
        model.num_features("block6a")
    with pytest.raises(ConfigError, match=r"until='block1a_expand'.*block2a_expand"):
        backbone(efficientnet.efficientnet_b3, until="block1a_expand")


# As Keras' summaries of the networks without their tops say; the long test compares B3.
@pytest.mark.parametrize(
    ("name", "count"), [("b1", 6_575_239), ("b2", 7_768_569), ("b3", 10_783_535)]
)
def test_counts_of_larger_ones_are_those_of_keras(name, count):
    model = backbone(getattr(efficientnet, f"efficientnet_{name}"))
    assert size(model) + CONSTANTS == count


# Keras' numbers ------------------------------------------------------------------------


def compare(of_keras, theirs, create, names, films, taps):
    """Ours and theirs at taps (ours → layer), and of logits, on films in [0, 255]."""
    arrays = of_keras.weights(theirs, names)
    graphdef, state = of_keras.filled(create, arrays)
    expected = of_keras.outputs(theirs, [*taps.values(), theirs.layers[-1].name], films)
    scaled = ((films / 255 - MEAN) / STD).astype(np.float32)

    @jax.jit
    def run(state, x):
        model = nnx.merge(graphdef, state)
        found = [model.backbone.features(x, tap=tap) for tap in taps]
        return [*found, model(x)]

    for found, wanted in zip(run(state, scaled), expected, strict=True):
        assert found.shape == wanted.shape
        scale = np.abs(wanted).max()
        assert scale > 0.05
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * scale)


def classifier(build, key, classes=14):
    rngs = nnx.Rngs(params=key)
    network = build(rngs=rngs)
    head = heads.PoolThenClassify(network.num_features(), classes, rngs=rngs)
    return heads.Classifier(network, head)


# Those between have their widths and depths from the same rule: counts above tell it.
@pytest.mark.long
@pytest.mark.parametrize("name", ["B0", "B3"])
def test_logits_and_taps_equal_those_of_keras(name, of_keras):
    theirs = getattr(keras.applications, f"EfficientNet{name}")(
        weights=None, input_shape=(64, 64, 3), classes=14, classifier_activation=None
    )
    of_keras.randomise(theirs, seed=1)
    build = getattr(efficientnet, f"efficientnet_{name.lower()}")
    layers = {layer.name for layer in theirs.layers}
    taps = {"top": "top_activation", "block6a_expand": "block6a_expand_activation"}
    for tap in backbone(build).taps:
        block, _, expand = tap.partition("_")
        last = f"{block}_add" if f"{block}_add" in layers else f"{block}_project_bn"
        taps.setdefault(tap, f"{tap}_activation" if expand else last)
    names = of_keras.names_of_efficientnet(theirs) | {"predictions": "head/linear"}
    films = np.random.default_rng(2).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    create = functools.partial(classifier, build)
    assert size(abstract(create)) + CONSTANTS == theirs.count_params()
    compare(of_keras, theirs, create, names, films, taps)


SMALL = ((1, 3, 1, 1, 8), (2, 5, 2, 4, 16), (2, 3, 2, 4, 16))


@pytest.mark.parametrize(
    "side", [38, *(pytest.param(k, marks=pytest.mark.long) for k in (33, 45))]
)
def test_any_size_has_the_shapes_and_numbers_of_keras(side, of_keras):
    shape = (side, side + 3, 3)
    theirs = of_keras.efficientnet(
        1.1,
        1.2,
        side,
        blocks_args=of_keras.stages(SMALL),
        input_shape=shape,
        classes=5,
        classifier_activation=None,
    )
    of_keras.randomise(theirs, seed=side)
    build = functools.partial(
        efficientnet.EfficientNet, width=1.1, depth=1.2, stages=SMALL
    )
    names = of_keras.names_of_efficientnet(theirs) | {"predictions": "head/linear"}
    films = np.random.default_rng(2).uniform(0, 255, (2, *shape)).astype(np.float32)
    create = functools.partial(classifier, build, classes=5)
    compare(of_keras, theirs, create, names, films, {"block3a": "block3a_project_bn"})


@pytest.mark.parametrize(("side", "cells"), [(64, 2), (224, 7), (300, 10), (321, 11)])
def test_each_stride_halves_and_rounds_up(side, cells):
    model = backbone(efficientnet.efficientnet_b0)
    x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    features = nnx.eval_shape(lambda m, x: m(x), model, x)
    assert features.shape == (1, cells, cells, model.num_features())


def test_taps_have_the_widths_they_announce():
    model = backbone(efficientnet.efficientnet_tiny, in_channels=1)
    assert model.taps == (
        *("block1a_expand", "block1a", "block1b_expand", "block1b"),
        "top",
    )
    x = jax.ShapeDtypeStruct((1, 9, 16, 1), jnp.float32)
    for tap in model.taps:
        found = nnx.eval_shape(lambda m, x, t=tap: m.features(x, tap=t), model, x)
        assert found.shape == (1, 5, 8, model.num_features(tap))
    with pytest.raises(ConfigError, match="'block1c': choose one of block1a_expand"):
        tiny(tap="block1c")


@pytest.mark.parametrize(
    ("features", "width", "expected"),
    # 10 would lose more than a tenth by rounding to 8; the others by Keras' rule.
    [(32, 1.0, 32), (10, 1.0, 16), (32, 1.1, 32), (40, 1.1, 48), (320, 1.2, 384)],
)
def test_widths_are_rounded_to_eights(features, width, expected):
    assert efficientnet.rounded(features, width) == expected


# Training ------------------------------------------------------------------------------


class Exact:
    """The tiny network once more, in float64 NumPy, with the moments of the batch."""

    def __init__(self, model):
        self.model, self.moments = model, {}

    def __call__(self, x):
        x = self.swish(self.norm("stem_norm", self.conv("stem", x, 2)))
        for number in range(2):
            x = self.block(f"blocks/{number}", x)
        return self.swish(self.norm("top_norm", self.conv("top", x)))

    def get(self, name):
        node = self.model
        for part in name.split("/"):
            node = node[int(part)] if part.isdigit() else getattr(node, part)
        return np.asarray(node[...], np.float64)

    def swish(self, x):
        return x / (1 + np.exp(-x))

    def norm(self, name, x):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        self.moments[name] = mean, var
        unit = (x - mean) / np.sqrt(var + 1e-3)
        return unit * self.get(f"{name}/scale") + self.get(f"{name}/bias")

    def conv(self, name, x, stride=1):
        kernel = self.get(f"{name}/kernel")
        if kernel.ndim == 2:
            return x @ kernel
        whole = np.zeros((x.shape[0], *(-(-n // stride) for n in x.shape[1:3]), 1))
        side = len(kernel)
        # An even film of stride 2 has its one zero behind.
        before = (side - 1) // 2 if stride == 1 else (side - 2) // 2
        padded = np.pad(x, ((0, 0), (before, side), (before, side), (0, 0)))
        total = 0.0
        for i in range(side):
            for j in range(side):
                rows = padded[:, i::stride, j::stride]
                cut = rows[:, : whole.shape[1], : whole.shape[2]]
                alone = kernel.shape[2] == 1
                total = total + (cut * kernel[i, j, 0] if alone else cut @ kernel[i, j])
        return total

    def block(self, at, given):
        x = self.swish(self.norm(f"{at}/expand_norm", self.conv(f"{at}/expand", given)))
        x = self.swish(self.norm(f"{at}/norm", self.conv(f"{at}/depthwise", x)))
        pooled = x.mean((1, 2))
        small = self.swish(
            pooled @ self.get(f"{at}/squeeze/kernel") + self.get(f"{at}/squeeze/bias")
        )
        gate = small @ self.get(f"{at}/excite/kernel") + self.get(f"{at}/excite/bias")
        x = x / (1 + np.exp(-gate))[:, None, None]
        projected = self.conv(f"{at}/project", x)
        return given + self.norm(f"{at}/project_norm", projected)


def test_batch_norm_in_training_equals_numpy():
    model = tiny(momentum=0.75)
    for _, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        assert variable.dtype == jnp.float32
    rng = np.random.default_rng(3)
    for _, node in nnx.iter_modules(model):
        if getattr(node, "bias", None) is not None:
            node.bias[...] = jnp.asarray(
                rng.normal(0, 0.3, node.bias.shape), jnp.float32
            )
    x = rng.standard_normal((4, 12, 8, 3))
    exact = Exact(model)
    expected = exact(x)
    training = nnx.view(model, use_running_average=False)
    found, state = jax.jit(lambda m, x: (m(x), nnx.state(m, nnx.BatchStat)))(
        training, jnp.asarray(x, jnp.float32)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert len(exact.moments) == 2 + 2 * 3
    nnx.update(model, state)
    for name, (mean, var) in exact.moments.items():
        ours = exact.get(f"{name}/mean"), exact.get(f"{name}/var")
        np.testing.assert_allclose(ours[0], 0.25 * mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours[1], 0.75 + 0.25 * var, rtol=1e-4)


def test_whole_films_skip_a_block_and_only_with_a_key():
    model = tiny(drop_connect=0.8)  # of the second of two blocks: 0.4
    x = jax.random.normal(jax.random.key(1), (8, 8, 8, 3))
    read = jax.jit(lambda key: model.features(x, tap="block1b", key=key))
    plain, before = read(None), jax.jit(lambda: model.features(x, tap="block1a"))()
    added = np.asarray(plain - before)
    keys = jax.random.split(jax.random.key(2), 50)
    drawn = np.stack([read(key) - before for key in keys])
    skipped = np.abs(drawn).max((2, 3, 4)) < 1e-6
    kept = np.broadcast_to(added / 0.6, drawn.shape)
    np.testing.assert_allclose(drawn[~skipped], kept[~skipped], rtol=1e-4, atol=1e-5)
    # 400 draws: three standard deviations.
    assert abs(skipped.mean() - 0.4) < 0.075
    assert 0 < skipped[0].sum() < 8 or 0 < skipped[1].sum() < 8
    np.testing.assert_array_equal(read(keys[0]), read(keys[0]))
    still = jax.jit(tiny(drop_connect=0.0).features)
    np.testing.assert_array_equal(still(x, key=keys[0]), still(x))


def test_random_depth_rises_linearly_from_the_first_block():
    model = backbone(efficientnet.efficientnet_b0)
    rates = [plan.drop for plan in model.plans]
    assert len(rates) == 16
    np.testing.assert_allclose(rates, 0.2 * np.arange(16) / 16)
    cut = backbone(efficientnet.efficientnet_b0, until="block3a")
    assert [plan.drop for plan in cut.plans] == rates[: len(cut.plans)]


def test_a_mask_may_be_shared_along_axes():
    x = jnp.ones((64, 3, 5))
    dropped = np.asarray(dropout(x, 0.5, jax.random.key(0), shape=(64, 1, 5)))
    np.testing.assert_array_equal(dropped, dropped[:, :1].repeat(3, 1))
    assert set(np.unique(dropped)) == {0.0, 2.0}


# Convolutions --------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("size", [(8, 9), (2, 1)])
def test_a_depthwise_convolution_sees_each_feature_alone(kernel, stride, size):
    conv = Conv(3, 3, kernel, stride, padding="same", depthwise=True, bias=True)
    keys = jax.random.split(jax.random.key(0), 3)
    conv.kernel[...] = jax.random.normal(keys[0], (kernel, kernel, 1, 3))
    conv.bias[...] = jnp.arange(3.0)
    x = jax.random.normal(keys[1], (2, *size, 3))

    def alone(x, weights):
        each = [
            jax.lax.conv_general_dilated(
                x[..., n : n + 1],
                weights[..., n : n + 1],
                (stride, stride),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            for n in range(3)
        ]
        return jnp.concatenate(each, -1)

    def ours(x, weights):
        return conv.convolve(x, weights)

    weigh = jax.random.normal(keys[2], jax.eval_shape(alone, x, conv.kernel[...]).shape)

    @jax.jit
    def run(x, weights):
        def both(f):
            back = jax.grad(lambda *at: jnp.sum(f(*at) * weigh), (0, 1))
            return f(x, weights), *back(x, weights)

        return both(ours), both(alone), conv(x)

    found, expected, biased = run(x, conv.kernel[...])
    for ours_of_it, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours_of_it, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(biased, found[0] + jnp.arange(3.0)[None, None, None])


def test_a_depthwise_convolution_in_bfloat16_sums_in_float32():
    """Beyond 256 bfloat16 knows no odd numbers; the sums here do not notice."""
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.randint(keys[0], (8, 12, 9, 2), 0, 8).astype(jnp.bfloat16)
    ones = jnp.ones((5, 5, 2), jnp.bfloat16)

    def of_kernel(x, w):
        return jax.grad(lambda w: depthwise(x, w).astype(jnp.float32).sum())(w)

    half = jax.jit(of_kernel)(x, ones)
    exact = np.asarray(x.astype(jnp.float32), np.float64)
    for u, v in ((0, 0), (2, 3), (4, 4)):
        wanted = exact[:, u : u + 8, v : v + 5].sum((0, 1, 2))
        assert half.dtype == jnp.bfloat16
        np.testing.assert_allclose(half[u, v].astype(jnp.float32), wanted, rtol=2**-8)
    cells = exact[:, :5, :5].sum((1, 2))
    found = depthwise(x, ones)[:, 0, 0].astype(jnp.float32)
    np.testing.assert_allclose(found, cells, rtol=2**-8)


def test_initial_weights_have_the_spread_of_keras():
    model = tiny(stem_width=64, stages=((2, 5, 1, 4, 64),), top_width=512)
    block = model.blocks[0]
    for layer, fan_out in (
        (model.stem, 9 * 64),
        (block.depthwise, 25),
        (block.squeeze, 16),
        (block.project, 64),
    ):
        kernel = np.asarray(layer.kernel[...])
        sigma = np.sqrt(2 / fan_out)
        assert kernel.std() == pytest.approx(sigma, rel=0.06)
        # Cut off at two standard deviations of the normal that it was cut from.
        assert np.abs(kernel).max() < 2 / 0.8796 * sigma
    assert not block.squeeze.bias[...].any()


def test_bfloat16_stays_close_and_keeps_float32_state():
    x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    single, half = tiny(), tiny(dtype="bfloat16")
    for model in (single, half):
        model.train()
    run = jax.jit(lambda model, x: (model(x), nnx.state(model)))
    (expected, _), (found, state) = run(single, x), run(half, x)
    assert found.dtype == jnp.bfloat16
    error = jnp.linalg.norm(found.astype(jnp.float32) - expected)
    assert error < 0.02 * jnp.linalg.norm(expected)
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(state))
