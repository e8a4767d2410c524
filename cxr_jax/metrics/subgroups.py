"""Who is in which subgroup, and which subgroups are compared.

An axis divides the films (sex, age band, view). A group is a level of an axis, or an
intersection of levels of several. A contrast sets a level against its axis's reference
level, over all films or within one level of the view.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

UNKNOWN = "unknown"
ALL = "all"
# First and last year. Children apart; then decades enough for positives in each.
AGE_BANDS = {"0-17": (0, 17), "18-39": (18, 39), "40-59": (40, 59), "60-79": (60, 79)}
AGE_BANDS |= {"80+": (80, 120)}
REFERENCE = {"sex": "M", "age": "40-59", "view": "PA"}
STRATIFIED_BY = "view"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """A division of the films.

    Attributes:
        name: such as ``sex``.
        level: str ``[N]``; ``unknown`` where it is not known.
        levels: those that occur, the unknown one last.
        reference: the level that others are compared with, or None where none can be.
        further: beyond sex, age and view; crossed with the view alone.
    """

    name: str
    level: np.ndarray
    levels: tuple[str, ...]
    reference: str | None
    further: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Films that share a level of some axes; of no axis: all films.

    Attributes:
        levels: axis → level.
        member: bool ``[N]``.
    """

    levels: Mapping[str, str]
    member: np.ndarray

    @property
    def name(self) -> str:
        """``sex=F, view=PA``."""
        return ", ".join(f"{k}={v}" for k, v in self.levels.items()) or ALL


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """One group less another.

    Attributes:
        axis: the one along which they differ.
        group: index of the first group.
        against: index of the reference group.
        within: what both share: axis → level.
        name: ``sex: F - M, view=PA``.
    """

    axis: str
    group: int
    against: int
    within: Mapping[str, str]
    name: str


def age_bands(age: np.ndarray) -> np.ndarray:
    """The band of each age; unknown and impossible ages are ``unknown``, a level apart.

    Args:
        age: years ``[N]``; NaN where unknown. Below 0 or above 120 is impossible.

    Returns:
        str ``[N]``: ``0-17``, ``18-39``, ``40-59``, ``60-79``, ``80+`` or ``unknown``.

    Deviation: Seyyed-Kalantari et al. (2021) divide at 20, 40, 60, 80; here children
    end at 17.
    """
    whole = np.floor(np.asarray(age, dtype=np.float64))
    found = np.full(len(whole), UNKNOWN, dtype="<U8")
    for name, (first, last) in AGE_BANDS.items():
        found[(whole >= first) & (whole <= last)] = name
    return found


def make_axes(
    *,
    sex: np.ndarray | None = None,
    age: np.ndarray | None = None,
    view: np.ndarray | None = None,
    more: Mapping[str, np.ndarray] | None = None,
) -> list[Axis]:
    """The axes of which anything is known.

    Args:
        sex: str ``[N]``: ``M``, ``F`` or empty.
        age: years ``[N]``, NaN where unknown.
        view: str ``[N]``: ``PA``, ``AP`` or empty.
        more: further axes: name → str ``[N]``, empty where unknown; the most frequent
            level is the reference.

    Returns:
        Axes with at least one known level.
    """
    columns = {"sex": sex, "age": None if age is None else age_bands(age), "view": view}
    columns |= dict(more or {})
    axes = []
    for name, column in columns.items():
        if column is None:
            continue
        level = np.where(
            np.asarray(column, str) == "", UNKNOWN, np.asarray(column, str)
        )
        levels, count = np.unique(level, return_counts=True)
        known = {str(k): n for k, n in zip(levels, count, strict=True) if k != UNKNOWN}
        if not known:
            continue
        order = [*AGE_BANDS] if name == "age" else sorted(known)
        order = [k for k in order if k in known] + [UNKNOWN] * (UNKNOWN in levels)
        reference = REFERENCE.get(name, max(known, key=lambda k: known[k]))
        axes.append(
            Axis(
                name=name,
                level=level,
                levels=tuple(order),
                reference=reference if reference in known else None,
                further=name in (more or {}),
            )
        )
    return axes


def make_groups(axes: Sequence[Axis], *, crossed: int = 3) -> list[Group]:
    """All films, each level of each axis, and the intersections that hold a film.

    Args:
        axes: at least one.
        crossed: most axes in an intersection.
    """
    everyone = np.ones(len(axes[0].level), dtype=bool)
    groups = [Group(levels={}, member=everyone)]
    for many in range(1, crossed + 1):
        for some in itertools.combinations(axes, many):
            apart = many > 1 and any(axis.further for axis in some)
            if apart and [a.name for a in some if not a.further] != [STRATIFIED_BY]:
                continue
            for levels in itertools.product(*(axis.levels for axis in some)):
                pairs = list(zip(some, levels, strict=True))
                member = np.logical_and.reduce([a.level == v for a, v in pairs])
                if member.any():
                    named = {a.name: v for a, v in pairs}
                    groups.append(Group(levels=named, member=member))
    return groups


def make_contrasts(axes: Sequence[Axis], groups: Sequence[Group]) -> list[Contrast]:
    """Each known level against its axis's reference: overall, and within each view."""
    where = {frozenset(g.levels.items()): k for k, g in enumerate(groups)}
    strata: list[dict[str, str]] = [{}]
    for axis in axes:
        if axis.name == STRATIFIED_BY:
            strata += [{axis.name: v} for v in axis.levels if v != UNKNOWN]
    found = []
    for within, axis in itertools.product(strata, axes):
        if axis.name in within or axis.reference is None:
            continue
        for level in axis.levels:
            if level in (axis.reference, UNKNOWN):
                continue
            pair = [
                where.get(frozenset({**within, axis.name: v}.items()))
                for v in (level, axis.reference)
            ]
            if None in pair:
                continue
            stratum = "".join(f", {k}={v}" for k, v in within.items())
            found.append(
                Contrast(
                    axis=axis.name,
                    group=pair[0],
                    against=pair[1],
                    within=within,
                    name=f"{axis.name}: {level} - {axis.reference}{stratum}",
                )
            )
    return found
