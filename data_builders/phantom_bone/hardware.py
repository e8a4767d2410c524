"""Metal in and on bones: plates with screws, nails, wires and pins, single screws.

Metal is placed on the sound bone, as if the surgeon had put it back in line.
"""

import numpy as np

from data_builders.phantom_bone.skeleton import Skeleton, find, frame_at, radius_at
from data_builders.phantom_bone.solids import Bone, rod

MODES = (("plate", 0.52), ("nail", 0.66), ("wires", 0.83), ("screws", 1.01))


def implant(
    skeleton: Skeleton, s: float, u: np.ndarray, *, name: str, t: float
) -> list[Bone]:
    """The metal of one operation.

    Args:
        skeleton: sound bones.
        s: severity: how much metal, and how thick.
        u: uniform numbers.
        name: the bone that is operated on.
        t: part of its length, where.
    """
    bone = skeleton.bones[find(skeleton.bones, name)]
    length, r = float(bone.arc[-1]), radius_at(bone, t)
    mode = next(mode for mode, limit in MODES if u[2] < limit)
    if mode == "nail" and (length < 110 or r > 16):
        mode = "plate"
    if mode == "plate" and length < 25:
        mode = "screws"
    if mode == "plate":
        return _plate(bone, t, s, u[3:])
    if mode == "nail":
        return _nail(bone, s, u[3:])
    return _pins(bone, t, s, u[3:], thin=mode == "wires")


def _plate(bone: Bone, t: float, s: float, u: np.ndarray) -> list[Bone]:
    length, r = float(bone.arc[-1]), radius_at(bone, t)
    half = np.clip((2.0 + 3.5 * s) * r / length, 0.08, 0.38)
    low, high = max(t - half, 0.05), min(t + half, 0.95)
    thick = float(np.clip(0.13 * r, 0.5, 1.7)) * (0.7 + 0.5 * s)
    wide = float(np.clip(0.45 * r, 1.4, 6.0)) * (0.7 + 0.4 * s)
    way = 2 * np.pi * u[0]
    spots, sides = [], []
    for at in np.linspace(low, high, 6):
        point, _, across, deep = frame_at(bone, at)
        out = np.cos(way) * across + np.sin(way) * deep
        spots.append(point + (surface(bone, at, way) + thick) * out)
        sides.append(-np.sin(way) * across + np.cos(way) * deep)
    found = [rod("plate", spots, wide, deep=thick, side=sides[0])]
    count = 2 + int(4.99 * s * (0.5 + 0.5 * u[1]))
    for k, at in enumerate(low + (high - low) * (np.arange(count) + 0.5) / count):
        point, axis, across, deep = frame_at(bone, at)
        out = np.cos(way) * across + np.sin(way) * deep
        out = out + 0.25 * (u[2 + k] - 0.5) * axis
        reach = surface(bone, at, way)
        ends = [point + (reach + 2 * thick) * out, point - (reach + 1.0) * out]
        found.append(rod("screw", ends, _gauge(r, s), side=axis))
    return found


def surface(bone: Bone, t: float, way: float) -> float:
    """mm from the axis to the surface, in a direction of the section."""
    at = t * bone.arc[-1]
    a, b = (np.interp(at, bone.arc, v) for v in (bone.across, bone.deep))
    a, b = max(float(a), 0.5), max(float(b), 0.5)
    return float(1 / np.hypot(np.cos(way) / a, np.sin(way) / b))


def _gauge(r: float, s: float) -> float:
    """Radius of a screw for a bone of this radius, mm."""
    return float(np.clip(0.13 * r, 0.55, 2.2)) * (0.5 + 0.5 * s)


def _nail(bone: Bone, s: float, u: np.ndarray) -> list[Bone]:
    high = 0.5 + 0.42 * s
    at = np.linspace(0.05, high, 8)
    spots = [frame_at(bone, t)[0] for t in at]
    thin = min(radius_at(bone, t) for t in (0.4, 0.5, 0.6))
    found = [rod("nail", spots, thin * (0.22 + 0.22 * s))]
    for t in (0.11, high - 0.04):
        point, axis, across, deep = frame_at(bone, t)
        way = 2 * np.pi * u[1]
        out = np.cos(way) * across + np.sin(way) * deep
        reach = surface(bone, t, way) + 2.0
        ends = [point + reach * out, point - reach * out]
        found.append(rod("bolt", ends, _gauge(thin, s), side=axis))
    return found


def _pins(bone: Bone, t: float, s: float, u: np.ndarray, *, thin: bool) -> list[Bone]:
    found = []
    for k in range(1 + int(2.99 * s * (0.4 + 0.6 * u[0]))):
        at = float(np.clip(t + 0.5 * (u[4 + k] - 0.5) * 30 / bone.arc[-1], 0.05, 0.95))
        point, axis, across, deep = frame_at(bone, at)
        r = radius_at(bone, at)
        way = 2 * np.pi * (u[1] + 0.3 * u[8 + k])
        out = np.cos(way) * across + np.sin(way) * deep
        lean = np.radians((20 + 40 * u[2]) if thin else (60 + 30 * u[2]))
        along = np.cos(lean) * axis + np.sin(lean) * out
        half = r * ((2.0 + 2.5 * s) if thin else 1.2)
        gauge = np.clip(0.11 * r, 0.45, 1.2) * (0.6 + 0.6 * s) if thin else _gauge(r, s)
        ends = [point - half * along, point + half * along]
        found.append(rod("wire" if thin else "screw", ends, float(gauge), side=across))
        if not thin:
            head = [ends[1] - 1.5 * along, ends[1] + 1.0 * along]
            found.append(rod("head", head, 1.9 * float(gauge), side=across))
    return found
