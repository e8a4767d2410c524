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


@jax.named_scope("log-sum-exp pooling")
def lse(
    values: jax.Array, mask: jax.Array | None = None, *, r: float, axis: int = -1
) -> jax.Array:
    """Between the mean (r → 0) and the maximum (r → ∞), ``1/r ln(1/n Σ exp(r x))``.

    Args:
        values: any shape.
        mask: same shape; False where a value takes no part. ``n`` counts the whole axis
            all the same, as ADPD's code does: what is absent speaks against.
        r: sharpness, positive.
        axis: that is reduced.

    Returns:
        The shape without that axis, at least float32; -inf where nothing takes part.

    Reference: Pinheiro and Collobert, CVPR 2015, equation 2; Müller et al., MICCAI 2023,
    section 2.3.
    """
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    summed = jax.nn.logsumexp(r * values, axis=axis, where=mask)
    return (summed - jnp.log(float(values.shape[axis]))) / r
