"""How a limb lies on the film: frame, marker, cast, borders, exposure."""

import dataclasses

import numpy as np

from data_builders.phantom_bone import cohort as cohorts
from data_builders.phantom_bone import solids
from data_builders.phantom_bone.cohort import Cohort, Study
from data_builders.phantom_bone.detector import Exposure
from data_builders.phantom_bone.skeleton import Skeleton
from data_builders.phantom_bone.solids import Bone
from data_builders.phantom_chest import physics
from data_builders.phantom_chest.physics import Grid, Tubes

# Longer films are cut: the longer side over the shorter one.
ASPECT_MAX = 2.1
CAST_PARTS = ("Elbow", "Forearm", "Hand", "Humerus", "Wrist")
LETTERS = {
    "L": ((0.0, 0.0), (0.0, 1.0), (0.62, 1.0)),
    "R": ((0, 1), (0, 0), (0.5, 0.04), (0.62, 0.26), (0.5, 0.48), (0, 0.52), (0.66, 1)),
}
LEAD = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """A rectangular film, and the square grid that it is the middle of.

    Attributes:
        grid: square, parallel rays; its side is the film's longer one.
        height, width: of the film, pixels.
    """

    grid: Grid
    height: int
    width: int

    def cut(self, square: np.ndarray) -> np.ndarray:
        """The film's part ``[height, width]`` of an image of the grid."""
        top = (self.grid.size - self.height) // 2
        left = (self.grid.size - self.width) // 2
        return square[top : top + self.height, left : left + self.width]

    def to_grid(self, points: np.ndarray) -> np.ndarray:
        """Film pixels ``[..., 2]`` → mm."""
        corner = np.array([self.grid.size - self.width, self.grid.size - self.height])
        away = points + corner // 2 - self.grid.offset
        inverse = np.linalg.inv(self.grid.matrix)
        return (away[..., None, :] * inverse).sum(-1)


def draw_frame(cohort: Cohort, study: Study, view: int, skeleton: Skeleton) -> Frame:
    """Where the film lies: field, cropping, rotation, size in pixels."""
    rng = cohorts.stream(cohort, study.patient, study.order, view, "position")
    u, z = rng.random(8), rng.standard_normal(3)
    angle = study.turn(view)
    sx, sy, sz = skeleton.extent
    wide = np.hypot(sx * np.cos(angle), sz * np.sin(angle)) * (0.8 + 0.3 * u[0])
    tall = sy * (0.8 + 0.25 * u[1])
    lean = float(np.clip(0.09 * z[0], -0.25, 0.25))
    if skeleton.raised != (u[2] < 0.05):
        lean += np.pi
    if u[3] < 0.03:  # Some lie across.
        lean += 0.5 * np.pi * (1 if u[4] < 0.5 else -1)
        wide, tall = tall, wide
    if tall > wide:
        tall = min(tall, ASPECT_MAX * wide)
    else:
        wide = min(wide, ASPECT_MAX * tall)
    # Never below the stored side: films are reduced, not enlarged.
    short = int(np.ceil(cohort.size * (1.0 + 0.22 * u[5])))
    pixel = min(wide, tall) / short
    height, width = (max(short, round(side / pixel)) for side in (tall, wide))
    turn = solids.turn_about_y(angle)
    middle = (turn * np.asarray(skeleton.centre)).sum(1)
    shift = 0.045 * np.clip(z[1:], -2, 2) * (sx, sy)
    size = max(height, width)
    grid = physics.make_grid(
        size,
        field=size * pixel,
        centre=(float(middle[0] + shift[0]), float(middle[1] + shift[1])),
        angle=lean,
        over=1,
    )
    return Frame(grid=grid, height=height, width=width)


def draw_exposure(cohort: Cohort, study: Study, view: int, pixel: float) -> Exposure:
    """Dose, scatter and display of a film; ``pixel`` in mm."""
    rng = cohorts.stream(cohort, study.patient, study.order, view, "exposure")
    u = rng.random(8)
    return Exposure(
        quanta=float(10 ** (3.5 + 0.9 * u[0])),
        scatter=0.05 + 0.2 * u[1],
        blur=0.1 + 0.3 * u[2],
        low=float(0.2 + 0.5 * u[3]),
        high=1.08 + 0.22 * u[4],
        slope=2.2 + 1.8 * u[5],
        shift=0.42 + 0.18 * u[6],
        gamma=float(np.exp(0.12 * np.clip(rng.standard_normal(), -2, 2))),
        grain=0.10 * min(1.0, 0.8 / pixel),
    )


def marker(cohort: Cohort, study: Study, view: int, frame: Frame) -> Tubes | None:
    """A lead letter for the side, in a corner; some films have none."""
    rng = cohorts.stream(cohort, study.patient, study.order, view, "devices")
    u = rng.random(8)
    if u[0] < 0.35:
        return None
    strokes = np.asarray(LETTERS["L" if study.left else "R"], float)
    tall = (0.07 + 0.035 * u[1]) * max(frame.height, frame.width)
    lean = 0.25 * (u[2] - 0.5) + (np.pi * (u[7] < 0.1))
    cos, sin = np.cos(lean), np.sin(lean)
    points = (strokes - (0.33, 0.5)) * tall
    points = np.stack(
        [
            cos * points[:, 0] - sin * points[:, 1],
            sin * points[:, 0] + cos * points[:, 1],
        ],
        -1,
    )
    edge = 0.6 * tall + 0.04 * np.array([frame.width, frame.height]) * u[3]
    far = np.array([frame.width, frame.height])
    corner = np.where(u[4:6] < 0.5, edge, far - edge)
    mm = frame.to_grid(points + corner)
    thick = 0.075 * tall * frame.grid.pixel
    return physics.polyline(mm, thick, mu=LEAD / (1.6 * thick))


def cast(
    cohort: Cohort, study: Study, skeleton: Skeleton
) -> tuple[list[Bone], list[Bone]]:
    """Plaster around the limb: its outside and its inside; empty where there is none."""
    key = (study.patient, study.order, cohorts.STUDY, "devices")
    u = cohorts.stream(cohort, *key).random(4)
    if study.part not in CAST_PARTS or u[0] >= cohort.cast:
        return [], []
    thick, mu = 4.0 + 4.0 * u[1], 0.03 + 0.02 * u[2]

    def around(limb: Bone, more: float) -> Bone:
        a, b = limb.across + more, limb.deep + more
        return solids.rod("cast", limb.points, a, deep=b, side=limb.side, mu=mu)

    limbs = [limb for group in skeleton.soft[:1] for limb in group]
    return [around(b, 1.5 + thick) for b in limbs], [around(b, 1.5) for b in limbs]


def finish(
    cohort: Cohort, study: Study, view: int, shown: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Collimator blades and a white border.

    Returns:
        The film, and bool: where the limb can still be seen.
    """
    rng = cohorts.stream(cohort, study.patient, study.order, view, "devices", 1)
    u = rng.random(12)
    height, width = shown.shape
    out, clear = shown.copy(), np.ones(shown.shape, bool)
    if u[0] < 0.2:
        blades = 0.10 * u[1:5] * (u[1:5] > 0.3)
        clear &= _inside(height, width, blades, 0.12 * (u[5] - 0.5))
        out[~clear] = np.float32(0.03)
    if u[6] < cohort.border:
        strips = 0.07 * u[7:11] * (u[7:11] > 0.35)
        open_ = _inside(height, width, strips, 0.0)
        out[~open_] = np.float32(1.0 if u[11] < 0.7 else 0.9)
        clear &= open_
    return out, clear


def _inside(height, width, parts, lean) -> np.ndarray:
    """Pixels off the strips along left, right, top and bottom (parts of the side)."""
    x = (np.arange(width) + 0.5) / width
    y = ((np.arange(height) + 0.5) / height)[:, None]
    tilt = lean * (x - 0.5)
    across = (x > parts[0]) & (x < 1 - parts[1])
    return across & (y + tilt > parts[2]) & (y + tilt < 1 - parts[3])
