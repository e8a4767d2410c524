"""One view of a study: bones as they are → line integrals, and each abnormality's change.

The bones go through a chain of states: sound, then one abnormality after the other. What
an abnormality changes on a film is the image of the bones that it made less the image of
those that it took away, so that ``t = t(sound) + sum of changes`` exactly.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from cxr_jax.labels import BODY_PARTS
from data_builders.phantom_bone import (
    abnormal,
    arm,
    effects,
    hand,
    hardware,
    shoulder,
    skeleton,
    slices,
    solids,
)
from data_builders.phantom_bone import cohort as cohorts
from data_builders.phantom_bone.acquisition import Frame
from data_builders.phantom_bone.cohort import Cohort, Study
from data_builders.phantom_bone.skeleton import Skeleton
from data_builders.phantom_bone.solids import Bone


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One abnormality: its kind, and the bones after it.

    ``focus`` is the place of the abnormality itself, centre ``[3]`` and radius in mm,
    where other bones move with it; None: all that changes.
    """

    kind: str
    bones: tuple[Bone, ...]
    focus: tuple[np.ndarray, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Integrals:
    """Line integrals of a film, ``[height, width]`` float32.

    Attributes:
        t: of everything.
        changes: one per abnormality.
        tissue: t of soft tissue alone.
    """

    t: np.ndarray
    changes: list["Change"]
    tissue: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What one abnormality does to a film.

    Attributes:
        kind: of abnormality.
        t: change of the line integral, ``[height, width]``.
        focus: bool ``[height, width]``, the abnormality itself, without the bones that
            only moved with it.
    """

    kind: str
    t: np.ndarray
    focus: np.ndarray


def pose(study: Study, *, lateral: bool) -> Skeleton:
    """The sound limb of a study, as it is held for frontal or lateral views."""
    average = _average(study.part, study.numbers, lateral)
    own = skeleton.suited(average, study.build)
    return skeleton.mirror(own) if study.left else own


def _average(part: str, u: np.ndarray, lateral: bool) -> Skeleton:
    fan = 0.16 * (2 * u[1:6] - 0.4) if lateral else 0.05 * (u[1:6] - 0.5)
    held = hand.Pose(
        spread=0.55 + 0.7 * u[0], curl=0.03 + 0.1 * u[6], fan=tuple(fan.tolist())
    )
    flex = 0.7 + 0.9 * u[7] if lateral else 0.05 + 0.3 * u[7]
    return {
        "Elbow": lambda: arm.elbow(flex=float(flex)),
        "Finger": lambda: hand.finger(
            held,
            which=min(int(5.5 * u[8]), 4),
            neighbours=bool(u[9] < 0.5) and not lateral,
        ),
        "Forearm": arm.forearm,
        "Hand": lambda: hand.hand(held),
        "Humerus": lambda: shoulder.humerus(turned=1.35 if lateral else 0.0),
        "Shoulder": shoulder.shoulder,
        "Wrist": lambda: hand.wrist(held),
    }[BODY_PARTS[BODY_PARTS.index(part)]]()


def steps(cohort: Cohort, study: Study, sound: Skeleton) -> list[Step]:
    """All abnormalities of a study, in the order in which they change the bones."""
    s = study.severity
    u = {kind: cohorts.numbers(cohort, study, kind) for kind in s}
    found: list[Step] = []
    now = sound
    if "other" in s and u["other"][0] < 0.4:
        joint = _pick(sound.joints, u["other"][1])
        focus = abnormal.joint_focus(now, joint)
        now = abnormal.subluxation(now, joint, s["other"], u["other"])
        found.append(Step(kind="other", bones=now.bones, focus=focus))
    before = now
    if "fracture" in s:
        focus = abnormal.fracture_focus(now, u["fracture"])
        now = abnormal.fracture(now, s["fracture"], u["fracture"])
        found.append(Step(kind="fracture", bones=now.bones, focus=focus))
    if "degenerative" in s:
        for joint in _worn(study, sound, u["degenerative"]):
            now = abnormal.degenerative(
                now, joint, s["degenerative"], u["degenerative"][8:]
            )
            found.append(Step(kind="degenerative", bones=now.bones))
    if "other" in s and u["other"][0] >= 0.4:
        now = abnormal.lesion(now, s["other"], u["other"])
        found.append(Step(kind="other", bones=now.bones))
    if "hardware" in s:
        metal = _metal(before, s["hardware"], u)
        now = dataclasses.replace(now, bones=(*now.bones, *metal))
        found.append(Step(kind="hardware", bones=now.bones))
    return found


def _pick(choices: Sequence, u: float):
    return choices[min(int(u * len(choices)), len(choices) - 1)]


def _worn(study: Study, sound: Skeleton, u: np.ndarray) -> list[skeleton.Joint]:
    """Joints that degenerate: one, or up to three of a hand or finger."""
    count = 1 + int(2.99 * u[0]) if study.part in ("Hand", "Finger") else 1
    first = min(int(u[1] * len(sound.joints)), len(sound.joints) - 1)
    stride = 1 + int(u[2] * 4) if study.part == "Hand" else 1
    chosen = {(first + k * stride) % len(sound.joints) for k in range(count)}
    return [sound.joints[k] for k in sorted(chosen)]


def _metal(sound: Skeleton, s: float, u: dict[str, np.ndarray]) -> list[Bone]:
    own = u["hardware"]
    # Metal mostly holds the fracture, where there is one.
    where = u["fracture"] if "fracture" in u and own[40] < 0.75 else own
    name, t = abnormal.place(sound, where)
    return hardware.implant(sound, s, own, name=name, t=t)


def line_integrals(
    frame: Frame,
    sound: Skeleton,
    found: Sequence[Step],
    *,
    angle: float,
    plaster: tuple[list[Bone], list[Bone]] = ((), ()),
    grain: np.ndarray | None = None,
) -> Integrals:
    """Sum of attenuation times path over all solids.

    Args:
        frame: where the rays are.
        sound: the limb without abnormalities.
        found: the abnormalities, in order.
        angle: about the long axis, radians.
        plaster: outside and inside of a cast.
        grain: ``[n, n]`` relative density of bone, 1 on average; None: 1 everywhere.
    """
    grid, turn = frame.grid, solids.turn_about_y(angle)
    tissue = soft_tissue(sound, turn, frame)
    weight = np.float32(1) if grain is None else grain

    def image(bones: Sequence[Bone]) -> np.ndarray:
        return bones_image(bones, turn, grid) * weight

    base = tissue + image(sound.bones)
    for bones, sign in zip(plaster, (1, -1), strict=True):
        if bones:
            shells = solids.project(bones, turn, around=0.0)
            base += np.float32(sign) * slices.draw(grid, shells)
    changes, before = [], sound.bones
    for step in found:
        new, old = _fresh(step.bones, before), _fresh(before, step.bones)
        change = frame.cut(image(new) - image(old))
        focus = frame.cut(_disc(step.focus, turn, grid))
        changes.append(Change(kind=step.kind, t=change, focus=focus))
        before = step.bones
    t = frame.cut(base) + sum(change.t for change in changes)
    return Integrals(t=np.maximum(t, 0), changes=changes, tissue=frame.cut(tissue))


def _disc(focus, turn: np.ndarray, grid) -> np.ndarray:
    if focus is None:
        return np.ones((grid.size, grid.size), bool)
    x, y = ((turn[k] * focus[0]).sum() for k in (0, 1))
    return (grid.x - x) ** 2 + (grid.y - y) ** 2 < focus[1] ** 2


def _fresh(bones: Sequence[Bone], others: Sequence[Bone]) -> list[Bone]:
    known = {id(bone) for bone in others}
    return [bone for bone in bones if id(bone) not in known]


def bones_image(bones: Sequence[Bone], turn: np.ndarray, grid) -> np.ndarray:
    """Change of the line integral by bones with all their effects, ``[n, n]``."""
    plain = [bone for bone in bones if not bone.effects]
    out = solids.draw(plain, turn, grid)
    for bone in bones:
        if bone.effects:
            out = out + effects.draw_bone(bone, turn, grid)
    return out


def soft_tissue(sound: Skeleton, turn: np.ndarray, frame: Frame) -> np.ndarray:
    """t of soft tissue, ``[n, n]``: groups lie in one another, so the longest path."""
    out = np.zeros((frame.grid.size,) * 2, np.float32)
    for group in sound.soft:
        tubes = solids.project(group, turn, around=0.0)
        out = np.maximum(out, slices.draw(frame.grid, tubes))
    if sound.air:
        tubes = solids.project(sound.air, turn, around=0.0)
        out = np.maximum(out + slices.draw(frame.grid, tubes), 0.3 * out)
    return out
