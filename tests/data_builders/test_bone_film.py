"""Films of the bone phantom and their truth: boxes, views, order, records, sidecars."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cxr_jax.data import groups
from cxr_jax.data import readers as reader_files
from cxr_jax.data.image import reduce_film
from cxr_jax.labels import BODY_PARTS, MURA
from data_builders.phantom_bone import cohort as cohorts
from data_builders.phantom_bone import detector, film, radiograph, square
from data_builders.phantom_bone import phantom_bone_dataset_builder as builder
from data_builders.phantom_bone.cohort import KINDS, Cohort
from data_builders.phantom_bone.sheets import posed_study

COHORT = Cohort(films=60, size=64)
CLEAR = Cohort(films=1, size=96, cast=0.0, border=0.0)
PADDED = dataclasses.replace(CLEAR, fit="pad")


@pytest.fixture(scope="module")
def films():
    return list(radiograph.generate(COHORT))


def scenes_of(cohort, *args, **kwargs):
    return list(radiograph.study_scenes(cohort, posed_study(cohort, *args, **kwargs)))


@pytest.mark.parametrize("part", BODY_PARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_box_holds_where_the_film_changes(part, kind):
    """The film itself, with and without the abnormality, by two separate renderings."""
    study = posed_study(CLEAR, 11, part, {kind: 0.9}, views=(0, 1))
    for ill, well in zip(
        radiograph.study_scenes(CLEAR, study),
        radiograph.study_scenes(CLEAR, dataclasses.replace(study, severity={})),
        strict=True,
    ):
        # Changes are additive: sound bones and changes make the film's integrals.
        total = sum(change.t for change in ill.integrals.changes)
        np.testing.assert_allclose(
            ill.integrals.t, np.maximum(well.integrals.t + total, 0), atol=2e-3
        )
        made = radiograph.make_radiograph(CLEAR, ill)
        shown = radiograph.show(CLEAR, ill)
        where = square.placement(
            ill.frame.height, ill.frame.width, size=96, fit="stretch"
        )
        boxes = iter(made.boxes * 96)
        for change, gray in zip(ill.integrals.changes, shown.changes, strict=True):
            small = np.abs(255 * square.reduce_map(gray * change.focus, where))
            if small.max() < square.VISIBLE:
                continue
            x0, y0, x1, y1 = np.rint(next(boxes)).astype(int)
            inner = small[y0:y1, x0:x1]
            strong = small > square.BOX_THRESHOLD * small.max()
            assert strong[y0:y1, x0:x1].sum() == strong.sum()
            assert (inner**2).sum() > 0.8 * (small**2).sum()
        assert next(boxes, None) is None


def test_every_kind_is_boxed_somewhere_and_normal_films_never(films):
    found = {kind for made in films for kind in made.kinds}
    assert found == set(KINDS)
    for made in films:
        assert set(made.kinds) <= set(made.study.severity)
        assert set(made.signal) == set(made.study.severity)
        assert made.boxes.min(initial=0) >= 0
        assert made.boxes.max(initial=1) <= 1
        assert np.all(made.boxes[:, 2:] > made.boxes[:, :2])


def test_a_faint_fracture_has_no_box_and_a_plain_one_not_in_all_views():
    faint = posed_study(CLEAR, 11, "Forearm", {"fracture": 1e-4}, views=(0, 1, 2))
    assert not any(len(m.boxes) for m in radiograph.study_films(CLEAR, faint))
    missed = shown = 0
    for number in range(40):
        study = posed_study(
            CLEAR, number, "Hand", {"fracture": 0.3}, views=(0, 1, 2, 3)
        )
        here = [bool(m.kinds) for m in radiograph.study_films(CLEAR, study)]
        missed += any(here) and not all(here)
        shown += any(here)
    assert shown > 20
    assert missed > 3


@pytest.mark.parametrize("part", ["Humerus", "Elbow", "Forearm", "Finger"])
def test_a_bone_cut_and_not_moved_is_whole(part):
    """Fragments keep the sections of their bone, however it bends."""
    for number in range(6):
        for scene in scenes_of(CLEAR, number, part, {"fracture": 1e-7}):
            # A further place of the axis alone moves some values by this much.
            assert np.abs(scene.integrals.changes[0].t).max() < 0.15


def test_bones_that_only_moved_along_are_not_boxed():
    """A slipped elbow moves the forearm to its end; the box stays at the joint."""
    wide = boxed = 0.0
    for number in range(12):
        study = posed_study(PADDED, number, "Elbow", {"other": 0.9}, views=(0,))
        (scene,) = radiograph.study_scenes(PADDED, study)
        (made,) = radiograph.study_films(PADDED, study)
        change = np.abs(scene.integrals.changes[0].t)
        if not len(made.boxes) or np.ptp(np.flatnonzero((change > 0.1).any(1))) < 90:
            continue  # A lesion, or off the film.
        rows = np.flatnonzero((change > 0.1).any(1))
        wide += np.ptp(rows) / len(change)
        boxed += made.boxes[0, 3] - made.boxes[0, 1]
    assert wide > 0.5
    assert boxed < 0.75 * wide


@pytest.mark.parametrize("kind", KINDS)
def test_changes_grow_from_nothing_with_severity(kind):
    size = []
    for s in (1e-3, 0.3, 0.9):
        scenes = [
            scene
            for part in ("Wrist", "Elbow")
            for scene in scenes_of(CLEAR, 5, part, {kind: s})
        ]
        size.append(sum(np.abs(c.t).sum() for x in scenes for c in x.integrals.changes))
    # Metal never vanishes: the least of it is a thin wire.
    assert size[0] < (0.1 if kind != "hardware" else 0.9) * size[1]
    assert size[1] < size[2]


def test_a_pose_has_one_bone_volume_in_all_its_views():
    study = posed_study(CLEAR, 4, "Elbow", {}, views=(0, 2, 3))
    sound = film.pose(study, lateral=False)
    from data_builders.phantom_bone import solids
    from data_builders.phantom_chest import physics

    grid = physics.make_grid(256, field=500.0, over=1)
    masses = [
        film.bones_image(sound.bones, solids.turn_about_y(study.turn(v)), grid).sum()
        for v in range(3)
    ]
    np.testing.assert_allclose(masses, masses[0], rtol=0.02)


@pytest.mark.parametrize("shape", [(150, 80), (70, 131), (96, 96), (201, 97)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_maps_are_reduced_as_films_are(shape, fit):
    rng = np.random.default_rng(3)
    pixels = rng.random(shape, np.float32)
    where = square.placement(*shape, size=64, fit=fit)
    np.testing.assert_allclose(
        np.rint(255 * square.reduce_map(pixels, where)),
        reduce_film(pixels, 64, fit=fit),
        atol=1,
    )


def test_padded_and_stretched_boxes_are_of_the_same_place():
    seen = 0
    for number in range(6):
        study = posed_study(CLEAR, number, "Forearm", {"hardware": 0.9})
        pairs = zip(
            radiograph.study_scenes(CLEAR, study),
            radiograph.study_films(CLEAR, study),
            radiograph.study_films(PADDED, study),
            strict=True,
        )
        for scene, wide, kept in pairs:
            if not len(wide.boxes):
                continue
            seen += 1
            frame = scene.frame
            where = square.placement(frame.height, frame.width, size=96, fit="pad")
            scale = np.array([where.width, where.height] * 2)
            corner = np.array([where.left, where.top] * 2)
            moved = wide.boxes[0] * scale + corner
            assert np.abs(moved - 96 * kept.boxes[0]).max() <= 3.0
            outside = kept.image.copy()
            outside[:, where.left : where.left + where.width] = 0
            assert not outside.any()
    assert seen >= 6


def test_films_do_not_depend_on_workers_or_order(films):
    parallel = list(radiograph.generate(COHORT, workers=2))
    assert [f.id for f in parallel] == [f.id for f in films]
    for a, b in zip(films, parallel, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert a.signal == b.signal
    last = cohorts.schedule(COHORT)[-1]
    alone = radiograph.patient_films(COHORT, last)
    np.testing.assert_array_equal(alone[-1].image, films[-1].image)


def test_an_abnormality_leaves_the_rest_of_the_film_alone():
    plain = scenes_of(CLEAR, 5, "Wrist", {})
    ill = scenes_of(CLEAR, 5, "Wrist", {"other": 0.5})
    for a, b in zip(plain, ill, strict=True):
        assert a.exposure == b.exposure
        assert (a.frame.height, a.frame.width) == (b.frame.height, b.frame.width)
        np.testing.assert_array_equal(a.frame.grid.x, b.frame.grid.x)


def test_bone_is_white_metal_whiter_and_air_black():
    (scene,) = scenes_of(CLEAR, 3, "Humerus", {"hardware": 1.0}, views=(0,))
    shown = radiograph.show(CLEAR, scene)
    tissue, t = scene.integrals.tissue, scene.integrals.t
    change = scene.integrals.changes[0].t
    metal = shown.gray[change > 1.0]
    air = shown.gray[(tissue < 1e-3) & (t < 1e-3)]
    flesh = shown.gray[(tissue > 0.5) & (t - tissue < 1e-3)]
    bone = shown.gray[(t - tissue > 0.6) & (change < 1e-3)]
    assert np.median(air) < 0.12
    assert np.median(air) < np.median(flesh) < np.median(bone) < np.median(metal)
    assert np.median(metal) > np.median(bone) + 0.1


def test_noise_is_poisson_and_scatter_keeps_the_mean():
    exposure = detector.Exposure(
        quanta=1e4, scatter=0.2, blur=0.0, low=0.5, high=1, slope=3, shift=0.5, gamma=1,
        grain=0.0,
    )  # fmt: skip
    intensity = np.full((90, 131), 0.4, np.float32)
    rng = np.random.default_rng(0)
    counted = detector.noisy(intensity, exposure=exposure, pixel=1.0, rng=rng)
    assert counted.mean() == pytest.approx(0.4, rel=1e-3)
    assert counted.var() == pytest.approx(0.4 / 1e4, rel=0.05)
    np.testing.assert_allclose(detector.scatter_of(intensity), 0.4, rtol=1e-5)


def test_detectability_of_a_known_change():
    """A change of k gray values in n pixels against rounding alone."""
    change = np.zeros((64, 64), np.float32)
    change[10:14, 20:25] = 3 / 255
    d = radiograph.detectability(change, np.zeros_like(change))
    assert d == pytest.approx(3 * np.sqrt(12 * 20), rel=1e-5)


class Few(builder.Builder, skip_registration=True):
    """A class of its own: TFDS remembers the configs of a class for good."""

    name = "phantom_bone"
    DEFAULT_BUILDER_CONFIG_NAME = "few"
    BUILDER_CONFIGS = (builder.PhantomConfig(name="few", cohort=COHORT),)


def test_records_and_sidecars_of_a_built_dataset(tmp_path, films):
    made = Few(data_dir=tmp_path, config="few")
    made.download_and_prepare(file_format="array_record")
    folder = made.data_path
    source = tfds.builder_from_directory(folder).as_data_source("all")
    assert len(source) == len(films)
    for k, one in enumerate(films):
        record = source[k]
        np.testing.assert_array_equal(record["image"][..., 0], one.image)
        assert record["id"].decode() == one.id
        assert record["study"].decode() == one.id.rpartition("/")[0] == one.study.name
        assert record["patient"].decode() == one.id.split("/")[1]
        assert record["labels"] == record["truth"] == float(one.study.abnormal)
        np.testing.assert_allclose(record["boxes"]["xyxy"], one.boxes)
        assert not record["boxes"]["label"].any()
    parts = groups.read_groups(folder, [one.id for one in films])["body_part"]
    assert [p.upper() for p in parts] == [one.id.split("/")[0][3:] for one in films]
    assert set(parts) <= set(BODY_PARTS)
    studies = {one.study.name: one.study for one in films}
    with (folder / "kinds.csv").open() as file:
        kinds = {row.pop("study"): row for row in csv.DictReader(file)}
    assert kinds.keys() == {name for name, s in studies.items() if s.abnormal}
    for name, row in kinds.items():
        present = {kind for kind, value in row.items() if value == "1"}
        assert present == set(studies[name].severity)
    calls = reader_files.read_readers(
        folder / "readers.csv", ids=list(studies), classes=MURA
    )
    assert set(calls.ids) == {n for n, s in studies.items() if s.split == "test"}
    assert calls.calls.shape[1:] == (6, 1)
    assert not calls.absent.any()
    notes = json.loads((folder / "manifest.json").read_text())
    text = json.dumps(notes)
    assert "unseen_share" in text
