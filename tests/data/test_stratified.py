"""The stratified split: whole patients, even labels, the same wherever it is drawn."""

import collections
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import common
from cxr_jax import workdir
from cxr_jax.data import balance, labelled, splits, stratify
from cxr_jax.data.records import Records
from cxr_jax.errors import ConfigError, DataError

CLASSES = ("Mass", "Edema", "Hernia")
PAPER = (0.7, 0.1, 0.2)


def records_of(films) -> Records:
    """From pairs of patient and labels; a film's name tells its patient and number."""
    seen = collections.Counter()
    names = []
    for patient, _ in films:
        names.append(f"{patient}_{seen[patient]:03d}.png")
        seen[patient] += 1
    count = len(films)
    nothing, words = np.full(count, np.nan, np.float32), np.array([""] * count)
    labels = [[np.nan if f is None else f for f in flags] for _, flags in films]
    return Records(
        classes=CLASSES,
        id=np.array(names),
        patient=np.array([patient for patient, _ in films]),
        study=words,
        follow_up=nothing,
        age=nothing,
        sex=words,
        view=words,
        labels=np.array(labels, np.float32).reshape(count, len(CLASSES)),
    )


def split(records, scheme="stratified", **how):
    return splits.split_records(records, scheme, dataset="d", version="1", **how)


def films_of(records, got):
    return {part: set(records.id[index]) for part, index in got.parts.items()}


def crowd(patients=400, seed=0):
    """Films of patients of whom some come often; labels of a patient go together."""
    rng = np.random.default_rng(seed)
    films = []
    for k in range(patients):
        prone = rng.random(len(CLASSES)) * (0.5, 0.3, 0.1)
        for _ in range(min(rng.geometric(0.3), 40)):
            films.append((f"p{k:04d}", (rng.random(len(CLASSES)) < prone).astype(int)))
    return films


flags = st.tuples(*[st.sampled_from([0, 1, None])] * len(CLASSES))


@settings(max_examples=40, deadline=None)
@given(
    films=st.lists(st.lists(flags, min_size=1, max_size=5), min_size=25, max_size=60),
    share=st.sampled_from([0.5, 0.8, 1.0]),
    seed=st.integers(-5, 2**40),
)
def test_patients_are_whole_and_each_used_film_is_in_one_part(films, share, seed):
    films[0][0] = (1, 0, 0)  # at least one label
    rows = [(f"p{k}", film) for k, own in enumerate(films) for film in own]
    rows += [("always", (1, 1, 1))] * 3
    records = records_of(rows)
    how = {"patients": share, "seed": seed, "fractions": (0.5, 0.25, 0.25)}
    got = split(records, required=(), **how)
    index = np.concatenate(list(got.parts.values())).tolist()
    assert len(index) == len(set(index))
    sets = [set(records.patient[i]) for i in got.parts.values()]
    used = set().union(*sets)
    assert sum(map(len, sets)) == len(used) == round(share * (len(films) + 1))
    assert sorted(index) == [k for k, (who, _) in enumerate(rows) if who in used]
    assert got.passport["left_out"] == len(rows) - len(index)
    assert got.passport["patient_overlap"] == 0
    assert got.passport["patients"] == share
    # The same patients are used by the other scheme that draws them.
    other = split(records, "random_patient", required=(), **how)
    assert {p for i in other.parts.values() for p in records.patient[i]} == used


def test_what_can_be_divided_evenly_is():
    """By hand: of ten patients of each kind 5, 2 and 3, however many films they have."""
    kinds = {
        "one mass": [(1, 0, 0)],
        "six masses": [(1, 0, 0)] * 6,
        "edema": [(0, 1, 0), (0, 0, 0)],
        "nothing": [(0, 0, 0)] * 2,
    }
    rows = [
        (f"{kind} {k}", f)
        for kind, own in kinds.items()
        for k in range(10)
        for f in own
    ]
    records = records_of(rows)
    for seed in range(5):
        got = split(records, seed=seed, fractions=(0.5, 0.2, 0.3))
        for part, expected in zip(splits.PARTS, (5, 2, 3), strict=True):
            who = set(records.patient[got.parts[part]])
            found = collections.Counter(name.rsplit(" ", 1)[0] for name in who)
            assert found == dict.fromkeys(kinds, expected)
        told = got.passport["balance"]
        assert told["films"]["deviation"] == told["patients"]["deviation"] == 0
        assert told["films"]["classes"]["Mass"] == {
            "train": {"count": 35, "share": 0.5},
            "val": {"count": 14, "share": 0.2},
            "test": {"count": 21, "share": 0.3},
        }
        assert told["films"]["classes"]["Hernia"]["val"] == {"count": 0, "share": None}
        assert told["patients"]["classes"][balance.NONE]["test"]["count"] == 6


def test_shares_are_near_their_targets_and_nearer_than_by_chance():
    records = records_of(crowd(1000))
    got = split(records, fractions=PAPER)
    counts = got.passport["balance"]["patients"]["classes"]
    for name in CLASSES:
        every = sum(part["count"] for part in counts[name].values())
        for part, share in zip(splits.PARTS, PAPER, strict=True):
            assert abs(counts[name][part]["count"] - share * every) < 2
    for unit in balance.UNITS:
        chance = np.mean([by_hand(records, unit, seed=seed) for seed in range(20)])
        assert got.passport["balance"][unit]["deviation"] < chance / 10


@pytest.mark.parametrize("seed", range(5))
def test_exchanges_make_films_even_and_leave_patients_as_dealt(seed):
    random = np.random.RandomState(seed)
    films = random.poisson(0.7, (200, 4)) * random.randint(1, 9, (200, 1))
    films[:, 3] = 0  # a label of nobody
    before = random.choice(3, 200, p=PAPER)
    given = before.copy()
    after = stratify.evened(films, before, PAPER, random)
    np.testing.assert_array_equal(before, given)
    for p in range(3):
        unions = [sorted(map(tuple, films[x == p] > 0)) for x in (before, after)]
        assert unions[0] == unions[1]
    counts = [balance.by_part(films, part, 3)["films"] for part in (before, after)]
    far, near = [balance.deviation(count, PAPER) for count in counts]
    assert near < far / 2


@pytest.mark.parametrize("seed", range(5))
def test_patients_who_come_often_are_dealt_out_first(seed):
    """By hand: ten of thirty films, twenty of one, of one union; before any exchange."""
    many = np.array([30 * (k % 3 == 0) or 1 for k in range(30)])
    films = np.stack([many, np.zeros(30, int)], axis=1)
    random = np.random.RandomState(seed)
    part = stratify.dealt(films, many, (0.5, 0.2, 0.3), random)
    assert np.bincount(part[many == 30]).tolist() == [5, 2, 3]
    assert np.bincount(part).tolist() == [15, 6, 9]


def test_patients_without_a_label_fill_the_parts_up():
    rng = np.random.default_rng(0)
    films = np.zeros((300, 4), int)
    films[:90, :3] = rng.poisson(0.8, (90, 3))
    films[90:, 3] = rng.geometric(0.5, 210)
    every = films.sum(axis=1) + 1
    part = stratify.dealt(films, every, PAPER, np.random.RandomState(0))
    assert np.bincount(part).tolist() == [210, 30, 60]
    # So do those who come often, of all and of those who have none; of the latter but
    # for what the labels left over.
    for least in (3, 5):
        often = np.bincount(part[every >= least])
        assert np.abs(often - np.array(PAPER) * often.sum()).max() < 2
    idle = np.bincount(part[films[:, :3].sum(axis=1) == 0])
    assert np.abs(idle - np.array(PAPER) * idle.sum()).max() < 6


def by_hand(records, unit, scheme="random_patient", **how):
    """The deviation by loops over films, apart from our counting."""
    return deviation(records, split(records, scheme, fractions=PAPER, **how), unit)


def deviation(records, got, unit):
    names = records.id if unit == "films" else records.patient
    away = []
    for c in range(len(records.classes)):
        ill = {
            part: {names[k] for k in index if records.labels[k, c] == 1}
            for part, index in got.parts.items()
        }
        every = sum(map(len, ill.values()))
        if every:
            pairs = zip(ill.values(), PAPER, strict=True)
            away += [abs(len(who) / every - f) / f for who, f in pairs]
    return sum(away) / len(away)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_passport_tells_what_a_stranger_would_count(share):
    records = records_of(crowd(150))
    got = split(records, fractions=PAPER, patients=share, seed=3)
    told = got.passport["balance"]
    assert told["targets"] == dict(zip(splits.PARTS, PAPER, strict=True))
    for unit in balance.UNITS:
        assert told[unit]["deviation"] == pytest.approx(
            deviation(records, got, unit), abs=1e-6
        )
    for part, index in got.parts.items():
        ill = [k for k in index if not records.labels[k].any()]
        assert told["films"]["classes"][balance.NONE][part]["count"] == len(ill)
        shown = told["patients"]["classes"]["Mass"][part]
        who = {records.patient[k] for k in index if records.labels[k, 0]}
        every = sum(p["count"] for p in told["patients"]["classes"]["Mass"].values())
        assert shown == {
            "count": len(who),
            "share": pytest.approx(len(who) / every, abs=1e-6),
        }
    assert list(told["films"]["classes"]) == [*CLASSES, balance.NONE]
    # Plain JSON, without NaN, and small.
    assert json.loads(json.dumps(got.passport, allow_nan=False)) == got.passport


def test_the_draw_depends_on_names_and_seed_alone():
    films = crowd(120)
    records = records_of(films)
    first = split(records, seed=7, patients=0.5)
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    assert split(records, seed=7, patients=0.5).passport == first.passport
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    order = np.random.default_rng(5).permutation(len(films))
    shuffled = Records(
        classes=CLASSES,
        **{
            name: getattr(records, name)[order]
            for name in vars(records)
            if name not in ("classes", "splits")
        },
    )
    again = split(shuffled, seed=7, patients=0.5)
    assert films_of(shuffled, again) == films_of(records, first)
    assert again.passport == first.passport
    other = split(records, seed=8, patients=0.5)
    assert films_of(records, other) != films_of(records, first)
    whole = split(records, seed=7)
    assert whole.passport["left_out"] == 0
    assert whole.passport["parts"] != split(records, seed=8).passport["parts"]


@pytest.mark.long
def test_another_process_draws_the_same():
    code = (
        "import sys; sys.path[:0] = ['tests/data', '.'];"
        "import test_stratified as t;"
        "print(t.split(t.records_of(t.crowd(60)), seed=2).passport)"
    )
    here = str(split(records_of(crowd(60)), seed=2).passport)
    for salt in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": salt},
            cwd=pathlib.Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here


def test_a_label_of_one_patient_is_in_one_part():
    rows = [*crowd(60), *[("one", (0, 0, 1))] * 4]
    records = records_of([(who, (*f[:2], f[2] * (who == "one"))) for who, f in rows])
    got = split(records, fractions=PAPER)
    shares = got.passport["balance"]["films"]["classes"]["Hernia"]
    # The part that lacks most of it: 0.7 of a patient.
    assert [shares[p]["share"] for p in splits.PARTS] == [1, 0, 0]
    assert shares["train"]["count"] == 4


@pytest.mark.parametrize(
    "scheme, how, words",
    [
        ("stratified", {"patients": 0.0}, "data.patients=0: a share above 0 and at mo"),
        ("stratified", {"patients": 1.5}, "data.patients=1.5: a share above 0 and at"),
        ("stratified", {"patients": float("nan")}, "data.patients=nan: a share above"),
        ("stratified", {"patients": 0.001}, "data.patients=0.001: none of 60 patients"),
        ("stratified", {"patients": 0.02}, r"has no films in val and test \(train "),
        ("stratified", {"fractions": (0.8, 0.2, 0)}, "three numbers above 0"),
        (
            "set_apart",
            {"patients": 0.5},
            "the split 'set_apart' takes all patients; giv",
        ),
        ("image_level", {"patients": 0.5}, "or choose random_patient or stratified"),
        ("released", {"patients": 0.5}, "the split 'released' takes all patients"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(scheme, how, words):
    with pytest.raises(DataError, match=words) as caught:
        split(records_of(crowd(60)), scheme, **how)
    assert "\n" not in str(caught.value)


def test_without_labels_or_patients_nothing_can_be_stratified():
    blank = records_of([(f"p{k}", (0, None, 0)) for k in range(30)])
    with pytest.raises(DataError, match="no film with a positive label to stratify"):
        split(blank)
    nameless = records_of([("", (1, 0, 0)), *crowd(20)])
    with pytest.raises(DataError, match="1 of .* films name no patient"):
        split(nameless)
    with pytest.raises(DataError, match="no films in val and test"):
        split(records_of([("a", (1, 0, 0))]))


def test_parts_have_names_here_too():
    assert splits.parse_part("stratified/test") == ("stratified", "test")


def test_a_run_does_not_go_on_with_another_division(tmp_path):
    """Another version of the library may divide otherwise, under the same config."""
    records = records_of(crowd(80))
    passport = split(records).passport
    workdir.prepare(tmp_path, common.base(), passport)
    (tmp_path / "checkpoints" / "latest" / "5").mkdir(parents=True)
    workdir.prepare(tmp_path, common.base(), split(records).passport)
    with pytest.raises(ConfigError, match="another split passport: .*parts; balance"):
        workdir.prepare(tmp_path, common.base(), split(records, seed=1).passport)


@pytest.fixture(scope="module")
def real(real_dir):
    source = labelled.read_source("chestxray14", manual_dir=str(real_dir / "nih"))
    return source.records


@pytest.mark.long
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_real_patients_are_divided_five_times_as_evenly_as_by_chance(real, share):
    start = time.perf_counter()
    got = split(real, patients=share).passport
    assert time.perf_counter() - start < 60
    assert got["patient_overlap"] == 0
    patients = sum(part["patients"] for part in got["parts"].values())
    assert patients == round(share * 30_805)
    for unit in balance.UNITS:
        assert list(got["balance"][unit]["classes"])[:-1] == list(real.classes)
    targets = got["fractions"]
    chance = [
        balance.balance(
            real, split(real, "random_patient", seed=s, patients=share).parts, targets
        )
        for s in range(20)
    ]
    for unit in balance.UNITS:
        mean = np.mean([drawn[unit]["deviation"] for drawn in chance])
        # A fifth is asked for; without levels or without exchanges it is about that.
        assert got["balance"][unit]["deviation"] <= mean / 10
