"""A planted disparity shows, a phantom without one shows none beyond chance.

Patients, views and severities are the phantom's; in place of films and a network stands a
score that rises with severity, so that nothing but the planted difference matters.
"""

import dataclasses
import json

import numpy as np
import pytest

from cxr_jax import evaluate
from cxr_jax.evaluators.probabilities import Probabilities
from cxr_jax.evaluators.subgroups import GROUP, Subgroups
from cxr_jax.labels import NIH14
from cxr_jax.metrics.disparity import MISSED, PER_CLASS
from cxr_jax.predictions import Predictions
from data_builders.phantom_chest import acquisition
from data_builders.phantom_chest import cohort as cohorts
from data_builders.phantom_chest import phantom_chest_dataset_builder as builder

PNEUMOTHORAX = NIH14.index("Pneumothorax")


def judge(cohort, part, *, seed, leans_on_tube=0.0, alarmed_by_women=0.0):
    """Scores of a reader who sees severity, perhaps a tube, or shadows in women."""
    rows = [
        visit
        for patient in cohorts.schedule(cohort)
        if patient.split == part
        for visit in cohorts.visits(cohort, patient)
    ]
    rng = np.random.default_rng(seed)
    severity = np.stack([v.severity for v in rows])
    tube = np.array(
        [acquisition.draw_devices(cohort, v)[acquisition.TUBE] for v in rows]
    )
    z = 1.2 * rng.normal(size=severity.shape) - 3 + 4.5 * severity**0.7
    z[:, PNEUMOTHORAX] += leans_on_tube * tube
    female = np.array([v.patient.female for v in rows])
    truth = np.stack([v.truth for v in rows])
    z += alarmed_by_women * female[:, None] * (1 - truth)
    names = [f"{v.patient.number:08d}" for v in rows]
    return Predictions(
        classes=NIH14,
        ids=np.array([f"{n}_{v.film}" for n, v in zip(names, rows, strict=True)]),
        patients=np.array(names),
        studies=np.array([""] * len(rows)),
        index=np.arange(len(rows)),
        probs=(1 / (1 + np.exp(-z))).astype(np.float32),
        labels=np.stack([cohorts.mined_labels(cohort, v) for v in rows]),
        truth=truth,
        age=np.array([v.patient.age for v in rows], np.float32),
        sex=np.where(female, "F", "M"),
        view=np.array(["AP" if v.ap else "PA" for v in rows]),
        observed={GROUP + "chest_tube": np.where(tube, "yes", "no")},
    )


def block_of(cohort, **about):
    val, test = (
        judge(cohort, part, seed=k, **about) for k, part in enumerate(("val", "test"))
    )
    evaluators = (Probabilities(), Subgroups(resamples=200, crossed=2))
    frozen = evaluate.freeze(evaluators, val)
    block = evaluate.plain(evaluators[1](test, frozen))["subgroups"]
    json.dumps(block, allow_nan=False)
    return block


@pytest.fixture(scope="module")
def plain():
    return block_of(builder.TINY)


@pytest.fixture(scope="module")
def planted():
    return block_of(builder.DISPARITY)


def gap(block, name):
    return next(g for g in block["gaps"] if g["name"] == name)


@pytest.mark.parametrize(
    "name", ["sex: F - M", "sex: F - M, view=AP", "sex: F - M, view=PA"]
)
def test_a_planted_sex_disparity_shows(planted, name):
    found = gap(planted, name)["mean"]
    for measure in ("auroc", "tpr"):
        assert found[measure]["beyond_chance"] and found[measure]["high"] < -0.05
    assert not found["fpr"]["beyond_chance"]  # nothing was planted there
    assert planted["multiplicity"]["mean"]["beyond_chance"] >= 6


def test_a_disparity_of_sex_is_none_of_age_or_view(planted):
    for found in planted["gaps"]:
        if found["axis"] != "sex":
            for name in ("auroc", "tpr", "fpr"):
                assert not found["mean"][name].get("beyond_chance"), found["name"]


@pytest.fixture(scope="module")
def alarmed():
    return block_of(builder.TINY, alarmed_by_women=0.6)


@pytest.mark.parametrize("name", ["sex: F - M", "sex: F - M, view=PA"])
@pytest.mark.long
def test_planted_false_alarms_show_as_such_and_as_overconfidence(alarmed, name):
    found = gap(alarmed, name)["mean"]
    for measure in ("fpr", "calibration"):
        assert found[measure]["beyond_chance"] and found[measure]["low"] > 0, measure
    assert found["fpr"]["patients"] > 5 * found["tpr"]["patients"]
    assert not found["tpr"]["beyond_chance"]  # nothing was planted there


@pytest.mark.long
def test_false_alarms_in_women_are_none_of_age_or_view(alarmed):
    for found in alarmed["gaps"]:
        if found["axis"] != "sex":
            for name in ("fpr", "calibration"):
                assert not found["mean"][name].get("beyond_chance"), found["name"]


@pytest.mark.long
def test_without_one_none_is_reported_beyond_chance(plain):
    for found in plain["gaps"]:
        for name in ("auroc", "tpr", "fpr", MISSED):
            assert not found["mean"][name].get("beyond_chance"), found["name"]
        for single in found["per_class"].values():
            for name in ("auroc", "tpr", "fpr"):
                assert not single[name].get("beyond_chance"), found["name"]
    family = plain["multiplicity"]["mean"]
    assert family["gaps"] > 40
    assert family["expected_by_chance"] == pytest.approx(
        0.05 * family["gaps"], abs=0.06
    )
    for found in ("sex: F - M", "sex: F - M, view=AP"):
        for name in PER_CLASS:
            assert not gap(plain, found)["mean"][name]["beyond_chance"]


@pytest.mark.long
def test_a_device_that_goes_with_the_finding_confounds():
    """Link on, and a reader who leans on the tube: without one, fewer are found."""
    on = block_of(builder.CONFOUNDED, leans_on_tube=4.0)
    found = gap(on, "chest_tube: yes - no")["per_class"]["Pneumothorax"]
    assert found["tpr"]["value"] > 0.1 and found["tpr"]["low"] > 0
    assert found["fpr"]["value"] is None  # no tube without the finding
    with_tube = on["groups"]["chest_tube=yes"]["per_class"]["Pneumothorax"]
    assert with_tube["reason"] == "suppressed: fewer than 10 negative patients"
    assert with_tube["tpr"]["value"] > 0.9 and with_tube["auroc"]["value"] is None


@pytest.mark.long
def test_link_off_and_nobody_leans_on_it(plain):
    found = gap(plain, "chest_tube: yes - no")["per_class"]["Pneumothorax"]["tpr"]
    assert found["low"] < 0 < found["high"]


def test_the_block_says_what_it_rests_on(planted):
    assert planted["reference"] == "truth" and planted["operating_point"] == "youden"
    assert not planted["in_sample"] and planted["reason"] is None
    groups = planted["groups"]
    assert groups["all"]["films"] == sum(groups[f"sex={s}"]["films"] for s in "FM")
    assert {"sex=F, age=18-39", "age=40-59, view=AP", "sex=M, view=PA"} <= set(groups)
    old = groups["age=80+"]["per_class"]["Hernia"]
    few = old["positive_patients"] < 10
    assert few == (old["reason"] == "suppressed: fewer than 10 positive patients")
    shown = groups["sex=F"]["per_class"]["Effusion"]
    assert shown["calibration"]["value"] == pytest.approx(
        shown["mean_probability"] - shown["frequency"]
    )
    assert shown["tpr"]["low"] < shown["tpr"]["value"] < shown["tpr"]["high"]
    assert 0 < groups["sex=F"][MISSED]["value"] < 1


def test_without_frozen_thresholds_only_ranking_is_judged():
    table = judge(dataclasses.replace(builder.TINY, films=1500), "train", seed=3)
    table = dataclasses.replace(table, truth=None, observed={})
    block = evaluate.plain(Subgroups(crossed=1)(table, {}))["subgroups"]
    assert "nothing was frozen" in block["reason"] and block["reference"] == "labels"
    found = block["groups"]["sex=F"]["per_class"]["Effusion"]
    assert found["auroc"]["value"] > 0.5 and found["tpr"]["value"] is None
    assert found["tpr"]["reason"] == "no threshold"
    assert block["groups"]["all"][MISSED]["value"] is None
    assert block["never_called"] == list(NIH14)


def test_nothing_known_of_the_patients_gives_no_block():
    table = judge(dataclasses.replace(builder.TINY, films=100), "train", seed=3)
    bare = dataclasses.replace(table, age=None, sex=None, view=None, observed={})
    assert Subgroups()(bare, {}) == {}
