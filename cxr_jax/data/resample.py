"""Resampling of films on the device: an affine map, a blur, the centre of a film.

Batched, shapes fixed.
"""

import jax
import jax.numpy as jnp

# One step of uint8. Compilers turn x / 255 into this product, or not, as they like;
# written as a product it is the same number everywhere.
UNIT = 1 / 255


def warp(
    image: jax.Array, matrix: jax.Array, *, size: tuple[int, int] | None = None
) -> jax.Array:
    """Moves pixels by an affine map, bilinearly; black comes from outside.

    The output pixel with centre q takes the input at p = A⁻¹·(q - t), interpolated
    between the four nearest pixel centres, those outside the film counting as 0. Exact
    where p are pixel centres: identity, mirrors, quarter turns, whole-pixel shifts.

    Args:
        image: uint8, or float in [0, 1], ``[B, H, W, K]``.
        matrix: ``[B, 2, 3]``, rows (A | t), A invertible, from old to new coordinates
            in units of the film's sides: the one that ``boxes.transform`` takes.
        size: ``(H', W')`` of the output in pixels; that of the input unless given.
            Nothing is averaged where the output is coarser.

    Returns:
        float32 in [0, 1] ``[B, H', W', K]``; uint8 is scaled by UNIT.
    """
    image = jnp.asarray(image)
    shape = image.shape[1:3]
    size = size or shape
    inverse = jax.vmap(lambda m: _inverse(m, shape, size))(jnp.asarray(matrix))
    inverse = jax.lax.optimization_barrier(inverse)
    return jax.vmap(lambda *pair: _warp_one(*pair, size))(image, inverse)


def _warp_one(image: jax.Array, inverse: jax.Array, size: tuple[int, int]) -> jax.Array:
    height, width, _ = image.shape
    a, b, s, c, d, t = inverse
    x = jnp.arange(size[1], dtype=jnp.float32)[None, :]
    y = jnp.arange(size[0], dtype=jnp.float32)[:, None]
    x, y = a * x + b * y + s, c * x + d * y + t
    # A black frame, one pixel before and two behind, stands for all that lies outside.
    framed = jnp.pad(image, ((1, 2), (1, 2), (0, 0)))
    x, y = jnp.clip(x, -1.0, width), jnp.clip(y, -1.0, height)
    left, top = jnp.floor(x), jnp.floor(y)
    x, y = (x - left)[..., None], (y - top)[..., None]
    first = (top.astype(jnp.int32) + 1) * (width + 3) + left.astype(jnp.int32) + 1
    flat = framed.reshape(-1, framed.shape[-1])

    def take(down: int, right: int) -> jax.Array:
        # Pixels are gathered as stored: a quarter of the bytes where they are uint8.
        near = flat.at[first + (down * (width + 3) + right)]
        return near.get(mode="promise_in_bounds").astype(jnp.float32)

    upper = take(0, 0) * (1 - x) + take(0, 1) * x
    lower = take(1, 0) * (1 - x) + take(1, 1) * x
    mixed = upper * (1 - y) + lower * y
    return mixed * UNIT if image.dtype == jnp.uint8 else mixed


def _inverse(
    matrix: jax.Array, shape: tuple[int, int], size: tuple[int, int]
) -> jax.Array:
    """New to old coordinates in pixels, 0 being the centre of the first: rows (A | t).

    In pixels rather than shares: centres are then exact in float32 at any size.
    """
    height, width = shape
    (a, b, s), (c, d, t) = matrix
    b, c, s, t = b * (width / height), c * (height / width), s * width, t * height
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    # Old pixels per new one.
    across, down = width / size[1], height / size[0]
    x, y = 0.5 * across - s, 0.5 * down - t
    return jnp.stack(
        [
            *(a * across, b * down, a * x + b * y - 0.5),
            *(c * across, d * down, c * x + d * y - 0.5),
        ]
    )


def centre(image: jax.Array, size: int) -> jax.Array:
    """The middle of films, ``size`` pixels square; smaller films stay as they are.

    Args:
        image: ``[B, H, W, K]``.
        size: pixels; 0 for whole films.

    Returns:
        ``[B, min(H, size), min(W, size), K]``. Where a margin is odd, it is rounded to
        even halves as torchvision's ``CenterCrop`` does.
    """
    if not size:
        return image
    top, left = (max(0, round((side - size) / 2)) for side in image.shape[1:3])
    return image[:, top : top + size, left : left + size]


def frame_maps(maps: jax.Array, *, seen: int, side: int) -> jax.Array:
    """Maps of the middle of films, on a grid over the whole films.

    The grid has cells of the same size, as far as whole cells allow. Where the network
    saw nothing, the nearest cell's value stands; elsewhere it is interpolated.

    Args:
        maps: ``[B, h, w, C]``, of a square of ``seen`` pixels in the middle.
        seen: pixels of a side that the network saw.
        side: pixels of a side of the film, at least ``seen``.

    Returns:
        ``[B, h', w', C]`` with h' = round(h · side / seen).
    """
    if seen >= side:
        return maps
    # Cells that lie outside, and one to interpolate with.
    margin = 1 - (side - seen) * max(maps.shape[1:3]) // (-2 * seen)
    padded = jnp.pad(maps, ((0, 0), (margin,) * 2, (margin,) * 2, (0, 0)), mode="edge")
    cells = [round(n * side / seen) for n in maps.shape[1:3]]
    # New cells per old one, and where the first old one begins.
    scale = [c * seen / (n * side) for c, n in zip(cells, maps.shape[1:3], strict=True)]
    begin = [
        c * (side - seen) / (2 * side) - margin * s
        for c, s in zip(cells, scale, strict=True)
    ]
    return jax.image.scale_and_translate(
        padded,
        (maps.shape[0], *cells, maps.shape[3]),
        (1, 2),
        jnp.array(scale, maps.dtype),
        jnp.array(begin, maps.dtype),
        "linear",
        antialias=False,
    )


def blur(image: jax.Array, sigma: jax.Array, *, radius: int) -> jax.Array:
    """Gaussian blur, one standard deviation per film; edge pixels repeat outwards.

    Args:
        image: float ``[B, H, W, K]``.
        sigma: ``[B]``, pixels, at least 0; 0 changes nothing.
        radius: pixels to each side that the kernel reaches.

    Returns:
        ``[B, H, W, K]``.
    """
    offsets = jnp.arange(-radius, radius + 1, dtype=jnp.float32)[None, :]
    spread = jnp.maximum(sigma, 1e-3)[:, None]
    weights = jnp.exp(-0.5 * (offsets / spread) ** 2)
    weights = weights / weights.sum(axis=1, keepdims=True)
    for axis in (1, 2):
        image = _smooth(image, weights, axis)
    return image


def _smooth(image: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """Σ_k w_k · x shifted by k along one axis: reads the film, gathers nothing."""
    radius, size = weights.shape[1] // 2, image.shape[axis]
    pads = [(radius, radius) if k == axis else (0, 0) for k in range(4)]
    padded = jnp.pad(image, pads, mode="edge")
    total = jnp.zeros_like(image)
    for k in range(weights.shape[1]):
        shifted = jax.lax.slice_in_dim(padded, k, k + size, axis=axis)
        total = total + weights[:, k, None, None, None] * shifted
    return total
