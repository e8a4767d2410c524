"""What a map holds within boxes: bilinear samples, averaged cell by cell."""

import jax
import jax.numpy as jnp


@jax.named_scope("region of interest")
def roi_align(
    features: jax.Array, xyxy: jax.Array, *, cells: int, samples: int = 2
) -> jax.Array:
    """Features of boxes on a grid of cells, without rounding to cells of the map.

    Every cell of a box is the mean of ``samples × samples`` points, each interpolated
    between the four nearest cell centres of the map; beyond the outermost centres the
    edge repeats.

    Args:
        features: ``[B, h, w, F]``.
        xyxy: ``[B, N, 4]`` in [0, 1], relative to what the map covers.
        cells: of a side of the result.
        samples: points along a side of a cell.

    Returns:
        ``[B, N, cells, cells, F]``.

    Reference: He et al., Mask R-CNN, ICCV 2017, section 3.
    """
    height, width = features.shape[1:3]
    points = cells * samples
    at = (jnp.arange(points, dtype=xyxy.dtype) + 0.5) / points
    low, high = xyxy[..., :2], xyxy[..., 2:]
    at = at[None, None, :, None]
    place = low[..., None, :] + at * (high - low)[..., None, :]  # [B, N, P, 2]
    x, y = place[..., 0], place[..., 1]
    across, down = (
        _weights(x, width),
        _weights(y, height),
    )  # [B, N, P, cells of the map]
    shape = (*xyxy.shape[:2], cells, samples, -1)
    across, down = (w.reshape(shape).mean(axis=-2) for w in (across, down))
    return jnp.einsum("bnih,bnjw,bhwf->bnijf", down, across, features)


def _weights(place: jax.Array, cells: int) -> jax.Array:
    """Share of each cell of an axis in a point: a hat of width 1 at every centre."""
    at = jnp.clip(place * cells - 0.5, 0.0, cells - 1.0)
    centre = jnp.arange(cells, dtype=at.dtype)[None, None, None]
    return jnp.maximum(1 - jnp.abs(at[..., None] - centre), 0.0)
