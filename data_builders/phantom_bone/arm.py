"""Elbow and forearm, and what the upper arm shares with them."""

import numpy as np

from data_builders.phantom_bone import hand, solids
from data_builders.phantom_bone.shapes import long_bone, shifted, through
from data_builders.phantom_bone.skeleton import Joint, Site, Skeleton, flesh

# The lower end, y from the joint surface.
CONDYLES = (
    (13, -120, 0, 10.8, 10.8, 4.3),
    (13, -62, 1, 11.5, 10, 3.4),
    (12, -42, 2, 15.5, 9.5, 2.2),
    (11, -26, 3, 23, 9.5, 1.5),
    (10, -14, 4, 29, 10.5, 1.1),
    (10, -7, 4, 27.5, 11.5, 0.9),
    (10, -2, 4, 23, 10.5, 0.8),
    (10, 0, 4, 17, 7, 0.8),
    (10, 0.5, 4, 0, 0, 0.8),
)


def elbow(*, flex: float) -> Skeleton:
    """An elbow, bent by ``flex`` radians towards the front."""
    humerus = through("humerus", shifted(CONDYLES, (-12, -1, 0)), hollow=0.5)
    ulna = through(
        "ulna",
        (
            (-7, -22, -17, 0, 0, 1.0),
            (-7, -21, -17, 7, 6, 1.0),
            (-7, -14, -18, 10.5, 7.5, 1.3),
            (-7, 0, -16, 11, 8, 1.5),
            (-7, 9, -9, 12, 12, 1.4),
            (-7.5, 18, -8, 10.5, 11, 1.6),
            (-8, 32, -8, 8, 9, 2.4),
            (-9, 70, -8, 7, 7.5, 2.9),
            (-10, 150, -6, 6.8, 7, 2.9),
        ),
        hollow=0.45,
    )
    radius = long_bone(
        "radius",
        (12, 3.2, 3),
        (10, 150, 2),
        radii=(11.3, 7.0, 7.4),
        wall=(2.8, 1.0),
        flare=(0.085, 0.05),
        bow=(3, 0, 0),
        hollow=0.45,
    )
    cos, sin = np.cos(flex), np.sin(flex)
    bend = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    hinge = np.zeros(3)
    lower = [solids.turned(bone, bend, hinge) for bone in (ulna, radius)]
    upper_flesh = flesh(
        [(-2, -190, 0), (-2, -90, 2), (-2, -40, 2), (0, 0, 0), (0, 18, -2)],
        [45, 42, 42, 42, 30],
        [44, 40, 34, 30, 20],
    )
    lower_flesh = flesh(
        [(0, -18, 0), (0, 0, -2), (2, 40, 0), (2, 90, 2), (2, 190, 2)],
        [30, 42, 42, 38, 32],
        [20, 30, 34, 32, 28],
    )
    forearm = ("radius", "ulna")
    reach = 46 * (1 - np.cos(flex))
    return Skeleton(
        bones=(humerus, *lower),
        joints=(
            Joint(first="humerus", second="radius", ends=(1, 0), moves=("radius",)),
            Joint(first="humerus", second="ulna", ends=(1, 0), moves=forearm),
        ),
        breaks=(
            Site(bone="radius", low=0.05, high=0.2, weight=4.0),
            Site(bone="ulna", low=0.1, high=0.3, weight=2.0),
            Site(bone="humerus", low=0.5, high=0.78, weight=3.0),
            Site(bone="radius", low=0.3, high=0.6, weight=0.7),
        ),
        soft=((upper_flesh,), (solids.turned(lower_flesh, bend, hinge),)),
        centre=(0, 2 - 0.7 * reach, 0.75 * reach),
        extent=(108, 165 - 0.55 * reach, 88 + 1.0 * reach),
    )


def forearm() -> Skeleton:
    """A forearm with both its joints."""
    radius = long_bone(
        "radius",
        (11, -116, 3),
        (10, 118, 0),
        radii=(11.3, 7.3, 15.5),
        flat=(1.0, 0.92, 0.62),
        wall=(3.2, 0.8),
        flare=(0.055, 0.11),
        bow=(5, 0, -2),
        hollow=0.5,
    )
    ulna = through(
        "ulna",
        (
            (-7, -141, -16, 0, 0, 1.0),
            (-7, -140, -16, 7, 6, 1.0),
            (-7, -133, -17, 10.5, 7.5, 1.3),
            (-7, -119, -15, 11, 8, 1.5),
            (-7, -110, -9, 12, 12, 1.4),
            (-7.5, -100, -8, 10.5, 11, 1.6),
            (-8, -86, -8, 8, 9, 2.6),
            (-10, -40, -7, 7.2, 7.6, 3.3),
            (-12, 30, -5, 6.8, 7, 3.2),
            (-14, 80, -4, 6, 6.2, 2.5),
            (-15, 100, -4, 6.2, 6.4, 1.6),
            (-16, 110, -4, 8.2, 8, 1.0),
            (-16, 115, -4, 7.6, 7.4, 0.8),
            (-16, 116.5, -4, 0, 0, 0.8),
        ),
        hollow=0.5,
    )
    humerus = through("humerus", shifted(CONDYLES, (-12, -120, 0)), hollow=0.5)
    pose = hand.Pose()
    rest = [*hand.carpals(), *(hand.ray(k, pose)[0] for k in range(5))]
    rest = [solids.moved(bone, (1, 119.5, 0)) for bone in rest]
    names = tuple(bone.name for bone in rest)
    limb = flesh(
        [
            (0, -230, 0),
            (0, -125, 0),
            (1, -80, 0),
            (0, -20, 0),
            (-2, 60, 0),
            (-2, 110, 0),
            (-1, 145, 0),
            (0, 200, 0),
        ],
        [43, 42, 42, 38, 31, 28, 36, 42],
        [38, 32, 34, 30, 23, 19, 16, 14],
    )
    return Skeleton(
        bones=(humerus, radius, ulna, *rest),
        joints=(
            Joint(first="humerus", second="radius", ends=(1, 0), moves=("radius",)),
            Joint(first="radius", second="scaphoid", ends=(1, 0), moves=names),
            Joint(first="ulna", second="triquetrum", ends=(1, 0), moves=("ulna",)),
        ),
        breaks=(
            Site(bone="radius", low=0.25, high=0.9, weight=4.0),
            Site(bone="ulna", low=0.3, high=0.92, weight=3.0),
        ),
        soft=((limb,),),
        centre=(0, -4, 0),
        extent=(112, 296, 92),
    )
