"""Which films train, and which may judge: schemes, oversampling and the guard together."""

import types

import numpy as np
import pytest

from configs import common
from cxr_jax import division
from cxr_jax.data import splits
from cxr_jax.data.records import Records
from cxr_jax.errors import DataError


def dataset():
    """300 films of 100 patients; the lists and the official test overlap in part."""
    count = 300
    patient = np.array([f"p{k // 3:03d}" for k in range(count)])
    words, nothing = np.full(count, ""), np.full(count, np.nan, np.float32)
    fifth = np.arange(count) // 3 % 5
    listed = np.array(["train", "train", "train", "val", "test"])[fifth]
    official = np.where(np.arange(count) >= 240, "test", "train_val")
    records = Records(
        classes=("Mass", "Pneumonia"),
        id=np.array([f"{k:03d}.png" for k in range(count)]),
        patient=patient,
        study=words,
        follow_up=nothing,
        age=nothing,
        sex=words,
        view=words,
        labels=np.stack([fifth == 0, np.arange(count) % 10 == 0], 1).astype(np.float32),
        splits={"patient_disjoint": listed, "official": official},
    )
    manifest = types.SimpleNamespace(name="d", version="1")
    return types.SimpleNamespace(records=records, manifest=manifest)


def divide(**changes):
    config = common.base()
    config.task.classes = ("Pneumonia",)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return division.divide(config, dataset())


def test_the_default_is_every_film_once():
    found = divide()
    assert found.order.length == len(found.split.parts["train"]) == 180
    assert found.notes("test") == ()
    assert found.notes("val") == (splits.MODEL_SELECTION,)
    assert found.notes("train") and "training part" in found.notes("train")[0]


def test_oversampling_and_labels_are_of_the_training_part():
    found = divide(**{"data.oversample.label": "Pneumonia"})
    labels = found.labels(("Pneumonia", "Mass"))
    positives = int(labels[:, 0].sum())
    assert labels.shape == (180, 2) and found.order.length == 2 * (180 - positives)
    drawn = found.dataset.records.labels[found.split.parts["train"]][
        found.order.epoch(0), 1
    ]
    assert drawn.mean() == 0.5
    with pytest.raises(DataError, match="no class Edema; it has Mass, Pneumonia"):
        found.labels(("Edema",))


def test_parts_of_another_scheme_are_judged_by_what_was_trained_on():
    where = {"eval.splits": ("val", "official/test")}
    with pytest.raises(DataError, match=r"official/test: of 60 evaluated films 36 are"):
        divide(**where)
    found = divide(**where, **{"eval.allow_seen": True})
    (note,) = found.notes("official/test")
    assert note.startswith("Leakage into official/test: of 60 evaluated films 36 are")
    split, part = found.named("official/test")
    assert part == "test" and split.passport["scheme"] == "official"
    assert found.named("patient_disjoint/test")[0] is found.split
    # The way back leaks as well: films of the lists' test part were trained on.
    with pytest.raises(DataError, match="patient_disjoint/test: of 60"):
        divide(**{"data.scheme": "official", "eval.splits": ("patient_disjoint/test",)})


def test_a_leaking_scheme_is_asked_for_by_name_and_noted():
    found = divide(**{"data.scheme": "image_level"})
    (note,) = found.notes("test")
    assert "0 are films of this run's train part and" in note
    assert found.notes("val")[0] == splits.MODEL_SELECTION
    assert "Leakage into val" in found.notes("val")[1]


def test_set_apart_is_divided_by_the_config():
    changes = {"data.scheme": "set_apart", "data.holdout": 12}
    found = divide(**changes, **{"data.fractions": (0.8, 0.2, 0.0)})
    passport = found.split.passport
    assert passport["parts"]["test"]["images"] == passport["holdout"] == 12
    assert found.notes("test") == ()


def test_a_share_of_the_patients_is_drawn_for_schemes_that_take_one():
    changes = {"data.scheme": "stratified", "data.patients": 0.5}
    where = {"eval.splits": ("official/test",), "eval.allow_seen": True}
    found = divide(**changes, **where)
    passport = found.split.passport
    assert sum(part["patients"] for part in passport["parts"].values()) == 50
    assert (passport["patients"], passport["left_out"]) == (0.5, 150)
    # A list is what it is, whatever the run was made with.
    assert found.named("official/test")[0].passport["parts"]["test"]["images"] == 60
    assert found.named("stratified/test")[0] is found.split
    assert found.named("random_patient/test")[0].passport["left_out"] == 150
    with pytest.raises(DataError, match="'patient_disjoint' takes all patients"):
        divide(**{"data.patients": 0.5})


@pytest.mark.parametrize("name", ["tset", "moon/test"])
def test_unknown_parts_are_refused_at_once(name):
    with pytest.raises(DataError, match=f"eval.splits='{name}' is no part"):
        divide(**{"eval.splits": ("val", name)})
