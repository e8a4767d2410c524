"""How a patient stands before the detector: position, breath, devices, exposure."""

import dataclasses

import numpy as np

from data_builders.phantom_chest import detector, physics
from data_builders.phantom_chest.anatomy import Chest
from data_builders.phantom_chest.cohort import Cohort, Visit, stream
from data_builders.phantom_chest.detector import Exposure
from data_builders.phantom_chest.physics import Grid, polyline

DEVICES = ("airway tube", "central line", "pacemaker", "electrodes", "chest tube")
# Chance by view: PA, AP.
CHANCE = np.array([(0.0, 0.22), (0.05, 0.35), (0.04, 0.06), (0.05, 0.5), (0.03, 0.10)])
TUBE = DEVICES.index("chest tube")
TUBE_IF_CONFOUNDED = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
    """Field and centre of the film (mm), rotation (radians)."""

    field: float
    centre: tuple[float, float]
    angle: float


def draw_position(cohort: Cohort, visit: Visit, chest: Chest) -> tuple[Position, Chest]:
    """Where the film lies, and the chest as it breathes and turns on this film."""
    rng = stream(cohort, visit.patient.number, visit.film, "position")
    u, z = rng.random(6), rng.standard_normal(6)
    breath = 5 * z[0] - (8 + 12 * u[0] if visit.ap else 0)
    chest = dataclasses.replace(
        chest,
        bottom=chest.bottom + breath,
        dome=(chest.dome[0] + breath, chest.dome[1] + breath + 1.5 * z[1]),
        heart_shift=chest.heart_shift + float(np.clip(3.5 * z[2], -8, 8)),
        magnify=1.1 + 0.1 * u[1] if visit.ap else 1.0,
        scapula=0.45 + 0.55 * u[2] if visit.ap else 0.35 * u[2] ** 2,
    )
    spread = 1.3 if visit.ap else 1.0
    position = Position(
        field=400 * (0.78 + 0.32 * u[3]),
        centre=(
            float(np.clip(13 * spread * z[3], -34, 34)),
            0.5 * chest.bottom + 8 + float(np.clip(13 * spread * z[4], -36, 36)),
        ),
        angle=float(np.clip(0.055 * spread * z[5], -0.14, 0.14)),
    )
    return position, chest


def draw_exposure(cohort: Cohort, visit: Visit) -> Exposure:
    """Dose, scatter and display of a film."""
    rng = stream(cohort, visit.patient.number, visit.film, "exposure")
    u = rng.random(8)
    per_pixel = 10 ** (4.3 + 0.9 * u[0]) * (128 / cohort.size) ** 2
    return Exposure(
        quanta=float(np.clip(per_pixel, *detector.QUANTA_RANGE)),
        scatter=0.2 + 0.15 * u[1] + (0.25 * u[2] if visit.ap else 0.0),
        blur=0.1 + 0.3 * u[3],
        low=3 + 7 * u[4],
        high=96 + 3.8 * u[5],
        slope=2.2 + 2.6 * u[6],
        shift=0.36 + 0.28 * u[7],
        gamma=float(np.exp(0.22 * np.clip(rng.standard_normal(), -2, 2))),
    )


def draw_devices(cohort: Cohort, visit: Visit) -> np.ndarray:
    """bool ``[5]``, in the order of `DEVICES`."""
    rng = stream(cohort, visit.patient.number, visit.film, "devices")
    chance = CHANCE[:, int(visit.ap)].copy()
    sick = visit.severity[7] > 0
    link = cohort.device_confounder
    chance[TUBE] += link * ((TUBE_IF_CONFOUNDED if sick else 0.0) - chance[TUBE])
    return rng.random(len(DEVICES)) < chance


def place_devices(
    cohort: Cohort, visit: Visit, chest: Chest, grid: Grid, present: np.ndarray
):
    """Solids and lines of the devices that are present: (solids, tubes or None)."""
    rng = stream(cohort, visit.patient.number, visit.film, "devices", 1)
    q = rng.random((len(DEVICES), 12))
    solids, lines = [], []
    for k, name in enumerate(DEVICES):
        if present[k]:
            more_solids, more_lines = PLACE[name](chest, grid, q[k])
            solids += more_solids
            lines += more_lines
    return solids, physics.join(lines) if lines else None


def _airway_tube(chest, grid, q):
    x = chest.heart_shift
    y = np.linspace(-90, chest.carina - 15 - 35 * q[0], 8)
    wave = 2 * np.sin(y / 30 + 6 * q[1])
    points = np.stack([x - 2 + wave, y], -1)
    edge = [points + (4.5, 0), points - (4.5, 0)]
    return [], [polyline(np.stack(edge), 0.8, mu=0.05)]


def _central_line(chest, grid, q):
    sign = -1 if q[0] < 0.7 else 1
    t = np.linspace(0, 1, 12)
    end = (chest.heart_right + 16, chest.carina + 15 + 40 * q[1])
    x = sign * 95 * (1 - t) ** 1.5 + end[0] * (1 - (1 - t) ** 1.5)
    y = chest.clavicle - 14 + 10 * np.sin(2 * t) + (end[1] - chest.clavicle) * t**2
    return [], [polyline(np.stack([x, y], -1), 1.1, mu=0.12)]


def _pacemaker(chest, grid, q):
    x, y = 0.66 * chest.half_width + 12 * q[0], 30 + 25 * q[1]
    case = physics.ellipsoid(grid, (x, y, 60), (25, 19, 4.0), angle=0.4 * q[2])
    t = np.linspace(0, 1, 16)
    tip = (chest.heart_left - 40, chest.heart_y + 38)
    path_x = x * (1 - t) ** 2 + 2 * t * (1 - t) * -45 + tip[0] * t**2
    path_y = y * (1 - t) ** 2 + 2 * t * (1 - t) * (chest.carina - 25) + tip[1] * t**2
    lead = polyline(np.stack([path_x, path_y], -1), 0.9, mu=physics.METAL)
    return [(case, physics.METAL)], [lead]


def _electrodes(chest, grid, q):
    spots = np.array([[-0.75, 45], [0.75, 40], [0.8, chest.dome[1] + 5]])
    spots = spots * (chest.half_width, 1) + 30 * (q[:6].reshape(3, 2) - 0.5)
    solids = [
        (physics.ellipsoid(grid, (x, y, 90), (7, 7, 1.2)), 0.25) for x, y in spots
    ]
    away = np.stack([spots, spots * (1.2, 1) + (0, 60), spots * (1.5, 1) + (0, 190)], 1)
    return solids, [polyline(away, 0.8, mu=0.25)]


def _chest_tube(chest, grid, q):
    sign = -1 if q[0] < 0.5 else 1
    t = np.linspace(0, 1, 12)
    w, low = chest.half_width, chest.bottom * (0.62 + 0.2 * q[1])
    x = sign * ((w + 45) * (1 - t) + (0.45 + 0.2 * q[2]) * w * t)
    y = low * (1 - t**1.3) + (25 + 30 * q[3]) * t**1.3
    points = np.stack([x, y], -1)
    edge = np.stack([points + (3.5, 1), points - (3.5, 1)])
    return [], [polyline(edge, 0.9, mu=0.10)]


PLACE = dict(
    zip(
        DEVICES,
        (_airway_tube, _central_line, _pacemaker, _electrodes, _chest_tube),
        strict=True,
    )
)
