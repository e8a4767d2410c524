"""Hand, wrist and finger: the distal forearm, eight carpals and five rays."""

import dataclasses

import numpy as np

from data_builders.phantom_bone.shapes import long_bone, short_bone
from data_builders.phantom_bone.skeleton import Joint, Site, Skeleton, flesh
from data_builders.phantom_bone.solids import Bone, X, Y, Z

FINGERS = ("thumb", "index", "middle", "ring", "little")
# Base of the metacarpal (x, y, z), direction from y towards x (degrees).
BASES = ((22, 27, 7), (11, 31, 1), (1, 32, -1), (-8.5, 31, 0), (-17, 28, 1))
WAYS = (38.0, 6.0, 1.0, -5.0, -12.0)
# Lengths: metacarpal, proximal, middle, distal phalanx; the thumb has no middle one.
LENGTHS = (
    (45, 31, 0, 23),
    (67, 40, 24, 18),
    (65, 44, 28, 19),
    (58, 41, 26, 19),
    (53, 32, 19, 17),
)
NAMES = ("metacarpal", "proximal", "middle", "distal")
# Base, shaft and head of each: radius across, mm.
RADII = ((7.6, 4.2, 7.2), (7.4, 4.4, 5.6), (6.2, 3.8, 4.9), (5.2, 2.6, 3.6))
FLAT = (0.88, 0.8, 0.85)
WALLS = ((2.0, 0.8), (1.6, 0.7), (1.4, 0.6), (1.0, 0.6))
WIDTH = (1.15, 1.0, 1.0, 0.95, 0.86)
GAP = 2.4
CARPALS = (
    ("scaphoid", (13.5, 9, -1), (6.2, 10.5, 6.5), (0.55, 1, 0.35)),
    ("lunate", (1.5, 7, 0), (8, 6.8, 8), (0, 1, 0)),
    ("triquetrum", (-11.5, 9.5, -2), (6.8, 7, 6.5), (-0.3, 1, 0)),
    ("pisiform", (-14, 11, 9), (4.6, 5, 4.5), (0, 1, 0)),
    ("trapezium", (20.5, 20, 4), (6.5, 6.5, 7), (0.4, 1, 0.2)),
    ("trapezoid", (10.5, 23, -1), (5.2, 6.6, 6.5), (0, 1, 0)),
    ("capitate", (0.5, 21.5, -1), (6, 9.3, 8), (0, 1, 0)),
    ("hamate", (-11, 22, 1), (6.6, 8, 7.5), (-0.15, 1, 0)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
    """How a hand is held.

    Attributes:
        spread: 1 as in `WAYS`; fingers closer below.
        curl: bend at each finger joint, radians.
        fan: further bend of each of the fingers, radians.
    """

    spread: float = 1.0
    curl: float = 0.06
    fan: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)


def direction(way: float, bend: float) -> np.ndarray:
    """Unit vector from y towards x by ``way`` and towards z by ``bend``, radians."""
    return np.array(
        [np.sin(way) * np.cos(bend), np.cos(way) * np.cos(bend), np.sin(bend)]
    )


def ray(finger: int, pose: Pose) -> list[Bone]:
    """Metacarpal and phalanges of a finger, in order."""
    name, place = FINGERS[finger], np.array(BASES[finger], float)
    way = np.radians(WAYS[finger] * (pose.spread if finger else 1.0))
    side = np.array([np.cos(way), -np.sin(way), 0.0])
    if not finger:  # The thumb lies turned by a right angle, nearly.
        side = 0.5 * side + 0.85 * Z
    bones, bend = [], 0.0
    for k, length in enumerate(LENGTHS[finger]):
        if not length:
            continue
        if k:
            bend += pose.curl + pose.fan[finger]
        axis = direction(way, bend)
        end = place + length * axis
        bones.append(
            long_bone(
                f"{name} {NAMES[k]}",
                place,
                end,
                radii=tuple(WIDTH[finger] * r for r in RADII[k]),
                flat=FLAT,
                wall=WALLS[k],
                flare=(0.2, 0.16) if k else (0.16, 0.16),
                bow=(0, 0, -0.04 * length),
                side=side,
                hollow=0.5,
            )
        )
        place = end + GAP * axis
    return bones


def carpals() -> list[Bone]:
    """The eight bones of the wrist."""
    return [
        short_bone(name, centre, half, axis=axis, side=X)
        for name, centre, half, axis in CARPALS
    ]


def forearm_ends(length: float) -> list[Bone]:
    """The last part of radius and ulna, cut off beyond the film."""
    radius = long_bone(
        "radius",
        (5, -length, 0),
        (9.5, -1.5, 0),
        radii=(7.5, 7.2, 15.5),
        flat=(0.9, 0.9, 0.62),
        wall=(2.8, 0.8),
        flare=(0.05, 0.27 * 90 / length),
        hollow=0.45,
    )
    ulna = long_bone(
        "ulna",
        (-15, -length, -3),
        (-17, -4, -4),
        radii=(6.8, 6.0, 8.2),
        flat=(0.95, 1.0, 0.95),
        wall=(2.6, 0.8),
        flare=(0.05, 0.14 * 90 / length),
        hollow=0.45,
    )
    return [radius, ulna]


def palm(length: float) -> tuple[Bone, ...]:
    """Soft tissue of forearm, wrist and palm."""
    points = [(-3, -length - 30, 0), (-3, -30, 0), (-2, 0, 0), (-1, 25, 0)]
    points += [(-1, 55, 0), (0, 82, 0), (0, 98, 0)]
    return (
        flesh(
            points,
            [34, 29, 28, 35, 42, 41, 36],
            [26, 21, 18, 17, 15, 12, 10],
        ),
    )


def finger_flesh(bones: list[Bone], finger: int) -> Bone:
    """The soft tube around the phalanges of a ray."""
    start = bones[0].points[len(bones[0].points) // 2]
    ends = [bone.points[-1] for bone in bones]
    tip = ends[-1] + 4 * (ends[-1] - bones[-1].points[0]) / np.sqrt(
        ((ends[-1] - bones[-1].points[0]) ** 2).sum()
    )
    near = 0.3 * bones[-1].points[0] + 0.7 * tip
    points = np.array([start, *ends[:-1], near, 0.15 * near + 0.85 * tip, tip])
    taper = np.linspace(11.5, 8.2, len(points))
    taper[-2:] = 6.0, 1.5
    width = WIDTH[finger] * taper
    return flesh(
        points, width, 0.85 * width, side=bones[-1].side, fat=1.5, round_off=False
    )


def whole(pose: Pose, *, stub: float, parts: int = 4) -> Skeleton:
    """Forearm stub, carpals and all rays, or so many bones of each, as on a hand film."""
    rays = [ray(k, pose)[:parts] for k in range(5)]
    bones = [*forearm_ends(stub), *carpals(), *(b for r in rays for b in r)]
    skin = tuple(finger_flesh(bones, k) for k, bones in enumerate(rays))
    return Skeleton(
        bones=tuple(bones),
        joints=(),
        breaks=(),
        soft=(palm(stub), skin),
        centre=(3, 84, 0),
        extent=(150, 225, 110),
        raised=True,
    )


def _finger_joints(fingers, *, tips: bool) -> list[Joint]:
    found = []
    for name in fingers:
        chain = [f"{name} {part}" for part in NAMES]
        if name == "thumb":
            chain.remove("thumb middle")
        stop = len(chain) if tips else 3
        for k in range(1, stop):
            found.append(
                Joint(
                    first=chain[k - 1],
                    second=chain[k],
                    ends=(1, 0),
                    moves=tuple(chain[k:]),
                )
            )
    return found


def hand(pose: Pose) -> Skeleton:
    """A hand: everything below the distal forearm."""
    base = whole(pose, stub=55)
    metacarpals = [f"{f} metacarpal" for f in FINGERS]
    proximal = [f"{f} proximal" for f in FINGERS]
    breaks = [Site(bone=b, low=0.25, high=0.85, weight=2.0) for b in metacarpals]
    breaks[4] = dataclasses.replace(breaks[4], low=0.6, weight=5.0)
    breaks += [Site(bone=b, low=0.15, high=0.85, weight=1.5) for b in proximal]
    first = Joint(
        first="trapezium",
        second="thumb metacarpal",
        ends=(1, 0),
        moves=("thumb metacarpal", "thumb proximal", "thumb distal"),
    )
    joints = (first, *_finger_joints(FINGERS, tips=True))
    return dataclasses.replace(base, joints=joints, breaks=tuple(breaks))


def wrist(pose: Pose) -> Skeleton:
    """A wrist: distal forearm to the metacarpals."""
    base = whole(pose, stub=90, parts=2)  # The rest is off the film.
    arm = {"radius", "ulna"}
    rest = tuple(b.name for b in base.bones if b.name not in arm)
    breaks = (
        Site(bone="radius", low=0.76, high=0.9, weight=7.0),
        Site(bone="ulna", low=0.72, high=0.93, weight=2.0),
        Site(bone="scaphoid", low=0.4, high=0.6, weight=1.5),
        Site(bone="little metacarpal", low=0.2, high=0.6, weight=0.7),
    )
    joints = (
        Joint(first="radius", second="scaphoid", ends=(1, 0), moves=rest),
        Joint(first="radius", second="lunate", ends=(1, 0), moves=rest),
        Joint(
            first="trapezium",
            second="thumb metacarpal",
            ends=(1, 0),
            moves=("thumb metacarpal", "thumb proximal"),
        ),
    )
    return dataclasses.replace(
        base, joints=joints, breaks=breaks, centre=(1, 4, 0), extent=(105, 150, 85)
    )


def finger(pose: Pose, *, which: int, neighbours: bool) -> Skeleton:
    """One finger, up to the head of its metacarpal; with others beside it or alone."""
    shown = [which]
    if neighbours:
        shown += [k for k in (which - 1, which + 1) if 1 <= k <= 4 and which]
    rays = [ray(k, pose) for k in shown]
    name, own = FINGERS[which], rays[0]
    tip, base = own[-1].points[-1], own[0].points[-1]
    middle = 0.52 * tip + 0.48 * base
    parts = [bone.name.split()[1] for bone in own[1:]]
    breaks = [
        Site(bone=f"{name} {part}", low=0.12, high=0.88, weight=w)
        for part, w in zip(parts, (2.0, 1.5, 1.5), strict=False)
    ]
    length = float(np.sqrt(((tip - base) ** 2).sum()))
    skin = tuple(finger_flesh(bones, k) for k, bones in zip(shown, rays, strict=True))
    trunk = np.concatenate([own[0].points[[3, -4, -1]], own[0].points[-1:] + 6 * Y])
    web = flesh(trunk, [18, 17, 13, 3], [12, 11, 9, 2])
    return Skeleton(
        bones=tuple(bone for bones in rays for bone in bones),
        joints=tuple(_finger_joints([name], tips=True)),
        breaks=tuple(breaks),
        soft=((web,), skin),
        centre=tuple(float(m) for m in middle),
        extent=(0.55 * length + 6, length + 26, 0.5 * length + 6),
        raised=True,
    )
