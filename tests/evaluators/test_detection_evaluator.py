"""The detection protocol on made-up films: figures, intervals, and the rows of chance."""

import numpy as np
import pytest

from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.detection import IOU, USUAL, Detection
from cxr_jax.labels import CXR8
from cxr_jax.metrics import detection
from cxr_jax.predictions import Predictions
from cxr_jax.types import Boxes

CLASSES = ("Mass", "Nodule", "Pneumonia")


def table(films=120, *, seed=0, error=0.05, missing=0.0):
    """One box per class on some films; predicted ones are off by ``error``."""
    rng = np.random.default_rng(seed)
    centre = rng.normal([0.3, 0.6], 0.1, (films, 3, 2))
    xyxy = np.concatenate([centre - 0.12, centre + 0.12], axis=2)
    there = rng.random((films, 3)) < (0.3, 0.2, 0.0)
    found = xyxy + error * rng.normal(size=xyxy.shape)
    said = (there & (rng.random(there.shape) >= missing)) | (
        rng.random(there.shape) < 0.1
    )
    label = np.tile(np.arange(3), (films, 1))
    score = np.where(there, 0.5, 0.3) + 0.4 * rng.random(there.shape)
    zeros = np.zeros((films, 3), np.float32)
    return Predictions(
        classes=CLASSES,
        ids=np.array([f"{k:03d}" for k in range(films)]),
        patients=np.array([f"p{k // 2}" for k in range(films)]),
        studies=np.array([""] * films),
        index=np.arange(films),
        probs=zeros + 0.5,
        labels=zeros,
        boxes=Boxes(xyxy=found, label=label, mask=said, score=score),
        targets=Boxes(xyxy=xyxy, label=label, mask=there),
    )


def test_figures_are_those_of_the_metrics():
    films = table()
    found = Detection(keep_above=0.6)(films)
    for c, name in enumerate(CLASSES[:2]):
        rows, true = films.boxes.mask[:, c], films.targets.mask[:, c]
        lists = [
            detection.BoxList(
                film=np.flatnonzero(kept),
                xyxy=boxes.xyxy[kept, c],
                score=None if boxes.score is None else boxes.score[kept, c],
            )
            for kept, boxes in ((rows, films.boxes), (true, films.targets))
        ]
        given = {"films": len(films), "thresholds": IOU}
        ap = detection.average_precision(detection.match(*lists, **given))[0]
        for t, threshold in enumerate(IOU):
            told = found["metrics"][f"ap@{threshold:g}"]["per_class"][name]
            assert told["value"] == pytest.approx(ap[t])
            assert told["positives"] == true.sum()
        mean = found["metrics"]["map"]["per_class"][name]
        assert mean["value"] == pytest.approx(ap.mean())
        loud = lists[0].keep(np.flatnonzero(lists[0].score > 0.6))
        happened = detection.outcomes(loud, lists[1], **given)
        accuracy = detection.localization_accuracy(happened)[0]
        told = found["metrics"]["loc_acc@0.3"]["per_class"][name]
        assert told["value"] == pytest.approx(accuracy[2])


def test_a_class_without_boxes_is_undefined_and_left_out():
    metrics = Detection()(table())["metrics"]
    for block in metrics.values():
        assert block["per_class"]["Pneumonia"]["value"] is None
        assert block["mean"]["classes"] == ["Mass", "Nodule"]
        assert "Pneumonia" in block["mean"]["left_out"]
        values = [block["per_class"][n]["value"] for n in CLASSES[:2]]
        assert block["mean"]["value"] == pytest.approx(np.mean(values))


def test_intervals_hold_the_figure_and_come_again():
    evaluator = Detection(resamples=60, seed=3)
    first, again = evaluator(table()), evaluator(table())
    assert plain(first) == plain(again)
    for block in first["metrics"].values():
        told = block["mean"]
        assert told["resampling_unit"] == "patient" and told["resamples"] == 60
        assert told["low"] <= told["value"] <= told["high"]
        assert told["low"] < told["high"]
    other = Detection(resamples=60, seed=4)(table())
    assert (
        other["metrics"]["map"]["mean"]["low"] != first["metrics"]["map"]["mean"]["low"]
    )


def test_better_boxes_score_better():
    sharp, dull = (
        Detection()(table(error=e))["metrics"]["map"]["mean"]["value"]
        for e in (0.005, 0.08)
    )
    assert sharp > dull + 0.2


def test_rows_of_chance_stand_beside():
    """No box reaches nothing; the usual box is frozen on another part, and does not look."""
    evaluator = Detection()
    frozen = evaluator.freeze(table(seed=1))
    films = table(seed=2)
    rows = evaluator(films, frozen)["detection"]["rows"]
    assert list(rows) == ["no boxes", "mean box of the validation part"]
    nothing, usual = rows.values()
    assert nothing["map"] == 0
    empty = [1 - films.targets.mask[:, c].mean() for c in (0, 1)]
    assert nothing["loc_acc@0.3"] == pytest.approx(np.mean(empty))
    assert 0 < usual["map"] < 1
    mean = table(seed=1).targets
    expected = mean.xyxy[mean.mask[:, 0], 0].mean(axis=0)
    np.testing.assert_allclose(frozen[USUAL]["Mass"], expected)
    assert list(evaluator(films)["detection"]["rows"]) == ["no boxes"]


def test_films_with_a_box_of_the_class_alone():
    """Without false positives elsewhere, precision can only rise."""
    films = table()
    found = Detection()(films)
    restricted = found["detection"]["restricted"]
    assert not any(name.startswith("loc_acc") for name in restricted)
    for name, value in restricted.items():
        assert value >= found["metrics"][name]["mean"]["value"] - 1e-12


def test_counts_say_what_was_judged():
    films = table()
    block = Detection()(films)["detection"]
    assert block["boxed"] == list(CLASSES)
    assert block["n"] == len(films)
    assert list(block["reference"].values()) == films.targets.mask.sum(axis=0).tolist()
    assert list(block["predicted"].values()) == films.boxes.mask.sum(axis=0).tolist()
    assert set(block["froc"]["sensitivity"]) == set(CLASSES)
    assert set(block["iobb"]["accuracy"]) == set(CLASSES)


def test_a_validation_monitors_the_mean_alone():
    evaluator = Detection()
    told = evaluator.monitor(table())
    assert list(told) == ["map"]
    whole = evaluator(table())["metrics"]["map"]["mean"]["value"]
    assert told["map"]["mean"]["value"] == whole


def test_classes_that_nobody_predicts_are_refused():
    with pytest.raises(ConfigError, match="boxed"):
        Detection(boxed=("Hernia",))(table())
    assert set(Detection().boxed) == set(CXR8)
