"""How X-rays cross simple solids.

Rays are parallel to the depth axis ``z``. A convex solid is, on each ray, one depth
interval ``(low, high)``; what replaces what is then interval arithmetic, in closed form.
Lengths are mm, attenuation is per mm (about 65 keV), images are float32.
"""

import dataclasses

import numpy as np

SOFT, FAT, FLUID = 0.0205, 0.0185, 0.0205
LUNG = 0.005
TRABECULAR, CORTICAL, CALCIUM, METAL = 0.030, 0.055, 0.07, 0.6
EMPTY = np.float32(1e4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the pixels of a film lie in the patient.

    Attributes:
        size: film side in pixels.
        over: sub-pixels per pixel and axis; solids are sampled there, then averaged.
        matrix: ``[2, 2]``, mm to film pixels.
        offset: ``[2]``, film pixel coordinate of the point (0, 0) mm.
        x: float32 ``[n, n]``, mm, ``n = size * over``; grows to the viewer's right.
        y: float32 ``[n, n]``, mm; grows downwards.
        pixel: mm per film pixel.
    """

    size: int
    over: int
    matrix: np.ndarray
    offset: np.ndarray
    x: np.ndarray
    y: np.ndarray
    pixel: float

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Points ``[..., 2]`` in mm → film pixel coordinates (a pixel spans [k, k+1])."""
        return points @ self.matrix.T + self.offset

    def window(self, x: float, y: float, radius: float) -> tuple[slice, slice]:
        """Sub-pixel rows and columns within ``radius`` mm of a point, clipped."""
        u, v = self.to_pixels(np.array([x, y])) * self.over
        r = radius / self.pixel * self.over + 1.0
        n = self.size * self.over
        ends = [int(min(max(k, 0), n)) for k in (v - r, v + r + 1, u - r, u + r + 1)]
        return slice(ends[0], ends[1]), slice(ends[2], ends[3])

    def shrink(self, values: np.ndarray) -> np.ndarray:
        """Mean over the sub-pixels of each pixel, ``[n, n]`` → ``[size, size]``."""
        k = self.over
        if k == 1:
            return values
        rows = values[0::k]
        for i in range(1, k):
            rows = rows + values[i::k]
        out = rows[:, 0::k]
        for i in range(1, k):
            out = out + rows[:, i::k]
        return out * np.float32(1.0 / (k * k))


def make_grid(
    size: int,
    *,
    field: float = 400.0,
    centre: tuple[float, float] = (0.0, 0.0),
    angle: float = 0.0,
    over: int = 2,
) -> Grid:
    """Grid of a square film.

    Args:
        size: film side in pixels.
        field: film side in mm.
        centre: point of the patient (mm) at the middle of the film.
        angle: rotation of the patient on the film, radians, clockwise as seen.
        over: sub-pixels per pixel and axis.
    """
    pixel = field / size
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix = turn / pixel
    offset = size / 2 - matrix @ np.asarray(centre, float)
    axis = ((np.arange(size * over) + 0.5) / over - size / 2) * pixel
    u, v = axis[None, :], axis[:, None]
    x = (cos * u + sin * v + centre[0]).astype(np.float32)
    y = (-sin * u + cos * v + centre[1]).astype(np.float32)
    return Grid(
        size=size, over=over, matrix=matrix, offset=offset, x=x, y=y, pixel=pixel
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """Depth interval of a solid on each ray of a window; empty where low > high."""

    window: tuple[slice, slice]
    low: np.ndarray
    high: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """Path length in the solid, mm."""
        return np.maximum(self.high - self.low, 0)


def ellipsoid(
    grid: Grid,
    centre: tuple[float, float, float],
    axes: tuple[float, float, float],
    *,
    angle: float = 0.0,
) -> Interval:
    """Ellipsoid: half path ``c sqrt(1 - (x'/a)^2 - (y'/b)^2)``.

    Args:
        grid: the film.
        centre: x, y, z in mm.
        axes: semi-axes a, b, c in mm; ``a`` points along ``angle``.
        angle: in-plane rotation, radians from x towards y.
    """
    window = grid.window(centre[0], centre[1], max(axes[0], axes[1]))
    dx = grid.x[window] - np.float32(centre[0])
    dy = grid.y[window] - np.float32(centre[1])
    if angle:
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
    dx *= np.float32(1 / axes[0])
    dy *= np.float32(1 / axes[1])
    left = 1 - dx * dx - dy * dy
    half = np.float32(axes[2]) * np.sqrt(np.maximum(left, 0))
    half = np.where(left > 0, half, -EMPTY)
    z = np.float32(centre[2])
    return Interval(window=window, low=z - half, high=z + half)


def chord(d: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Mean over a pixel of the path in a straight tube, all in pixels.

    The path at distance ``s`` from the axis is ``2 sqrt(r^2 - s^2)``; its mean over
    ``[d - 1/2, d + 1/2]`` is a difference of ``s sqrt(r^2 - s^2) + r^2 asin(s / r)``,
    so that a line thinner than a pixel keeps its mass.
    """

    def primitive(s):
        u = np.clip(s / r, -1, 1)
        return u * np.sqrt(1 - u * u) + np.arcsin(u)

    return r * r * (primitive(d + np.float32(0.5)) - primitive(d - np.float32(0.5)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tubes:
    """Straight pieces of tubes of circular section.

    Attributes:
        start, end: ``[N, 2]``, mm.
        r0, r1: ``[N]``, radius at start and end, mm.
        gain: ``[N]``, length in space over length on the film (oblique tubes).
        wall: ``[N]``, thickness of the outer shell, mm.
        core_mu, wall_mu: ``[N]``, change of attenuation in the core and in the shell.
    """

    start: np.ndarray
    end: np.ndarray
    r0: np.ndarray
    r1: np.ndarray
    gain: np.ndarray
    wall: np.ndarray
    core_mu: np.ndarray
    wall_mu: np.ndarray


def polyline(points, radius, *, mu, gain=1.0, wall=0.0, wall_mu=0.0) -> Tubes:
    """Tubes along polylines ``[..., K, 2]``; ``radius`` broadcasts to ``[..., K]``."""
    points = np.asarray(points, np.float64)
    radius = np.broadcast_to(np.asarray(radius, np.float64), points.shape[:-1])
    start = points[..., :-1, :].reshape(-1, 2)
    shape = points.shape[:-2] + (points.shape[-2] - 1,)

    def spread(value):
        if np.ndim(value) == 0:
            return np.full(len(start), value, np.float64)
        return np.broadcast_to(np.asarray(value, np.float64), shape).reshape(-1)

    return Tubes(
        start=start,
        end=points[..., 1:, :].reshape(-1, 2),
        r0=radius[..., :-1].reshape(-1),
        r1=radius[..., 1:].reshape(-1),
        gain=spread(gain),
        wall=spread(wall),
        core_mu=spread(mu),
        wall_mu=spread(wall_mu),
    )


def join(parts: list[Tubes]) -> Tubes:
    """All pieces of several ``Tubes`` in one."""
    names = [field.name for field in dataclasses.fields(Tubes)]
    return Tubes(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def draw_tubes(grid: Grid, tubes: Tubes) -> np.ndarray:
    """Change of t by tubes that lie at different depths (paths add), ``[size, size]``.

    All (piece, pixel) pairs of the pieces' bounding boxes are handled in one batch.
    """
    size = grid.size
    p0 = grid.to_pixels(tubes.start).astype(np.float32)
    p1 = grid.to_pixels(tubes.end).astype(np.float32)
    scale = np.float32(1 / grid.pixel)
    r0, r1 = tubes.r0.astype(np.float32) * scale, tubes.r1.astype(np.float32) * scale
    reach = np.maximum(r0, r1)[:, None] + np.float32(0.75)
    low = np.clip(np.floor(np.minimum(p0, p1) - reach), 0, size).astype(np.int64)
    high = np.clip(np.ceil(np.maximum(p0, p1) + reach), 0, size).astype(np.int64)
    extent = high - low
    count = extent[:, 0] * extent[:, 1]
    piece = np.repeat(np.arange(len(count)), count)
    if not len(piece):
        return np.zeros((size, size), np.float32)
    step = np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count)
    row, col = np.divmod(step, extent[piece, 0])
    col += low[piece, 0]
    row += low[piece, 1]
    axis = p1 - p0
    long = np.maximum(np.hypot(axis[:, 0], axis[:, 1]), np.float32(1e-6))
    axis = axis / long[:, None]
    qx = col.astype(np.float32) + np.float32(0.5) - p0[piece, 0]
    qy = row.astype(np.float32) + np.float32(0.5) - p0[piece, 1]
    ex, ey, length = axis[piece, 0], axis[piece, 1], long[piece]
    along = qx * ex + qy * ey
    away = np.abs(qx * ey - qy * ex)
    half = np.float32(0.5)
    cover = np.minimum(along + half, length) - np.maximum(along - half, 0)
    inside = np.flatnonzero((cover > 0) & (away < reach[piece, 0]))
    piece, along, away = piece[inside], along[inside], away[inside]
    cover = np.minimum(cover[inside], 1)
    part = np.clip(along / length[inside], 0, 1)
    r = np.maximum(r0[piece] + (r1 - r0)[piece] * part, np.float32(1e-3))
    value = chord(away, r) * tubes.core_mu.astype(np.float32)[piece]
    if np.any(tubes.wall > 0):
        value = value + _shell(tubes, piece, away, r, scale)
    value *= cover * tubes.gain.astype(np.float32)[piece] * np.float32(grid.pixel)
    flat = np.bincount(
        row[inside] * size + col[inside], weights=value, minlength=size * size
    )
    return flat.reshape(size, size).astype(np.float32)


def _shell(tubes, piece, away, r, scale):
    """What a shell adds: its path is the outer minus the inner one."""
    wall = tubes.wall.astype(np.float32)[piece] * scale
    extra = (tubes.wall_mu - tubes.core_mu).astype(np.float32)[piece]
    inner = np.maximum(r - wall, np.float32(1e-3))
    path = chord(away, r) - np.where(wall > 0, chord(away, inner), chord(away, r))
    return path * extra
