"""Where a class is seen: class activation maps."""

import jax
import jax.numpy as jnp


def cam(features: jax.Array, kernel: jax.Array) -> jax.Array:
    """Class activation maps, ``M_c = Σ_k w_ck f_k``.

    With global average pooling and a linear head, the mean of ``M_c`` over space plus
    the bias of class c is its logit. The maps are raw: no ReLU, bias or sigmoid.

    Args:
        features: ``[B, h, w, F]``, what the head pools.
        kernel: ``[F, C]``, the head's weights.

    Returns:
        ``[B, h, w, C]``, float32 at least.

    Reference: Zhou et al., Learning deep features for discriminative localization, CVPR
    2016, equation 2; Rajpurkar et al., CheXNet, 2017, section 5.
    """
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    return jnp.einsum("bhwf,fc->bhwc", features.astype(dtype), kernel.astype(dtype))


def upsample(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear interpolation of maps to the size of the film, half-pixel centres.

    Args:
        maps: ``[B, h, w, C]``.
        size: ``(H, W)`` in pixels, each at least that of the maps.

    Returns:
        ``[B, H, W, C]``.
    """
    shape = (maps.shape[0], *size, maps.shape[-1])
    return jax.image.resize(maps, shape, "linear", antialias=False)
