"""Findings that fill the lung: masses, consolidations and hazes.

Each painter takes the site, the severity ``s`` in (0, 1] and ``r``, uniform numbers
that stay the same for a patient, and gives the components of the finding.
"""

import numpy as np

from data_builders.phantom_chest import physics
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
from data_builders.phantom_chest.vessels import hilum


def mass(site: Site, s: float, r: np.ndarray) -> list[Change]:
    """Round, 30 to 80 mm, slightly lobulated; one to three."""
    changes = []
    count = 1 + (r[0] < 0.15) + (r[0] < 0.04)
    for k in range(count):
        q = r[4 + 8 * k : 12 + 8 * k]
        side = int((q[0] + k * 0.5) % 1 < 0.45)
        radius = (15 + 25 * s * (0.55 + 0.45 * q[1])) * (1 if k == 0 else 0.75)
        x, y = site.place(side, 0.25 + 0.55 * q[2], 0.2 + 0.68 * q[3])
        z = (q[4] - 0.5) * 50
        turn = q[5] * np.pi
        window, path = ball_path(
            site, (x, y, z), (radius, 0.88 * radius, 0.9 * radius), angle=turn
        )
        full = np.zeros(site.grid.x.shape, np.float32)
        full[window] = path
        for j in range(2):
            way = turn + 2.4 * j + 2 * q[6 + j]
            lobe = (x + 0.5 * radius * np.cos(way), y + 0.5 * radius * np.sin(way), z)
            small = 0.62 * radius
            window, path = ball_path(site, lobe, (small, small, small))
            np.maximum(full[window], path, out=full[window])
        full *= np.float32(fade(s))
        changes.append(Change(name="Mass", window=WHOLE, path=full, component=k))
    return changes


def nodule(site: Site, s: float, r: np.ndarray) -> list[Change]:
    """Round, 5 to 30 mm, anywhere, at times behind a rib or the heart; one to four."""
    changes = []
    count = 1 + int(r[0] < 0.25) + int(r[0] < 0.1) + int(r[0] < 0.04)
    for k in range(count):
        q = r[4 + 6 * k : 10 + 6 * k]
        radius = 2.5 + 12.5 * s**1.1 * (1 if k == 0 else 0.5 + 0.4 * q[5])
        x, y = site.place(int(q[0] < 0.5), 0.1 + 0.8 * q[1], 0.1 + 0.85 * q[2])
        centre = (x, y, (q[3] - 0.5) * 70)
        window, path = ball_path(site, centre, (radius, radius * 0.92, radius))
        mu = 0.035 if q[4] < 0.2 else physics.SOFT
        changes.append(
            Change(
                name="Nodule",
                mu=mu,
                window=window,
                path=path * np.float32(fade(s)),
                component=k,
            )
        )
    return changes


def bronchogram(site: Site, x, y, radius, q) -> physics.Tubes:
    """Two air-filled bronchi that point away from the hilum."""
    side = int(x > 0)
    away = np.arctan2(y - hilum(site.chest, side)[1], x - hilum(site.chest, side)[0])
    t = np.linspace(-0.7, 0.6, 4)[None, :] * radius
    way = away + np.array([[-0.25], [0.3]]) + 0.3 * (q - 0.5)
    points = np.stack([x + t * np.cos(way), y + t * np.sin(way)], -1)
    return polyline(points, 1.8, mu=-0.8 * (physics.FLUID - physics.LUNG))


# Where a lobe's opacity sits: side, across, down, cut (-1: flat below, 1: flat above).
LOBES = (
    (0, 0.5, 0.34, -1),
    (0, 0.45, 0.72, 1),
    (0, 0.55, 0.86, 0),
    (1, 0.5, 0.36, 0),
    (1, 0.55, 0.84, 0),
)


def consolidation(site: Site, s: float, r: np.ndarray) -> list[Change]:
    """Dense lobar region, sharp at a fissure, with air bronchograms."""
    side, across, down, cut = LOBES[int(r[0] * len(LOBES)) % len(LOBES)]
    x, y = site.place(side, across + 0.3 * (r[1] - 0.5), down + 0.1 * (r[2] - 0.5))
    size = (26 + 30 * s) * (0.85 + 0.3 * r[3])
    centre = (x, y, (r[4] - 0.5) * 40)
    axes = (1.1 * size, size, 26 + 34 * s)
    window, path = ball_path(site, centre, axes, angle=0.5 * (r[5] - 0.5))
    path = path * np.float32((0.55 + 0.42 * s) * fade(s))
    if cut:
        rise = 0.15 * (site.grid.x[window] - x) * (1 if side else -1)
        path = path * ramp(cut * (site.grid.y[window] - y - rise) + 0.3 * size, 3.0)
    lines = bronchogram(site, x, y, size, r[6]) if s > 0.25 else None
    return [Change(name="Consolidation", window=window, path=path, lines=lines)]


def _cluster(site, name, r, *, count, centre, spread, size, density, depth, lines=None):
    """One component of several soft blobs around a centre."""
    full = np.zeros(site.grid.x.shape, np.float32)
    side = int(centre[0] > 0)
    for k in range(count):
        q = r[10 + 5 * k : 15 + 5 * k]
        y = centre[1] + spread * 2 * (q[1] - 0.5)
        lateral, medial = edges_at(site.chest, side, y)
        x = abs(centre[0]) + spread * 2 * (q[0] - 0.5)
        x = np.clip(x, medial + 8, max(lateral - 8, medial + 9)) * (1 if side else -1)
        a = size * (0.7 + 0.6 * q[2])
        at = (x, y, (q[3] - 0.5) * 50)
        window, path = soft_path(site, at, (a, a * (0.7 + 0.5 * q[4]), depth))
        full[window] += np.float32(density) * path
    return Change(name=name, window=WHOLE, path=full, lines=lines)


def pneumonia(site: Site, s: float, r: np.ndarray) -> list[Change]:
    """Patchy soft-edged lobar opacity, lower more often, with some bronchograms."""
    side = int(r[0] < 0.45)
    down = 0.9 - 0.55 * r[1] ** 1.6
    x, y = site.place(side, 0.3 + 0.4 * r[2], down)
    size = 27 + 22 * s
    lines = bronchogram(site, x, y, size, r[3]) if r[4] < 0.5 and s > 0.3 else None
    return [
        _cluster(
            site,
            "Pneumonia",
            r,
            count=5,
            centre=(x, y),
            spread=size,
            size=size,
            density=(0.34 + 0.46 * s) * fade(s),
            depth=40,
            lines=lines,
        )
    ]


def infiltration(site: Site, s: float, r: np.ndarray) -> list[Change]:
    """Ill-defined patchy haze of low contrast, in one lung or in both."""
    sides = (0, 1) if r[0] < 0.45 else (int(r[0] < 0.72),)
    changes = []
    for k, side in enumerate(sides):
        x, y = site.place(side, 0.3 + 0.4 * r[2 + k], 0.35 + 0.5 * r[4 + k])
        part = _cluster(
            site,
            "Infiltration",
            np.roll(r, 17 * k),
            count=6,
            centre=(x, y),
            spread=42,
            size=26 + 8 * s,
            density=(0.07 + 0.30 * s) * (1 if k == 0 else 0.8),
            depth=52,
        )
        changes.append(
            Change(name=part.name, window=WHOLE, path=part.path, component=k)
        )
    return changes


def edema(site: Site, s: float, r: np.ndarray) -> list[Change]:
    """Haze of both lungs fading outward from the hila, and Kerley lines."""
    wide = 48 + 28 * s
    density = np.zeros(site.grid.x.shape, np.float32)
    for side in (0, 1):
        x, y = hilum(site.chest, side)
        x, y = x * 1.35, y + 18 + 14 * (r[side] - 0.5)
        dx = (site.grid.x - np.float32(x)) * np.float32(1 / wide)
        dy = (site.grid.y - np.float32(y)) * np.float32(1 / (1.25 * wide))
        haze = np.exp(-0.5 * (dx * dx + dy * dy)) * (site.air.side == side)
        density += haze * np.float32((0.05 + 0.30 * s) * (0.85 + 0.3 * r[2 + side]))
    count = 4 + int(10 * s)
    start, end = [], []
    for k in range(count):
        q = r[8 + 2 * k : 10 + 2 * k]
        x, y = site.place(k % 2, 0.97, 0.72 + 0.26 * q[0])
        inward = -np.sign(x) * (10 + 10 * q[1])
        start.append((x, y))
        end.append((x + inward, y + 2))
    points = np.stack([np.array(start), np.array(end)], 1)
    lines = polyline(points, 0.6, mu=physics.SOFT - physics.LUNG, gain=8.0)
    path = density * site.air.path
    return [Change(name="Edema", window=WHOLE, path=path, lines=lines)]
