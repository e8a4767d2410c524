"""Films and their truth: boxes, regions, the heart, order and records."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cxr_jax.labels import IMAGENOME_FINDINGS, NIH14, REGIONS29
from data_builders.phantom_chest import acquisition, anatomy, radiograph, regions
from data_builders.phantom_chest import cohort as cohorts
from data_builders.phantom_chest import findings as findings_
from data_builders.phantom_chest import (
    phantom_chest_dataset_builder as builder,
)
from data_builders.phantom_chest.cohort import Cohort
from data_builders.phantom_chest.sheets import posed_visit

COHORT = Cohort(films=40, size=64, multiplier=3.0, floor=0.1, cap=0.3)
CLEAR = Cohort(films=1, size=128)


@pytest.fixture(scope="module")
def films():
    return list(radiograph.generate(COHORT))


def row(name):
    return REGIONS29.index(name)


@pytest.mark.parametrize("name", [n for n in findings_.BOXED if n != "Cardiomegaly"])
def test_a_box_is_tight_around_the_change(name):
    scene = radiograph.make_scene(CLEAR, posed_visit(CLEAR, 7, {name: 0.7}))
    xyxy, label, _ = radiograph.find_boxes(scene)
    assert list(label) == [NIH14.index(name)]
    parts = [np.abs(d) for n, _, d in scene.integrals.changes if n == name]
    change = max(parts, key=lambda d: d.sum())
    strong = change > 0.2 * change.max()
    x0, y0, x1, y1 = np.rint(xyxy[0] * 128).astype(int)
    assert strong[y0:y1, x0:x1].sum() == strong.sum()
    inner = strong[y0:y1, x0:x1]
    for edge in (inner[0], inner[-1], inner[:, 0], inner[:, -1]):
        assert edge.any()


@pytest.mark.parametrize("severity", [0.0, 0.3, 0.9])
def test_cardiothoracic_ratio_measured_on_the_film(severity):
    """Heart edge to heart edge on the rays, over the inner chest wall."""
    asked = {"Cardiomegaly": severity} if severity else {}
    scene = radiograph.make_scene(CLEAR, posed_visit(CLEAR, 11, asked), over=1)
    chest, grid = scene.chest, scene.grid
    heart = [f(chest, grid) for f in (anatomy.heart_solid, anatomy.atrium_solid)]
    silhouette = np.zeros(grid.x.shape, bool)
    for solid in heart:
        silhouette[solid.window] |= solid.length > 0
    width = np.ptp(grid.x[silhouette])
    lung = anatomy.make_air(chest, grid, anatomy.row_index(grid))
    inside = lung.high > lung.low
    ratio = width / np.ptp(grid.x[inside])
    assert ratio == pytest.approx(chest.ratio, abs=0.02)
    assert (ratio > 0.49) == (severity > 0)
    box = radiograph.heart_box(scene)
    assert (box[2] - box[0]) * grid.pixel * grid.size == pytest.approx(width, rel=0.05)


def test_regions_are_sane(films):
    for film in films:
        xyxy, here = film.regions.xyxy, film.regions.presence.astype(bool)
        assert xyxy.shape == (29, 4)
        assert xyxy.min() >= 0
        assert xyxy.max() <= 1
        assert np.all(xyxy[here, 2:] > xyxy[here, :2])
        assert np.all(xyxy[~here] == 0)
        assert not film.regions.labels[~here].any()
        middle = 0.5 * (xyxy[:, 0] + xyxy[:, 2])
        for name in ("lung", "clavicle", "hilar structures", "hemidiaphragm"):
            pair = row(f"right {name}"), row(f"left {name}")
            if here[list(pair)].all():
                # The patient's right is on the viewer's left.
                assert middle[pair[0]] < middle[pair[1]]


def test_posed_film_has_its_heart_on_the_viewers_right_and_apex_above_clavicle():
    made = radiograph.make_radiograph(CLEAR, posed_visit(CLEAR, 3, {}))
    box = made.regions.xyxy
    heart, spine = box[row("cardiac silhouette")], box[row("spine")]
    assert heart[0] + heart[2] > spine[0] + spine[2]
    for side in ("right", "left"):
        apex, collar = box[row(f"{side} apical zone")], box[row(f"{side} clavicle")]
        assert apex[1] < collar[3]
        lung, angle = box[row(f"{side} lung")], box[row(f"{side} costophrenic angle")]
        assert abs(angle[3] - lung[3]) < 0.05
    # Lungs are dark, heart and abdomen white.
    image = made.image.astype(float)

    def grey(name):
        x0, y0, x1, y1 = np.rint(box[row(name)] * 128).astype(int)
        return np.median(image[y0:y1, x0:x1])

    assert grey("right mid lung zone") + 40 < grey("cardiac silhouette")
    assert grey("right mid lung zone") + 40 < grey("abdomen")


def test_region_labels_of_a_basal_effusion():
    made = radiograph.make_radiograph(CLEAR, posed_visit(CLEAR, 42, {"Effusion": 0.5}))
    found = made.regions.labels[:, IMAGENOME_FINDINGS.index("pleural effusion")] > 0
    names = {REGIONS29[k] for k in np.flatnonzero(found)}
    side = "right" if "right lung" in names else "left"
    assert {f"{side} lung", f"{side} costophrenic angle"} <= names
    assert f"{side} apical zone" not in names
    assert made.regions.labels.sum() == found.sum()


def test_region_rule_by_hand():
    xyxy = np.zeros((29, 4), np.float32)
    xyxy[0] = (0, 0, 0.5, 1)
    xyxy[1] = (0, 0, 0.5, 0.4)
    xyxy[2] = (0, 0.4, 0.5, 0.8)
    mask = np.zeros((10, 10), bool)
    mask[0:4, 0:2] = True  # 8 of 20 pixels of the upper zone
    mask[4, 0] = True  # 1 of 9 of the finding, 1 of 20 of the mid zone
    found = regions.label_regions({"Mass": mask}, xyxy, np.ones(29, bool))
    column = IMAGENOME_FINDINGS.index("multiple masses/nodules")
    assert list(np.flatnonzero(found[:, column])) == [0, 1]


def test_every_class_maps_onto_imagenome():
    assert set(regions.IMAGENOME_OF) == set(NIH14)
    for names in regions.IMAGENOME_OF.values():
        assert set(names) <= set(IMAGENOME_FINDINGS)


def test_films_do_not_depend_on_workers_or_order(films):
    parallel = list(radiograph.generate(COHORT, workers=2))
    assert [f.id for f in parallel] == [f.id for f in films]
    for a, b in zip(films, parallel, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.boxes, b.boxes)
    last = cohorts.schedule(COHORT)[-1]
    alone = radiograph.patient_films(COHORT, last)
    np.testing.assert_array_equal(alone[-1].image, films[-1].image)


def test_a_finding_leaves_the_rest_of_the_film_alone():
    """Streams are separate: adding a nodule moves neither anatomy nor exposure."""
    plain = radiograph.make_scene(CLEAR, posed_visit(CLEAR, 5, {}))
    other = radiograph.make_scene(CLEAR, posed_visit(CLEAR, 5, {"Nodule": 0.8}))
    assert plain.chest == other.chest
    assert plain.exposure == other.exposure
    moved = np.abs(other.integrals.t - plain.integrals.t) > 1e-4
    assert 0 < moved.mean() < 0.05


def test_subtle_in_women_plants_a_disparity():
    planted = dataclasses.replace(COHORT, subtle_in_women=0.6)
    for patient in cohorts.schedule(COHORT)[:20]:
        pairs = zip(
            cohorts.visits(COHORT, patient),
            cohorts.visits(planted, patient),
            strict=True,
        )
        for a, b in pairs:
            factor = 0.4 if patient.female else 1.0
            np.testing.assert_allclose(b.severity, factor * a.severity)


def test_confounder_links_tubes_to_pneumothorax():
    linked = dataclasses.replace(TINY_LINK, device_confounder=1.0)
    with_, without = [], []
    for patient in cohorts.schedule(linked):
        for visit in cohorts.visits(linked, patient):
            tube = acquisition.draw_devices(linked, visit)[acquisition.TUBE]
            (with_ if visit.severity[7] else without).append(tube)
    assert np.mean(with_) == pytest.approx(0.8, abs=0.15)
    assert not any(without)


TINY_LINK = dataclasses.replace(COHORT, films=400)


class Few(builder.Builder, skip_registration=True):
    """A class of its own: TFDS remembers the configs of a class for good."""

    name = "phantom_chest"
    DEFAULT_BUILDER_CONFIG_NAME = "few"
    BUILDER_CONFIGS = (builder.PhantomConfig(name="few", cohort=COHORT),)


def test_records_round_trip_through_tfds(tmp_path):
    made = Few(data_dir=tmp_path, config="few")
    made.download_and_prepare(file_format="array_record")
    source = tfds.builder_from_directory(made.data_path).as_data_source("all")
    assert len(source) == COHORT.films
    for k, film in enumerate(radiograph.generate(COHORT)):
        record = source[k]
        np.testing.assert_array_equal(record["image"][..., 0], film.image)
        np.testing.assert_array_equal(record["truth"], film.truth)
        np.testing.assert_allclose(record["severity"], film.severity)
        np.testing.assert_allclose(record["boxes"]["xyxy"], film.boxes)
        np.testing.assert_array_equal(record["regions"]["labels"], film.regions.labels)
    lines = (made.data_path / "readers.csv").read_text().splitlines()
    tested = [f for f in radiograph.generate(COHORT) if f.visit.patient.split == "test"]
    assert len(lines) == 1 + 4 * len(tested)
