"""Humerus and shoulder: the upper arm, the girdle, and the ribs beside it."""

import numpy as np

from data_builders.phantom_bone import solids
from data_builders.phantom_bone.arm import CONDYLES
from data_builders.phantom_bone.shapes import long_bone, shifted, through
from data_builders.phantom_bone.skeleton import WHOLE, Joint, Site, Skeleton, flesh
from data_builders.phantom_bone.solids import Bone, Y, Z

# Axis and section of the humerus around the head's middle: x, y, z, across, deep, cortex.
HEAD = (
    (-13, -23.5, 0, 0, 0, 0.8),
    (-12.5, -23, 0, 9, 9, 0.8),
    (-11, -20, 0, 16, 15.5, 0.8),
    (-7, -12, 0, 22, 21, 0.8),
    (-1, -1, 0, 25, 23, 0.9),
    (5, 11, 0, 24.5, 21, 1.0),
    (10, 24, 0, 19.5, 17.5, 1.5),
    (13, 40, 0, 14.5, 14, 2.8),
    (14, 60, 0, 12.3, 12, 4.0),
)


def shoulder_girdle() -> list[Bone]:
    """Glenoid, borders and spine of the scapula, clavicle; around the head's middle."""
    parts = (
        (
            "glenoid",
            ((-34, -19, 0), (-34, -18, 0), (-34.5, -12, 0), (-35, 2, 0))
            + ((-35, 14, 0), (-34, 19, 0), (-34, 20, 0)),
            (0, 3, 5, 5.5, 5, 3, 0),
            (0, 6, 11, 13, 12, 7, 0),
        ),
        (
            "lateral border",
            ((-39, 14, 0), (-46, 30, -1), (-66, 80, -4), (-84, 122, -6)),
            (7, 5.5, 4, 3),
            (8, 6, 5, 3),
        ),
        (
            "neck",
            ((-38, 0, 0), (-52, 0, -2), (-64, -2, -4)),
            (15, 12, 16),
            (7, 4, 2),
        ),
        (
            "coracoid",
            ((-44, -16, 2), (-38, -24, 14), (-28, -21, 26), (-20, -13, 31)),
            (8, 6, 5.5, 0.5),
            (8, 6, 5.5, 0.5),
        ),
        (
            "blade",
            ((-62, -26, -6), (-64, -20, -6), (-72, 10, -7), (-82, 50, -7))
            + ((-88, 95, -6), (-88, 124, -6)),
            (2, 20, 36, 28, 12, 1),
            (1.2, 1.6, 1.6, 1.5, 1.5, 1),
        ),
    )
    bones = []
    for name, points, across, deep in parts:
        knots = np.column_stack([points, across, deep, np.full(len(points), 1.1)])
        bones.append(through(name, knots))
    spine = (
        (-112, -8, -28, 4, 7, 1.2),
        (-60, -28, -28, 5, 7, 1.3),
        (-18, -38, -26, 7, 6, 1.5),
        (10, -41, -18, 11, 4.5, 1.3),
        (22, -39, -4, 12, 4.2, 1.2),
        (26, -37.5, 4, 9, 4, 1.1),
        (27, -37, 6, 0, 0, 1.0),
    )
    clavicle = (
        (-165, -22, 22, 9, 9, 1.5),
        (-125, -40, 32, 6.5, 6.5, 2.3),
        (-85, -48, 24, 6, 6, 2.6),
        (-45, -48, 8, 6.2, 5.8, 2.3),
        (-10, -45.5, 0, 8, 5.5, 1.5),
        (4, -45, 2, 9, 5.2, 1.1),
        (8, -45, 2, 7, 4, 1.0),
        (9, -45, 2, 0, 0, 1.0),
    )
    return [
        *bones,
        through("acromion", spine, side=Z),
        through("clavicle", clavicle, side=Z),
    ]


def ribs() -> list[Bone]:
    """The upper ribs beside the scapula, each in a posterior and an anterior half."""
    halves = (
        ((-200, -56, -46), (-165, -52, -54), (-135, -40, -46), (-112, -14, -4)),
        ((-112, -14, -4), (-120, 2, 32), (-145, 14, 58), (-190, 26, 74)),
    )
    found = []
    for k in range(5):
        for half in halves:
            points = np.array(half, float) + (4 - 5 * k, 35 * k, 0)
            knots = np.column_stack([points, np.full((4, 3), (5.0, 4.2, 1.0))])
            found.append(through(f"rib {k + 1}", knots, side=Y))
    return found


def trunk() -> tuple[tuple[Bone, ...], Bone]:
    """Soft tissue beside the shoulder, and the lung in it."""
    slope = ((-150, 62), (-105, 70), (-85, 90), (-66, 125), (-48, 152), (-20, 168))
    slope += ((40, 165), (90, 160), (330, 158))
    chest = flesh(
        [(-200, y, 0) for y, _ in slope],
        [x for _, x in slope],
        [52, 56, 62, 70, 78, 84, 90, 92, 95],
    )
    lung = solids.rod(
        "lung",
        [(-195, y, 0) for y in (-72, -68, -45, -10, 60, 300)],
        [1, 32, 58, 72, 80, 84],
        deep=[1, 26, 46, 58, 66, 70],
        mu=-0.019,
    )
    return (chest,), lung


def shoulder() -> Skeleton:
    """A shoulder: the upper half of the humerus and the girdle."""
    lower = ((14, 110, 0, 11.2, 11.2, 4.4), (13, 215, 0, 10.6, 10.6, 4.4))
    humerus = through("humerus", [*HEAD, *lower], hollow=0.5)
    arm = flesh(
        [(-2, -66, 0), (-1, -62, 0), (2, -45, 0), (6, 0, 0), (10, 60, 0), (12, 260, 0)],
        [2, 22, 40, 50, 49, 44],
        [2, 22, 40, 50, 48, 43],
    )
    chest, lung = trunk()
    return Skeleton(
        bones=(humerus, *shoulder_girdle(), *ribs()),
        joints=_girdle_joints(("humerus",)),
        breaks=(
            Site(bone="humerus", low=0.2, high=0.36, weight=4.0),
            Site(bone="clavicle", low=0.35, high=0.9, weight=3.0),
            Site(bone="humerus", low=0.45, high=0.75, weight=1.0),
            Site(bone="acromion", low=0.55, high=0.85, weight=0.7),
        ),
        soft=((arm,), chest),
        air=(lung,),
        centre=(-32, 28, 0),
        extent=(190, 190, 165),
    )


def _girdle_joints(arm: tuple[str, ...]) -> tuple[Joint, ...]:
    return (
        Joint(first="glenoid", second="humerus", ends=(WHOLE, 0), moves=arm),
        Joint(first="clavicle", second="acromion", ends=(1, 1), moves=("clavicle",)),
    )


def humerus(*, turned: float) -> Skeleton:
    """An upper arm with both its joints.

    ``turned``: by how many radians the arm alone is turned for this view; the girdle
    stays as it is on the film.
    """
    length = 292.0
    knots = np.concatenate([HEAD, shifted(CONDYLES, (-2, length - 22, 0))])
    bone = through("humerus", shifted(knots, (0, -125, 0)), hollow=0.5)
    base = length - 22 - 125
    radius = long_bone(
        "radius",
        (22, base + 3.5, 3),
        (20, base + 120, 2),
        radii=(11.3, 7.0, 7.4),
        wall=(2.8, 1.0),
        flare=(0.1, 0.05),
        hollow=0.4,
    )
    ulna = long_bone(
        "ulna",
        (3, base - 20, -15),
        (0, base + 120, -6),
        radii=(11.0, 7.2, 7.0),
        flat=(0.8, 1.0, 1.0),
        wall=(2.8, 1.2),
        flare=(0.3, 0.05),
        hollow=0.4,
    )
    down = np.array([0.0, -125.0, 0.0])
    back = solids.turn_about_y(-turned)

    def still(bone: Bone) -> Bone:
        return solids.moved(solids.turned(bone, back, np.zeros(3)), down)

    girdle = [still(b) for b in shoulder_girdle()]
    limb = flesh(
        [
            (-2, -191, 0),
            (-1, -187, 0),
            (2, -170, 0),
            (6, -125, 0),
            (10, -60, 0),
            (11, 40, 0),
            (10, 110, 0),
            (9, base, 0),
            (9, base + 60, 0),
            (9, base + 160, 0),
        ],
        [2, 22, 40, 50, 49, 43, 38, 41, 40, 36],
        [2, 22, 40, 50, 48, 43, 36, 31, 32, 30],
    )
    (chest,), lung = trunk()
    lower = ("radius", "ulna")
    return Skeleton(
        bones=(bone, radius, ulna, *girdle),
        joints=(
            *_girdle_joints(("humerus", *lower)),
            Joint(first="humerus", second="radius", ends=(1, 0), moves=lower),
        ),
        breaks=(
            Site(bone="humerus", low=0.15, high=0.25, weight=3.0),
            Site(bone="humerus", low=0.3, high=0.82, weight=4.0),
            Site(bone="humerus", low=0.86, high=0.93, weight=1.0),
        ),
        soft=((limb,), (still(chest),)),
        air=(still(lung),),
        centre=(-2, 0, 0),
        extent=(138, 330, 128),
    )
