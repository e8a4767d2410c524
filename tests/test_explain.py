"""Maps of a head, against float64 NumPy, and where they point."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage

from cxr_jax import explain
from cxr_jax.models.densenet import DenseNet, densenet_tiny
from cxr_jax.models.heads import Classifier, PoolThenClassify

locate = jax.jit(explain.locate, static_argnames=("share", "refine"))
mass_inside = jax.jit(explain.mass_inside, static_argnames="refine")
upsample = jax.jit(explain.upsample, static_argnames="size")


def drawn(model, *, positive=False, seed=0):
    """Every parameter and statistic drawn anew, so that none is 0 or 1 by design."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        # Variances and scales are positive; the others have both signs unless asked.
        low = positive or path[-2].key in ("var", "scale")
        value = (
            rng.uniform(0.2, 1.0, leaf.shape) if low else rng.normal(size=leaf.shape)
        )
        if positive and path[-2].key in ("bias", "mean"):
            value = np.zeros(leaf.shape)
        return jnp.asarray(value, leaf.dtype)

    nnx.update(model, jax.tree_util.tree_map_with_path(draw, nnx.state(model)))
    return nnx.view(model, use_running_average=True, raise_if_not_found=False)


def conv64(x, kernel, stride=1):
    """Cross-correlation in float64; stride s reads pixels 0, s, 2s …"""
    if kernel.ndim == 2:
        return x @ kernel
    pad = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    return np.einsum("bhwiyx,yxio->bhwo", windows[:, ::stride, ::stride], kernel)


def network64(model, x):
    """Features of ``densenet_tiny`` in float64, straight from the papers."""

    def norm(layer, y):
        scale, bias, mean, var = (
            np.float64(getattr(layer, k)[...]) for k in ("scale", "bias", "mean", "var")
        )
        return (y - mean) / np.sqrt(var + 1e-5) * scale + bias

    def conv(layer, y, stride=1):
        return conv64(y, np.float64(layer.kernel[...]), stride)

    def relu(y):
        return np.maximum(y, 0)

    net = model.backbone
    x = relu(norm(net.stem_norm, conv(net.stem, x, stride=2)))
    for layer in net.blocks[0].layers:
        new = conv(layer.conv1, relu(norm(layer.norm1, x)))
        new = conv(layer.conv2, relu(norm(layer.norm2, new)))
        x = np.concatenate([x, new], axis=-1)
    return relu(norm(net.norm, x))


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_logits_cam_and_grad_cam_of_a_network_agree_with_float64():
    rngs = nnx.Rngs(0)
    net = densenet_tiny(in_channels=1, rngs=rngs)
    head = PoolThenClassify(net.num_features(), 3, rngs=rngs)
    model = drawn(Classifier(net, head))
    x = np.random.default_rng(1).normal(size=(2, 12, 20, 1))
    features = network64(model, x)
    w = np.float64(model.head.kernel)
    b = np.float64(model.head.linear.bias[...])
    maps = np.einsum("bhwf,fc->bhwc", features, w)
    logits = features.mean((1, 2)) @ w + b

    @jax.jit
    def predict(x):
        f = model.features(x)
        return (
            model.head(f),
            explain.cam(f, head.kernel),
            explain.grad_cam(model.head, f),
        )

    found = predict(jnp.asarray(x, jnp.float32))
    assert relative(found[0], logits) < 1e-5
    assert relative(found[1], maps) < 1e-5
    # ∂y_c/∂f_k = w_ck / (h·w) everywhere, and so is its mean.
    assert relative(found[2], np.maximum(maps, 0) / 60) < 1e-5
    assert (maps < 0).any() and (maps > 0).any()


def head64(f, u, v):
    """Two layers behind pooled squares, y = V·tanh(U·mean(f²)), and ∂y_c/∂f by hand."""
    hidden = np.tanh((f**2).mean((1, 2)) @ u)  # [B, K]
    slope = np.einsum("fk,bk,kc->bcf", u, 1 - hidden**2, v)
    cells = f.shape[1] * f.shape[2]
    gradient = slope[:, :, None, None] * 2 * f[:, None] / cells
    return hidden @ v, gradient


def test_grad_cam_of_a_nonlinear_head_agrees_with_a_gradient_by_hand():
    rng = np.random.default_rng(0)
    f, u, v = (rng.normal(size=s) for s in ((3, 4, 5, 6), (6, 7), (7, 2)))
    logits, gradient = head64(f, u, v)
    step = 1e-6 * rng.normal(
        size=f.shape
    )  # the hand's own work, checked by a difference
    change = head64(f + step, u, v)[0] - head64(f - step, u, v)[0]
    np.testing.assert_allclose(
        change, 2 * np.einsum("bchwf,bhwf->bc", gradient, step), rtol=1e-4
    )
    weights = gradient.mean((2, 3))
    expected = np.maximum(np.einsum("bcf,bhwf->bhwc", weights, f), 0)
    u32, v32 = jnp.asarray(u, jnp.float32), jnp.asarray(v, jnp.float32)

    def head(features):
        return jnp.tanh((features**2).mean((1, 2)) @ u32) @ v32

    features = jnp.asarray(f, jnp.float32)
    assert relative(head(features), logits) < 1e-5
    assert relative(explain.feature_weights(head, features), weights) < 1e-5
    found = jax.jit(lambda x: explain.grad_cam(head, x))(features)
    assert relative(found, expected) < 1e-5
    assert (expected == 0).any() and (expected > 0).any()


def test_of_a_pooled_linear_head_grad_cam_is_the_positive_part_of_cam():
    head = PoolThenClassify(6, 4, rngs=nnx.Rngs(0))
    features = jax.random.normal(jax.random.key(1), (3, 7, 5, 6))
    weights = explain.feature_weights(head, features)
    kernel = np.broadcast_to(head.kernel.T / 35, weights.shape)
    np.testing.assert_allclose(weights, kernel, rtol=1e-6)
    before = jnp.einsum("bhwf,bcf->bhwc", features, weights)
    np.testing.assert_allclose(
        before, explain.cam(features, head.kernel) / 35, atol=1e-6
    )
    np.testing.assert_allclose(
        explain.grad_cam(head, features), np.maximum(before, 0), atol=1e-6
    )


def test_bfloat16_features_give_float32_maps():
    head = PoolThenClassify(6, 2, rngs=nnx.Rngs(0))
    features = jnp.ones((1, 2, 2, 6), jnp.bfloat16)
    assert explain.cam(features, head.kernel).dtype == jnp.float32
    assert explain.grad_cam(head, features).dtype == jnp.float32


def test_mean_of_the_map_plus_bias_is_the_logit():
    head = PoolThenClassify(6, 4, rngs=nnx.Rngs(0))
    head.linear.bias[...] = jnp.linspace(-2.0, 2.0, 4)
    features = jax.random.normal(jax.random.key(1), (3, 7, 5, 6))
    maps = explain.cam(features, head.kernel)
    assert maps.shape == (3, 7, 5, 4)
    np.testing.assert_allclose(
        maps.mean((1, 2)) + head.linear.bias[...][None], head(features), atol=1e-5
    )


def test_map_shows_the_cell_whose_feature_the_class_weighs():
    features = jnp.zeros((1, 3, 3, 2)).at[0, 1, 2, 1].set(5.0)
    maps = explain.cam(features, jnp.array([[1.0, 0.0], [0.0, -2.0]]))
    assert not maps[..., 0].any()
    np.testing.assert_array_equal(np.argwhere(maps[0, ..., 1]), [[1, 2]])
    assert maps[0, 1, 2, 1] == -10.0


def test_probability_ratio_is_what_public_code_draws():
    rng = np.random.default_rng(0)
    f, w, b = (rng.normal(size=s) for s in ((2, 3, 4, 5), (5, 2), (2,)))
    rates = np.array([0.103, 0.012])
    expected = np.zeros((2, 3, 4, 2))
    for n, i, j, c in np.ndindex(expected.shape):
        y = np.maximum(f[n, i, j], 0)
        cam = 1 / (1 + np.exp(-(y @ w[:, c] + b[c])))
        expected[n, i, j, c] = np.log(cam / rates[c])
    arrays = [jnp.asarray(x, jnp.float32) for x in (f, w, b, rates)]
    found = explain.probability_ratio(*arrays)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Where the evidence is overwhelming it stays finite, and keeps its peak.
    far = explain.probability_ratio(arrays[0], -1e3 * arrays[1], *arrays[2:])
    assert np.isfinite(far).all() and np.ptp(far) > 100


def test_upsampling_has_half_pixel_centres():
    maps = jax.random.normal(jax.random.key(0), (2, 7, 5, 3))
    found = upsample(maps, (28, 40))
    # OpenCV's linear resize has half-pixel centres, and repeats the border as ours does.
    expected = [cv2.resize(np.array(m), (40, 28)) for m in maps]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


NETWORKS = {
    "one block, 2 px a cell": (densenet_tiny, 2),
    "two blocks, 8 px a cell": (
        lambda **k: DenseNet((1, 1), growth=4, stem_width=8, stem_kernel=5, **k),
        8,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_a_spot_on_the_film_lands_within_one_cell_of_the_map(name, size):
    make, cell = NETWORKS[name]
    rngs = nnx.Rngs(0)
    net = make(in_channels=1, rngs=rngs)
    head = PoolThenClassify(net.num_features(), 1, rngs=rngs)
    # With positive weights alone, more light is more evidence, wherever it falls.
    model = drawn(Classifier(net, head), positive=True)
    rng = np.random.default_rng(0)
    places = np.stack([rng.integers(0, n, 24) for n in size], axis=1)
    places[:4] = [
        [0, 0],
        [0, size[1] - 1],
        [size[0] - 1, 0],
        [size[0] - 1, size[1] - 1],
    ]
    x = np.zeros((24, *size, 1), np.float32)
    x[np.arange(24), *places.T, 0] = 50.0

    @jax.jit
    def maps(x):
        return explain.cam(model.features(x), head.kernel)

    found = maps(x) - maps(
        np.zeros_like(x[:1])
    )  # borders are padded: what the spot adds
    assert found.shape[1:3] == (size[0] // cell, size[1] // cell)
    peak = np.asarray(locate(found).peak[:, 0])
    cells = np.floor(peak * found.shape[2:0:-1]).astype(int)
    assert np.abs(cells - places[:, ::-1] // cell).max() <= 1
    # The map drawn over the film says the same.
    large = np.asarray(upsample(found, size))[..., 0]
    top = [np.argwhere(film == film.max()).mean(axis=0) + 0.5 for film in large]
    assert np.abs(np.stack(top) // cell - places // cell).max() <= 1


def box_by_hand(fine, share):
    """With SciPy's components instead of ours; share of the maximum, tight box."""
    parts, _ = ndimage.label(fine >= share * fine.max())
    ys, xs = np.nonzero(parts == parts.flat[fine.argmax()])
    h, w = fine.shape
    return [xs.min() / w, ys.min() / h, (xs.max() + 1) / w, (ys.max() + 1) / h]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_boxes_hold_the_connected_part_around_the_peak(share):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(6, 7, 9, 2)).astype(np.float32)
    maps[0, :, :, 0] = 1.0  # all of it
    snake = np.zeros((7, 9), np.float32)
    snake[0], snake[:, 8], snake[6] = 1, 1, 1  # a path with corners
    maps[1, :, :, 0] = snake + 0.01 * rng.random((7, 9), np.float32)
    found = locate(jnp.asarray(maps), share=share)
    fine = np.asarray(upsample(jnp.asarray(maps), (28, 36)))
    for n, c in np.ndindex(6, 2):
        expected = box_by_hand(fine[n, :, :, c], share)
        np.testing.assert_allclose(found.xyxy[n, c], expected, atol=1e-6)
    assert np.isnan(found.peak[0, 0]).all()  # a flat map points nowhere
    np.testing.assert_allclose(found.xyxy[0, 0], [0, 0, 1, 1])


def test_a_peak_is_a_cell_centre_and_turns_with_the_map():
    maps = jnp.zeros((1, 2, 5, 1)).at[0, 1, 3, 0].set(2.0)
    found = locate(maps)
    np.testing.assert_allclose(found.peak[0, 0], [3.5 / 5, 1.5 / 2])
    turned = locate(maps[:, ::-1, ::-1])
    np.testing.assert_allclose(turned.peak, 1 - found.peak, atol=1e-6)
    np.testing.assert_allclose(
        turned.xyxy, 1 - found.xyxy[..., jnp.array([2, 3, 0, 1])], atol=1e-6
    )


def test_two_spots_give_the_box_of_the_higher_one_alone():
    maps = jnp.zeros((1, 8, 8, 1)).at[0, 1, 1, 0].set(1.0).at[0, 6, 5, 0].set(1.1)
    x1, y1, x2, y2 = locate(maps).xyxy[0, 0]
    assert 5 / 8 - 0.1 < x1 < 5.5 / 8 < x2 < 6 / 8 + 0.1
    assert 6 / 8 - 0.1 < y1 < 6.5 / 8 < y2 < 7 / 8 + 0.1


def test_nothing_above_zero_has_no_box():
    maps = -jnp.ones((1, 4, 4, 1)).at[0, 2, 1, 0].set(0.5)
    found = locate(maps)
    np.testing.assert_array_equal(found.xyxy, np.zeros((1, 1, 4)))
    np.testing.assert_allclose(found.peak[0, 0], [1.5 / 4, 2.5 / 4])
    silent = locate(jnp.zeros((1, 4, 4, 1)))  # Grad-CAM where all speaks against
    np.testing.assert_array_equal(silent.xyxy, np.zeros((1, 1, 4)))
    assert np.isnan(silent.peak).all()


def test_mass_inside_by_hand_and_in_parts():
    rng = np.random.default_rng(0)
    maps = jnp.asarray(rng.normal(size=(3, 5, 7)), jnp.float32)
    halves = jnp.tile(jnp.array([[0, 0, 0.3, 1], [0.3, 0, 1, 1.0]]), (3, 1, 1))
    left, right, both = (
        mass_inside(maps, halves, jnp.tile(jnp.array(mask), (3, 1)))
        for mask in ([True, False], [False, True], [True, True])
    )
    np.testing.assert_allclose(left + right, 1.0, atol=1e-6)
    np.testing.assert_allclose(both, 1.0, atol=1e-6)
    one = jnp.array([0.2, 0.1, 0.6, 0.9])
    found = mass_inside(maps, jnp.tile(one, (3, 1, 1)), jnp.ones((3, 1), bool))
    # Fine cells of a 20 × 28 grid; 0.2 · 28 = 5.6 cuts one at 0.4 of its width.
    fine = np.maximum(upsample(maps[..., None], (20, 28))[..., 0], 0)
    wide = np.zeros(28)
    wide[6:16], wide[5], wide[16] = 1, 0.4, 0.8
    tall = np.zeros(20)
    tall[2:18] = 1
    expected = np.einsum("bhw,h,w->b", fine, tall, wide) / fine.sum((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Boxes that overlap: what both hold counts once.
    pair = jnp.tile(jnp.array([[0, 0, 0.5, 1], [0.25, 0.5, 1, 1]]), (3, 1, 1))
    found = mass_inside(maps, pair, jnp.ones((3, 2), bool))
    outside = fine.copy()
    outside[:, :, :14] = outside[:, 10:, 7:] = 0
    expected = 1 - outside.sum((1, 2)) / fine.sum((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not mass_inside(maps, pair, jnp.zeros((3, 2), bool)).any()
    flat = mass_inside(-jnp.ones((1, 2, 2)), halves[:1], jnp.ones((1, 2), bool))
    assert flat[0] == 0
