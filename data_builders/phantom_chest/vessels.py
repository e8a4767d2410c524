"""Vessels, airways and fissures, as trees and lines of thin tubes."""

import dataclasses

import numpy as np

from data_builders.phantom_chest import physics
from data_builders.phantom_chest.anatomy import STEP, TOP, Chest, lung_outline
from data_builders.phantom_chest.physics import Tubes, polyline

FIRST, LEVELS, KINKS = 11, 4, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeDraws:
    """Random numbers of a patient's vessel trees, kept from film to film.

    Attributes:
        turn: ``[2, FIRST * (2^LEVELS - 1)]``, deviations of angle, standard normal.
        long: the same shape, relative length, uniform.
        keep: the same shape, uniform; a branch exists where it is below a density.
        bend: ``[2, same, KINKS]``, wiggle, standard normal.
    """

    turn: np.ndarray
    long: np.ndarray
    keep: np.ndarray
    bend: np.ndarray


def draw_tree(rng: np.random.Generator) -> TreeDraws:
    """Draw the numbers of both trees from the patient's stream."""
    n = FIRST * (2**LEVELS - 1)
    return TreeDraws(
        turn=rng.standard_normal((2, n)),
        long=rng.uniform(0.7, 1.3, (2, n)),
        keep=rng.uniform(0, 1, (2, n)),
        bend=rng.standard_normal((2, n, KINKS)),
    )


def hilum(chest: Chest, side: int) -> tuple[float, float]:
    """x (signed) and y of a hilum; the left one lies higher."""
    x = 38.0 if side else -36.0
    y = chest.carina + 26 - (chest.hilum if side else 0)
    return x + 0.7 * chest.heart_shift, y


def lung_vessels(chest: Chest, draws: TreeDraws) -> Tubes:
    """Branching tubes from both hila, thinner outward, more of them at the bases.

    The change of attenuation is 1 here: `film` multiplies with soft tissue less lung
    and with the part of the ray that is lung.
    """
    points, radius = [], []
    for side in (0, 1):
        for branch, thick in _tree(chest, draws, side):
            points.append(branch)
            radius.append(thick)
    return polyline(np.concatenate(points), np.concatenate(radius), mu=1.0)


def _tree(
    chest: Chest, draws: TreeDraws, side: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points and radii of the branches of one lung, per level."""
    sign = 1.0 if side else -1.0
    spread = np.linspace(-1.45, 1.4, FIRST)
    angle = spread + 0.12 * draws.turn[side, :FIRST]
    origin = np.array(hilum(chest, side))
    start = np.tile(origin, (FIRST, 1)) + np.stack(
        [np.zeros(FIRST), 9 * np.sin(spread)], -1
    )
    scale = chest.bottom / 270
    length = 34 * scale * draws.long[side, :FIRST] * (1 + 0.35 * np.sin(angle))
    radius = chest.vessel * (4.2 + 0.9 * np.sin(angle))
    alive = np.ones(FIRST, bool)
    parts, first = [], 0
    for level in range(LEVELS):
        n = len(angle)
        here = slice(first, first + n)
        alive = alive & (draws.keep[side, here] < chest.vessel_count)
        parts.append(_branches(start, angle, length, radius, sign, side, draws, here))
        end = parts[-1][0][:, -1]
        parts[-1] = (parts[-1][0][alive], parts[-1][1][alive])
        first += n
        if level + 1 == LEVELS:
            break
        below = slice(first, first + 2 * n)
        fork = np.array([-0.34, 0.3])[None, :] + 0.16 * draws.turn[side, below].reshape(
            n, 2
        )
        angle = (angle[:, None] + fork).reshape(-1)
        start = np.repeat(end, 2, 0)
        length = np.repeat(length, 2) * 0.82 * draws.long[side, below]
        radius = np.repeat(radius, 2) * 0.68
        alive = np.repeat(alive, 2)
    return parts


def _branches(start, angle, length, radius, sign, side, draws, here):
    """Slightly wavy branches: points ``[N, KINKS + 1, 2]`` and radii."""
    t = np.linspace(0, 1, KINKS + 1)
    wave = 0.05 * np.cumsum(draws.bend[side, here], 1)
    wave = np.concatenate([np.zeros((len(angle), 1)), wave], 1)
    along = t[None, :] * length[:, None]
    across = wave * length[:, None] * 0.6
    ex, ey = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x = start[:, :1] + sign * (along * ex - across * ey)
    y = start[:, 1:] + along * ey + across * ex
    taper = radius[:, None] * (1 - 0.3 * t[None, :])
    return np.stack([x, y], -1), taper


def airways(chest: Chest) -> Tubes:
    """Trachea and main bronchi: air in place of soft tissue."""
    shift, y0 = chest.heart_shift, chest.carina
    t = np.linspace(-90, 1, 12)
    trachea = np.stack([shift * (t + 90) / 91 - 4 * ((t + 90) / 91) ** 2, t * 1.0], -1)
    trachea[:, 1] = -60 + (y0 + 60) * (t + 90) / 91
    fork = np.array([shift - 4, y0])
    right = np.linspace(fork, np.array([shift - 27, y0 + 26]), 4)
    left = np.linspace(fork, np.array([shift + 36, y0 + 27]), 5)
    return physics.join(
        [
            polyline(trachea, 9.0, mu=-physics.SOFT),
            polyline(right, [7.0, 6.5, 6, 5.5], mu=-physics.SOFT * 0.7),
            polyline(left, [6.2, 6, 5.6, 5.2, 5], mu=-physics.SOFT * 0.7),
        ]
    )


def aorta(chest: Chest) -> Tubes:
    """Descending aorta beside the spine, seen through the heart."""
    x = chest.heart_shift * 0.6
    y = np.linspace(chest.carina - 14, chest.dome[1] + 25, 9)
    bow = 25 - 9 * np.linspace(0, 1, 9) ** 2
    return polyline(np.stack([x + bow, y], -1), 0.85 * chest.knob, mu=1.0)


def fissures(chest: Chest, draws: TreeDraws) -> Tubes:
    """The minor fissure of the right lung: a plane seen edge on."""
    y = 0.5 * (hilum(chest, 0)[1] + 14 + chest.dome[0]) - 14
    at = int(np.clip((y - TOP) / STEP, 0, 1199))
    lateral, _, depth = (table[at] for table in lung_outline(chest, 0))
    x = -np.linspace(0.45, 0.97, 7) * lateral
    tilt = np.linspace(0, 6 + 3 * draws.turn[0, 0], 7)
    shown = 1.0 if draws.keep[0, 0] < 0.6 else 0.0
    gain = shown * 0.55 * max(depth, 1.0) / 1.2
    return polyline(np.stack([x, y + tilt], -1), 0.6, mu=1.0, gain=gain)
