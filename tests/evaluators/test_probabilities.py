"""Frozen on validation, reported elsewhere: what the evaluator writes, and when not."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn import metrics as sk

from cxr_jax import evaluate
from cxr_jax.data import splits
from cxr_jax.evaluators.classification import Classification
from cxr_jax.evaluators.probabilities import Probabilities
from cxr_jax.predictions import Predictions

CLASSES = ("Pneumonia", "Mass", "Hernia")
RATE = np.array([0.08, 0.2, 0.004])
ABOUT = {
    "dataset": "some/1.0.0",
    "split_sha256": "ab",
    "checkpoint_step": 3,
    "weights_sha256": "cd",
}


def make_table(seed, *, films=3000, shift=0.0, truth=False):
    """Well-behaved scores at the stated prevalences, but for a shift of the first."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((films, 3)) < RATE).astype(np.float32)
    z = 2 * (rng.normal(size=labels.shape) + 2 * labels) - 2 + logit(RATE)
    z[:, 0] += shift
    return Predictions(
        classes=CLASSES,
        ids=np.array([f"{seed}_{k:05d}.png" for k in range(films)]),
        patients=np.array([f"{seed}_{k // 2}" for k in range(films)]),
        studies=np.array([""] * films),
        index=np.arange(films),
        probs=expit(z).astype(np.float32),
        labels=labels,
        truth=labels if truth else None,
    )


@pytest.fixture(scope="module")
def judged():
    """Shifted by the oversampling of 8% to a half; frozen on one table."""
    shift = logit(0.5) - logit(RATE[0])
    val, test = make_table(1, shift=shift), make_table(2, shift=shift)
    evaluators = (Classification(), Probabilities(resamples=100))
    frozen = json.loads(json.dumps(evaluate.freeze(evaluators, val), allow_nan=False))
    results = [
        evaluate.evaluate_table(
            t, split=s, evaluators=evaluators, frozen=frozen, **ABOUT
        )
        for s, t in (("val", val), ("test", test))
    ]
    json.dumps(results, allow_nan=False)
    return frozen, val, test, *results


def test_points_are_reported_with_the_frozen_threshold(judged):
    frozen, _, test, _, result = judged
    for c, name in enumerate(CLASSES):
        for point in ("youden", "sensitivity@0.9", "specificity@0.9", "f1"):
            block = result["operating_points"]["per_class"][name][point]
            threshold = frozen["operating_points"][name][point]["threshold"]
            assert block["threshold"] == threshold
            called = test.probs[:, c].astype(np.float64) >= threshold
            matrix = sk.confusion_matrix(test.labels[:, c], called)
            assert [
                block[k] for k in ("tn", "fp", "fn", "tp")
            ] == matrix.ravel().tolist()
            found = block["sensitivity"]
            recall = sk.recall_score(test.labels[:, c], called)
            assert found["value"] == pytest.approx(recall)
            assert found["low"] <= found["value"] <= found["high"]


def test_the_part_of_the_choice_is_called_in_sample(judged):
    frozen, val, _, on_val, on_test = judged
    passport = splits.ids_sha256(val.ids.tolist())
    assert frozen["chosen_on"] == {"n": len(val), "ids_sha256": passport}
    assert on_val["operating_points"]["in_sample"]
    assert on_val["calibration"]["platt"]["in_sample"]
    assert not on_test["operating_points"]["in_sample"]
    point = frozen["operating_points"]["Mass"]["youden"]
    block = on_val["operating_points"]["per_class"]["Mass"]["youden"]
    assert block["sensitivity"]["value"] == pytest.approx(point["sensitivity"])


def test_oversampled_probabilities_come_out_at_natural_prevalence(judged):
    _, val, test, on_val, on_test = judged
    block = on_test["calibration"]["platt"]["per_class"]["Pneumonia"]
    raw = on_test["calibration"]["per_class"]["Pneumonia"]
    assert test.probs[:, 0].mean() > 2 * RATE[0]
    assert raw["ece"] > 0.1
    assert block["calibrated"]["ece"] < 0.02
    assert block["calibrated"]["brier_skill"] > raw["brier_skill"]
    assert block["calibrated"]["mean_probability"] == pytest.approx(RATE[0], abs=0.02)
    assert block["raw"]["in_the_large"] < -2
    assert block["calibrated"]["slope_low"] < 1 < block["calibrated"]["slope_high"]
    # The cooled one has no intercept: it keeps the error.
    assert block["temperature_alone"]["ece"] > 5 * block["calibrated"]["ece"]
    same = on_val["calibration"]["platt"]["per_class"]["Pneumonia"]["calibrated"]
    assert same["mean_probability"] == pytest.approx(val.labels[:, 0].mean(), abs=1e-7)


def test_few_positive_patients_leave_a_score(judged):
    frozen, *_, result = judged
    assert frozen["platt"]["Hernia"]["slope"] is None
    reason = "score, uncalibrated: fewer than 20 positive patients"
    block = result["calibration"]["platt"]["per_class"]["Hernia"]
    assert block["reason"] == reason and block["calibrated"] is None
    curve = result["operating_points"]["decision_curves"]["per_class"]["Hernia"]
    assert curve == {"reason": reason}
    point = frozen["operating_points"]["Hernia"]["youden"]
    assert point["flag"] == "fewer than 20 positive patients"


def test_the_other_evaluators_calibration_stands(judged):
    *_, result = judged
    assert set(result["calibration"]) == {"probabilities", "bins", "per_class", "platt"}
    assert "brier" in result["calibration"]["per_class"]["Mass"]


def test_predictive_values_at_the_own_prevalence_are_the_measured_ones(judged):
    *_, test, _, result = judged
    block = result["operating_points"]["per_class"]["Mass"]["youden"]
    grid = result["operating_points"]["prevalences"]
    at = block["at_prevalence"]
    own = test.labels[:, 1].mean()
    assert np.interp(own, grid, at["ppv"]) == pytest.approx(
        block["ppv"]["value"], abs=0.02
    )
    inside = np.array(at["ppv_low"]) <= at["ppv"]
    assert inside.all() and (np.array(at["npv"]) <= at["npv_high"]).all()


def test_without_a_validation_part_nothing_is_chosen():
    table = make_table(5, films=400)
    blocks = Probabilities()(table, {})
    points = blocks["operating_points"]
    assert "per_class" not in points and "nothing was frozen" in points["reason"]
    scaled = blocks["calibration"]["platt"]["per_class"]["Mass"]
    assert scaled["calibrated"] is None and scaled["raw"]["slope"] is not None
    assert "nothing was frozen" in scaled["reason"]


def test_truth_is_reported_beside_the_labels():
    val, test = make_table(1), make_table(2, truth=True)
    blocks = Probabilities()(test, Probabilities().freeze(val))["operating_points"]
    one, two = (evaluate.plain(blocks[k]) for k in ("per_class", "per_class@truth"))
    assert one == two  # equal here


def test_order_of_films_does_not_matter():
    val, test = make_table(1), make_table(2, films=500)
    turn = np.random.default_rng(0).permutation(500)
    moved = dataclasses.replace(
        test,
        **{
            f.name: getattr(test, f.name)[turn]
            for f in dataclasses.fields(test)
            if isinstance(getattr(test, f.name), np.ndarray)
        },
    )
    frozen = Probabilities().freeze(val)
    one, two = (
        Probabilities(resamples=20)(t, frozen)["operating_points"]["per_class"]
        for t in (test, moved)
    )
    assert json.dumps(evaluate.plain(one)) == json.dumps(evaluate.plain(two))
