"""Tubes on a film as slices along a common direction: neither gaps nor overlaps at bends.

`phantom_chest.physics.draw_tubes` cuts every piece of a tube at right angles to that
piece, which leaves wedges where a wide tube bends. Here all pieces of a bone are cut at
right angles to the bone: a piece lies between two parallel lines, its middle and its
radius change linearly from one to the other.
"""

import dataclasses

import numpy as np

from data_builders.phantom_chest.physics import Grid, chord

HALF = np.float32(0.5)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Slices:
    """N pieces of tubes on the film; lengths in mm.

    Attributes:
        start, end: ``[N, 2]``, the middle at both ends.
        way: ``[N, 2]``, unit vector along the bone; pieces are cut across it.
        r0, r1: ``[N]``, half the width across the way, at both ends.
        gain0, gain1: ``[N]``, path over the chord of a circle of that radius, likewise.
        mu: ``[N]``, attenuation per mm.
    """

    start: np.ndarray
    end: np.ndarray
    way: np.ndarray
    r0: np.ndarray
    r1: np.ndarray
    gain0: np.ndarray
    gain1: np.ndarray
    mu: np.ndarray


def draw(grid: Grid, pieces: Slices) -> np.ndarray:
    """Sum of attenuation times path of all pieces, float32 ``[size, size]``.

    The path is averaged over the pixel across the way, and weighted with the part of the
    pixel along the way that the piece covers, so that thin tubes keep their mass. All
    (piece, pixel) pairs of the pieces' bounding boxes are handled in one batch.
    """
    size = grid.size
    scale = np.float32(1 / grid.pixel)
    p0, p1 = (grid.to_pixels(p).astype(np.float32) for p in (pieces.start, pieces.end))
    turn = grid.matrix * grid.pixel
    ex = (pieces.way * turn[0]).sum(1).astype(np.float32)
    ey = (pieces.way * turn[1]).sum(1).astype(np.float32)
    r0, r1 = (r.astype(np.float32) * scale for r in (pieces.r0, pieces.r1))
    a0, a1 = (p[:, 0] * ex + p[:, 1] * ey for p in (p0, p1))
    b0, b1 = (p[:, 1] * ex - p[:, 0] * ey for p in (p0, p1))
    # Backward pieces are drawn forward.
    back = a0 > a1
    a0, a1 = np.where(back, a1, a0), np.where(back, a0, a1)
    b0, b1 = np.where(back, b1, b0), np.where(back, b0, b1)
    r0, r1 = np.where(back, r1, r0), np.where(back, r0, r1)
    g0 = np.where(back, pieces.gain1, pieces.gain0).astype(np.float32)
    g1 = np.where(back, pieces.gain0, pieces.gain1).astype(np.float32)
    low, high = _bounds(a0, a1, b0, b1, r0, r1, ex, ey)
    low = np.clip(np.ceil(low), 0, size).astype(np.int32)
    high = np.clip(np.floor(high), 0, size).astype(np.int32)
    extent = np.maximum(high - low, 0)
    count = extent[:, 0] * extent[:, 1]
    if not count.any():
        return np.zeros((size, size), np.float32)

    def spread(values):
        return np.repeat(values, count)

    piece = spread(np.arange(len(count), dtype=np.int32))
    step = np.arange(len(piece), dtype=np.int32) - spread(_before(count))
    row, col = np.divmod(step, spread(extent[:, 0]))
    col, row = col + spread(low[:, 0]), row + spread(low[:, 1])
    x, y = col.astype(np.float32) + HALF, row.astype(np.float32) + HALF
    along = x * spread(ex) + y * spread(ey) - spread(a0)
    length = np.maximum(a1 - a0, np.float32(1e-6))
    cover = np.minimum(along + HALF, spread(length)) - np.maximum(along - HALF, 0)
    near = np.flatnonzero(cover > 0)
    piece, along, cover = piece[near], along[near], np.minimum(cover[near], 1)
    part = np.clip(along / length[piece], 0, 1)
    r = np.maximum(r0[piece] + (r1 - r0)[piece] * part, np.float32(1e-3))
    middle = b0[piece] + (b1 - b0)[piece] * part
    away = y[near] * ex[piece] - x[near] * ey[piece] - middle
    weight = (pieces.mu * grid.pixel).astype(np.float32)
    gain = (g0 * weight)[piece] + ((g1 - g0) * weight)[piece] * part
    value = chord(away, r) * cover * gain
    flat = np.bincount(
        row[near] * size + col[near], weights=value, minlength=size * size
    )
    return flat.reshape(size, size).astype(np.float32)


def _before(count: np.ndarray) -> np.ndarray:
    return (np.cumsum(count) - count).astype(np.int32)


def _bounds(a0, a1, b0, b1, r0, r1, ex, ey) -> tuple[np.ndarray, np.ndarray]:
    """First pixel ``[N, 2]`` that may hold some of each piece, and the one after the last.

    Middles of pixels, at halves, lie up to half a pixel outside the piece.
    """
    a = np.stack([a0, a0, a1, a1]) + np.array([[-1], [-1], [1], [1]]) * HALF
    b = np.stack([b0 - r0, b0 + r0, b1 - r1, b1 + r1])
    b += np.array([[-1], [1], [-1], [1]]) * HALF
    corners = np.stack([a * ex - b * ey, a * ey + b * ex], -1)
    return corners.min(0) - HALF, corners.max(0) + HALF
