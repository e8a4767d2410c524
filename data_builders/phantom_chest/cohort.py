"""Who is filmed: patients, their films, and what is random about each.

Every random number comes from a stream named by integers, (seed, patient, film,
purpose): nothing depends on the order of generation or on the number of workers, and
drawing more for one purpose shifts no other.
"""

import dataclasses
import functools

import numpy as np
from scipy.special import ndtr

from cxr_jax.labels import NIH14
from data_builders.phantom_chest import prevalence

CLASSES = len(NIH14)
PURPOSES = (
    "patient",
    "anatomy",
    "vessels",
    "episode",
    "severity",
    "numbers",
    "position",
    "exposure",
    "quanta",
    "devices",
    "labels",
    "readers",
    "regions",
)
FRACTIONS = (("train", 0.70), ("val", 0.80), ("test", 1.01))

# Chance that mining a report misses a finding of mean severity, and that it invents one.
MISSED = dict.fromkeys(NIH14, 0.08) | {
    "Infiltration": 0.12,
    "Pneumonia": 0.15,
    "Nodule": 0.12,
    "Atelectasis": 0.10,
    "Fibrosis": 0.12,
}
INVENTED = dict.fromkeys(NIH14, 0.004) | {"Infiltration": 0.015, "Atelectasis": 0.008}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cohort:
    """What is drawn, and how much of it.

    Attributes:
        films: number of films.
        size: film side in pixels, a multiple of 16.
        seed: first integer of every stream.
        multiplier, floor, cap: prevalence, see `prevalence.prevalences`.
        more: chance of a further film of a patient (geometric, 1 to 6 films).
        persists: chance that findings and view stay from one film to the next;
            otherwise both are drawn anew.
        label_noise: scales the rates `MISSED` and `INVENTED`; 0 gives true labels.
        device_confounder: in [0, 1]; 0: a chest tube is as likely with as without a
            pneumothorax; 1: with 0.8 and without 0.
        subtle_in_women: in [0, 1); findings of women are this much less severe.
    """

    films: int
    size: int
    seed: int = 0
    multiplier: float = 1.0
    floor: float = 0.01
    cap: float = 0.25
    more: float = 0.45
    persists: float = 0.7
    label_noise: float = 1.0
    device_confounder: float = 0.0
    subtle_in_women: float = 0.0

    @functools.cached_property
    def rates(self) -> np.ndarray:
        """Prevalence per class."""
        return prevalence.prevalences(
            multiplier=self.multiplier, floor=self.floor, cap=self.cap
        )

    @functools.cached_property
    def thresholds(self) -> np.ndarray:
        """Thresholds of the latent variables."""
        return prevalence.thresholds(self.rates)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patient:
    """Number, sex, age at the first film, split, and number of films."""

    number: int
    female: bool
    age: int
    split: str
    films: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visit:
    """What is true at one film.

    Attributes:
        patient: whose film.
        film: 0 for the first.
        episode: film at which the present findings were drawn.
        ap: view; supine: lying (AP only).
        severity: ``[14]``, 0 where absent.
    """

    patient: Patient
    film: int
    episode: int
    ap: bool
    supine: bool
    severity: np.ndarray

    @property
    def truth(self) -> np.ndarray:
        """``[14]`` true labels, 0 or 1."""
        return (self.severity > 0).astype(np.float32)


def stream(
    cohort: Cohort, patient: int, film: int, purpose: str, part: int = 0
) -> np.random.Generator:
    """The random stream of one purpose; ``film`` is 0 for what a patient keeps."""
    key = (cohort.seed, patient, film, PURPOSES.index(purpose), part)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def draw_patient(cohort: Cohort, number: int) -> Patient:
    """Draw the patient with a number."""
    rng = stream(cohort, number, 0, "patient")
    u = rng.random(3)
    age = prevalence.AGE_MEAN + prevalence.AGE_SD * rng.standard_normal()
    count = 1 + int(np.log(max(u[2], 1e-12)) / np.log(cohort.more))
    return Patient(
        number=number,
        female=bool(u[0] >= prevalence.MALE),
        age=int(np.clip(age, 18, 94)),
        split=next(name for name, limit in FRACTIONS if u[1] < limit),
        films=min(count, 6),
    )


def schedule(cohort: Cohort) -> list[Patient]:
    """Patients in order, until they have ``cohort.films`` films together."""
    patients, left = [], cohort.films
    while left > 0:
        patient = draw_patient(cohort, len(patients))
        patient = dataclasses.replace(patient, films=min(patient.films, left))
        patients.append(patient)
        left -= patient.films
    return patients


def visits(cohort: Cohort, patient: Patient) -> list[Visit]:
    """The films of a patient: episodes of findings that evolve."""
    found: list[Visit] = []
    latent = np.zeros(CLASSES)
    for film in range(patient.films):
        rng = stream(cohort, patient.number, film, "episode")
        change = stream(cohort, patient.number, film, "severity").standard_normal(
            CLASSES
        )
        if film and rng.random() < cohort.persists:
            last = found[-1]
            latent = 0.85 * latent + np.sqrt(1 - 0.85**2) * change
            present, episode, ap, supine = (
                last.severity > 0,
                last.episode,
                last.ap,
                last.supine,
            )
        else:
            latent, episode = change, film
            ap = bool(rng.random() < prevalence.AP)
            supine = bool(ap and rng.random() < 0.4)
            present = _draw_findings(cohort, patient, ap, rng)
        s = prevalence.severity_of(ndtr(latent))
        if patient.female:
            s = s * (1 - cohort.subtle_in_women)
        found.append(
            Visit(
                patient=patient,
                film=film,
                episode=episode,
                ap=ap,
                supine=supine,
                severity=np.where(present, s, 0.0),
            )
        )
    return found


def _draw_findings(cohort, patient, ap, rng) -> np.ndarray:
    # Sums written out, not BLAS: the same bits for any number of threads.
    z = (prevalence.latent_factor() * rng.standard_normal(CLASSES)).sum(1)
    move = prevalence.shift(patient.age, not patient.female, ap)
    return z + move > cohort.thresholds


def numbers(cohort: Cohort, visit: Visit, name: str, count: int) -> np.ndarray:
    """Uniform numbers of a finding, the same throughout its episode."""
    part = NIH14.index(name)
    key = (visit.patient.number, visit.episode, "numbers", part)
    return stream(cohort, *key).random(count)


def mined_labels(cohort: Cohort, visit: Visit) -> np.ndarray:
    """Labels as if mined from a report: some missed (subtle ones more), some invented."""
    u = stream(cohort, visit.patient.number, visit.film, "labels").random(CLASSES)
    miss = cohort.label_noise * np.array([MISSED[name] for name in NIH14])
    invent = cohort.label_noise * np.array([INVENTED[name] for name in NIH14])
    miss = np.minimum(2 * miss * (1 - visit.severity), 1)
    truth = visit.severity > 0
    return np.where(truth, u >= miss, u < invent).astype(np.float32)
