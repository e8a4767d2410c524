"""The parametric chest: its numbers, its outlines, and the air that rays cross.

Coordinates in mm: ``x`` to the viewer's right (the patient's left), ``y`` down from
the lung apex, ``z`` to the front. The midline is ``x = 0``.
"""

import dataclasses
import functools

import numpy as np

from data_builders.phantom_chest import physics
from data_builders.phantom_chest.physics import Grid, Interval

TOP, STEP, ROWS = -140.0, 0.5, 1200
RIGHT, LEFT = 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chest:
    """Lengths in mm of one patient on one film (`draw_chest` gives the ranges)."""

    half_width: float  # inner half width of the thorax at the diaphragm
    lung_depth: float  # half of the longest path in a lung
    wall: float  # soft tissue outside the ribs
    bottom: float  # y of the right costophrenic angle; the apex is at 0
    dome: tuple[float, float]  # y of the top of the right and left hemidiaphragm
    clavicle: float  # y of the medial ends of the clavicles
    carina: float
    vertebra: float  # distance of neighbouring vertebrae
    spine_width: float  # half width of the vertebral bodies
    bow: float  # sideways bow of the spine
    rib_radius: float
    rib_drop: float  # fall of a posterior arc from spine to side
    ratio: float  # anatomical cardiothoracic ratio
    heart_tilt: float  # radians
    heart_depth: float
    knob: float  # radius of the aortic knob
    mediastinum: float  # half width above the heart
    hilum: float  # the left hilum lies this much above the right
    vessel: float  # scale of vessel calibre
    vessel_count: float  # fraction of the vessels present
    lung_mu: float
    bubble: float  # radius of the gastric bubble, 0 = none
    breast: float  # depth of the breasts, 0 = none
    heart_shift: float = 0.0  # of heart and mediastinum, to the viewer's right
    magnify: float = 1.0  # of the heart on the film (AP)
    scapula: float = 0.0  # 0 outside the lungs, 1 well over them
    collapse: tuple[float, float] = (0.0, 0.0)  # wall to lung gap of a collapsed lung

    @property
    def heart_left(self) -> float:
        """x of the left heart border on the film."""
        return 0.66 * self.heart_width * self.magnify + self.heart_shift

    @property
    def heart_right(self) -> float:
        """x of the right heart border on the film."""
        return -0.34 * self.heart_width * self.magnify + self.heart_shift

    @property
    def heart_width(self) -> float:
        """Anatomical width of the heart."""
        return self.ratio * 2 * self.half_width

    @property
    def heart_y(self) -> float:
        """y of the middle of the heart."""
        return 0.5 * (self.dome[0] + self.dome[1]) - 0.34 * self.heart_width + 12


def draw_chest(rng: np.random.Generator, *, female: bool, age: float) -> Chest:
    """Draw a patient's chest from ranges around typical adult values.

    Args:
        rng: the patient's anatomy stream.
        female: smaller frame, breasts.
        age: years; older chests have a larger knob and a denser, narrower build.
    """
    u = rng.uniform
    half = u(140, 170) - (8 if female else 0)
    wall = float(np.clip(15 + 30 * rng.beta(1.6, 2.2), 15, 45))
    bottom = u(252, 302) - (12 if female else 0)
    dome = bottom - u(40, 60)
    old = np.clip((age - 40) / 40, -0.5, 1.2)
    return Chest(
        half_width=half,
        lung_depth=0.29 * u(195, 258),
        wall=wall,
        bottom=bottom,
        dome=(dome, dome + u(8, 22)),
        clavicle=u(14, 32),
        carina=u(88, 104),
        vertebra=u(23.5, 27.0),
        spine_width=u(15, 18.5),
        bow=rng.normal(0, 4),
        rib_radius=u(3.8, 5.2),
        rib_drop=u(30, 52),
        ratio=float(np.clip(rng.normal(0.435 + 0.008 * old, 0.024), 0.38, 0.485)),
        heart_tilt=u(0.45, 0.8),
        heart_depth=u(42, 52),
        knob=float(np.clip(rng.normal(12.5 + 2 * old, 1.5), 9, 17.5)),
        mediastinum=u(24, 32),
        hilum=u(5, 15),
        vessel=u(0.85, 1.15),
        vessel_count=u(0.8, 1.0),
        lung_mu=u(0.0042, 0.0058),
        bubble=u(14, 32) if rng.random() < 0.75 else 0.0,
        breast=u(14, 42) if female else 0.0,
    )


@functools.cache
def rows() -> np.ndarray:
    """The heights (mm) at which outlines are tabulated."""
    return TOP + STEP * np.arange(ROWS)


# A film asks for the same two outlines some twenty times.
@functools.lru_cache(maxsize=8)
def lung_outline(chest: Chest, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lateral edge, medial edge (distances from the midline) and half depth per row."""
    y = rows()
    bottom = chest.bottom + (4 if side == LEFT else 0)
    apex = 0.37 * chest.half_width
    s = np.clip(y / (0.86 * chest.bottom), 0, 1)
    lateral = apex + (chest.half_width - apex) * (1 - (1 - s) ** 2.7) ** 0.62
    medial = apex - (apex - 17) * np.sqrt(1 - (1 - np.clip(y / 48, 0, 1)) ** 2)
    depth = chest.lung_depth * (1 - (1 - np.clip(y / 115, 0, 1)) ** 2) ** 0.6
    end = np.clip((y - bottom + 10) / 10, 0, 1)
    depth = depth * np.sqrt(1 - end * end) * (y > 0)
    gap = chest.collapse[side]
    if gap:
        lateral = lateral - gap * np.clip(1.25 - 0.6 * s, 0, 1)
        lateral = np.maximum(lateral, medial + 1)
    return lateral, medial, depth


def chest_wall(chest: Chest) -> np.ndarray:
    """Inner half width of the thorax per row, whatever the lungs do."""
    full = dataclasses.replace(chest, collapse=(0.0, 0.0))
    return lung_outline(full, RIGHT)[0]


def body_outline(chest: Chest) -> tuple[np.ndarray, np.ndarray]:
    """Half width and half depth of the body per row: neck, shoulders, trunk."""
    y = rows()
    neck = 56 + 0.4 * chest.wall
    rise = 1 / (1 + np.exp(-(y + 22) / 9))
    shoulder = neck + (chest.half_width + 62 - neck) * rise
    axilla = 1 / (1 + np.exp((y - 95) / 13))
    trunk = np.maximum(chest_wall(chest), 0.75 * chest.half_width) + chest.wall
    shoulder_part = shoulder * axilla + trunk * (1 - axilla)
    width = np.where(y < 40, shoulder, np.maximum(trunk, shoulder_part))
    depth = 90 + (chest.lung_depth + 0.7 * chest.wall + 22 - 90) / (
        1 + np.exp(-(y - 35) / 22)
    )
    return width, depth


@dataclasses.dataclass(frozen=True, kw_only=True)
class Air:
    """The inflated lung: an interval per ray less two blockers.

    Attributes:
        low, high: interval of the thoracic cavity of the lungs, ``[n, n]``.
        centre_low, centre_high: heart and mediastinum.
        dome_low, dome_high: hemidiaphragms.
        path: mm of lung on each ray.
        side: index of the lung (0 right, 1 left) at each sub-pixel.
    """

    low: np.ndarray
    high: np.ndarray
    centre_low: np.ndarray
    centre_high: np.ndarray
    dome_low: np.ndarray
    dome_high: np.ndarray
    path: np.ndarray
    side: np.ndarray

    def within(self, solid: Interval) -> np.ndarray:
        """mm of ``solid`` that lie in the lung, by inclusion and exclusion."""
        w = solid.window
        parts = (self.low, self.high, self.centre_low, self.centre_high)
        parts += (self.dome_low, self.dome_high)
        return lung_path(solid.low, solid.high, *(part[w] for part in parts))


def lung_path(low, high, lung_low, lung_high, c_low, c_high, d_low, d_high):
    """Length of ``X`` in ``T \\ (C u D)`` for intervals on each ray.

    ``|XT| - |XTC| - |XTD| + |XTCD|``; each term is max(0, least high - largest low).
    """
    low, high = np.maximum(low, lung_low), np.minimum(high, lung_high)
    length = np.maximum(high - low, 0)
    with_c = np.maximum(low, c_low), np.minimum(high, c_high)
    length -= np.maximum(with_c[1] - with_c[0], 0)
    with_d = np.minimum(high, d_high) - np.maximum(low, d_low)
    length -= np.maximum(with_d, 0)
    both = np.minimum(with_c[1], d_high) - np.maximum(with_c[0], d_low)
    return length + np.maximum(both, 0)


def row_index(grid: Grid) -> np.ndarray:
    """Row of the outline tables at each sub-pixel."""
    index = (grid.y - np.float32(TOP)) * np.float32(1 / STEP)
    return np.clip(index, 0, ROWS - 1).astype(np.int32)


def make_air(chest: Chest, grid: Grid, index: np.ndarray) -> Air:
    """Intervals of lungs, central solids and domes on a grid."""
    side = (grid.x > 0).astype(np.int32)
    tables = [lung_outline(chest, s) for s in (RIGHT, LEFT)]
    lateral, medial, depth = (
        np.concatenate([t[k] for t in tables]).astype(np.float32) for k in range(3)
    )
    at = index + side * ROWS
    away = np.abs(grid.x)
    middle, radius = 0.5 * (lateral + medial), 0.5 * (lateral - medial)
    v = np.abs((away - middle[at]) * (1 / np.maximum(radius, 1e-3))[at])
    left = 1 - v * v * v
    half = depth[at] * np.sqrt(np.maximum(left, 0))
    half = np.where(left > 0, half, -physics.EMPTY)
    c_low, c_high = _hull(central_solids(chest, grid), grid)
    d_low, d_high = _domes(chest, grid, away, side, index)
    path = lung_path(-half, half, -half, half, c_low, c_high, d_low, d_high)
    return Air(
        low=-half,
        high=half,
        centre_low=c_low,
        centre_high=c_high,
        dome_low=d_low,
        dome_high=d_high,
        path=path,
        side=side,
    )


def _hull(solids: list[Interval], grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """From the rearmost to the foremost point of several solids on each ray."""
    low = np.full(grid.x.shape, physics.EMPTY, np.float32)
    high = -low
    for solid in solids:
        np.minimum(low[solid.window], solid.low, out=low[solid.window])
        np.maximum(high[solid.window], solid.high, out=high[solid.window])
    return low, high


def dome_axes(chest: Chest, side: int) -> tuple[float, float, float, float]:
    """x distance of the middle, y of the base, half width and height of a dome."""
    bottom = chest.bottom + (4 if side == LEFT else 0)
    half = 0.5 * (chest.half_width + 1.5)
    return half, bottom, half, bottom - chest.dome[side]


def _domes(chest, grid, away, side, index):
    """Half ellipsoids over elliptic cylinders, one per side."""
    axes = np.array([dome_axes(chest, s) for s in (RIGHT, LEFT)], np.float32)
    dx = (away - axes[0, 0]) * (1 / axes[0, 2])
    rise = np.maximum(axes[:, 1][side] - grid.y, 0) * (1 / axes[:, 3])[side]
    left = 1 - dx * dx - rise * rise
    half = np.float32(0.93 * chest.lung_depth) * np.sqrt(np.maximum(left, 0))
    half = np.where(left > 0, half, -physics.EMPTY)
    return -half, half


def heart_solid(chest: Chest, grid: Grid) -> Interval:
    """Rotated ellipsoid whose left edge is the left heart border."""
    c, m = chest, chest.magnify
    long = 0.50 * c.heart_width * m
    short = 0.335 * c.heart_width * m
    reach = np.hypot(long * np.cos(c.heart_tilt), short * np.sin(c.heart_tilt))
    return physics.ellipsoid(
        grid,
        (c.heart_left - reach, c.heart_y, 14.0),
        (long, short, c.heart_depth),
        angle=c.heart_tilt,
    )


def atrium_solid(chest: Chest, grid: Grid) -> Interval:
    """Right atrium: an ellipsoid whose right edge is the right heart border."""
    wide = 0.19 * chest.heart_width * chest.magnify
    tall = 0.33 * chest.heart_width * chest.magnify
    centre = (chest.heart_right + wide, chest.heart_y - 2, 8.0)
    return physics.ellipsoid(grid, centre, (wide, tall, 0.8 * chest.heart_depth))


def central_solids(chest: Chest, grid: Grid) -> list[Interval]:
    """Heart, right atrium, great vessels and mediastinal fat."""
    c, shift = chest, chest.heart_shift
    base = 0.5 * (c.carina + c.heart_y)
    parts = [
        ((shift + 1, 0.5 * c.carina - 10), (c.mediastinum, 0.95 * c.carina, 34)),
        ((shift + 4, base + 14), (1.2 * c.mediastinum, 0.62 * c.carina, 40)),
        ((shift - 0.62 * c.mediastinum, 0.72 * c.carina), (13, 0.62 * c.carina, 12)),
        ((shift + 22 + 0.35 * c.knob, c.carina - 20), (c.knob, 1.05 * c.knob, 26)),
        ((shift + 20, c.carina + 24), (20 + 0.1 * c.knob, 30, 24)),
    ]
    solids = [heart_solid(c, grid), atrium_solid(c, grid)]
    for (x, y), (a, b, depth) in parts:
        solids.append(physics.ellipsoid(grid, (x, y, 0.0), (a, b, depth)))
    return solids
