"""Bones as tubes of elliptical section, and how parallel rays cross them.

A bone is a line of middles in space with two semi-axes and a cortex at every point; its
sections are at right angles to the straight line ``d`` from its start to its end. A view
turns it about the long axis of the limb (y) and looks along z. On the film it is a tube
again: with semi-axes a (along ``e1``) and b (along ``e2``) and ``m`` the unit normal of
d on the film, it is ``R`` wide to either side,

    ``R^2 = (a e1·m)^2 + (b e2·m)^2``,

and a ray at distance s from the middle crosses ``2 sqrt(R^2 - s^2)`` times
``a b / R^2 / sin(tilt)`` of it, tilt being the angle between d and the ray. The cortex is
the outer tube less the inner one. `slices.draw` averages that over the pixel, so that
every tube keeps its mass in every view and at every pixel size.

Lengths are mm; attenuation is per mm at about 38 keV (50 to 60 kVp).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_builders.phantom_bone import slices
from data_builders.phantom_bone.slices import Slices
from data_builders.phantom_chest.physics import Grid

SOFT, FAT = 0.027, 0.022
CORTICAL, TRABECULAR = 0.13, 0.055
# What a detector of limbs can tell from no light at all: clipped.
METAL = 0.6
HAIR = 0.02
X, Y, Z = np.eye(3)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Bone:
    """A bone, or a rod of something else, at K points of its axis.

    Attributes:
        name: what others find it by.
        points: ``[K, 3]``, mm; y runs down the limb, z towards the palm or the front.
        across, deep: ``[K]``, semi-axes of the section, mm.
        side: ``[3]``, direction of ``across``; what is not normal to the bone is dropped.
        wall: ``[K]``, thickness of the cortex, mm; a rod is all wall.
        core: ``[K]``, attenuation inside the cortex.
        shell: attenuation of the cortex.
        axis: ``[3]``, what sections are normal to, where that is not the line from start
            to end: a fragment keeps the sections of its bone.
        effects: what changes its image, in order; see `effects`.
    """

    name: str
    points: np.ndarray
    across: np.ndarray
    deep: np.ndarray
    side: np.ndarray
    wall: np.ndarray
    core: np.ndarray
    shell: float = CORTICAL
    axis: np.ndarray | None = None
    effects: tuple = ()

    @property
    def arc(self) -> np.ndarray:
        """``[K]``, mm along the line of middles from its start."""
        steps = np.sqrt((np.diff(self.points, axis=0) ** 2).sum(1))
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def direction(self) -> np.ndarray:
        """``[3]``, unit vector that the sections are normal to."""
        way = self.points[-1] - self.points[0] if self.axis is None else self.axis
        return way / np.sqrt((way**2).sum())


def turn_about_y(angle: float) -> np.ndarray:
    """``[3, 3]``: patient to view, for a patient turned by an angle about y, radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def moved(bone: Bone, shift: np.ndarray) -> Bone:
    """The bone shifted by ``[3]`` mm."""
    return dataclasses.replace(bone, points=bone.points + np.asarray(shift, float))


def turned(bone: Bone, matrix: np.ndarray, about: np.ndarray) -> Bone:
    """The bone turned by ``matrix [3, 3]`` about a point."""
    points = _apply(matrix, bone.points - about) + about
    axis = None if bone.axis is None else _apply(matrix, bone.axis)
    side = _apply(matrix, bone.side)
    return dataclasses.replace(bone, points=points, side=side, axis=axis)


def mirrored(bone: Bone) -> Bone:
    """The bone of the other side of the body."""
    flip = np.array([-1.0, 1.0, 1.0])
    axis = None if bone.axis is None else bone.axis * flip
    return dataclasses.replace(
        bone, points=bone.points * flip, side=bone.side * flip, axis=axis
    )


def rod(
    name: str,
    points: np.ndarray,
    across: np.ndarray | float,
    *,
    deep: np.ndarray | float | None = None,
    side: np.ndarray = X,
    mu: float = METAL,
) -> Bone:
    """A solid tube of one material."""
    points = np.asarray(points, float)
    a = np.broadcast_to(np.asarray(across, float), len(points))
    b = a if deep is None else np.broadcast_to(np.asarray(deep, float), len(points))
    return Bone(
        name=name,
        points=points,
        across=a,
        deep=b,
        side=np.asarray(side, float),
        wall=np.full(len(points), 1e3),
        core=np.zeros(len(points)),
        shell=mu,
    )


def project(
    bones: Sequence[Bone], turn: np.ndarray, *, around: float = SOFT, hull: bool = False
) -> Slices:
    """All pieces of some bones as they lie on a film.

    Args:
        bones: at least one.
        turn: ``[3, 3]``, patient to view.
        around: attenuation of what the bones replace.
        hull: the outer solids at attenuation 1, for their thickness.

    Returns:
        Outer tubes with cortex less surroundings, inner ones with core less cortex.
    """
    one = _joined(bones, turn)
    follows = np.ones(len(one.points), bool)
    follows[one.ends] = False
    first = np.flatnonzero(follows)
    d, way, c1, c2 = (v[first] for v in (one.axis, one.way, one.lean1, one.lean2))
    start, end = one.points[first], one.points[first + 1]
    length = np.abs(((end - start) * d).sum(1))
    forward = ((end - start)[:, :2] * way).sum(1)
    # Seen end-on a piece has no length: it gets a hair's breadth, and keeps its mass.
    shown = np.maximum(np.abs(forward), HAIR)
    more = np.copysign(shown, forward) - forward
    start, end = start[:, :2], end[:, :2] + more[:, None] * way
    # Row 0 is the outer tube, row 1 the inner one.
    inset = np.array([[0.0]] if hull else [[0.0], [1.0]]) * one.wall
    a, b = np.maximum(one.across - inset, 0), np.maximum(one.deep - inset, 0)
    full = (a > 0) & (b > 0)
    a, b = a * full, b * full
    a0, a1, b0, b1 = a[:, first], a[:, first + 1], b[:, first], b[:, first + 1]
    r0, r1 = np.hypot(a0 * c1, b0 * c2), np.hypot(a1 * c1, b1 * c2)
    wide = np.hypot((a0 + a1) * c1, (b0 + b1) * c2) ** 2
    tilt = length / shown
    # Towards a tip the section keeps the shape that it has in the piece's middle.
    middle = (a0 + a1) * (b0 + b1) / np.maximum(wide, 1e-9)
    gain0 = np.where(r0 > 0.1, a0 * b0 / np.maximum(r0 * r0, 1e-9), middle)
    gain1 = np.where(r1 > 0.1, a1 * b1 / np.maximum(r1 * r1, 1e-9), middle)
    mu = np.ones((1, len(first)))
    if not hull:
        core = 0.5 * (one.core[first] + one.core[first + 1])
        mu = np.stack([one.shell[first] - around, core - one.shell[first]])
    row, k = np.nonzero(wide)
    return Slices(
        start=start[k],
        end=end[k],
        way=way[k],
        r0=r0[row, k],
        r1=r1[row, k],
        gain0=(tilt * gain0)[row, k],
        gain1=(tilt * gain1)[row, k],
        mu=mu[row, k],
    )


def draw(bones: Sequence[Bone], turn: np.ndarray, grid: Grid) -> np.ndarray:
    """Change of the line integral by bones in soft tissue, effects left aside."""
    if not bones:
        return np.zeros((grid.size, grid.size), np.float32)
    return slices.draw(grid, project(bones, turn))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Joined:
    """Many bones in one, turned into the view: values per point.

    ``axis`` is the bone's direction in space, ``way`` that on the film; ``lean1`` and
    ``lean2`` are the parts of the two semi-axes that are seen across the way. ``ends``
    are the last points of the bones.
    """

    points: np.ndarray
    across: np.ndarray
    deep: np.ndarray
    wall: np.ndarray
    core: np.ndarray
    shell: np.ndarray
    axis: np.ndarray
    way: np.ndarray
    lean1: np.ndarray
    lean2: np.ndarray
    ends: np.ndarray


def _joined(bones: Sequence[Bone], turn: np.ndarray) -> _Joined:
    counts = [len(bone.points) for bone in bones]

    def values(name):
        return np.concatenate([getattr(bone, name) for bone in bones])

    points = _apply(turn, values("points"))
    last = np.cumsum(counts) - 1
    d = _apply(turn, np.array([bone.direction for bone in bones]))
    side = _apply(turn, np.array([bone.side for bone in bones]))
    e1 = _unit(side - (side * d).sum(1)[:, None] * d)
    e2 = _cross(d, e1)
    flat = _unit(d[:, :2] + (0.0, 1e-9))
    normal = np.stack([-flat[:, 1], flat[:, 0]], -1)
    per_bone = {
        "shell": np.array([bone.shell for bone in bones]),
        "axis": d,
        "way": flat,
        "lean1": (e1[:, :2] * normal).sum(1),
        "lean2": (e2[:, :2] * normal).sum(1),
    }
    return _Joined(
        points=points,
        **{name: values(name) for name in ("across", "deep", "wall", "core")},
        **{name: np.repeat(v, counts, axis=0) for name, v in per_bone.items()},
        ends=last,
    )


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.sqrt((vectors**2).sum(1)), 1e-9)[:, None]


def _apply(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    # Written out, not BLAS: the same bits for any number of threads.
    return sum(vectors[..., k, None] * matrix[:, k] for k in range(3))
