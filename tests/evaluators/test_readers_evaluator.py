"""The evaluator of a reader study: who takes part, what makes calls, what is refused."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from sklearn import metrics as sk

from cxr_jax.data import records
from cxr_jax.errors import ConfigError, DataError
from cxr_jax.evaluators.base import check_requirements, plain
from cxr_jax.evaluators.readers import Readers
from cxr_jax.predictions import Predictions

CLASSES = ("Mass", "Pneumonia", "Hernia")
NAMES = ("ann", "bob", "cid", "dan")
POINT = {"threshold": 0.5, "reason": None}
FROZEN = {"operating_points": {n: {"f1": POINT, "youden": POINT} for n in CLASSES}}


def film(k):
    return f"{k:03d}.png"


@pytest.fixture
def dataset(tmp_path):
    """60 films; readers read the last 40, where the part to be judged is the last 30."""
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 3)) < 0.3).astype(np.float32)
    unknown = np.full(60, np.nan, np.float32)
    ids = np.array([film(k) for k in range(60)])
    patients = np.array([f"p{k // 2}" for k in range(60)])
    blank = np.array([""] * 60)
    table = records.Records(
        classes=CLASSES,
        id=ids,
        patient=patients,
        study=blank,
        follow_up=unknown,
        age=unknown,
        sex=blank,
        view=blank,
        labels=truth,
    )
    (tmp_path / "records.csv").write_text(records.format_records(table))
    right = rng.random((60, 4, 3)) < 0.85
    calls = np.where(right, truth[:, None], 1 - truth[:, None]).astype(int)
    lines = [
        ",".join([film(k), name, *map(str, calls[k, r])])
        for k in range(20, 60)
        for r, name in enumerate(NAMES)
    ]
    (tmp_path / "readers.csv").write_text(
        "\n".join(["id,reader," + ",".join(CLASSES), *lines])
    )
    part = slice(30, 60)
    predictions = Predictions(
        classes=CLASSES,
        ids=ids[part],
        patients=patients[part],
        studies=blank[part],
        index=np.arange(60)[part],
        probs=((rng.random((60, 3)) + truth) / 2).astype(np.float32)[part],
        labels=truth[part],
        truth=truth[part],
    )
    return tmp_path, predictions, calls[part]


def run(directory, predictions, frozen=FROZEN, **settings):
    evaluator = Readers(**({"directory": str(directory)} | settings))
    found = plain(evaluator(predictions, frozen))
    return json.loads(json.dumps(found, allow_nan=False))["readers"]


def test_films_that_readers_read_take_part_by_name(dataset):
    directory, predictions, calls = dataset
    block = run(directory, predictions)
    assert (block["films"], block["films_elsewhere"]) == (30, 10)
    assert (block["readers"], block["classes"]) == (list(NAMES), list(CLASSES))
    assert block["patients"] == 15 and block["resampling_unit"] == "patient"
    assert block["focus"] == "Pneumonia" and block["left_out"] == {}
    found = block["protocols"]["truth"]["per_class"]["Hernia"]
    truth = predictions.truth[:, 2]
    for r, name in enumerate(NAMES):
        want = sk.f1_score(truth, calls[:, r, 2])
        assert found["f1"]["readers"][name]["value"] == pytest.approx(want)
    called = predictions.probs[:, 2] >= 0.5
    want = sk.cohen_kappa_score(truth, called)
    assert found["kappa"]["model"]["value"] == pytest.approx(want)
    want = sk.roc_auc_score(truth, predictions.probs[:, 2])
    assert found["roc"]["pooled"]["value"] == pytest.approx(want)
    assert found["references"]["truth"]["n"] == 30
    assert found["flag"] == "fewer than 20 positive patients"
    # The order of films and of classes is of no importance.
    turned = dataclasses.replace(
        predictions,
        classes=CLASSES[::-1],
        ids=predictions.ids[::-1],
        patients=predictions.patients[::-1],
        probs=predictions.probs[::-1, ::-1],
        labels=predictions.labels[::-1, ::-1],
        truth=predictions.truth[::-1, ::-1],
    )
    again = run(directory, turned)["protocols"]["truth"]["per_class"]["Hernia"]
    assert again["f1"] == found["f1"]


def test_a_task_of_one_class_takes_its_column(dataset):
    directory, predictions, _ = dataset
    columns = ("probs", "labels", "truth")
    one = {name: getattr(predictions, name)[:, 1:2] for name in columns}
    binary = dataclasses.replace(predictions, classes=("Pneumonia",), **one)
    block = run(directory, binary)
    whole = run(directory, predictions)
    assert block["classes"] == ["Pneumonia"]
    for name, protocol in block["protocols"].items():
        want = whole["protocols"][name]["per_class"]["Pneumonia"]
        assert protocol["per_class"]["Pneumonia"] == want


def test_calls_are_made_by_the_frozen_point_or_a_number(dataset):
    directory, predictions, _ = dataset
    low = {"threshold": 0.1, "reason": None}
    none = {"threshold": None, "reason": "unattainable"}
    points = {
        "Mass": {"f1": low},
        "Pneumonia": {"f1": none},
        "Hernia": {"f1": POINT},
    }
    block = run(directory, predictions, {"operating_points": points})
    assert block["threshold"]["values"] == {
        "Mass": 0.1,
        "Pneumonia": None,
        "Hernia": 0.5,
    }
    assert block["threshold"]["reasons"] == {"Pneumonia": "unattainable"}
    found = block["protocols"]["truth"]["per_class"]
    sensitivity = sk.recall_score(
        predictions.truth[:, 0], predictions.probs[:, 0] >= 0.1
    )
    got = found["Mass"]["sensitivity"]["model"]["value"]
    assert got == pytest.approx(sensitivity)
    assert found["Pneumonia"]["f1"]["model"]["value"] is None
    assert found["Pneumonia"]["roc"]["pooled"]["value"] is not None
    number = run(directory, predictions, {}, threshold=0.5)
    assert number["threshold"]["reasons"] == {}
    assert set(number["threshold"]["values"].values()) == {0.5}
    nothing = run(directory, predictions, {})
    assert set(nothing["threshold"]["reasons"]) == set(CLASSES)
    text = run(directory, predictions, {}, threshold="0.5")
    assert text == number and text["threshold"]["name"] == 0.5
    with pytest.raises(ConfigError, match="'sensitivity@0.95'; frozen .* f1, youden"):
        run(directory, predictions, threshold="sensitivity@0.95")


def test_intervals_and_verdicts_come_with_resamples(dataset):
    directory, predictions, _ = dataset
    block = run(directory, predictions, resamples=5, draws=40)
    assert block["resamples"] == 40
    gap = block["protocols"]["each_other"]["per_class"]["Mass"]["f1"]["difference"]
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert gap["low_readers"] is not None and "interval" in gap["verdict_readers"]
    words = ("model higher", "model lower", "no difference detected")
    assert gap["verdict"].startswith(words)
    assert block["fleiss"]["Mass"]["low"] < block["fleiss"]["Mass"]["high"]
    roc = block["protocols"]["majority"]["per_class"]["Pneumonia"]["roc"]
    assert len(roc["group_curves"]) == len(roc["groups"]) == 4
    other = block["protocols"]["majority"]["per_class"]["Mass"]["roc"]
    assert "group_curves" not in other
    bias = block["bias"]["Mass"]["sensitivity"]
    assert set(bias) == {"truth", "expected", "measured"}
    silent = run(directory, predictions)["protocols"]["each_other"]["per_class"]["Mass"]
    assert silent["f1"]["difference"]["verdict"] == "no interval, no verdict"


def test_without_truth_the_protocol_is_left_out_and_said(dataset):
    directory, predictions, _ = dataset
    block = run(directory, dataclasses.replace(predictions, truth=None))
    assert set(block["protocols"]) == {"majority", "each_other"}
    assert block["left_out"] == {"truth": "no truth is known of these films"}
    assert block["bias"] == {}


def test_nobody_read_is_a_reason_not_an_error(dataset):
    directory, predictions, _ = dataset
    unread = dataclasses.replace(
        predictions, ids=np.array([film(k) for k in range(20)] * 2)[:30]
    )
    assert "no film of this part" in run(directory, unread)["reason"]
    (directory / "readers.csv").unlink()
    block = run(directory, predictions)
    assert "no reader file" in block["reason"] and block["protocols"] == {}
    assert "no reader file" in run("", predictions)["reason"]
    with pytest.raises(DataError, match=r"other\.csv: cannot be read"):
        run(directory, predictions, file=str(directory / "other.csv"))


def test_a_file_of_its_own_needs_no_dataset(dataset):
    directory, predictions, _ = dataset
    path = directory / "readers.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *lines[40:]]))
    block = run("", predictions, file=str(path))
    assert block["films"] == 30 and block["file"] == "readers.csv"
    path.write_text("\n".join([header, *lines]))
    with pytest.raises(DataError, match=r"line 2: film '020\.png' is unknown"):
        run("", predictions, file=str(path))
    known = frozenset(film(k) for k in range(60))
    assert run("", predictions, file=str(path), films=known)["films"] == 30


def test_the_file_is_an_input_by_its_content(dataset):
    directory, *_ = dataset
    path = directory / "readers.csv"
    want = {"file": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert Readers(directory=str(directory)).inputs() == want
    assert Readers(file=str(path)).inputs() == want
    path.write_text(path.read_text() + "\n")
    assert Readers(file=str(path)).inputs() != want
    path.unlink()
    assert Readers(directory=str(directory)).inputs() == Readers().inputs() == {}


def test_missing_calls_are_taken_where_a_protocol_can_do_without(dataset):
    directory, predictions, _ = dataset
    path = directory / "readers.csv"
    lines = path.read_text().splitlines()
    assert lines[101].startswith("045.png,ann")
    path.write_text("\n".join([*lines[:101], *lines[102:]]))
    with pytest.raises(DataError, match=r"line 102: film 045\.png.*ann.*'each_other'"):
        run(directory, predictions)
    block = run(directory, predictions, protocols=("majority", "truth"))
    assert (block["missing_pairs"], block["films_with_missing"]) == (1, 1)
    found = block["protocols"]["majority"]["per_class"]["Mass"]["references"]
    assert [found[f"all but {n}"]["n"] for n in NAMES] == [30, 29, 29, 29]


def test_what_cannot_be_is_refused_before_anything_is_computed(dataset):
    directory, predictions, _ = dataset
    with pytest.raises(ConfigError, match="minority"):
        Readers(directory=str(directory), protocols=("minority",)).load(predictions)
    with pytest.raises(ConfigError, match="5 voters"):
        Readers(directory=str(directory), least=5).load(predictions)
    Readers(threshold="specificity@0.95")
    for threshold in (
        "best",
        "sensitivity@0",
        "sensitivity@.950",
        "youden@1",
        0.0,
        "nan",
    ):
        with pytest.raises(ConfigError, match="or one of youden, sensitivity@0.9"):
            Readers(threshold=threshold).rehearse(predictions)
    for wrong in ({"margin": 1.0}, {"margin": -0.1}, {"draws": -1}, {"tie": "both"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Readers(**wrong).rehearse(predictions)  # no file is there to be read
    with pytest.raises(ConfigError, match="needs probs"):
        check_requirements([Readers()], ["labels"])
