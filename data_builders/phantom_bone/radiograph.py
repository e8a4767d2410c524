"""Films with everything that is known about them, one study or a whole cohort."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from cxr_jax.data.image import reduce_film
from data_builders import workers as processes
from data_builders.phantom_bone import acquisition, detector, film, square
from data_builders.phantom_bone import cohort as cohorts
from data_builders.phantom_bone.acquisition import Frame
from data_builders.phantom_bone.cohort import Cohort, Study
from data_builders.phantom_bone.detector import Exposure
from data_builders.phantom_bone.skeleton import Skeleton
from data_builders.phantom_chest import physics
from data_builders.phantom_chest.detector import soften


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A film before the detector.

    Attributes:
        study, view: whose film, and which.
        frame: where its pixels are.
        integrals: line integrals, with each abnormality's change.
        exposure: how it is taken.
    """

    study: Study
    view: int
    frame: Frame
    integrals: film.Integrals
    exposure: Exposure


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A film as it is looked at.

    Attributes:
        gray: float32 ``[height, width]`` in [0, 1].
        changes: change of the gray without noise, one per abnormality.
        noise: ``[height, width]`` variance of the gray from quanta.
    """

    gray: np.ndarray
    changes: list[np.ndarray]
    noise: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Radiograph:
    """A film and its truth.

    Attributes:
        id: ``XR_WRIST/patient00006/study1/image1.png``.
        study: what is true of the whole study.
        image: uint8 ``[size, size]``.
        boxes: ``[n, 4]`` xyxy in [0, 1], of the abnormalities that this view shows.
        kinds: kind of each box.
        signal: kind → detectability of what this view shows of it; see `detectability`.
    """

    id: str
    study: Study
    image: np.ndarray
    boxes: np.ndarray
    kinds: tuple[str, ...]
    signal: dict[str, float]


def study_scenes(cohort: Cohort, study: Study) -> Iterator[Scene]:
    """All views of a study, in order."""
    poses: dict[bool, tuple[Skeleton, list[film.Step]]] = {}
    for view, lateral in enumerate(study.lateral):
        if lateral not in poses:
            sound = film.pose(study, lateral=lateral)
            poses[lateral] = sound, film.steps(cohort, study, sound)
        yield make_scene(cohort, study, view, *poses[lateral])


def make_scene(
    cohort: Cohort, study: Study, view: int, sound: Skeleton, found: list[film.Step]
) -> Scene:
    """Frame, line integrals and exposure of one view."""
    frame = acquisition.draw_frame(cohort, study, view, sound)
    exposure = acquisition.draw_exposure(cohort, study, view, frame.grid.pixel)
    key = (study.patient, study.order, view, "quanta", 1)
    rng = cohorts.stream(cohort, *key)
    rough = rng.standard_normal((frame.grid.size,) * 2, np.float32)
    integrals = film.line_integrals(
        frame,
        sound,
        found,
        angle=study.turn(view),
        plaster=acquisition.cast(cohort, study, sound),
        grain=1 + np.float32(exposure.grain) * soften(rough, 0.6),
    )
    letter = acquisition.marker(cohort, study, view, frame)
    if letter is not None:
        lead = frame.cut(physics.draw_tubes(frame.grid, letter))
        integrals = dataclasses.replace(integrals, t=integrals.t + lead)
    return Scene(
        study=study, view=view, frame=frame, integrals=integrals, exposure=exposure
    )


def show(cohort: Cohort, scene: Scene) -> Shown:
    """Detector and display of a scene, and what each abnormality does to the gray."""
    exposure, pixel = scene.exposure, scene.frame.grid.pixel
    t = scene.integrals.t
    scatter = detector.scatter_of(np.exp(-t))

    def clean(t):
        return detector.expected(t, exposure=exposure, pixel=pixel, scatter=scatter)

    mean = clean(t)
    key = (scene.study.patient, scene.study.order, scene.view, "quanta")
    counted = detector.noisy(
        mean, exposure=exposure, pixel=pixel, rng=cohorts.stream(cohort, *key)
    )
    sharp = detector.signal_of(mean, exposure=exposure)
    limb = scene.integrals.tissue > 0.05
    window = detector.window_of(sharp, limb, exposure=exposure)
    shade = functools.partial(detector.shade, exposure=exposure, window=window)
    gray = shade(detector.signal_of(counted, exposure=exposure))
    gray, clear = acquisition.finish(cohort, scene.study, scene.view, gray)
    if not scene.integrals.changes:
        return Shown(gray=gray, changes=[], noise=np.zeros_like(gray))
    here = shade(sharp)
    changes = []
    for change in scene.integrals.changes:
        without = clean(np.maximum(t - change.t, 0))
        other = shade(detector.signal_of(without, exposure=exposure))
        changes.append((here - other) * clear)
    step = np.float32(0.02)
    slope = (shade(sharp + step) - here) / step
    noise = slope**2 / np.maximum(mean * np.float32(exposure.quanta), 0.5)
    return Shown(gray=gray, changes=changes, noise=noise)


def make_radiograph(cohort: Cohort, scene: Scene) -> Radiograph:
    """One stored film: a pure function of (cohort, study, view)."""
    shown = show(cohort, scene)
    image = reduce_film(shown.gray, cohort.size, fit=cohort.fit)
    where = square.placement(
        scene.frame.height, scene.frame.width, size=cohort.size, fit=cohort.fit
    )
    seen, signal = [], {}
    noise = square.reduce_map(shown.noise, where)
    for change, gray in zip(scene.integrals.changes, shown.changes, strict=True):
        box = square.box_of(255 * square.reduce_map(gray * change.focus, where))
        seen += [] if box is None else [(change.kind, box)]
        share = where.height * where.width / gray.size
        d = detectability(square.reduce_map(gray, where), noise * np.float32(share))
        signal[change.kind] = max(signal.get(change.kind, 0.0), d)
    boxes = np.array([box for _, box in seen], np.float32).reshape(-1, 4)
    return Radiograph(
        id=f"{scene.study.name}/image{scene.view + 1}.png",
        study=scene.study,
        image=image,
        boxes=boxes,
        kinds=tuple(kind for kind, _ in seen),
        signal=signal,
    )


def detectability(change: np.ndarray, noise: np.ndarray) -> float:
    """How far above the noise an abnormality is in one view.

    ``d^2 = sum over pixels of change^2 / variance``, the variance that of the quanta and
    of rounding to 8 bits. An observer who knows everything but whether the abnormality is
    there tells it with AUROC ``Phi(d / sqrt(2))``; anatomy, which hides it from everyone
    else, is left out.

    Args:
        change: ``[size, size]``, of the gray in [0, 1], without noise.
        noise: ``[size, size]``, variance of the gray from quanta.
    """
    variance = noise + np.float32(1 / 12 / 255**2)
    return float(np.sqrt(np.sum(change**2 / variance)))


def study_films(cohort: Cohort, study: Study) -> list[Radiograph]:
    """All films of a study, in order."""
    return [make_radiograph(cohort, scene) for scene in study_scenes(cohort, study)]


def patient_films(cohort: Cohort, studies: list[Study]) -> list[Radiograph]:
    """All films of a patient, in order."""
    return [made for study in studies for made in study_films(cohort, study)]


def generate(cohort: Cohort, *, workers: int = 0) -> Iterator[Radiograph]:
    """Films of a cohort in order, the same for any number of worker processes.

    Args:
        cohort: what to draw.
        workers: processes; 0 generates in this one.
    """
    make = functools.partial(patient_films, cohort)
    patients = cohorts.schedule(cohort)
    for films in processes.ordered_map(make, patients, workers=workers):
        yield from films
