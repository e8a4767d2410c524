"""Findings of the pleura, of lines and plates, and of the hiatus.

Painters as in `opacities`: site, severity ``s`` in (0, 1], the patient's numbers ``r``.
"""

import numpy as np

from data_builders.phantom_chest import physics
from data_builders.phantom_chest.anatomy import STEP, lung_outline, rows
from data_builders.phantom_chest.physics import polyline
from data_builders.phantom_chest.site import (
    WHOLE,
    Change,
    Site,
    ball_path,
    edges_at,
    fade,
    ramp,
    soft_path,
)

DENSE = physics.SOFT - physics.LUNG


def sides_of(r: float, *, both: float) -> tuple[int, ...]:
    """Right, left or both sides from one uniform number."""
    if r < both:
        return (0, 1)
    return (int((r - both) / (1 - both) < 0.47),)


def effusion(site: Site, s: float, r: np.ndarray, *, supine: bool) -> list[Change]:
    """Fluid to a meniscus that rises laterally, or a veil on a supine film."""
    changes = []
    for k, side in enumerate(sides_of(r[0], both=0.28)):
        amount = s * (1 if k == 0 else 0.35 + 0.5 * r[1])
        rise = 12 + 125 * amount**1.7
        bottom = site.chest.bottom + 4 * side
        away = site.edge(side) - np.abs(site.grid.x)
        climb = (12 + 24 * min(amount * 2.5, 1)) * np.exp(-np.maximum(away, 0) / 26)
        level = bottom - rise - climb + 0.06 * np.maximum(away, 0)
        fill = ramp(site.grid.y - level, 9.0)
        if supine:
            high = ramp(site.grid.y - np.float32(bottom - rise - 60), 130.0)
            fill = np.maximum(0.55 * (0.3 + amount) * high, 0.6 * fill)
        fill = fill * (site.air.side == side)
        path = fill.astype(np.float32) * site.air.path
        changes.append(Change(name="Effusion", window=WHOLE, path=path, component=k))
    return changes


def _inner_edge(site: Site, side: int, gap: float, s: float):
    """The visceral pleura: the lung's edge moved inwards and down by a shrinking gap."""
    reach = (0.15 + 0.58 * s) * site.chest.bottom
    shrink = np.clip(1.2 - rows() / reach, 0, 1)
    lateral, _, _ = lung_outline(site.chest, side)
    drop = (0.9 * gap / STEP * np.minimum(2 * shrink, 1)).astype(int)
    moved = lateral[np.maximum(np.arange(len(lateral)) - drop, 0)]
    return moved - gap * shrink * (1 + 0.1 * np.sin(rows() / 23))


def pneumothorax(site: Site, s: float, r: np.ndarray, *, supine: bool) -> list[Change]:
    """Gas without lung markings beyond a thin pleural line, 5 to 60 mm wide."""
    side = int(r[0] < 0.48)
    gap = 5 + 55 * s**1.4
    sign = 1.0 if side else -1.0
    if supine:
        x, y = site.place(side, 0.72, 0.97)
        axes = (16 + 26 * s, 22 + 45 * s, 30 + 30 * s)
        window, path = ball_path(site, (x, y, 34.0), axes)
        return [
            Change(name="Pneumothorax", mu=0.0, window=window, path=path, clears=True)
        ]
    edge = _inner_edge(site, side, gap, s)
    away = np.abs(site.grid.x) - edge.astype(np.float32)[site.index]
    beyond = np.maximum(ramp(away, 2.0), ramp(0.9 * gap - site.grid.y, 2.0))
    beyond = beyond * (site.air.side == side)
    low = min(1.2 * (0.15 + 0.58 * s), 0.97) * site.chest.bottom
    y = np.linspace(0.9 * gap + 1, max(low, 0.9 * gap + 20), 40)
    x = sign * np.interp(y, rows(), edge)
    lines = polyline(np.stack([x, y], -1), 0.7, mu=DENSE, gain=16.0)
    gas = Change(
        name="Pneumothorax",
        mu=0.0,
        window=WHOLE,
        path=beyond * site.air.path,
        lines=lines,
        clears=True,
    )
    return [gas, _collapsed(site, gas.path, side)]


def _collapsed(site: Site, gone: np.ndarray, side: int) -> Change:
    """The lung that is left holds the tissue of the whole: it is denser by V / V'."""
    own = site.air.path * (site.air.side == side)
    whole, lost = own.sum(), np.minimum(gone, own).sum()
    gain = min(lost / max(whole - lost, 1e-3), 1.5)
    mu = site.chest.lung_mu * (1 + gain)
    return Change(
        name="Pneumothorax", mu=mu, window=WHOLE, path=own - gone, secondary=True
    )


def pleural_thickening(site: Site, s: float, r: np.ndarray) -> list[Change]:
    """Band 3 to 15 mm thick along the wall, or an apical cap; one side or both."""
    changes = []
    for k, side in enumerate(sides_of(r[0], both=0.3)):
        thick = (3 + 12 * s**1.7) * (1 if k == 0 else 0.75)
        away = site.edge(side) - np.abs(site.grid.x)
        if r[1] < 0.3:
            fill = _cap(site, side, 2 + 1.5 * thick)
        else:
            middle = site.chest.bottom * (0.4 + 0.4 * r[2])
            half = 35 + 45 * r[3] + 20 * s
            ends = 1 - np.abs(site.grid.y - np.float32(middle)) * np.float32(1 / half)
            local = thick * np.sqrt(np.clip(2.5 * ends, 0, 1))
            fill = ramp(local - away, 1.5) * (ends > 0)
        # A plaque covers part of the wall's depth only.
        part = fade(s) * (0.22 + 0.23 * r[4])
        fill = fill * part * (site.air.side == side)
        changes.append(
            Change(
                name="Pleural_Thickening",
                window=WHOLE,
                path=fill.astype(np.float32) * site.air.path,
                component=k,
            )
        )
    return changes


def _cap(site: Site, side: int, depth: float) -> np.ndarray:
    """Crescent between the apex and the same outline moved down by ``depth`` mm."""
    lateral, medial, _ = lung_outline(site.chest, side)
    row = np.maximum(site.index - int(depth / STEP), 0)
    across = np.abs(site.grid.x)
    outer = across - lateral.astype(np.float32)[row]
    inner = medial.astype(np.float32)[row] - across
    taper = np.clip((80 - site.grid.y) * np.float32(1 / 40), 0, 1)
    return ramp(np.maximum(outer, inner), 2.0) * taper


def atelectasis(site: Site, s: float, r: np.ndarray) -> list[Change]:
    """Plates 3 to 10 mm thick in the lower zones, or a collapsed lower lobe."""
    side = int(r[0] < 0.5)
    if lobar(r):
        x, y = site.place(side, 0.26, 0.88)
        lean = 0.45 if side else -0.45
        axes = (16 + 16 * s, 44 + 18 * s, 44.0)
        window, path = soft_path(site, (x, y, -18.0), axes, angle=lean)
        path = path * np.float32((0.5 + 0.5 * s) * fade(s))
        return [Change(name="Atelectasis", window=window, path=path)]
    plates = []
    for k in range(1 + int(r[2] < 0.5) + int(r[2] < 0.2)):
        q = r[6 + 5 * k : 11 + 5 * k]
        x, y = site.place(side, 0.32 + 0.3 * q[0], 0.7 + 0.26 * q[1])
        half = (22 + 22 * s) * (0.8 + 0.4 * q[2]) * (1 if k == 0 else 0.7)
        t = np.linspace(-half, half, 7)
        slope = 0.7 * (q[3] - 0.5)
        lateral, medial = edges_at(site.chest, side, y)
        xs = np.clip(np.abs(x) + t, medial + 2, lateral - 2) * (1 if side else -1)
        plates.append(np.stack([xs, y + slope * t + 4e-3 * t * t], -1))
    thick = 3 + 7 * s
    deep = (22 + 34 * s) * fade(s) / thick
    lines = polyline(np.stack(plates), 0.5 * thick, mu=DENSE, gain=deep)
    return [Change(name="Atelectasis", lines=lines)]


def lobar(r: np.ndarray) -> bool:
    """Whether an atelectasis is a lobar collapse, with volume loss."""
    return bool(r[1] < 0.35)


def fibrosis(site: Site, s: float, r: np.ndarray) -> list[Change]:
    """Reticular lines 1 to 2 mm thick at the bases and the periphery of both lungs."""
    count = 60 + int(130 * s)
    rng = np.random.default_rng((r[:4] * 2**32).astype(np.uint64))
    side = rng.integers(0, 2, count)
    down = 1 - 0.5 * rng.random(count) ** 1.5
    across = 1 - 0.65 * rng.random(count) ** 1.4
    way = rng.uniform(0, np.pi, count)
    half = rng.uniform(4, 10, count)
    y = down * np.where(side, site.chest.dome[1], site.chest.dome[0]) + 10
    row = ((y - rows()[0]) / STEP).astype(int)
    tables = [lung_outline(site.chest, k) for k in (0, 1)]
    lateral = np.where(side, tables[1][0][row], tables[0][0][row]) - 3
    medial = np.where(side, tables[1][1][row], tables[0][1][row])
    x = (medial + across * (lateral - medial)) * np.where(side, 1, -1)
    step = np.stack([half * np.cos(way), half * np.sin(way)], -1)
    middle = np.stack([x, y], -1)
    points = np.stack([middle - step, middle + 0.3 * step, middle + step], 1)
    points[:, 1] += 0.25 * step[:, ::-1]
    thick = rng.uniform(0.5, 1.0, (count, 1))
    lines = polyline(points, thick, mu=DENSE, gain=3.0 + 5.5 * s)
    return [Change(name="Fibrosis", lines=lines)]


def hernia(site: Site, s: float, r: np.ndarray) -> list[Change]:
    """Rounded opacity behind the heart, above the dome, with gas over a fluid level."""
    radius = 16 + 26 * s
    x = site.chest.heart_shift + 16 * (r[0] - 0.3)
    y = 0.5 * sum(site.chest.dome) - 0.55 * radius
    solid = physics.ellipsoid(
        site.grid, (x, y, -28.0), (1.15 * radius, radius, 0.9 * radius)
    )
    inner = physics.ellipsoid(
        site.grid, (x, y, -28.0), (1.15 * radius - 4, radius - 4, 0.9 * radius - 4)
    )
    path = site.air.within(solid) * np.float32(fade(s))
    gas = np.zeros_like(path)
    rows_, cols = solid.window
    part = (
        slice(inner.window[0].start - rows_.start, inner.window[0].stop - rows_.start),
        slice(inner.window[1].start - cols.start, inner.window[1].stop - cols.start),
    )
    level = y + radius * (0.5 * r[1] - 0.25)
    gas[part] = fade(s) * inner.length * ramp(level - site.grid.y[inner.window], 2.0)
    return [Change(name="Hernia", window=solid.window, path=path, gas=gas)]
