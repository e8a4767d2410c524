"""Bones of the chest, as tubes with a cortex and a column of vertebrae."""

import numpy as np

from data_builders.phantom_chest import physics
from data_builders.phantom_chest.anatomy import STEP, TOP, Chest, chest_wall, rows
from data_builders.phantom_chest.physics import Grid, Tubes, polyline

CORE = physics.TRABECULAR - physics.SOFT
SHELL = physics.CORTICAL - physics.SOFT
PAIRS = 11


def _mirror(points: np.ndarray) -> np.ndarray:
    """Both sides of the body: ``[..., 2]`` → ``[2, ..., 2]``."""
    return np.stack([points * (-1, 1), points])


def spine_x(chest: Chest, y: np.ndarray) -> np.ndarray:
    """x of the middle of the spine at height y."""
    return chest.bow * np.sin((y + 40) / 330 * 2 * np.pi) - 0.4 * chest.heart_shift


def rib_arcs(chest: Chest) -> np.ndarray:
    """Mid lines of all ribs, ``[2 sides, PAIRS, K, 3]``: x, y and gain.

    A rib runs on a tilted ellipse: ``x = w sin p``, ``y = y_i + drop (1 - cos p)``,
    from the spine (p about 8 degrees) around the side to its cartilage.
    """
    wall = chest_wall(chest)
    number = np.arange(PAIRS)[:, None]
    angle = np.radians(np.linspace(8, 142, 27))[None, :]
    start = -6 + chest.vertebra * number
    grow = np.clip((number + 1) / 4, 0.35, 1)
    back = chest.rib_drop * grow * (1 - np.cos(angle))
    front = 0.55 * chest.rib_drop * grow * np.maximum(-np.cos(angle), 0) ** 1.2
    y = start - 7 * np.sin(np.clip(angle * 2, 0, np.pi)) * grow + back + front
    at = np.clip((start + chest.rib_drop * grow + 4 - TOP) / STEP, 0, len(wall) - 1)
    width = np.maximum(wall[at.astype(int)], 40 + 14 * number) + 1.5
    width = np.minimum(width, chest.half_width + 1.5)
    x = width * np.sin(angle)
    dx = width * np.cos(angle)
    dy = np.gradient(y, axis=1) / np.gradient(angle, axis=1)
    dz = chest.lung_depth * 1.25 * grow * np.sin(angle)
    flat = np.hypot(dx, dy)
    gain = np.minimum(np.sqrt(flat**2 + dz**2) / flat, 2.2)
    # Cartilage does not show: the arc ends sooner on the lower ribs.
    gain = gain * (angle < np.radians(np.clip(150 - 3.5 * number, 112, 150)))
    right = np.stack([-x, y, gain], -1)
    left = np.stack([x, y, gain], -1)
    return np.stack([right, left])


def ribs(chest: Chest) -> Tubes:
    """Eleven pairs of ribs, posterior and anterior arcs."""
    arcs = rib_arcs(chest)
    gain = 0.5 * (arcs[..., 1:, 2] + arcs[..., :-1, 2])
    radius = chest.rib_radius * (0.9 + 0.25 * np.sin(np.linspace(0.2, 2.6, 27)))
    return polyline(arcs[..., :2], radius, mu=CORE, gain=gain, wall=1.1, wall_mu=SHELL)


def clavicles(chest: Chest) -> np.ndarray:
    """Mid lines of the clavicles, ``[2, K, 2]``: an S from sternum to shoulder."""
    t = np.linspace(0, 1, 14)
    x = 16 + (1.02 * chest.half_width - 16) * t
    y = chest.clavicle + 8 - 28 * t + 7 * np.sin(2 * np.pi * t)
    return _mirror(np.stack([x, y], -1))


def shoulder(chest: Chest) -> Tubes:
    """Clavicles, scapulae and humeral shafts."""
    w, s = chest.half_width, chest.scapula
    inward = 6 + 34 * s
    blade = np.array(
        [
            [[w + 24, 10], [w + 12 - inward, 30], [w - inward, 75], [w - inward, 128]],
            [[w + 30, 22], [w + 26, 60], [w + 14 - inward, 105], [w - inward, 128]],
            [[w + 38, 2], [w + 14, 8], [w - 8 - inward, 18], [w - 14 - inward, 30]],
        ]
    )
    arm = np.array([[w + 48, 14.0], [w + 56, 70], [w + 60, 130], [w + 62, 190]])
    wide = 6.0 + 1.1 * np.cos(np.linspace(0, 2 * np.pi, 14))
    return physics.join(
        [
            polyline(clavicles(chest), wide, mu=CORE, wall=1.7, wall_mu=SHELL),
            polyline(_mirror(blade), 3.6, mu=CORE, wall=1.6, wall_mu=SHELL, gain=1.2),
            polyline(_mirror(arm), 12.0, mu=CORE, wall=3.0, wall_mu=SHELL, gain=0.8),
        ]
    )


def humeral_heads(chest: Chest, grid: Grid) -> list[tuple[physics.Interval, float]]:
    """Balls of trabecular bone and the thin blades of the scapulae."""
    w = chest.half_width
    inward = 6 + 34 * chest.scapula
    found = []
    for sign in (-1, 1):
        ball = physics.ellipsoid(grid, (sign * (w + 44), 12, 0), (23, 22, 20))
        found.append((ball, CORE))
        centre = (sign * (w + 12 - inward), 72, -60)
        blade = physics.ellipsoid(grid, centre, (22, 54, 3.5), angle=sign * 0.12)
        found.append((blade, SHELL * 0.8))
    return found


def spine(chest: Chest, grid: Grid, index: np.ndarray) -> np.ndarray:
    """Change of t by vertebral bodies, end plates, pedicles and spinous processes."""
    y = rows()
    phase = np.mod((y + 6) / chest.vertebra, 1.0)
    body = 1 / (1 + np.exp(-(0.40 - np.abs(phase - 0.5)) / 0.025))
    plate = np.exp(-0.5 * ((np.abs(phase - 0.5) - 0.40) / 0.035) ** 2)
    centre = spine_x(chest, y).astype(np.float32)
    amount = (body * 24 * CORE + plate * 26 * SHELL * 0.10).astype(np.float32)
    knob = np.exp(-0.5 * ((phase - 0.62) / 0.15) ** 2).astype(np.float32) * 0.11
    eye = np.exp(-0.5 * ((phase - 0.38) / 0.11) ** 2).astype(np.float32) * 0.07
    out = np.zeros_like(grid.x)
    window = _strip(grid, float(np.abs(centre).max()) + chest.spine_width + 1)
    index = index[window]
    dx = np.abs(grid.x[window] - centre[index])
    width = np.float32(chest.spine_width)
    rel = dx * (1 / width)
    rel *= rel
    column = amount[index] * np.sqrt(np.maximum(1 - rel * rel, 0))
    column += knob[index] * np.maximum(1 - dx * dx * np.float32(1 / 16), 0)
    away = (dx - np.float32(0.62) * width) * np.float32(1 / 4.5)
    column += eye[index] * np.maximum(1 - away * away, 0)
    out[window] = column
    return out


def _strip(grid: Grid, half: float) -> tuple[slice, slice]:
    """Columns of the film that hold the band ``|x| <= half``."""
    ends = np.array([[sign * half, y] for sign in (-1, 1) for y in (TOP, TOP + 600)])
    u = grid.to_pixels(ends)
    v = u[:, 1]
    # The band is a parallelogram on the film: follow its sides to the film's edges.
    at = []
    for i, j in ((0, 1), (2, 3)):
        slope = (u[j, 0] - u[i, 0]) / (v[j] - v[i])
        at += [u[i, 0] + slope * (edge - v[i]) for edge in (0, grid.size)]
    n = grid.size * grid.over
    low = int(np.clip(np.floor(min(at) * grid.over) - 1, 0, n))
    high = int(np.clip(np.ceil(max(at) * grid.over) + 1, 0, n))
    return slice(0, n), slice(low, high)
