"""The detection protocol on made-up films: figures, intervals, and the rows of chance."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.detection import IOU, USUAL, Detection
from cxr_jax.labels import CXR8
from cxr_jax.metrics import bootstrap, detection
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
        told = found["detection"]["iobb"]
        false = detection.false_per_film(happened)[0]
        np.testing.assert_allclose(told["false_per_film"][name], false)
        given["thresholds"] = told["thresholds"]
        happened = detection.outcomes(loud, lists[1], **given, share_of_found=True)
        accuracy = detection.localization_accuracy(happened)[0]
        np.testing.assert_allclose(told["accuracy"][name], accuracy)


def test_a_box_that_scores_nothing_is_counted_unless_a_score_is_asked_for():
    """As the false box is that a film without any may be given."""
    films = table()
    silent = dataclasses.replace(films.boxes, score=np.zeros_like(films.boxes.score))
    films = dataclasses.replace(films, boxes=silent)
    every, none = (Detection(**given)(films) for given in ({}, {"keep_above": 0.0}))
    for name, column in (("Mass", 0), ("Nodule", 1)):
        false = [b["detection"]["iobb"]["false_per_film"][name] for b in (every, none)]
        happened = films.boxes.mask[:, column].sum() / len(films)
        assert 0 < false[0][-1] <= happened and not np.any(false[1])


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


def few_films(*, score):
    """Three films: a box that is found, a box that is missed, a false box."""
    there = (0.1, 0.1, 0.4, 0.4)
    xyxy = np.array([there, (0.6, 0.6, 0.9, 0.9), there])[:, None]
    zeros, label = np.zeros((3, 1), np.float32), np.zeros((3, 1), int)
    boxed = np.array([[True], [True], [False]])
    return Predictions(
        classes=("Mass",),
        ids=np.array(["a", "b", "c"]),
        patients=np.array(["p", "q", "r"]),
        studies=np.array([""] * 3),
        index=np.arange(3),
        probs=zeros,
        labels=zeros,
        boxes=Boxes(
            xyxy=xyxy,
            label=label,
            mask=np.array([[True], [True], [True]]),
            score=np.array(score)[:, None],
        ),
        targets=Boxes(xyxy=np.array([there] * 3)[:, None], label=label, mask=boxed),
    )


def test_films_with_a_box_of_the_class_alone():
    """The box of the last film, which is false, is passed over there."""
    found = Detection(resamples=40)(few_films(score=(0.5, 0.4, 0.9)))
    block = found["detection"]
    for name in ("map", *(f"ap@{t:g}" for t in IOU)):
        # Recalls 0 to 50% are reached, at a precision of 1/2 and of 1.
        whole = found["metrics"][name]["mean"]["value"]
        assert whole == pytest.approx(51 / 101 / 2)
        told = block["restricted_metrics"][name]
        for figure in (told["per_class"]["Mass"], told["mean"]):
            assert figure["value"] == pytest.approx(51 / 101)
            assert figure["low"] == 0 and figure["high"] == 1
        assert block["restricted"][name] == told["mean"]["value"]
    assert set(block["restricted"]) == {"map", *(f"ap@{t:g}" for t in IOU)}


def test_false_boxes_shares_and_free_response_by_hand():
    """At 1/4 false boxes per film none is allowed; at 1/2 one of three, at 1 all."""
    block = Detection(resamples=40)(few_films(score=(0.5, 0.4, 0.9)))["detection"]
    wanted = [0, 0, 1 / 2, 1 / 2, 1 / 2, 1 / 2]
    for t in IOU:
        assert block["froc"]["sensitivity"]["Mass"][f"{t:g}"] == wanted
        assert block["froc"]["sensitivity_mean"]["value"][f"{t:g}"] == wanted
    # Found 1, false 2, missed 1.
    np.testing.assert_allclose(block["iobb"]["accuracy"]["Mass"], 1 / 4)
    np.testing.assert_allclose(block["iobb"]["false_per_film"]["Mass"], 2 / 3)
    nothing = block["rows"]["no boxes"]
    np.testing.assert_allclose(nothing["iobb"], 1 / 3)
    np.testing.assert_allclose(nothing["false_per_film"], 0)
    assert nothing["froc"]["0.3"] == [0] * 6
    assert nothing["restricted"]["map"] == 0


def repeated(films, rows):
    """The films of a resample, drawn as often as the rows say."""
    parts = {
        name: Boxes(
            **{
                field: None if leaf is None else leaf[rows]
                for field, leaf in vars(getattr(films, name)).items()
            }
        )
        for name in ("boxes", "targets")
    }
    columns = ("ids", "patients", "studies", "probs", "labels")
    told = {name: getattr(films, name)[rows] for name in columns}
    return Predictions(
        classes=films.classes, index=np.arange(len(rows)), **told, **parts
    )


SEVERAL = (("froc", "sensitivity"), ("iobb", "accuracy"), ("iobb", "false_per_film"))


def at(figures):
    """Of FROC those at one overlap."""
    return figures["0.5"] if isinstance(figures, dict) else figures


def test_intervals_are_those_of_evaluations_of_drawn_patients():
    """Each resample is evaluated as a table of its own, film by film."""
    films, count = table(60, error=0.08, missing=0.3), 12
    told = Detection(resamples=count, seed=5, keep_above=0.6)(films)["detection"]
    units = bootstrap.resampling_units(films.patients)
    drawn = bootstrap.weights_in_chunks(jax.random.key(5), units.count, resamples=count)
    again = []
    for weight in np.asarray(next(drawn)).astype(int):
        rows = np.repeat(np.arange(len(films)), weight[units.code])
        again.append(Detection(keep_above=0.6)(repeated(films, rows))["detection"])

    def check(low, high, of):
        ends = np.percentile([of(block) for block in again], [2.5, 97.5], axis=0)
        np.testing.assert_allclose([low, high], ends, atol=1e-12)
        assert (ends[0] < ends[1]).any()

    for block, name in SEVERAL:
        ends = told[block][f"{name}_interval"]
        ends = [at(ends[end]["Nodule"]) for end in ("low", "high")]
        check(*ends, lambda found, b=block, n=name: at(found[b][n]["Nodule"]))
        mean = told[block][f"{name}_mean"]
        ends = [at(mean[end]) for end in ("low", "high")]
        check(*ends, lambda found, b=block, n=name: at(found[b][f"{n}_mean"]["value"]))
        both = [at(told[block][name][n]) for n in CLASSES[:2]]
        np.testing.assert_allclose(at(mean["value"]), np.mean(both, axis=0))
        assert mean["classes"] == ["Mass", "Nodule"] and "Pneumonia" in mean["left_out"]
    for keys in (("mean",), ("per_class", "Mass")):

        def figure(found, keys=keys):
            return functools.reduce(
                dict.__getitem__, keys, found["restricted_metrics"]["map"]
            )

        own = figure(told)
        assert (own["resampling_unit"], own["resamples"]) == ("patient", count)
        check(own["low"], own["high"], lambda found, of=figure: of(found)["value"])


def test_without_any_reference_box_figures_are_null_and_say_why():
    films = table(20)
    none = dataclasses.replace(films.targets, mask=np.zeros((20, 3), bool))
    films = dataclasses.replace(films, targets=none)
    evaluator = Detection(resamples=10)
    result = plain(evaluator(films, evaluator.freeze(table(seed=1))))
    block = result["detection"]
    several = [block["froc"]["sensitivity_mean"]]
    several += [block["iobb"][f"{n}_mean"] for n in ("accuracy", "false_per_film")]
    for told in (
        *(one["mean"] for one in result["metrics"].values()),
        *(one["mean"] for one in block["restricted_metrics"].values()),
        *several,
    ):
        assert told["reason"] == "undefined: no reference box"
        assert not told["classes"] and list(told["left_out"]) == list(CLASSES)
    for told in several:
        for end in ("value", "low", "high"):
            values = told[end].values() if isinstance(told[end], dict) else [told[end]]
            assert all(v is None for row in values for v in row)
    assert block["iobb"]["accuracy"]["Mass"] == [None] * 5
    # Boxes are false whether or not there is anything to find.
    share = films.boxes.mask[:, 0].mean()
    np.testing.assert_allclose(block["iobb"]["false_per_film"]["Mass"], share)
    assert block["rows"]["no boxes"]["map"] is None


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
