"""Films with everything that is known about them, one or a whole cohort."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from cxr_jax.labels import NIH14
from data_builders import workers as processes
from data_builders.phantom_chest import (
    acquisition,
    anatomy,
    detector,
    film,
    physics,
    readers,
    vessels,
)
from data_builders.phantom_chest import cohort as cohorts
from data_builders.phantom_chest import findings as findings_
from data_builders.phantom_chest import regions as regions_
from data_builders.phantom_chest.anatomy import Chest
from data_builders.phantom_chest.cohort import Cohort, Patient, Visit
from data_builders.phantom_chest.detector import Exposure
from data_builders.phantom_chest.physics import Grid

BOX_THRESHOLD = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A film before the detector.

    Attributes:
        visit: who, when, with what.
        chest: anatomy on this film; grid: where its pixels are.
        integrals: line integrals, with each finding's change.
        exposure: how it is taken.
        devices: bool, in the order of `acquisition.DEVICES`.
    """

    visit: Visit
    chest: Chest
    grid: Grid
    integrals: film.Integrals
    exposure: Exposure
    devices: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Radiograph:
    """A film and its truth.

    Attributes:
        id, patient, study: names.
        image: uint8 ``[size, size]``.
        labels: mined, ``[14]``; truth: true; severity: 0 where absent.
        boxes: ``[n, 4]`` xyxy in [0, 1]; box_label: ``[n]`` class index.
        multifocal: bool ``[n]``, the finding has components beside the boxed one.
        regions: the 29 regions.
        readers: name → calls, on test films.
        visit: the draws behind all this.
        devices: bool, in the order of `acquisition.DEVICES`.
    """

    id: str
    patient: str
    study: str
    image: np.ndarray
    labels: np.ndarray
    truth: np.ndarray
    severity: np.ndarray
    boxes: np.ndarray
    box_label: np.ndarray
    multifocal: np.ndarray
    regions: regions_.Regions
    readers: dict[str, np.ndarray]
    visit: Visit
    devices: np.ndarray


def make_scene(cohort: Cohort, visit: Visit, *, over: int | None = None) -> Scene:
    """Anatomy, findings, devices and line integrals of a visit."""
    who = visit.patient
    chest = anatomy.draw_chest(
        cohorts.stream(cohort, who.number, 0, "anatomy"),
        female=who.female,
        age=who.age,
    )
    position, chest = acquisition.draw_position(cohort, visit, chest)
    present = [name for name, s in zip(NIH14, visit.severity, strict=True) if s > 0]
    found = findings_.Findings(
        severity={n: float(visit.severity[NIH14.index(n)]) for n in present},
        numbers={
            n: cohorts.numbers(cohort, visit, n, findings_.NUMBERS) for n in present
        },
        supine=visit.supine,
    )
    chest = findings_.deform(chest, found)
    grid = physics.make_grid(
        cohort.size,
        field=position.field,
        centre=position.centre,
        angle=position.angle,
        over=over or (2 if cohort.size < 128 else 1),
    )
    devices = acquisition.draw_devices(cohort, visit)
    solids, lines = acquisition.place_devices(cohort, visit, chest, grid, devices)
    tree = vessels.draw_tree(cohorts.stream(cohort, who.number, 0, "vessels"))
    integrals = film.line_integrals(
        grid,
        chest,
        tree,
        changes=lambda site: findings_.paint(site, found),
        extras=solids,
        lines=lines,
    )
    exposure = acquisition.draw_exposure(cohort, visit)
    return Scene(
        visit=visit,
        chest=chest,
        grid=grid,
        integrals=integrals,
        exposure=exposure,
        devices=devices,
    )


def raw_signal(cohort: Cohort, scene: Scene, *, noise: bool = True) -> np.ndarray:
    """Detected ``-log I``, float32, before windowing: the 8-bit film is made from it."""
    visit = scene.visit
    key = (visit.patient.number, visit.film, "quanta")
    rng = cohorts.stream(cohort, *key) if noise else None
    return detector.detect(
        scene.integrals.t, exposure=scene.exposure, pixel=scene.grid.pixel, rng=rng
    )


def tight_box(change: np.ndarray) -> np.ndarray | None:
    """Smallest box around the pixels with more than 20% of the largest change."""
    size = len(change)
    strong = np.abs(change)
    peak = strong.max()
    if peak < 1e-4:
        return None
    strong = strong > BOX_THRESHOLD * peak
    row, col = np.flatnonzero(strong.any(1)), np.flatnonzero(strong.any(0))
    return np.array([col[0], row[0], col[-1] + 1, row[-1] + 1]) / size


def heart_box(scene: Scene) -> np.ndarray:
    """Box of the cardiac silhouette on the film."""
    points = scene.grid.to_pixels(regions_.heart_outline(scene.chest))
    box = np.concatenate([points.min(0), points.max(0)]) / scene.grid.size
    return np.clip(box, 0, 1)


def find_boxes(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of the localised findings, their classes, and which are multifocal."""
    boxes, label, many = [], [], []
    for k, name in enumerate(NIH14):
        if scene.visit.severity[k] == 0 or name not in findings_.BOXED:
            continue
        if name == "Cardiomegaly":
            box, count = heart_box(scene), 1
        else:
            parts = [d for n, _, d in scene.integrals.changes if n == name]
            box = tight_box(max(parts, key=lambda d: float(np.abs(d).sum())))
            count = sum(bool(np.abs(d).max() > 1e-3) for d in parts)
        if box is not None:
            boxes.append(box)
            label.append(k)
            many.append(count > 1)
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return xyxy, np.array(label, np.int32), np.array(many, bool)


def finding_masks(scene: Scene) -> dict[str, np.ndarray]:
    """Class → pixels that the finding changes, for the region labels."""
    masks = {}
    for k, name in enumerate(NIH14):
        if scene.visit.severity[k] == 0:
            continue
        if name == "Cardiomegaly":
            masks[name] = _filled(heart_box(scene), scene.grid.size)
        elif name == "Emphysema":
            masks[name] = scene.integrals.lung > 10
        else:
            total = np.abs(sum(d for n, _, d in scene.integrals.changes if n == name))
            masks[name] = total > max(BOX_THRESHOLD * total.max(), 1e-4)
    return masks


def _filled(box: np.ndarray, size: int) -> np.ndarray:
    x0, y0, x1, y1 = np.rint(box * size).astype(int)
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def make_radiograph(cohort: Cohort, visit: Visit) -> Radiograph:
    """Generate one film: a pure function of (cohort, patient, film)."""
    scene = make_scene(cohort, visit)
    image = detector.display(raw_signal(cohort, scene), exposure=scene.exposure)
    xyxy, label, many = find_boxes(scene)
    who = visit.patient
    rng = cohorts.stream(cohort, who.number, visit.film, "regions")
    regions = regions_.make_regions(scene.chest, scene.grid, finding_masks(scene), rng)
    return Radiograph(
        id=f"{who.number:08d}_{visit.film:03d}.png",
        patient=f"{who.number:08d}",
        study=f"{who.number:08d}_{visit.film:03d}",
        image=image,
        labels=cohorts.mined_labels(cohort, visit),
        truth=visit.truth,
        severity=visit.severity.astype(np.float32),
        boxes=xyxy,
        box_label=label,
        multifocal=many,
        regions=regions,
        readers=readers.read(cohort, visit) if who.split == "test" else {},
        visit=visit,
        devices=scene.devices,
    )


def patient_films(cohort: Cohort, patient: Patient) -> list[Radiograph]:
    """All films of a patient, in order."""
    return [make_radiograph(cohort, v) for v in cohorts.visits(cohort, patient)]


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
