"""Splits: no patient in two parts, every film once, the same on every machine."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.data import splits, tables
from cxr_jax.data.records import Records
from cxr_jax.errors import DataError


def records_of(patients, **columns) -> Records:
    count = len(patients)
    nothing = np.full(count, np.nan, np.float32)
    return Records(
        classes=("Mass",),
        id=np.array([f"{p}_{k:03d}.png" for k, p in enumerate(patients)], np.str_),
        patient=np.array(patients, np.str_),
        study=np.array([""] * count, np.str_),
        follow_up=nothing,
        age=nothing,
        sex=np.array(["M"] * count, np.str_),
        view=np.array(["PA"] * count, np.str_),
        labels=np.zeros((count, 1), np.float32),
        splits={name: np.array(v, np.str_) for name, v in columns.items()},
    )


def split(records, scheme, **how):
    return splits.split_records(records, scheme, dataset="d/c", version="1.0.0", **how)


PATIENTS = [f"p{k // 3:03d}" for k in range(300)]  # 100 patients of 3 films


@settings(max_examples=50, deadline=None)
@given(
    films=st.lists(st.integers(1, 6), min_size=12, max_size=80),
    seed=st.integers(0, 2**31),
)
def test_patients_stay_together_and_no_film_is_lost(films, seed):
    patients = [f"p{k}" for k, count in enumerate(films) for _ in range(count)]
    records = records_of(patients)
    got = split(records, "random_patient", seed=seed, fractions=(0.5, 0.25, 0.25))
    index = np.concatenate(list(got.parts.values()))
    assert sorted(index.tolist()) == list(range(len(patients)))
    sets = [set(records.patient[i]) for i in got.parts.values()]
    assert sum(map(len, sets)) == len(set().union(*sets)) == len(films)
    assert got.passport["patient_overlap"] == 0 == got.passport["left_out"]


def test_shares_are_of_patients_and_seeds_differ():
    records = records_of(PATIENTS)
    got = split(records, "random_patient", seed=3, fractions=(0.6, 0.1, 0.3))
    parts = got.passport["parts"]
    assert {k: v["patients"] for k, v in parts.items()} == {
        "train": 60,
        "val": 10,
        "test": 30,
    }
    assert {k: v["images"] for k, v in parts.items()} == {
        "train": 180,
        "val": 30,
        "test": 90,
    }
    again = split(records, "random_patient", seed=3, fractions=(0.6, 0.1, 0.3))
    other = split(records, "random_patient", seed=4, fractions=(0.6, 0.1, 0.3))
    assert got.passport == again.passport
    assert got.passport["parts"]["test"] != other.passport["parts"]["test"]


def test_the_draw_depends_on_names_not_on_row_order():
    records = records_of(PATIENTS)
    shuffled = records_of(
        [PATIENTS[k] for k in np.random.default_rng(0).permutation(300)]
    )
    for part in splits.PARTS:
        a = split(records, "random_patient").parts[part]
        b = split(shuffled, "random_patient").parts[part]
        assert set(records.patient[a]) == set(shuffled.patient[b])


def test_image_level_leaks_and_says_so():
    records = records_of(PATIENTS)
    got = split(records, "image_level")
    sets = [set(records.patient[i]) for i in got.parts.values()]
    counted = sum(sum(p in s for s in sets) > 1 for p in set(PATIENTS))
    assert got.passport["patient_overlap"] == counted > 30
    assert [len(i) for i in got.parts.values()] == [210, 30, 60]


def test_official_keeps_the_test_list_and_divides_the_rest_by_patient():
    listed = ["train_val"] * 240 + ["test"] * 60
    records = records_of(PATIENTS, official=listed)
    got = split(records, "official", seed=1, fractions=(0.75, 0.25, 1e-9))
    assert got.parts["test"].tolist() == list(range(240, 300))
    assert len(got.parts["val"]) == 60 and len(got.parts["train"]) == 180
    assert got.passport["patient_overlap"] == 0


def test_the_passport_is_what_a_stranger_would_compute():
    column = ["train", "val", "test", "", "train", "test"]
    records = records_of(list("abcdae"), patient_disjoint=column)
    got = split(records, "patient_disjoint", seed=7)
    assert {k: v.tolist() for k, v in got.parts.items()} == {
        "train": [0, 4],
        "val": [1],
        "test": [2, 5],
    }
    digest = hashlib.sha256(b"c_002.png\ne_005.png").hexdigest()
    assert got.passport == {
        "dataset": "d/c",
        "version": "1.0.0",
        "scheme": "patient_disjoint",
        "seed": None,
        "fractions": None,
        "parts": {
            "train": {
                "images": 2,
                "patients": 1,
                "sha256": splits.ids_sha256(["a_004.png", "a_000.png"]),
            },
            "val": {
                "images": 1,
                "patients": 1,
                "sha256": hashlib.sha256(b"b_001.png").hexdigest(),
            },
            "test": {"images": 2, "patients": 2, "sha256": digest},
        },
        "patient_overlap": 0,
        "left_out": 1,
    }


@settings(max_examples=40, deadline=None)
@given(
    films=st.lists(st.integers(1, 6), min_size=30, max_size=60),
    holdout=st.integers(1, 8),
    seed=st.integers(0, 2**31),
)
def test_films_set_apart_take_their_patients_with_them(films, holdout, seed):
    patients = [f"p{k}" for k, count in enumerate(films) for _ in range(count)]
    records = records_of(patients)
    how = {"seed": seed, "fractions": (0.8, 0.2, 0.0), "holdout": holdout}
    got = split(records, "set_apart", **how)
    assert len(got.parts["test"]) == holdout
    sets = {part: set(records.patient[i]) for part, i in got.parts.items()}
    rest = set(patients) - sets["test"]
    assert sets["train"] | sets["val"] == rest and not sets["train"] & sets["val"]
    assert len(sets["val"]) == round(0.2 * len(rest))
    # Every film of the rest is used, and of the test's patients no other film is.
    others = sum(p in sets["test"] for p in patients) - holdout
    assert got.passport["left_out"] == others
    assert got.passport["patient_overlap"] == 0
    assert got.passport["holdout"] == holdout and got.passport["holdout_from"] == ""
    by_film = split(records, "set_apart_image_level", **how)
    np.testing.assert_array_equal(by_film.parts["test"], got.parts["test"])
    assert len(by_film.parts["val"]) == round(0.2 * (len(patients) - others - holdout))


def test_the_seed_and_the_names_draw_what_is_set_apart():
    records = records_of(PATIENTS)
    by_hand = sorted(
        records.id, key=lambda i: hashlib.sha256(f"5\n{i}".encode()).digest()
    )
    got = split(records, "set_apart", seed=5, holdout=7)
    assert set(records.id[got.parts["test"]]) == set(by_hand[:7])
    other = split(records, "set_apart", seed=6, holdout=7)
    assert set(other.parts["test"]) != set(got.parts["test"])


def test_films_may_be_set_apart_from_a_listed_part():
    """Readers of a phantom saw the films of its test part alone."""
    listed = ["train"] * 150 + ["val"] * 30 + ["test"] * 120
    records = records_of(PATIENTS, patient_disjoint=listed)
    how = {"holdout": 20, "holdout_from": "patient_disjoint/test"}
    got = split(records, "set_apart", **how)
    assert (got.parts["test"] >= 180).all() and len(got.parts["test"]) == 20
    # Its other patients are trained on.
    assert (got.parts["train"] >= 180).any()
    assert got.passport["holdout_from"] == "patient_disjoint/test"


@pytest.mark.parametrize(
    "scheme, how, words",
    [
        ("by_moon", {}, "'by_moon' is unknown; allowed: official, patient_disjoint"),
        ("patient_disjoint", {}, "has no lists for the split 'patient_disjoint'"),
        ("official", {}, "1 patients are in more than one part, such as p000"),
        ("random_patient", {"fractions": (0.5, 0.5)}, "three numbers above 0"),
        ("random_patient", {"fractions": (0.9, 0.2, -0.1)}, "three numbers above 0"),
        ("random_patient", {"fractions": (0.7, 0.2, 0.2)}, "add up to 1"),
        ("random_patient", {"fractions": (0.998, 0.001, 0.001)}, "no films in val and"),
        ("random_patient", {"fractions": (0.8, 0.2, 0.0)}, "three numbers above 0"),
        ("set_apart", {"fractions": (1.0, 0.0, 0.0)}, "three numbers above 0"),
        ("set_apart", {"holdout": 0}, "data.holdout=0: 1 to 300 films can be"),
        ("set_apart", {}, "data.holdout=420: 1 to 300 films can be set apart"),
        (
            "set_apart",
            {"holdout": 2, "holdout_from": "official/test"},
            "data.holdout=2: 1 to 1 films of official/test",
        ),
        (
            "set_apart",
            {"holdout": 2, "holdout_from": "moon/test"},
            "data.holdout_from='moon/test' is no part",
        ),
        (
            "set_apart",
            {"holdout": 2, "holdout_from": "patient_disjoint/test"},
            r"no lists for the split 'patient_disjoint' \(it has official\)",
        ),
    ],
)
def test_what_cannot_be_split_is_one_line(scheme, how, words):
    leaking = ["test", *["train_val"] * 299]
    records = records_of(PATIENTS, official=leaking)
    with pytest.raises(DataError, match=words) as caught:
        split(records, scheme, **how)
    assert "\n" not in str(caught.value)


def test_a_release_without_a_test_part_is_taken_as_it_is():
    records = records_of(list("aabc"), released=["train", "train", "val", ""])
    got = split(records, "released")
    assert [got.parts[p].tolist() for p in splits.PARTS] == [[0, 1], [2], []]
    assert got.passport["seed"] is None and got.passport["left_out"] == 1
    with pytest.raises(DataError, match="no films in test"):
        split(records, "released", required=("test",))
    with pytest.raises(DataError, match="no films in val"):
        split(records_of(list("abcd"), released=["train"] * 4), "released")


def test_the_lists_of_chest_imagenome_are_taken_as_they_are():
    parts = ["test", "val", "train", "", "train"]
    records = records_of(list("abcde"), released=["train"] * 5, imagenome=parts)
    got = split(records, "imagenome")
    assert [got.parts[p].tolist() for p in splits.PARTS] == [[2, 4], [1], [0]]
    assert got.passport["seed"] is None and got.passport["left_out"] == 1
    shared = records_of(list("aacde"), imagenome=parts)
    with pytest.raises(DataError, match="1 patients are in more than one part"):
        split(shared, "imagenome")


def test_parts_have_names():
    assert splits.parse_part("val") == ("", "val")
    assert splits.parse_part("official/test") == ("official", "test")
    for name in ("official/train_val", "moon/test", "/test", "", "official"):
        with pytest.raises(DataError, match=f"here={name!r} is no part"):
            splits.parse_part(name, key="here")


def test_zero_films_of_a_part_only_matter_where_they_are_needed():
    records = records_of(list("abc"), patient_disjoint=["test"] * 3)
    with pytest.raises(DataError, match="no films in train and val"):
        split(records, "patient_disjoint")
    got = split(records, "patient_disjoint", required=("test",))
    assert [len(i) for i in got.parts.values()] == [0, 0, 3]


def test_films_without_patients_cannot_be_split_by_patient():
    records = records_of(["a", "", "b", ""])
    with pytest.raises(DataError, match="2 of 4 films name no patient"):
        split(records, "random_patient")
    got = split(records, "image_level", fractions=(0.5, 0.25, 0.25))
    assert got.passport["patient_overlap"] == 0


def test_the_real_lists_do_not_share_a_patient(real_dir):
    """Sizes of the public 70/10/20 split, through our own splitting."""
    nih = real_dir / "nih"
    entries = tables.read_entries(nih / "labels" / "Data_Entry_2017_v2020.csv.gz")
    part = {}
    for name in splits.PARTS:
        file = nih / "splits" / f"patient_disjoint_{name}.txt.gz"
        part.update(dict.fromkeys(tables.read_list(file).names, name))
    rows = list(entries.values())
    records = records_of(
        [row.patient for row in rows],
        patient_disjoint=[part[row.image] for row in rows],
    )
    passport = split(records, "patient_disjoint").passport
    assert passport["patient_overlap"] == 0 == passport["left_out"]
    assert {k: (v["images"], v["patients"]) for k, v in passport["parts"].items()} == {
        "train": (78_468, 21_528),
        "val": (11_219, 3_090),
        "test": (22_433, 6_187),
    }
    assert abs(_drawn_420(records)["left_out"] - 6_606) < 4 * 431
    drawn = split(records, "random_patient").passport["parts"]
    assert abs(drawn["train"]["images"] / 112_120 - 0.7) < 0.01


def _drawn_420(records):
    """Of 420 random films: 408 patients (sd 3), 6,606 further films of theirs (sd 431).

    Of v3's 112,120 films, 105,408 are in its parts: 6,712 were left out. It had 389
    patients, so its 420 were not quite drawn like this.
    """
    passport = split(records, "set_apart", fractions=(0.8, 0.2, 0.0)).passport
    parts = passport["parts"]
    assert parts["test"]["images"] == 420
    assert abs(parts["test"]["patients"] - 408) < 5 * 3.1
    assert sum(p["patients"] for p in parts.values()) == 30_805
    assert passport["left_out"] + sum(p["images"] for p in parts.values()) == 112_120
    return passport
