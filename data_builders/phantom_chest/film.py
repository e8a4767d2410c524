"""One film: anatomy and findings → line integrals → detector → display."""

import dataclasses
from collections.abc import Callable

import numpy as np

from data_builders.phantom_chest import anatomy, physics, skeleton, vessels
from data_builders.phantom_chest.anatomy import Air, Chest
from data_builders.phantom_chest.physics import Grid, Interval, Tubes
from data_builders.phantom_chest.site import Change, Site


@dataclasses.dataclass(frozen=True, kw_only=True)
class Integrals:
    """Line integrals of a film, ``[size, size]`` float32.

    Attributes:
        t: of everything.
        changes: per component of a finding: name, component, change of t.
        lung: mm of lung per pixel without findings.
    """

    t: np.ndarray
    changes: list[tuple[str, int, np.ndarray]]
    lung: np.ndarray


def line_integrals(
    grid: Grid,
    chest: Chest,
    tree: vessels.TreeDraws,
    *,
    changes: Callable[[Site], list[Change]] = lambda site: [],
    extras: list[tuple[Interval, float]] = (),
    lines: Tubes | None = None,
) -> Integrals:
    """Sum of attenuation times path over all solids.

    Args:
        grid: where the rays are.
        chest: anatomy of this film.
        tree: numbers of the vessel trees.
        changes: gives the findings' changes once the lung is known.
        extras: solids outside the lung (devices, gas) and their change of mu.
        lines: tubes outside the lung (devices).
    """
    index = anatomy.row_index(grid)
    air = anatomy.make_air(chest, grid, index)
    found = changes(Site(chest=chest, grid=grid, air=air, index=index))
    base = body_path(chest, grid, index)
    base += skeleton.spine(chest, grid, index)
    for solid, mu in [*skeleton.humeral_heads(chest, grid), *extras]:
        base[solid.window] += np.float32(mu) * solid.length
    lung_mu = np.float32(chest.lung_mu) * (0.85 + grid.y * np.float32(0.3 / 270))
    base += (lung_mu - np.float32(physics.SOFT)) * air.path
    whole = np.maximum(air.high - air.low, 1)
    rest, cleared, parts = _replace(found, air, lung_mu, grid)
    t = grid.shrink(base)
    share = grid.shrink(air.path * (1 - cleared) / whole)
    inner = physics.join(
        [
            vessels.lung_vessels(chest, tree),
            vessels.aorta(chest),
            vessels.fissures(chest, tree),
        ]
    )
    contrast = np.float32(physics.SOFT - chest.lung_mu)
    t += physics.draw_tubes(grid, inner) * share * contrast
    outer = [skeleton.ribs(chest), skeleton.shoulder(chest), vessels.airways(chest)]
    if lines is not None:
        outer.append(lines)
    t += physics.draw_tubes(grid, physics.join(outer))
    lung = grid.shrink(air.path)
    painted = []
    visible = np.minimum(grid.shrink(air.path * rest) / 20, 1)
    for change, dense in zip(found, parts, strict=True):
        delta = np.zeros_like(t)
        if dense is not None:
            delta += grid.shrink(dense)
        if change.lines is not None:
            delta += physics.draw_tubes(grid, change.lines) * visible
        t += delta
        if not change.secondary:
            painted.append((change.name, change.component, delta))
    return Integrals(t=np.maximum(t, 0), changes=painted, lung=lung)


def _replace(found, air: Air, lung_mu, grid: Grid):
    """Let findings replace the lung that earlier ones left, in order.

    Returns the part of the lung that is left, the part cleared of vessels, and each
    finding's change of t on the sub-pixels.
    """
    rest = np.ones_like(air.path)
    cleared = np.zeros_like(air.path)
    parts = []
    for change in found:
        if change.path is None:
            parts.append(None)
            continue
        w = change.window
        share = np.minimum(change.path / np.maximum(air.path[w], 1e-3), 1)
        amount = share * rest[w]
        delta = np.zeros_like(air.path)
        delta[w] = (np.float32(change.mu) - lung_mu[w]) * air.path[w] * amount
        if change.gas is not None:
            delta[w] -= np.float32(physics.SOFT) * change.gas
        rest[w] = rest[w] - amount
        if change.clears:
            cleared[w] = np.maximum(cleared[w], share)
        parts.append(delta)
    return rest, cleared, parts


def body_path(chest: Chest, grid: Grid, index: np.ndarray) -> np.ndarray:
    """t of the trunk without lungs: soft tissue, a fatty wall, breasts, belly gas."""
    width, depth = (k.astype(np.float32) for k in anatomy.body_outline(chest))
    rel = np.abs(grid.x) * (1 / width)[index]
    left = np.maximum(1 - rel * rel * rel, 0)
    path = 2 * depth[index] * np.sqrt(left)
    fat = np.minimum(path, np.float32(1.5 * chest.wall))
    t = np.float32(physics.SOFT) * path
    t -= np.float32(physics.SOFT - physics.FAT) * fat
    for solid, mu in soft_parts(chest, grid):
        t[solid.window] += np.float32(mu) * solid.length
    return t


def soft_parts(chest: Chest, grid: Grid) -> list[tuple[Interval, float]]:
    """Breasts and the gastric bubble with its level."""
    found = []
    if chest.breast:
        y = chest.dome[0] - 22
        for sign in (-1, 1):
            centre = (sign * 0.62 * chest.half_width, y, 0)
            axes = (0.46 * chest.half_width, 56, 0.5 * chest.breast)
            found.append((physics.ellipsoid(grid, centre, axes), 0.0195))
    if chest.bubble:
        r = chest.bubble
        x, y = 0.47 * chest.half_width, chest.dome[1] + 0.8 * r + 7
        gas = physics.ellipsoid(grid, (x, y, 0), (1.25 * r, r, 1.1 * r), angle=-0.2)
        found.append((gas, -0.9 * physics.SOFT))
    return found
