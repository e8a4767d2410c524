"""Who is filmed: patients, their studies, and what is random about each.

Counts per type and class follow Table 1 of the MURA paper (all splits together), kinds of
abnormality its §2.3. Every random number comes from a stream named by integers, as in
`phantom_chest.cohort`: nothing depends on the order of generation or on the workers.
"""

import dataclasses
import functools

import numpy as np

from cxr_jax.labels import BODY_PARTS
from data_builders.phantom_bone.skeleton import Build
from data_builders.phantom_chest import cohort as named

# Normal and abnormal studies of each type, in the order of `BODY_PARTS`.
TABLE1 = np.array(
    [
        (1203, 768),
        (1389, 753),
        (677, 380),
        (1613, 602),
        (411, 367),
        (1479, 1594),
        (2295, 1451),
    ]
)
KINDS = ("fracture", "hardware", "degenerative", "other")
# Of 100 abnormal studies; several kinds may occur in one.
KIND_RATES = np.array((0.53, 0.48, 0.35, 0.29))
FRACTIONS = (("train", 0.70), ("val", 0.80), ("test", 1.01))
# Chances of 1, 2, 3, 4 views. The means, 2.82 and 2.10, are those of the released films.
VIEWS = (0.08, 0.19, 0.56, 0.17)
FEW_VIEWS = (0.08, 0.76, 0.14, 0.02)
TWO_VIEW_TYPES = ("Forearm", "Humerus")
# Chance of 1, 2, 3 studies of a patient.
STUDIES = (0.82, 0.15, 0.03)
# Usual directions: frontal, lateral, oblique, other oblique; degrees about the long axis.
ANGLES = (0.0, 90.0, 45.0, -45.0)
SHOULDER_ANGLES = (0.0, 48.0, 22.0, -25.0)
NUMBERS = 64
# The fifth word of a study's streams: its views are 0 to 3.
STUDY = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cohort:
    """What is drawn, and how much of it.

    Attributes:
        films: number of films, reached and passed by the last patient.
        size: side of the stored film in pixels.
        fit: how a film that is not square becomes square: ``stretch`` or ``pad``.
        seed: first integer of every stream.
        ease: severities are ``u^ease``, u uniform: below 1 the subtle are few.
        cast: chance of a plaster cast, with or without abnormality.
        border: chance of a white border.
    """

    films: int
    size: int
    fit: str = "stretch"
    seed: int = 0
    ease: float = 0.45
    cast: float = 0.06
    border: float = 0.08


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """One study of a patient.

    Attributes:
        patient: number of the patient.
        order: 0 for the patient's first study.
        name: ``XR_WRIST/patient00006/study1``.
        part: one of `BODY_PARTS`.
        split: ``train``, ``val`` or ``test``.
        left: of the left arm.
        severity: kind → s in (0, 1]; empty for a normal study.
        angles: degrees about the long axis, one per view.
        lateral: of each view: taken from the side.
        build: the patient's own.
        numbers: uniform, for the pose.
    """

    patient: int
    order: int
    name: str
    part: str
    split: str
    left: bool
    severity: dict[str, float]
    angles: tuple[float, ...]
    lateral: tuple[bool, ...]
    build: Build
    numbers: np.ndarray

    def turn(self, view: int) -> float:
        """Turn about the long axis, radians; a left limb is the mirror of a right one."""
        return float(np.radians(self.angles[view])) * (-1 if self.left else 1)

    @property
    def abnormal(self) -> bool:
        """The study's label."""
        return bool(self.severity)

    @property
    def worst(self) -> float:
        """Largest severity; 0 for a normal study."""
        return max(self.severity.values(), default=0.0)


def stream(
    cohort: Cohort, patient: int, order: int, view: int, purpose: str, part: int = 0
) -> np.random.Generator:
    """The random stream of one purpose of a study (``view=STUDY``) or of one film."""
    return named.stream(cohort, patient, 1 + 8 * order + view, purpose, part)


@functools.cache
def kind_chances() -> np.ndarray:
    """Chances of independent kinds whose rates, where any occurs, are `KIND_RATES`.

    ``q_k = p_k c`` with ``c = 1 - prod(1 - q_k)``.
    """
    c = 1.0
    for _ in range(200):
        c = 1 - np.prod(1 - KIND_RATES * c)
    return KIND_RATES * c


def draw_patient(cohort: Cohort, number: int) -> list[Study]:
    """All studies of the patient with a number."""
    rng = named.stream(cohort, number, 0, "patient")
    u, z = rng.random(4), rng.standard_normal(5)
    split = next(name for name, limit in FRACTIONS if u[0] < limit)
    count = 1 + int(np.searchsorted(np.cumsum(STUDIES), u[1]))
    tall = np.clip(z, -2.2, 2.2)
    build = Build(
        scale=float(0.97 + 0.06 * tall[0]),
        stout=float(1 + 0.05 * tall[1]),
        cortex=float(0.95 + 0.11 * tall[2]),
        dense=float(0.95 + 0.08 * tall[3]),
        flesh=float(1.05 + 0.09 * tall[4]),
    )
    studies: list[Study] = []
    for order in range(min(count, len(STUDIES))):
        before = [study.part for study in studies]
        studies.append(_draw_study(cohort, number, order, split, build, before))
    return studies


def _draw_study(cohort, number, order, split, build, before) -> Study:
    rng = stream(cohort, number, order, STUDY, "episode")
    u = rng.random(4)
    rate = TABLE1.sum(1) / TABLE1.sum()
    k = min(int(np.searchsorted(np.cumsum(rate), u[0])), len(BODY_PARTS) - 1)
    part = BODY_PARTS[k]
    abnormal = u[1] < TABLE1[k, 1] / TABLE1[k].sum()
    chances = FEW_VIEWS if part in TWO_VIEW_TYPES else VIEWS
    count = 1 + min(int(np.searchsorted(np.cumsum(chances), u[2])), 3)
    angles, lateral = _draw_views(part, count, rng)
    folder = f"XR_{part.upper()}/patient{number + 1:05d}"
    return Study(
        patient=number,
        order=order,
        name=f"{folder}/study{1 + before.count(part)}",
        part=part,
        split=split,
        left=bool(u[3] < 0.5),
        severity=_draw_kinds(cohort, number, order) if abnormal else {},
        angles=angles,
        lateral=lateral,
        build=build,
        numbers=rng.random(16),
    )


def _draw_views(part, count, rng) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    usual = SHOULDER_ANGLES if part == "Shoulder" else ANGLES
    jitter = 7.0 * np.clip(rng.standard_normal(4), -2, 2)
    first = int(4 * rng.random() ** 2) if count == 1 else 0
    order = [(first + k) % 4 for k in range(count)]
    angles = tuple(float(usual[k] + jitter[k]) for k in order)
    return angles, tuple(k == 1 and part != "Shoulder" for k in order)


def _draw_kinds(cohort, number, order) -> dict[str, float]:
    """At least one kind: independent draws, repeated until something occurs."""
    rng = stream(cohort, number, order, STUDY, "severity")
    severity = rng.random(len(KINDS)) ** cohort.ease
    present = np.zeros(len(KINDS), bool)
    while not present.any():
        present = rng.random(len(KINDS)) < kind_chances()
    return {
        kind: float(max(s, 1e-6))
        for kind, s, here in zip(KINDS, severity, present, strict=True)
        if here
    }


def numbers(cohort: Cohort, study: Study, kind: str) -> np.ndarray:
    """Uniform numbers of a kind of abnormality, the same in all views."""
    part = KINDS.index(kind)
    key = (study.patient, study.order, STUDY, "numbers", part)
    return stream(cohort, *key).random(NUMBERS)


def schedule(cohort: Cohort) -> list[list[Study]]:
    """Studies of patient after patient, until they have ``cohort.films`` films."""
    patients, films = [], 0
    while films < cohort.films:
        studies = draw_patient(cohort, len(patients))
        patients.append(studies)
        films += sum(len(study.angles) for study in studies)
    return patients
