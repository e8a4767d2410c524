"""Every film once, published figures to the digit, and files that appear whole."""

import csv
import dataclasses
import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax import evaluate, labels, predictions, studies
from cxr_jax.data.records import Records
from cxr_jax.errors import ConfigError, DataError
from cxr_jax.evaluators.base import check_requirements
from cxr_jax.evaluators.classification import Classification
from cxr_jax.evaluators.probabilities import Probabilities
from cxr_jax.evaluators.readers import Readers
from cxr_jax.evaluators.subgroups import Subgroups
from cxr_jax.types import Batch, Prediction

CLASSES = ("Mass", "Nodule", "Hernia")
ABOUT = {
    "dataset": "phantom_chest/tiny/1.0.0",
    "split": "test",
    "split_sha256": "ab" * 32,
    "checkpoint_step": 7,
    "weights_sha256": "cd" * 32,
}


def make_records(films: int = 23) -> Records:
    def text(pattern):
        return np.asarray([pattern.format(k) for k in range(films)])

    return Records(
        classes=CLASSES,
        id=text("film{:03d}.png"),
        patient=np.asarray([f"p{k // 2}" for k in range(films)]),
        study=text(""),
        follow_up=np.zeros(films, np.float32),
        age=np.full(films, np.nan, np.float32),
        sex=text(""),
        view=text(""),
        labels=np.random.default_rng(0).integers(0, 2, (films, 3)).astype(np.float32),
    )


def make_batches(records: Records, index: np.ndarray, *, size: int = 4) -> list[Batch]:
    """Padded as the pipeline pads; a film's pixels hold its record number."""
    batches = []
    for start in range(0, len(index), size):
        rows = index[start : start + size]
        pad = size - len(rows)
        mask = np.arange(size) < len(rows)
        known = np.pad(rows, (0, pad), constant_values=-1).astype(np.int32)
        image = np.zeros((size, 2, 2, 1), np.uint8) + known[:, None, None, None] % 256
        truth = np.where(mask[:, None], records.labels[known], np.nan)
        batches.append(
            Batch(
                image=image.astype(np.uint8),
                labels=truth.astype(np.float32),
                mask=mask,
                position=np.arange(start, start + size, dtype=np.uint32),
                index=known,
                truth=(1 - truth).astype(np.float32),
            )
        )
    return batches


@jax.jit
def predict(batch: Batch) -> Prediction:
    """The record number, as a logit: rows can be told apart."""
    logits = jnp.tile(batch.image[:, 0, 0].astype(jnp.float32), (1, 3)) / 10 - 1
    return Prediction(logits=logits, probs=jax.nn.sigmoid(logits), maps=batch.image)


def test_each_film_of_the_split_comes_back_once_and_in_order():
    records = make_records()
    index = np.array([17, 3, 5, 11, 2, 22, 8, 1, 20])
    table = evaluate.predict_split(
        predict,
        make_batches(records, index),
        records=records,
        expected=index,
        classes=CLASSES,
    )
    np.testing.assert_array_equal(table.index, np.sort(index))
    assert table.ids.tolist() == [f"film{k:03d}.png" for k in np.sort(index)]
    assert table.patients.tolist() == [f"p{k // 2}" for k in np.sort(index)]
    want = 1 / (1 + np.exp(1 - np.sort(index) / 10))
    np.testing.assert_allclose(table.probs, np.tile(want[:, None], 3), rtol=1e-6)
    np.testing.assert_array_equal(table.labels, records.labels[np.sort(index)])
    np.testing.assert_array_equal(table.truth, 1 - table.labels)


@pytest.mark.parametrize("size", [1, 2, 4, 23])
def test_a_study_is_the_same_however_it_falls_over_batches(size):
    """Views of a study stand 5 films apart: in batches of 4, each in one of its own."""
    records = make_records()
    study = np.arange(23) % 5
    records = dataclasses.replace(
        records,
        study=np.array([f"s{k}" for k in study]),
        patient=np.array([f"p{k}" for k in study]),
    )
    batches = make_batches(records, np.arange(23), size=size)
    if size <= 4:
        rows = [set(study[b.index[b.mask]]) for b in batches]
        assert all(
            len(names) == b.mask.sum() for names, b in zip(rows, batches, strict=True)
        )
    table = evaluate.predict_split(
        predict, batches, records=records, expected=np.arange(23), classes=CLASSES
    )
    found = studies.by_study(table)
    assert found.views.tolist() == [5, 5, 5, 4, 4]
    films = 1 / (1 + np.exp(1 - np.arange(23) / 10))
    want = [films[study == k].mean() for k in range(5)]
    np.testing.assert_allclose(found.table.probs[:, 0], want, rtol=1e-6)


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        ([0, 1, 2, 3, 4], r"missing \[5\]"),
        ([0, 1, 2, 3, 4, 4], r"repeated \[4\]"),
        ([0, 1, 2, 3, 4, 5, 9], r"not of this split \[9\]"),
        ([], "saw 0 films of 6"),
    ],
)
def test_a_film_too_few_or_too_many_is_an_error(seen, problem):
    records = make_records()
    with pytest.raises(RuntimeError, match=problem):
        evaluate.predict_split(
            predict,
            make_batches(records, np.asarray(seen, int)),
            records=records,
            expected=np.arange(6),
            classes=CLASSES,
        )


def test_the_caller_can_stop_between_batches():
    class Stop(Exception):
        pass

    calls = []

    def on_batch(number):
        calls.append(number)
        if number == 2:
            raise Stop

    records = make_records()
    with pytest.raises(Stop):
        evaluate.predict_split(
            predict,
            make_batches(records, np.arange(23)),
            records=records,
            expected=np.arange(23),
            classes=CLASSES,
            on_batch=on_batch,
        )
    assert calls == [1, 2]


def test_finalize_reads_host_arrays():
    def finalize(prediction):
        assert isinstance(prediction.probs, np.ndarray)
        return dataclasses.replace(prediction, probs=1 - prediction.probs)

    records = make_records()
    arguments = {"records": records, "expected": np.arange(9), "classes": CLASSES}
    batches = make_batches(records, np.arange(9))
    plain = evaluate.predict_split(predict, batches, **arguments)
    turned = evaluate.predict_split(predict, batches, finalize=finalize, **arguments)
    np.testing.assert_allclose(turned.probs, 1 - plain.probs)


def make_table(films: int = 300, *, seed: int = 0) -> predictions.Predictions:
    rng = np.random.default_rng(seed)
    reference = (rng.random((films, 3)) < [0.4, 0.2, 0.1]).astype(np.float32)
    logits = rng.normal(size=(films, 3)) - 1 + 1.5 * reference
    return predictions.Predictions(
        classes=CLASSES,
        ids=np.asarray([f"{k:08d}_000.png" for k in range(films)]),
        patients=np.asarray([f"{k // 3:08d}" for k in range(films)]),
        studies=np.asarray([""] * films),
        index=np.arange(films),
        probs=(1 / (1 + np.exp(-logits))).astype(np.float32),
        labels=reference,
    )


def test_result_has_every_field_and_every_metric_its_evidence():
    result = evaluate.evaluate_table(make_table(), resamples=50, **ABOUT)
    assert {k: result[k] for k in ABOUT} == ABOUT
    assert (result["schema"], result["n"], result["operating_points"]) == (2, 300, {})
    assert set(result["metrics"]) == {"auroc", "average_precision"}
    for block in result["metrics"].values():
        assert tuple(block["per_class"]) == CLASSES
        for value in block["per_class"].values():
            assert value["low"] < value["value"] < value["high"]
            assert value["n"] == 300 and value["resamples"] == 50
            assert value["positives"] >= value["positive_patients"] > 0
            assert value["resampling_unit"] == "patient" and value["discarded"] == 0
        assert block["mean"]["classes"] == list(CLASSES)
        values = [v["value"] for v in block["per_class"].values()]
        assert block["mean"]["value"] == pytest.approx(np.mean(values))
        assert block["mean"]["low"] < block["mean"]["value"] < block["mean"]["high"]
    assert "Research use only. Not for diagnostic use." in result["notes"]
    assert "Reference: labels mined from reports, not disease." in result["notes"]
    calibration = result["calibration"]["per_class"]["Mass"]
    assert sum(calibration["reliability"]["count"]) == 300
    json.dumps(result, allow_nan=False)


def test_undefined_classes_are_named_and_never_averaged_in():
    table = make_table()
    table.labels[:, 2] = 0
    table.labels[:100, 1] = np.nan
    result = evaluate.evaluate_table(table, resamples=20, **ABOUT)
    block = result["metrics"]["auroc"]
    hernia, nodule = block["per_class"]["Hernia"], block["per_class"]["Nodule"]
    assert (hernia["value"], hernia["low"], hernia["discarded"]) == (None, None, 20)
    assert hernia["reason"] == "undefined: no positive film"
    assert nodule["n"] == 200
    assert block["mean"]["classes"] == ["Mass", "Nodule"]
    assert block["mean"]["left_out"] == {"Hernia": "undefined: no positive film"}
    want = (block["per_class"]["Mass"]["value"] + nodule["value"]) / 2
    assert block["mean"]["value"] == pytest.approx(want)
    assert block["mean"]["discarded"] == 0
    table.labels[:] = 0
    nothing = evaluate.evaluate_table(table, **ABOUT)["metrics"]["auroc"]["mean"]
    assert nothing["value"] is None and "no class" in nothing["reason"]


def test_the_mean_runs_over_its_list_and_few_patients_are_flagged():
    table = make_table()
    table.labels[30:, 2] = 0
    result = evaluate.evaluate_table(table, mean_classes=("Nodule", "Mass"), **ABOUT)
    block = result["metrics"]["auroc"]
    assert block["mean"]["classes"] == ["Nodule", "Mass"]
    assert "20 positive patients" in block["per_class"]["Hernia"]["flag"]
    assert block["per_class"]["Mass"]["flag"] is None
    with pytest.raises(ConfigError, match="Cough.*Mass, Nodule, Hernia"):
        evaluate.evaluate_table(table, mean_classes=("Cough",), **ABOUT)


def test_truth_is_measured_beside_the_labels():
    table = make_table()
    truth = table.labels.copy()
    table.labels[::7] = 1 - table.labels[::7]
    table = dataclasses.replace(table, truth=truth)
    result = evaluate.evaluate_table(table, resamples=20, **ABOUT)
    noisy = result["metrics"]["auroc"]["mean"]["value"]
    assert result["metrics"]["auroc@truth"]["mean"]["value"] > noisy
    assert "average_precision@truth" in result["metrics"]
    assert "simulated" in result["notes"][1]


def test_without_patients_the_interval_says_so():
    table = dataclasses.replace(make_table(), patients=np.asarray([""] * 300))
    result = evaluate.evaluate_table(table, resamples=5, **ABOUT)
    mean = result["metrics"]["auroc"]["mean"]
    assert mean["resampling_unit"] == "image-level, likely too narrow"


def test_scores_that_are_not_finite_are_refused():
    table = make_table()
    table.probs[4, 1] = np.nan
    with pytest.raises(DataError, match=r"1 of 300 films.*00000004_000\.png"):
        evaluate.evaluate_table(table, **ABOUT)


def test_requirements_are_checked_before_the_first_step():
    chosen = [Classification()]
    check_requirements(chosen, ["labels", "probs", "boxes"])
    with pytest.raises(ConfigError, match="Classification needs labels"):
        check_requirements(chosen, ["probs"])


@pytest.mark.parametrize("judge", [Subgroups, Readers])
def test_a_point_that_nobody_freezes_is_refused_before_the_first_step(judge):
    key = "point" if judge is Subgroups else "threshold"
    wants = judge(**{key: "sensitivity@0.95"})
    have = ["labels", "probs"]
    check_requirements([Probabilities(sensitivity=0.95), wants], have)
    with pytest.raises(ConfigError, match=r"'sensitivity@0\.95'.*sensitivity@0\.9,"):
        check_requirements([Probabilities(), wants], have)
    # Where nothing is frozen, the evaluation itself says so; a number needs nothing.
    check_requirements([wants], have)
    check_requirements([Probabilities(), Readers(threshold=0.3)], have)


def test_evaluation_is_written_whole_and_read_back_exactly(tmp_path):
    table = make_table()
    result = evaluate.evaluate_table(table, **ABOUT)
    folder = tmp_path / "evaluation" / "test"
    evaluate.write_evaluation(folder, table, result)
    names = {path.name for path in folder.iterdir()}
    assert names == {"predictions.csv", "predictions.txt", "curves.json", "result.json"}
    assert json.loads((folder / "result.json").read_text()) == result
    header = (folder / "predictions.csv").read_text().splitlines()[0]
    assert header == "id,patient,study,Mass,Nodule,Hernia"
    again = predictions.read_predictions(folder / "predictions.csv")
    np.testing.assert_array_equal(again.probs, table.probs)  # to the last bit
    np.testing.assert_array_equal(again.ids, table.ids)
    np.testing.assert_array_equal(again.patients, table.patients)
    notes = (folder / "predictions.txt").read_text()
    assert "Not for diagnostic use" in notes and "uncalibrated" in notes
    curves = json.loads((folder / "curves.json").read_text())["roc"]
    assert tuple(curves) == CLASSES and curves["Mass"]["fpr"][-1] == 1


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "result.json"
    predictions.write_atomically(path, "old")
    with pytest.raises(TypeError):
        predictions.write_atomically(path, 3)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("id,patient,Mass\n", "header is id,patient,Mass"),
        ("id,patient,study\na,,\n", "at least one"),
        ("id,patient,study,Mass\na,,,high\n", "line 2.*high"),
        ("id,patient,study,Mass\na,,,1\nb,,1\n", "line 3.*3 cells instead of 4"),
        ("id,patient,study,Mass\na,,,1\na,,,1\n", "line 3.*'a' is empty or repeated"),
    ],
)
def test_bad_prediction_files_are_refused_by_line(tmp_path, text, problem):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=problem):
        predictions.read_predictions(path)
    with pytest.raises(DataError, match="no such file"):
        predictions.read_predictions(tmp_path / "none.csv")


def published_table(real_dir) -> predictions.Predictions:
    """The published DenseNet-121's probabilities beside the v2020 labels."""
    nih = real_dir / "nih"
    name = "densenet121_test_predictions.csv.gz"
    with gzip.open(nih / "published_predictions" / name, "rt") as file:
        rows = list(csv.DictReader(file))
    with gzip.open(nih / "labels" / "Data_Entry_2017_v2020.csv.gz", "rt") as file:
        entries = {row["Image Index"]: row for row in csv.DictReader(file)}
    ids = [row["Image Index"] for row in rows]
    found = [set(entries[i]["Finding Labels"].split("|")) for i in ids]
    nih14 = labels.NIH14
    probs = [[float(row[f"prob_{name}"]) for name in nih14] for row in rows]
    return predictions.Predictions(
        classes=nih14,
        ids=np.asarray(ids),
        patients=np.asarray([i[:8] for i in ids]),
        studies=np.asarray([""] * len(ids)),
        index=np.arange(len(ids)),
        probs=np.asarray(probs, np.float32),
        labels=np.asarray([[n in f for n in nih14] for f in found], np.float32),
    )


@pytest.mark.long  # the same through the command: tests/test_score.py
def test_published_predictions_give_the_published_figures(real_dir):
    result = evaluate.evaluate_table(published_table(real_dir), resamples=256, **ABOUT)
    path = real_dir / "nih" / "published_predictions" / "densenet121_test_auroc.csv"
    with path.open() as file:
        published = {row["label"]: float(row["auc"]) for row in csv.DictReader(file)}
    block = result["metrics"]["auroc"]
    assert set(published) == set(block["per_class"])
    for name, auroc in published.items():
        assert block["per_class"][name]["value"] == pytest.approx(auroc, abs=5e-7)
        assert (
            block["per_class"][name]["low"] < auroc < block["per_class"][name]["high"]
        )
    hernia = block["per_class"]["Hernia"]
    assert (hernia["positives"], hernia["positive_patients"]) == (42, 29)
