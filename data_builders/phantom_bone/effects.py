"""What changes the image of one bone: a crack through it, a lesion in it.

Both are closed forms on the bone's own image: what they take away or add is a share of
the bone's path, so that neither reaches outside it.
"""

import dataclasses

import numpy as np

from data_builders.phantom_bone import slices, solids
from data_builders.phantom_chest import physics
from data_builders.phantom_chest.physics import Grid


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Crack:
    """A flat gap through a bone, seen as a line where the rays run along it.

    Attributes:
        point: ``[3]``, where the gap crosses the axis, mm.
        normal: ``[3]``, unit normal of the gap.
        width: of the gap, mm.
        radius: of the bone there, mm: how far the gap reaches in depth.
        jag, phase: how far its line strays, mm, and where the wave begins.
        share: of the bone that is gone in the gap; negative where it is impacted.
    """

    point: np.ndarray
    normal: np.ndarray
    width: float
    radius: float
    jag: float
    phase: float
    share: float

    def apply(
        self, layer: np.ndarray, thick: np.ndarray, turn: np.ndarray, grid: Grid
    ) -> np.ndarray:
        """The bone's image with the gap in it.

        Args:
            layer: ``[n, n]``, image of the bone.
            thick: ``[n, n]``, mm of bone on each ray (not needed here).
            turn: ``[3, 3]``, patient to view.
            grid: the film.
        """
        del thick
        x, y, _ = _turn(turn, self.point)
        nx, ny, nz = _turn(turn, self.normal)
        window = grid.window(x, y, 4.0 * self.radius + 4.0)
        dx, dy = grid.x[window] - np.float32(x), grid.y[window] - np.float32(y)
        flat = max(np.hypot(nx, ny), 1e-3)
        along = (dy * np.float32(nx) - dx * np.float32(ny)) / np.float32(flat)
        wave = np.sin(along * np.float32(2.6 / self.radius) + np.float32(self.phase))
        away = dx * np.float32(nx) + dy * np.float32(ny)
        away = away + np.float32(self.jag * flat) * wave
        # A gap at some distance from its bone's axis is another bone's affair.
        near = np.clip(3.0 - np.abs(away) / self.radius, 0, 1)
        hidden = blurred_slab(
            away, self.width, pixel=grid.pixel * flat, depth=2 * self.radius * abs(nz)
        )
        out = layer.copy()
        out[window] *= (1 - self.share * hidden * near).astype(np.float32)
        return out


def blurred_slab(
    u: np.ndarray, width: float, *, pixel: float, depth: float
) -> np.ndarray:
    """Share of a pixel's bone that lies in a slab.

    ``P(|u + pixel U + depth V| < width / 2)`` with U, V uniform on [-1/2, 1/2]: the
    place within the pixel, and the depth along the ray.

    Args:
        u: signed distance of the pixel's centre from the middle of the slab, mm.
        width: of the slab, mm.
        pixel: extent of the pixel along the slab's normal, mm.
        depth: how far the distance changes along the ray, mm.
    """
    a, b = max(pixel, 0.02), max(depth, 0.02)
    u = np.asarray(u, np.float64)  # Differences of squares.

    def below(x):
        total = 0.0
        for sign, shift in ((1, a + b), (-1, a - b), (-1, b - a), (1, -a - b)):
            total = total + sign * np.square(np.maximum(x + 0.5 * shift, 0))
        return total / (2 * a * b)

    return below(0.5 * width - u) - below(-0.5 * width - u)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Lesion:
    """A ball of other tissue in a bone.

    Attributes:
        centre: ``[3]``, mm.
        radius: mm.
        amount: change of attenuation relative to the bone's mean where the ball fills
            it: -1 leaves soft tissue (lytic), above 0 is denser (sclerotic).
        added: further change of attenuation per mm of ball within bone.
    """

    centre: np.ndarray
    radius: float
    amount: float
    added: float

    def apply(
        self, layer: np.ndarray, thick: np.ndarray, turn: np.ndarray, grid: Grid
    ) -> np.ndarray:
        """The bone's image with the ball in it; arguments as in `Crack.apply`."""
        x, y, z = _turn(turn, self.centre)
        ball = physics.ellipsoid(grid, (x, y, z), (self.radius,) * 3)
        path = np.minimum(ball.length, thick[ball.window])
        share = path / np.maximum(thick[ball.window], np.float32(1e-3))
        out = layer.copy()
        out[ball.window] *= 1 + np.float32(self.amount) * share
        out[ball.window] += np.float32(self.added) * path
        return out


def draw_bone(bone: solids.Bone, turn: np.ndarray, grid: Grid) -> np.ndarray:
    """Image of one bone with its effects."""
    layer = solids.draw([bone], turn, grid)
    if bone.effects:
        hull = solids.project([bone], turn, hull=True)
        thick = slices.draw(grid, hull)
        for effect in bone.effects:
            layer = effect.apply(layer, thick, turn, grid)
    return layer


def _turn(matrix: np.ndarray, vector: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float((row * vector).sum()) for row in matrix)
    return x, y, z
