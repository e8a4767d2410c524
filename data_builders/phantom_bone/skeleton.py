"""What a study shows: bones, the joints between them, soft tissue, and the frame.

The right side of the body, seen from the front or from the palm: x grows towards the
thumb, y down the limb, z towards the palm or the front. `mirror` gives the left side.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_builders.phantom_bone import shapes, solids
from data_builders.phantom_bone.solids import Bone

WHOLE = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Build:
    """What is a patient's own, in the same way in all bones.

    Attributes:
        scale: of all lengths, about 0.84 to 1.12.
        stout: of bone widths, about 0.88 to 1.12.
        cortex: of cortical thickness, about 0.7 to 1.15.
        dense: of trabecular attenuation, about 0.8 to 1.1.
        flesh: of soft tissue, about 0.85 to 1.3.
    """

    scale: float = 1.0
    stout: float = 1.0
    cortex: float = 1.0
    dense: float = 1.0
    flesh: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint:
    """Where two bones meet.

    Attributes:
        first, second: names of the bones.
        ends: which end of each: 0 the start, 1 the end, `WHOLE` where the bone is all
            joint face.
        moves: names of the bones that a subluxation displaces.
    """

    first: str
    second: str
    ends: tuple[int, int]
    moves: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """A stretch of a bone where something may be wrong.

    Attributes:
        bone: its name.
        low, high: part of its length.
        weight: relative frequency.
    """

    bone: str
    low: float
    high: float
    weight: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Skeleton:
    """One study's limb.

    Attributes:
        bones: in space, mm.
        joints: may degenerate or slip.
        breaks: where fractures, lesions and hardware go.
        soft: groups of soft tubes; within a group paths add, groups unite.
        centre: ``(x, y, z)`` mm, middle of the usual frame.
        extent: mm of the usual frame along x, y and z.
        raised: the hand points up on the film.
        air: tubes of less attenuation, the lung.
    """

    bones: tuple[Bone, ...]
    joints: tuple[Joint, ...]
    breaks: tuple[Site, ...]
    soft: tuple[tuple[Bone, ...], ...]
    centre: tuple[float, float, float]
    extent: tuple[float, float, float]
    raised: bool = False
    air: tuple[Bone, ...] = ()


def mirror(skeleton: Skeleton) -> Skeleton:
    """The other side of the body."""
    return dataclasses.replace(
        skeleton,
        bones=tuple(solids.mirrored(bone) for bone in skeleton.bones),
        soft=tuple(tuple(map(solids.mirrored, group)) for group in skeleton.soft),
        air=tuple(map(solids.mirrored, skeleton.air)),
        centre=(-skeleton.centre[0], *skeleton.centre[1:]),
    )


def suited(skeleton: Skeleton, build: Build) -> Skeleton:
    """An average skeleton → a patient's, by the factors of the build."""
    size = build.scale

    def bone(one: Bone) -> Bone:
        return dataclasses.replace(
            one,
            points=one.points * size,
            across=one.across * size * build.stout,
            deep=one.deep * size * build.stout,
            wall=one.wall * size * build.cortex,
            core=one.core * build.dense,
        )

    def tissue(one: Bone) -> Bone:
        return dataclasses.replace(
            one,
            points=one.points * size,
            across=one.across * size * build.flesh,
            deep=one.deep * size * build.flesh,
            wall=one.wall * size * build.flesh**3,
        )

    return dataclasses.replace(
        skeleton,
        bones=tuple(map(bone, skeleton.bones)),
        soft=tuple(tuple(map(tissue, group)) for group in skeleton.soft),
        air=tuple(map(tissue, skeleton.air)),
        centre=tuple(size * c for c in skeleton.centre),
        extent=tuple(size * e for e in skeleton.extent),
    )


def flesh(
    points: Sequence[Sequence[float]],
    across: Sequence[float],
    deep: Sequence[float] | None = None,
    *,
    side: np.ndarray = solids.X,
    fat: float = 4.0,
    round_off: bool = True,
) -> Bone:
    """A tube of muscle under so many mm of fat, less where it is thin.

    Without ``round_off`` the outline keeps its corners.
    """
    rows = np.column_stack([points, across, across if deep is None else deep])
    if round_off:
        rows = shapes.smooth(rows.astype(float), piece=16.0)
    across, deep = rows[:, 3], rows[:, 4]
    tube = solids.rod("flesh", rows[:, :3], across, deep=deep, side=side, mu=solids.FAT)
    wall = np.minimum(fat, 0.25 * np.minimum(across, deep))
    core = np.full(len(across), solids.SOFT)
    return dataclasses.replace(tube, wall=wall, core=core)


def find(bones: Sequence[Bone], name: str, end: int = 0) -> int:
    """Which bone has a name; of a broken one, the fragment with that end.

    Fragments are called ``NAME`` (with the start) and ``NAME distal``.
    """
    names = [bone.name for bone in bones]
    distal = f"{name} distal"
    return names.index(distal if end and distal in names else name)


def frame_at(bone: Bone, t: float) -> tuple[np.ndarray, ...]:
    """Place, axis, and the two directions of the section at a part of the length.

    Returns:
        point ``[3]`` mm, and unit vectors: from start to end, across, deep.
    """
    arc = bone.arc
    s = t * arc[-1]
    point = np.array([np.interp(s, arc, bone.points[:, k]) for k in range(3)])
    axis = bone.direction
    across = bone.side - (bone.side * axis).sum() * axis
    across = across / np.sqrt((across**2).sum())
    return point, axis, across, np.cross(axis, across)


def radius_at(bone: Bone, t: float) -> float:
    """Mean radius at a part of the length, mm."""
    arc = bone.arc
    values = np.sqrt(bone.across * bone.deep)
    return float(np.interp(t * arc[-1], arc, values))
