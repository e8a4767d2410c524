"""Shapes of bones: long ones, pebbles, and any through a table of knots."""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

from data_builders.phantom_bone.solids import TRABECULAR, Bone, X

# Longer pieces of a bone are divided, so that outlines are round, mm.
PIECE = 9.0


def long_bone(
    name: str,
    start: Sequence[float],
    end: Sequence[float],
    *,
    radii: tuple[float, float, float],
    flat: tuple[float, float, float] = (1.0, 1.0, 1.0),
    wall: tuple[float, float],
    flare: tuple[float, float] = (0.16, 0.16),
    bow: Sequence[float] = (0.0, 0.0, 0.0),
    side: np.ndarray = X,
    core: float = TRABECULAR,
    hollow: float = 0.0,
) -> Bone:
    """A shaft with widened, rounded ends.

    Args:
        name: of the bone.
        start, end: ``[3]``, mm, where the joint surfaces are.
        radii: across, at the start, in the shaft, at the end, mm.
        flat: deep over across at the same places.
        wall: cortex in the shaft and at the ends, mm.
        flare: over which part of the length each end widens.
        bow: how far the middle stands off the straight line, ``[3]`` mm.
        side: direction of across.
        core: attenuation inside the ends.
        hollow: share of the core that is missing in the shaft, where marrow is fat.
    """
    start, end = np.asarray(start, float), np.asarray(end, float)
    length = round(float(np.sqrt(((end - start) ** 2).sum())), 6)
    t, across, deep, cortex, inside = _shaft(
        length, radii, flat, wall, flare, core, hollow
    )
    points = start + t[:, None] * (end - start) + np.outer(4 * t * (1 - t), bow)
    return Bone(
        name=name,
        points=points,
        across=across,
        deep=deep,
        side=np.asarray(side, float),
        wall=cortex,
        core=inside,
    )


@functools.lru_cache(maxsize=256)
def _shaft(length, radii, flat, wall, flare, core, hollow) -> np.ndarray:
    """Rows of a long bone: part of the length, across, deep, cortex, core."""
    s = _places(length, cap=0.55 * np.array([radii[0], radii[2]]))
    t = s / length
    near, far = np.exp(-((t / flare[0]) ** 2)), np.exp(-(((1 - t) / flare[1]) ** 2))

    def along(values):
        first, middle, last = values
        return middle + (first - middle) * near + (last - middle) * far

    r = along(radii) * _rounding(s, length, 0.55 * radii[0], 0.55 * radii[2])
    shaft = np.clip(1 - near - far, 0, 1)
    cortex = wall[1] + (wall[0] - wall[1]) * shaft
    return np.stack([t, r, r * along(flat), cortex, core * (1 - hollow * shaft)])


def short_bone(
    name: str,
    centre: Sequence[float],
    half: tuple[float, float, float],
    *,
    axis: Sequence[float] = (0.0, 1.0, 0.0),
    wall: float = 0.9,
    side: np.ndarray = X,
    core: float = TRABECULAR,
) -> Bone:
    """A pebble: semi-axes ``half`` along side, axis and the third direction, mm."""
    axis = np.asarray(axis, float) / np.sqrt(np.sum(np.square(axis)))
    at = -np.cos(np.pi * np.arange(9) / 8)
    r = np.maximum(1 - np.abs(at) ** 3, 0) ** (1 / 3)
    return Bone(
        name=name,
        points=np.asarray(centre, float) + np.outer(at * half[1], axis),
        across=half[0] * r,
        deep=half[2] * r,
        side=np.asarray(side, float),
        wall=np.full(9, wall),
        core=np.full(9, core),
    )


def _places(length: float, cap: np.ndarray) -> np.ndarray:
    """Sample points in mm, close together where the ends round off."""
    steps = np.array([0.0, 0.03, 0.15, 0.45, 1.0])
    cap = np.minimum(cap, 0.3 * length)
    middle = np.linspace(cap[0], length - cap[1], 8)[1:-1]
    return np.concatenate([steps * cap[0], middle, length - steps[::-1] * cap[1]])


def _rounding(s: np.ndarray, length: float, first: float, last: float) -> np.ndarray:
    """1 in the shaft, falling to 0 at both ends as a blunt dome of that height."""
    left = np.clip(1 - s / min(first, 0.3 * length), 0, 1)
    right = np.clip(1 - (length - s) / min(last, 0.3 * length), 0, 1)
    return np.maximum(1 - left**3, 0) ** (1 / 3) * np.maximum(1 - right**3, 0) ** (
        1 / 3
    )


def through(
    name: str,
    knots: Sequence[Sequence[float]],
    *,
    side: np.ndarray = X,
    hollow: float = 0.0,
) -> Bone:
    """A bone through rows of x, y, z, across, deep, cortex (mm).

    ``hollow`` is the share of the core that is missing where the cortex is thick.
    """
    table = smooth(np.asarray(knots, float))
    shaft = np.clip((table[:, 5] - 1.5) / 2.0, 0, 1)
    return Bone(
        name=name,
        points=table[:, :3],
        across=table[:, 3],
        deep=table[:, 4],
        side=np.asarray(side, float),
        wall=table[:, 5],
        core=TRABECULAR * (1 - hollow * shaft),
    )


def shifted(knots: Sequence[Sequence[float]], shift: Sequence[float]) -> np.ndarray:
    """Knots moved in space."""
    table = np.asarray(knots, float).copy()
    table[:, :3] += shift
    return table


def smooth(table: np.ndarray, *, piece: float = PIECE) -> np.ndarray:
    """Rows of x, y, z and more, with further rows between that round off the corners.

    Monotone cubics through the given rows: nothing overshoots, radii stay positive.
    """
    return _smooth(table.tobytes(), table.shape[1], piece).copy()


@functools.lru_cache(maxsize=256)
def _smooth(raw: bytes, columns: int, piece: float) -> np.ndarray:
    table = np.frombuffer(raw).reshape(-1, columns)
    steps = np.sqrt((np.diff(table[:, :3], axis=0) ** 2).sum(1))
    arc = np.concatenate([[0.0], np.cumsum(np.maximum(steps, 1e-3))])
    parts = [
        np.linspace(low, high, min(1 + int((high - low) / piece), 4), endpoint=False)
        for low, high in itertools.pairwise(arc)
    ]
    out = PchipInterpolator(arc, table)(np.append(np.concatenate(parts), arc[-1]))
    out[:, 3:] = np.maximum(out[:, 3:], 0)  # Rounding may pass below.
    return out
