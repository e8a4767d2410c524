"""The sections on boxes: what they say is what was measured, and failures are shown."""

import dataclasses
import io
import pathlib
import statistics
import tempfile

import numpy as np
import pytest
from PIL import Image

from cxr_jax import box_samples
from cxr_jax.data import box_files
from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.detection import Detection
from cxr_jax.pages import box_gallery, detection
from cxr_jax.pages.evidence import Evidence
from cxr_jax.predictions import Predictions
from cxr_jax.types import Batch, Boxes

CLASSES = ("Mass", "Nodule", "Pneumonia")


def table(films=60, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.normal(0.5, 0.1, (films, 3, 2))
    xyxy = np.concatenate([centre - 0.12, centre + 0.12], axis=2)
    there = rng.random((films, 3)) < (0.4, 0.3, 0.0)
    said = there ^ (rng.random(there.shape) < 0.2)
    label, zeros = np.tile(np.arange(3), (films, 1)), np.zeros((films, 3), np.float32)
    off = 0.03 * rng.normal(size=xyxy.shape)
    return Predictions(
        classes=CLASSES,
        ids=np.array([f"{k:03d}.png" for k in range(films)]),
        patients=np.array([f"p{k // 2}" for k in range(films)]),
        studies=np.array([""] * films),
        index=np.arange(films),
        probs=zeros + 0.5,
        labels=zeros,
        boxes=Boxes(
            xyxy=xyxy + off, label=label, mask=said, score=rng.random((films, 3))
        ),
        targets=Boxes(xyxy=xyxy, label=label, mask=there),
    )


def evidence(films, *, name="run"):
    evaluator = Detection(resamples=40, keep_above=0.3)
    found = plain(evaluator(films, evaluator.freeze(table(seed=1))))
    row = {"map": 10.89, "ap@0.1": 19.99, "loc_acc@0.1": 0.85}
    published = {
        "name": "Loc-ADPD",
        "source": "a paper",
        "split": "films of theirs",
        "values": row,
    }
    return Evidence(
        config={"report": {"published_boxes": [published]}},
        passport={},
        lines=(),
        results={"test": {"n": len(films), "dataset": "phantom_chest/small", **found}},
        curves={},
        samples=None,
        name=name,
        boxes=collect(films),
    )


def collect(films):
    def load(index):
        image = np.zeros((len(index), 32, 32, 1), np.uint8)
        return Batch(image=image, labels=None, mask=None, position=None, index=index)

    return box_samples.collect(films, load=load)


def test_figures_stand_beside_chance_and_papers_stand_apart():
    found = evidence(table())
    page = detection.section(found)
    means = found.main["metrics"]["map"]["mean"]
    assert f"{100 * means['value']:.1f} [{100 * means['low']:.1f}" in page
    for words in ("No boxes", "Mean box of the validation part", "class alone"):
        assert words in page
    ours, papers = page.split("As printed, not measured here")
    assert "10.89" in papers and "10.89" not in ours
    assert "Boxes count above a score of 0.3" in page
    assert page.count("data:image/") == 1 + len(found.boxes.ids)


def test_runs_stand_side_by_side():
    first, second = (evidence(table(seed=s), name=n) for s, n in ((0, "A"), (2, "B")))
    page = detection.section(first, second)
    assert "<td>A</td>" in page and "<td>B</td>" in page
    bare = dataclasses.replace(first, results={"test": {"n": 1, "dataset": "x"}})
    assert detection.section(bare) == ""


def test_runs_that_differ_in_seeds_alone_are_averaged():
    runs = []
    for seed in range(3):
        run = evidence(table(seed=seed), name=f"half {seed}")
        config = run.config | {
            "data": {"dataset": "d", "split_seed": seed},
            "seed": seed,
        }
        runs.append(dataclasses.replace(run, config=config))
    page = detection.section(*runs)
    found = [100 * run.main["metrics"]["map"]["mean"]["value"] for run in runs]
    mean, sd = statistics.mean(found), statistics.stdev(found)
    assert f"mean ± sd of 3 runs</td><td>{mean:.1f} ± {sd:.1f}" in page
    other = dataclasses.replace(runs[1], config=runs[1].config | {"task": {"size": 1}})
    assert "mean ± sd" not in detection.section(runs[0], other)


def test_films_are_chosen_by_a_rule_that_shows_failures():
    films = table()
    samples = collect(films)
    assert set(samples.classes) == {"Mass", "Nodule"}
    for name in ("Mass", "Nodule"):
        own = samples.classes == name
        assert samples.kinds[own].tolist() == [
            box_samples.FOUND,
            box_samples.LEAST,
            box_samples.ALARM,
        ]
        found, least, alarm = np.flatnonzero(own)
        assert samples.overlaps[least] <= samples.overlaps[found]
        assert np.isnan(samples.overlaps[alarm])
        assert samples.verdicts[[least, alarm]].tolist() == ["Missed", "False alarm"]
        c = CLASSES.index(name)
        free = films.boxes.mask[:, c] & ~films.targets.mask[:, c]
        assert samples.scores[alarm] == films.boxes.score[free, c].max()


def test_samples_are_read_as_written(tmp_path):
    samples = collect(table())
    box_samples.write(tmp_path, samples)
    again = box_samples.read(tmp_path)
    for name, array in vars(samples).items():
        np.testing.assert_array_equal(getattr(again, name), array)
    box_samples.write(tmp_path, None)
    assert box_samples.read(tmp_path) is None


@pytest.mark.parametrize("solid", [True, False])
def test_predicted_boxes_are_solid_and_reference_boxes_dashed(solid):
    box, none = np.array([[0.25, 0.25, 0.75, 0.75]]), np.full((1, 4), np.nan)
    film = np.zeros((32, 32), np.uint8)
    found, true = (box, none) if solid else (none, box)
    image = Image.open(io.BytesIO(box_gallery.draw(film, {"": found}, true)))
    assert image.text["Description"].startswith("Research use only")
    side = box_gallery.SIDE
    row = np.asarray(image)[round(0.25 * (side - 1)), :side].any(axis=1)
    inside = row[round(0.3 * side) : round(0.7 * side)]
    assert inside.all() == solid and inside.any()


def test_boxes_of_two_runs_are_drawn_on_the_same_film():
    boxes = {
        "A": np.array([[0.1, 0.1, 0.4, 0.4]]),
        "B": np.array([[0.6, 0.6, 0.9, 0.9]]),
    }
    none, film = np.zeros((0, 4)), np.zeros((32, 32), np.uint8)
    page = np.asarray(Image.open(io.BytesIO(box_gallery.draw(film, boxes, none))), int)
    side, top = box_gallery.SIDE, box_gallery.STRIP
    for place, (x1, y1, x2, y2) in enumerate(box[0] for box in boxes.values()):
        left = place * (side + box_gallery.GAP)
        own = page[top : top + side, left : left + side].any(axis=2)
        ys, xs = np.nonzero(own)
        found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / side
        np.testing.assert_allclose(found, [x1, y1, x2, y2], atol=2 / side)


def test_only_runs_on_the_same_films_are_drawn_beside():
    films = table()
    inside = dataclasses.replace(films.boxes, xyxy=films.boxes.xyxy.clip(0, 1))
    text = box_files.format_boxes(films.ids, CLASSES, inside)
    first = _judged(evidence(films, name="A"), "same", text)
    for digest, count in (("same", 1), ("other", 0)):
        second = _judged(evidence(table(seed=2), name="B"), digest, text)
        page = detection.section(first, second)
        assert page.count("The films are those of A.") == count


def _judged(run, digest, text):
    """A run on films of that digest, whose boxes are those of a file."""
    result = run.main | {"split_sha256": digest}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "boxes.csv"
        path.write_text(text)
        found = box_files.read_boxes(path, classes=CLASSES)
    return dataclasses.replace(run, results={"test": result}, found=found)
