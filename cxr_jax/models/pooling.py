"""From a map to a number: pure poolings over space."""

import jax
import jax.numpy as jnp


@jax.named_scope("global average pooling")
def gap(features: jax.Array) -> jax.Array:
    """Global average pooling, ``1/(hw) Σ_ij x_ij``, in float32 at least.

    Args:
        features: ``[B, h, w, F]``.

    Returns:
        ``[B, F]``.

    Reference: Lin et al., Network in Network, ICLR 2014.
    """
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    return jnp.mean(features, axis=(1, 2), dtype=dtype)
