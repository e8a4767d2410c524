"""Halves of the films with boxes: disjoint, drawn by seed alone, and the real counts."""

import collections
import csv
import gzip
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.data import draws, labelled, splits
from cxr_jax.data.records import Records
from cxr_jax.errors import DataError
from cxr_jax.labels import CXR8, NIH14

HALVES = ("cxr8_halves", "cxr8_halves_image_level")
SEEDS = range(5)


def records_of(patients, boxed, labels=None, classes=NIH14) -> Records:
    """Films of patients; ``boxed`` are row numbers. Without labels none has a finding."""
    count = len(patients)
    words, unknown = np.full(count, ""), np.full(count, np.nan, np.float32)
    listed = np.where(np.isin(np.arange(count), list(boxed)), "test", "")
    if labels is None:
        labels = np.zeros((count, len(classes)), np.float32)
    return Records(
        classes=classes,
        id=np.array([f"{p}_{k:03d}.png" for k, p in enumerate(patients)], np.str_),
        patient=np.array(patients, np.str_),
        study=words,
        follow_up=unknown,
        age=unknown,
        sex=words,
        view=words,
        labels=labels,
        splits={"cxr8": listed},
    )


def split(records, scheme="cxr8_halves", **how):
    return splits.split_records(records, scheme, dataset="d/c", version="1", **how)


def film(*findings):
    return [float(name in findings) for name in NIH14]


# --- laws -----------------------------------------------------------------------------

FILMS = st.lists(
    st.lists(st.booleans(), min_size=1, max_size=5), min_size=3, max_size=40
).map(lambda drawn: [[True], [True], [False], *drawn])


@settings(max_examples=100, deadline=None)
@given(films=FILMS, seed=st.integers(0, 2**31))
def test_halves_hold_each_film_with_a_box_once_and_share_no_patient(films, seed):
    """A list per patient: whether each of its films has a box."""
    rows = [(f"p{k}", box) for k, own in enumerate(films) for box in own]
    patients = [patient for patient, _ in rows]
    boxed = {k for k, (_, box) in enumerate(rows) if box}
    records = records_of(patients, boxed)
    try:
        got = split(records, seed=seed).parts
    except DataError as error:  # The patient drawn last had half of the films.
        assert "no films in test" in str(error)
        return
    assert sorted([*got["val"], *got["test"]]) == sorted(boxed)
    people = {part: {patients[k] for k in index} for part, index in got.items()}
    assert not people["val"] & people["test"]
    # Whoever has a box does not train, and whoever has none does.
    assert people["train"] == set(patients) - people["val"] - people["test"]
    assert len(got["train"]) == sum(p in people["train"] for p in patients)
    # Half of the films is reached, by the last patient at the earliest.
    films_of = collections.Counter(patients[k] for k in got["val"])
    assert 2 * len(got["val"]) >= len(boxed)
    assert any(2 * (len(got["val"]) - n) < len(boxed) for n in films_of.values())

    leaking = split(records, "cxr8_halves_image_level", seed=seed)
    for part in ("val", "test"):
        np.testing.assert_array_equal(leaking.parts[part], got[part])
    assert set(leaking.parts["train"]) == set(range(len(rows))) - boxed
    train = {patients[k] for k in leaking.parts["train"]}
    shared = train & (people["val"] | people["test"])
    assert leaking.passport["patient_overlap"] == len(shared)


def test_patients_come_in_the_order_of_their_digests_until_half_is_reached():
    sizes = [1, 5, 2, 2, 3, 1, 4, 2, 6, 1, 2]
    patients = [f"{k:08d}" for k, size in enumerate(sizes) for _ in range(size)]
    for seed in SEEDS:
        by_hand, films = set(), 0
        for patient in sorted(
            set(patients),
            key=lambda p: hashlib.sha256(f"{seed}\n{p}".encode()).hexdigest(),
        ):
            if films >= len(patients) / 2:
                break
            by_hand.add(patient)
            films += patients.count(patient)
        got = draws.half(np.array(patients), seed)
        assert {p for p, first in zip(patients, got, strict=True) if first} == by_hand
        assert got.sum() == films


def test_half_of_an_even_number_is_not_passed():
    for seed in SEEDS:
        assert draws.half(np.array(list("abcdef")), seed).sum() == 3
        assert draws.half(np.array(list("abcde")), seed).sum() == 3
    assert draws.half(np.array([], np.str_), 0).shape == (0,)


def test_rows_may_stand_in_any_order_and_seeds_differ():
    patients = [f"p{k // 3:02d}" for k in range(90)]
    boxed = set(range(0, 60, 2))
    records = records_of(patients, boxed)
    order = np.random.default_rng(0).permutation(90)
    mixed = records_of(
        [patients[k] for k in order], {n for n, k in enumerate(order) if k in boxed}
    )
    drawn = set()
    for seed in SEEDS:
        a, b = (split(r, seed=seed).parts["val"] for r in (records, mixed))
        assert set(records.patient[a]) == set(mixed.patient[b])
        drawn.add(tuple(a))
    assert len(drawn) == len(SEEDS)


# --- which films train ------------------------------------------------------------------


def test_films_with_one_of_the_eight_or_with_none_of_all_train():
    unknown = film("Edema")
    unknown[0] = np.nan
    labels = [
        film("Mass"),
        film("Nodule"),
        film("Mass", "Hernia"),  # trains
        film("Hernia"),
        film(),  # trains
        film("Edema", "Pneumothorax"),  # trains
        film("Consolidation", "Fibrosis"),
        unknown,
        [np.nan, *film()[1:]],  # nobody knows whether there is none
        [np.nan, *film("Effusion")[1:]],  # trains
        film(),  # of a patient with a box
    ]
    patients = [*"abcdefghij", "a"]
    records = records_of(patients, {0, 1}, np.array(labels, np.float32))
    got = split(records)
    assert got.parts["train"].tolist() == [2, 4, 5, 9]
    assert got.passport["left_out"] == 5 and got.passport["patient_overlap"] == 0
    got = split(records, "cxr8_halves_image_level")
    assert got.parts["train"].tolist() == [2, 4, 5, 9, 10]
    assert got.passport["left_out"] == 4 and got.passport["patient_overlap"] == 1


def test_the_passport_tells_scheme_seed_and_counts_and_no_shares():
    records = records_of(list("aabbccdd"), {0, 2, 4})
    passport = split(records, seed=3, fractions=(0.8, 0.2, 0.0)).passport
    assert (passport["scheme"], passport["seed"]) == ("cxr8_halves", 3)
    assert passport["fractions"] is None and "patients" not in passport
    counts = {n: (p["images"], p["patients"]) for n, p in passport["parts"].items()}
    assert counts == {"train": (2, 1), "val": (2, 2), "test": (1, 1)}
    assert passport["left_out"] == 3
    assert json.loads(json.dumps(passport)) == passport


def test_all_films_with_boxes_are_a_list_of_their_own():
    records = records_of(list("aabb"), {1, 3})
    got = split(records, "cxr8", required=("test",))
    assert [got.parts[p].tolist() for p in splits.PARTS] == [[], [], [1, 3]]
    assert got.passport["seed"] is None
    with pytest.raises(DataError, match="no films in train and val"):
        split(records, "cxr8")


@pytest.mark.parametrize("scheme", HALVES)
def test_what_cannot_be_halved_is_one_line(scheme):
    three, no_list = records_of(list("aabc"), {0, 2}), records_of(list("abc"), ())
    no_list.splits.clear()
    cases = [
        (no_list, "no lists for the split 'cxr8' .*delete the prepared dataset"),
        (records_of(list("abc"), {0}), "no films in test"),
        (records_of(list("abc"), ()), "no films in val and test"),
        (records_of(["a", "", "c"], {0, 2}), "1 of 3 films name no patient"),
        (
            records_of(list("abc"), {0, 2}, classes=("Mass", *NIH14[8:])),
            r"no labels of Atelectasis, .*Pneumothorax \(there are Mass, Consolidation",
        ),
    ]
    for records, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            split(records, scheme)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="takes all patients"):
        split(three, scheme, patients=0.5)


# --- the real tables ----------------------------------------------------------------------

# Of the sorted ids of val and test, seeds 0 to 4: figures on them stay comparable.
PINNED = (
    ("8f416e5f4f90ac9f", "6d34f5ca2ec6c9df"),
    ("ea87883d80e10dff", "f45d92b7a616d5f8"),
    ("0d1459ecf997a016", "b09f3b30064ac700"),
    ("d5e653df93776251", "d61085d9336be2eb"),
    ("dbd94b2c09130d02", "7ca4ae0c887b5bab"),
)
ANOTHER_PROCESS = """
import json, sys
from cxr_jax.data import labelled, splits
records = labelled.read_source("chestxray14", manual_dir=sys.argv[1]).records
for seed in range(5):
    got = splits.split_records(
        records, "cxr8_halves", dataset="d/c", version="1", seed=seed
    )
    print(json.dumps(got.passport))
"""


@pytest.fixture(scope="module")
def nih(real_dir):
    return real_dir / "nih"


@pytest.fixture(scope="module")
def real(nih) -> Records:
    return labelled.read_source("chestxray14", manual_dir=str(nih)).records


@pytest.fixture(scope="module")
def rows(nih):
    """Film → findings, and film → classes of its boxes; read without our readers."""
    with gzip.open(nih / "labels" / "Data_Entry_2017_v2020.csv.gz", "rt") as file:
        findings = {r[0]: set(r[1].split("|")) for r in [*csv.reader(file)][1:]}
    boxes: dict[str, list[str]] = {}
    with gzip.open(nih / "labels" / "BBox_List_2017.csv.gz", "rt") as file:
        for row in [*csv.reader(file)][1:]:
            boxes.setdefault(row[0], []).append(row[1])
    return findings, boxes


def counted(records, index):
    """Films with each of the eight findings, and with none of all."""
    labels = records.labels[index]
    counts = {n: int(labels[:, k].sum()) for k, n in enumerate(CXR8)}
    return {"No Finding": int((labels == 0).all(axis=1).sum()), **counts}


def test_the_real_boxes(rows, real):
    findings, boxes = rows
    listed = real.id[real.splits["cxr8"] == "test"].tolist()
    assert len(listed) == 880 and set(listed) == set(boxes)
    assert len({name[:8] for name in listed}) == 726
    classes = collections.Counter(label for own in boxes.values() for label in own)
    assert sum(classes.values()) == 984
    assert classes == {
        "Atelectasis": 180,
        "Effusion": 153,
        "Cardiomegaly": 146,
        "Infiltrate": 123,
        "Pneumonia": 120,
        "Pneumothorax": 98,
        "Mass": 85,
        "Nodule": 79,
    }
    # At most one of a class on a film, and the label table knows each.
    assert all(len(set(own)) == len(own) for own in boxes.values())
    unboxed = 0
    for name, own in boxes.items():
        known = {x.replace("Infiltrate", "Infiltration") for x in own}
        assert known <= findings[name]
        unboxed += bool(findings[name] & set(CXR8) - known)
    assert unboxed == 521


def test_the_real_training_sets(rows, real):
    findings, boxes = rows
    by_patient, by_film = (split(real, scheme) for scheme in HALVES)
    train = [got.parts["train"] for got in (by_patient, by_film)]
    counts = [counted(real, index) for index in train]
    order = ("No Finding", "Infiltration", "Effusion", "Atelectasis", "Nodule", "Mass")
    order += ("Pneumothorax", "Cardiomegaly", "Pneumonia")
    assert [len(index) for index in train] == [91_883, 106_130]
    assert [counts[0][n] for n in order] == [
        *(55_295, 15_486, 9_819, 9_121, 5_189, 4_532, 3_393, 1_921, 1_018)
    ]
    assert [counts[1][n] for n in order] == [
        *(60_361, 19_582, 13_005, 11_257, 6_169, 5_644, 5_139, 2_591, 1_300)
    ]
    # Film by film, from the table's own words.
    nine = {name for name, own in findings.items() if own & {*CXR8, "No Finding"}}
    assert len(nine) == 107_010 and set(boxes) <= nine
    people = {name[:8] for name in boxes}
    alone = {name for name in nine if name[:8] not in people}
    assert set(real.id[train[0]]) == alone
    assert set(real.id[train[1]]) == nine - set(boxes)
    assert by_patient.passport["left_out"] == 112_120 - 91_883 - 880
    assert by_patient.passport["patient_overlap"] == 0
    assert by_film.passport["patient_overlap"] > 500


def test_real_halves_share_no_patient_and_stay_what_they_are(rows, real):
    _, boxes = rows
    for seed in SEEDS:
        got = split(real, seed=seed)
        val, test = (set(real.id[got.parts[part]]) for part in ("val", "test"))
        assert val | test == set(boxes) and not val & test
        assert not {n[:8] for n in val} & {n[:8] for n in test}
        most = max(collections.Counter(n[:8] for n in val).values())
        assert 440 <= len(val) < 440 + most
        parts = got.passport["parts"]
        assert parts["val"]["patients"] + parts["test"]["patients"] == 726
        digests = tuple(parts[part]["sha256"][:16] for part in ("val", "test"))
        assert digests == PINNED[seed]


def test_another_process_draws_the_same(nih, real):
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, str(nih)],
        env=os.environ | {"PYTHONHASHSEED": "2718"},  # Random in this process.
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert theirs == [split(real, seed=seed).passport for seed in SEEDS]
