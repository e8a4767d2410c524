"""Fractures, degenerative joints, slipped joints and lesions: what they do to bones.

Each takes a skeleton, a severity s in (0, 1] and uniform numbers, and gives the bones as
they are then. As s goes to 0 so does every change: gaps close, steps and shifts vanish.
"""

import dataclasses

import numpy as np

from data_builders.phantom_bone import solids
from data_builders.phantom_bone.effects import Crack, Lesion
from data_builders.phantom_bone.skeleton import (
    WHOLE,
    Joint,
    Site,
    Skeleton,
    find,
    frame_at,
    radius_at,
)
from data_builders.phantom_bone.solids import Bone, rod

STEP_MAX = 5.0
LEAN_MAX = np.radians(28.0)


def choose(sites: tuple[Site, ...], u: float) -> Site:
    """A site by its weight."""
    weight = np.cumsum([site.weight for site in sites])
    return sites[min(int(np.searchsorted(weight, u * weight[-1])), len(sites) - 1)]


def place(skeleton: Skeleton, u: np.ndarray) -> tuple[str, float]:
    """Bone and part of its length that two uniform numbers choose."""
    site = choose(skeleton.breaks, u[0])
    return site.bone, site.low + (site.high - site.low) * u[1]


def resampled(bone: Bone, at: np.ndarray) -> Bone:
    """The bone at other places of its axis, mm from the start."""
    arc = bone.arc

    def values(table):
        return np.interp(at, arc, table)

    return dataclasses.replace(
        bone,
        points=np.stack([values(bone.points[:, k]) for k in range(3)], -1),
        across=values(bone.across),
        deep=values(bone.deep),
        wall=values(bone.wall),
        core=values(bone.core),
    )


def replaced(
    skeleton: Skeleton, index: int, *bones: Bone, more: tuple[Bone, ...] = ()
) -> Skeleton:
    """The skeleton with some bones in the place of one, and ``more`` beside it."""
    kept = skeleton.bones
    return dataclasses.replace(
        skeleton, bones=(*kept[:index], *bones, *kept[index + 1 :], *more)
    )


def fracture(skeleton: Skeleton, s: float, u: np.ndarray) -> Skeleton:
    """A bone in two: a gap, a step of up to 5 mm, an angle.

    Both far ends stay in their joints. The step fades along the distal fragment.
    """
    name, t = place(skeleton, u)
    index = find(skeleton.bones, name)
    bone = skeleton.bones[index]
    point, axis, across, deep = frame_at(bone, t)
    r, length = radius_at(bone, t), float(bone.arc[-1])
    way = 2 * np.pi * u[3]
    aside = np.cos(way) * across + np.sin(way) * deep
    step = min(STEP_MAX, r) * s * (0.5 + 0.5 * u[2])
    lean = np.tan(LEAN_MAX * s * (0.3 + 0.7 * u[4])) * t * (1 - t) * length
    lean = min(lean, 1.8 * r)
    cracks = tuple(_cracks(point, (axis, across, deep), r, s, u))
    arc = bone.arc
    cut = t * length
    near = resampled(bone, np.append(arc[arc < cut - 0.1], cut))
    far = resampled(bone, np.insert(arc[arc > cut + 0.1], 0, cut))
    rise = near.arc / near.arc[-1]
    fall = 1 - far.arc / far.arc[-1]
    first = dataclasses.replace(
        near,
        points=near.points + np.outer(lean * rise, aside),
        axis=bone.direction,
        effects=bone.effects + cracks,
    )
    second = dataclasses.replace(
        far,
        name=f"{name} distal",
        points=far.points + np.outer((lean + step) * fall, aside),
        axis=bone.direction,
        effects=bone.effects + cracks,
    )
    return replaced(skeleton, index, first, second)


def fracture_focus(skeleton: Skeleton, u: np.ndarray) -> tuple[np.ndarray, float]:
    """Where the fracture of the same numbers is: centre and radius, mm."""
    name, t = place(skeleton, u)
    bone = skeleton.bones[find(skeleton.bones, name)]
    return frame_at(bone, t)[0], 2.4 * radius_at(bone, t) + 3.0


def joint_focus(skeleton: Skeleton, joint: Joint) -> tuple[np.ndarray, float]:
    """Where a joint is: centre and radius, mm."""
    pair = ((joint.first, joint.ends[0]), (joint.second, joint.ends[1]))
    bones = [skeleton.bones[find(skeleton.bones, n, max(e, 0))] for n, e in pair]
    tips = [tip_of(bone, end) for bone, (_, end) in zip(bones, pair, strict=True)]
    if joint.ends[0] == WHOLE:  # A ball in a socket: the middle of the ball.
        tips = [bones[1].points[4]]
    return sum(tips) / len(tips), 2.0 * end_radius(bones[1])


def _cracks(point, frame, r, s, u):
    axis, across, deep = frame
    # One in five is impacted: a dense line instead of a dark one.
    share = -0.6 * s if u[8] < 0.15 else 0.65 + 0.35 * s
    width = np.clip(r / 8, 0.5, 1.4) * s * (2.0 + 3.0 * u[7])
    for k in range(2 if s > 0.55 and u[11] < 0.6 else 1):
        tilt = np.radians(4 + 40 * u[5]) * (1 - 2 * k)
        around = 2 * np.pi * u[6]
        flat = np.cos(around) * across + np.sin(around) * deep
        yield Crack(
            point=point + k * 0.7 * r * axis,
            normal=np.cos(tilt) * axis + np.sin(tilt) * flat,
            width=float(width * (1 - 0.3 * k)),
            radius=float(r),
            jag=float(0.16 * r * u[9]),
            phase=float(2 * np.pi * u[10]),
            share=float(share),
        )


def degenerative(skeleton: Skeleton, joint: Joint, s: float, u: np.ndarray) -> Skeleton:
    """A narrow joint with dense ends and spurs at their rims."""
    pair = ((joint.first, joint.ends[0]), (joint.second, joint.ends[1]))
    tips = [skeleton.bones[find(skeleton.bones, n, max(e, 0))] for n, e in pair]
    gap = np.sqrt(
        np.sum((tip_of(tips[0], pair[0][1]) - tip_of(tips[1], pair[1][1])) ** 2)
    )
    grown = 0.46 * s * min(float(gap), 4.0)
    for k, (name, end) in enumerate(pair):
        index = find(skeleton.bones, name, max(end, 0))
        bone = skeleton.bones[index]
        more = (*spurs(bone, end, s, u[8 + 8 * k :]), dense_end(bone, end, s))
        after = bone if end == WHOLE else lengthened(bone, end, grown)
        skeleton = replaced(skeleton, index, after, more=more)
    return skeleton


def tip_of(bone: Bone, end: int) -> np.ndarray:
    """Where a bone ends; its middle if it is all joint face."""
    if end == WHOLE:
        return bone.points[len(bone.points) // 2]
    return bone.points[-1 if end else 0]


def lengthened(bone: Bone, end: int, by: float) -> Bone:
    """The bone with one end pushed out by some mm; the shaft stays."""
    arc = bone.arc
    reach = arc[-1] - arc if end else arc
    zone = min(0.3 * arc[-1], 12.0)
    weight = np.clip(1 - reach / zone, 0, 1)
    k = (-1, -3) if end else (0, 2)
    way = bone.points[k[0]] - bone.points[k[1]]
    way = way / max(np.sqrt((way**2).sum()), 1e-9)
    return dataclasses.replace(bone, points=bone.points + np.outer(weight * by, way))


def end_radius(bone: Bone) -> float:
    """Largest mean radius, mm: that of the wider end."""
    return float(np.sqrt(bone.across * bone.deep).max())


def dense_end(bone: Bone, end: int, s: float) -> Bone:
    """Sclerosis below the joint face."""
    arc, depth = bone.arc, 0.75 * end_radius(bone)
    at = np.linspace(0.02, 1, 7) * min(depth, 0.45 * arc[-1])
    if end == WHOLE:
        at = np.linspace(0.02, 0.98, 7) * arc[-1]
    part = resampled(bone, arc[-1] - at[::-1] if end == 1 else at)
    return rod(
        "sclerosis",
        part.points,
        0.96 * part.across,
        deep=0.96 * part.deep,
        side=bone.side,
        mu=solids.SOFT + 0.085 * s,
    )


def spurs(bone: Bone, end: int, s: float, u: np.ndarray) -> list[Bone]:
    """Osteophytes: short spikes from the rim of a joint face, outwards."""
    found, wide = [], end_radius(bone)
    for k in range(2 + int(3.5 * s)):
        t = (0.3 * wide / bone.arc[-1]) if end != WHOLE else 0.12 + 0.76 * (k % 2)
        t = min(t, 0.3) if end != WHOLE else t
        point, axis, across, deep = frame_at(bone, 1 - t if end == 1 else t)
        r = radius_at(bone, 1 - t if end == 1 else t)
        way = 2 * np.pi * ((k + 0.6 * u[k % 3]) / 3 + u[6])
        out = np.cos(way) * across + np.sin(way) * deep
        lean = (0.5 if end == 1 else -0.5) * axis
        size = wide * s * (0.35 + 0.35 * u[3 + k % 3])
        base, tip = point + 0.8 * r * out, point + r * out + size * (out + lean)
        radius = 0.55 * size + 0.2 * s
        found.append(
            rod(
                "osteophyte",
                [base, 0.5 * (base + tip), tip],
                [radius, 0.75 * radius, 0.15 * radius],
                side=axis,
                mu=0.095,
            )
        )
    return found


def subluxation(skeleton: Skeleton, joint: Joint, s: float, u: np.ndarray) -> Skeleton:
    """What lies beyond a joint, shifted across it."""
    bone = skeleton.bones[find(skeleton.bones, joint.second)]
    size = 0.85 * end_radius(bone)
    _, _, across, deep = frame_at(bone, 0.97 if joint.ends[1] == 1 else 0.03)
    way = 2 * np.pi * u[2]
    out = np.cos(way) * across + np.sin(way) * deep
    if joint.ends[0] == WHOLE:  # A shoulder slips down, inwards and to the front.
        out = np.array([-0.5 * np.sign(bone.points[-1, 0] or 1), 0.75, 0.5 - u[2]])
        out = out / np.sqrt((out**2).sum())
    shift = size * (0.2 + 1.1 * s) * min(1.0, 8 * s) * out
    bones = tuple(
        solids.moved(b, shift) if b.name in joint.moves else b for b in skeleton.bones
    )
    return dataclasses.replace(skeleton, bones=bones)


def lesion(skeleton: Skeleton, s: float, u: np.ndarray) -> Skeleton:
    """A lytic or sclerotic ball in a bone."""
    name, _ = place(skeleton, u[2:])
    index = find(skeleton.bones, name, int(u[4] < 0.5))
    bone = skeleton.bones[index]
    t = 0.2 + 0.6 * u[5]
    point, _, across, deep = frame_at(bone, t)
    r = radius_at(bone, t)
    way = 2 * np.pi * u[6]
    off = 0.35 * r * (np.cos(way) * across + np.sin(way) * deep)
    lytic = u[7] < 0.6
    found = Lesion(
        centre=point + off,
        radius=float(r * (0.45 + 0.85 * s)),
        amount=-(0.3 + 0.7 * s) * min(1.0, 8 * s) if lytic else 0.0,
        added=0.0 if lytic else (0.02 + 0.055 * s) * min(1.0, 8 * s),
    )
    after = dataclasses.replace(bone, effects=(*bone.effects, found))
    return replaced(skeleton, index, after)
