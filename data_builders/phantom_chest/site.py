"""Where a finding lies, and what it does to the rays: the words findings share."""

import dataclasses

import numpy as np

from data_builders.phantom_chest import anatomy, physics
from data_builders.phantom_chest.anatomy import STEP, TOP, Air, Chest
from data_builders.phantom_chest.physics import Grid, Interval, Tubes

WHOLE = (slice(None), slice(None))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """What one component of a finding does to the rays.

    Attributes:
        name: class, as in `labels.NIH14`.
        mu: attenuation of what fills the lung, per mm.
        window: rows and columns of the sub-pixels that ``path`` and ``gas`` cover.
        path: mm of lung replaced; None where the finding is made of lines only.
        gas: mm of soft tissue replaced by gas, on the same window.
        lines: thin tubes in the lung; ``core_mu`` is their change of attenuation.
        clears: vessels vanish where the lung is replaced (pneumothorax).
        component: tells several components of one finding apart.
        secondary: a consequence, not the lesion: not boxed.
    """

    name: str
    mu: float = physics.FLUID
    window: tuple[slice, slice] | None = None
    path: np.ndarray | None = None
    gas: np.ndarray | None = None
    lines: Tubes | None = None
    clears: bool = False
    component: int = 0
    secondary: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """A chest on a film, before its findings: `index` is the row of each sub-pixel."""

    chest: Chest
    grid: Grid
    air: Air
    index: np.ndarray

    def edge(self, side: int, *, drop: float = 0.0) -> np.ndarray:
        """Lateral lung edge at each sub-pixel's height, moved down by ``drop`` mm."""
        table = anatomy.lung_outline(self.chest, side)[0].astype(np.float32)
        if drop:
            return table[np.maximum(self.index - int(drop / STEP), 0)]
        return table[self.index]

    def place(self, side: int, across: float, down: float) -> tuple[float, float]:
        """Point in a lung.

        Args:
            side: 0 right, 1 left.
            across: 0 at the medial edge, 1 at the lateral one.
            down: 0 at the apex, 1 at the top of the dome.
        """
        y = down * self.chest.dome[side]
        lateral, medial = edges_at(self.chest, side, y)
        x = medial + across * (lateral - medial)
        return (x if side else -x), y


def edges_at(chest: Chest, side: int, y: float) -> tuple[float, float]:
    """Lateral and medial edge of a lung at height y, as distances from the midline."""
    at = int(np.clip((y - TOP) / STEP, 0, anatomy.ROWS - 1))
    lateral, medial, _ = anatomy.lung_outline(chest, side)
    return float(lateral[at]), float(medial[at])


def solid_path(site: Site, solid: Interval) -> np.ndarray:
    """mm of lung that a convex solid replaces."""
    return site.air.within(solid)


def ball_path(site: Site, centre, axes, *, angle: float = 0.0):
    """mm of lung that a small ellipsoid replaces, sampled finer than the grid.

    Returns the window and the path. Where the solid is larger than eight sub-pixels
    this is `solid_path`; below, the path is averaged over finer points and multiplied
    with the part of the solid's depth that lies in the lung.
    """
    grid = site.grid
    step = grid.pixel / grid.over
    if min(axes[:2]) > 4 * step:
        solid = physics.ellipsoid(grid, centre, axes, angle=angle)
        return solid.window, solid_path(site, solid)
    window = grid.window(centre[0], centre[1], max(axes[:2]) + step)
    fine = 6
    shift = (np.arange(fine) + 0.5) / fine - 0.5
    dx = (grid.x[window] - centre[0])[..., None, None] + shift[:, None] * step
    dy = (grid.y[window] - centre[1])[..., None, None] + shift[None, :] * step
    cos, sin = np.cos(angle), np.sin(angle)
    u = (cos * dx + sin * dy) / axes[0]
    v = (cos * dy - sin * dx) / axes[1]
    half = axes[2] * np.sqrt(np.maximum(1 - u * u - v * v, 0))
    path = (2 * half).mean((-1, -2)).astype(np.float32)
    z, deep = np.float32(centre[2]), np.float32(axes[2])
    shape = np.ones_like(path)
    slab = Interval(window=window, low=(z - deep) * shape, high=(z + deep) * shape)
    return window, path * site.air.within(slab) / (2 * deep)


def soft_path(site: Site, centre, axes, *, angle: float = 0.0):
    """mm that a soft-edged ellipsoid fills, and its window.

    Its density falls as ``1 - rho^2`` from the middle, so the path at normalised
    distance b is ``(4 / 3) c (1 - b^2)^(3/2)``.
    """
    solid = physics.ellipsoid(site.grid, centre, axes, angle=angle)
    part = site.air.within(solid) / np.maximum(solid.length, np.float32(1e-3))
    half = 0.5 * solid.length * np.float32(1 / axes[2])
    return solid.window, np.float32(4 / 3 * axes[2]) * half * half * half * part


def fade(s: float) -> float:
    """Contrast that vanishes with severity: a finding near 0 is barely visible."""
    return 1.0 - float(np.exp(-s / 0.08))


def ramp(values: np.ndarray, width: float) -> np.ndarray:
    """0 below ``-width / 2``, 1 above ``width / 2``, linear between."""
    return np.clip(values * np.float32(1 / width) + np.float32(0.5), 0, 1)
