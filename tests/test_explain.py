"""Class activation maps and their size."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cxr_jax import explain
from cxr_jax.models.heads import PoolThenClassify


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


def test_upsampling_has_half_pixel_centres():
    maps = jax.random.normal(jax.random.key(0), (2, 7, 5, 3))
    found = explain.upsample(maps, (28, 40))
    # OpenCV's linear resize has half-pixel centres, and repeats the border as ours does.
    expected = [cv2.resize(np.array(m), (40, 28)) for m in maps]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)
