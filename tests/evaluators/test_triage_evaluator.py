"""The worklist: its order, its words, and a threshold that was frozen elsewhere."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from cxr_jax import studies
from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import check_requirements, plain
from cxr_jax.evaluators.probabilities import Probabilities
from cxr_jax.evaluators.triage import Triage
from cxr_jax.predictions import Predictions

POINT = "sensitivity@0.95"
SCORES = (0.3, 0.9, 0.1, 0.7, 0.3, 0.2, 0.8, 0.5)
LABELS = (0, 1, 0, 1, 1, 0, 0, np.nan)


def table(scores=SCORES, labels=LABELS, *, name="s"):
    count = len(scores)
    one = Predictions(
        classes=("Abnormality",),
        ids=np.array([f"{name}{k}" for k in range(count)]),
        patients=np.array([f"{name}p{k}" for k in range(count)]),
        studies=np.array([f"{name}{k}" for k in range(count)]),
        index=np.arange(count),
        probs=np.array(scores, float)[:, None],
        labels=np.array(labels, np.float32)[:, None],
    )
    parts = np.array(["Hand", "Wrist"])[np.arange(count) % 2]
    return studies.by_category(one, parts, names=("Hand", "Wrist"), whole="All")


def frozen_at(threshold, reason=None, *, column="All"):
    point = {"threshold": threshold, "reason": reason}
    return {"operating_points": {column: {POINT: point}}}


def run(predictions, frozen, **settings):
    found = plain(Triage(**settings)(predictions, frozen))
    return json.loads(json.dumps(found, allow_nan=False))["triage"]


def test_the_list_is_in_order_of_suspicion_and_says_nothing_is_normal():
    block = run(table(), frozen_at(0.3))
    assert [row["id"] for row in block["list"]] == [
        "s1", "s6", "s3", "s7", "s0", "s4", "s5", "s2",  # equal scores as they came
    ]  # fmt: skip
    first, last = block["list"][0], block["list"][-1]
    assert first == {
        "id": "s1",
        "category": "Wrist",
        "score": 0.9,
        "above": True,
        "label": 1,
    }
    assert last["category"] == "Hand" and last["above"] is False
    assert [row["above"] for row in block["list"]] == [True] * 6 + [False] * 2
    assert block["list"][3]["label"] is None
    assert "normal" not in json.dumps(block).replace("abnormal", "")


def test_what_is_ruled_out_and_missed_is_counted_by_hand():
    block = run(table(), frozen_at(0.31))
    # Below are 0 (0), 4 (1), 5 (0) and 2 (0); of the four negatives 6 stands above.
    assert (block["n"], block["positives"], block["negatives"]) == (8, 3, 4)
    assert block["ruled_out"] == 3 / 4
    assert (block["missed"]["count"], block["missed"]["below"]) == (1, 4)
    assert stats.binom.cdf(1, 4, block["missed"]["upper"]) == pytest.approx(0.05)
    # Ranks of 1, 3 and 4 are 1, 3 and 5.5, which it shares with 0.
    assert block["rank"] == {
        "mean": pytest.approx(9.5 / 3),
        "chance": 4.5,
        "best": 2.0,
    }
    # A score at the threshold itself is called.
    at = run(table(), frozen_at(0.3))
    assert at["ruled_out"] == 2 / 4
    assert (at["missed"]["count"], at["missed"]["below"]) == (0, 2)


def test_the_share_ruled_out_has_the_interval_of_a_binomial():
    """One study per patient: the bootstrap of a share of n is the binomial's over n."""
    rng = np.random.default_rng(0)
    scores, labels = rng.random(200), np.arange(200) % 2
    block = run(table(scores, labels), frozen_at(0.3), resamples=4_000)
    share = (scores[labels == 0] < 0.3).mean()
    assert block["ruled_out"] == pytest.approx(share)
    error = np.sqrt(share * (1 - share) / 100)
    ends = block["ruled_out_low"], block["ruled_out_high"]
    assert ends == pytest.approx(
        (share - 1.96 * error, share + 1.96 * error), abs=0.015
    )
    none = run(table(), frozen_at(0.05), resamples=50)  # the exact one of 4 patients
    assert (none["ruled_out"], none["ruled_out_low"]) == (0, 0)
    assert none["ruled_out_high"] == pytest.approx(1 - 0.025 ** (1 / 4))
    assert "ruled_out_low" not in run(table(), frozen_at(0.3))


def test_the_threshold_is_that_of_the_validation_part():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200).astype(float)
    scores = rng.normal(size=200) + labels
    probs = 1 / (1 + np.exp(-scores))
    val, test = (
        table(probs[:100], labels[:100], name="v"),
        table(probs[100:], labels[100:]),
    )
    points = Probabilities(sensitivity=0.95)
    frozen = json.loads(json.dumps(plain(points.freeze(val))))
    block = run(test, frozen)
    reached = [
        t for t in probs[:100] if (probs[:100] >= t)[labels[:100] == 1].mean() >= 0.95
    ]
    assert block["threshold"] == max(reached) and block["reason"] is None
    below = probs[100:] < max(reached)
    assert block["ruled_out"] == pytest.approx(below[labels[100:] == 0].mean())
    assert block["missed"]["count"] == (below & (labels[100:] == 1)).sum()


def test_without_a_threshold_the_list_stands_and_nothing_is_ruled_out():
    for frozen, reason in (
        ({}, "no threshold was frozen"),
        (None, "no threshold was frozen"),
        (frozen_at(0.3, column="Hand"), "no threshold was frozen"),
        (frozen_at(None, "unattainable: so"), "unattainable: so"),
    ):
        block = run(table(), frozen)
        assert block["threshold"] is None and block["reason"] == reason
        assert "ruled_out" not in block and "missed" not in block
        assert {row["above"] for row in block["list"]} == {None}
        assert block["rank"]["mean"] is not None


def test_what_cannot_be_divided_is_null():
    block = run(table(labels=[1.0] * 8), frozen_at(0.3))
    assert block["negatives"] == 0 and block["ruled_out"] is None
    block = run(table(labels=[0.0] * 8), frozen_at(0.3))
    assert block["ruled_out"] == 2 / 8
    assert block["rank"]["mean"] is None and block["missed"]["count"] == 0


def test_another_column_has_its_own_studies_alone():
    frozen = frozen_at(0.31) | {}
    frozen["operating_points"]["Hand"] = {POINT: {"threshold": 0.25}}
    block = run(table(), frozen, column="Hand")
    # Of Hand are 0, 2, 4 and 6.
    assert block["threshold"] == 0.25
    assert [row["id"] for row in block["list"]] == ["s6", "s0", "s4", "s2"]
    assert (block["n"], block["positives"], block["negatives"]) == (4, 1, 3)
    assert block["rank"] == {"mean": 2.5, "chance": 2.5, "best": 1.0}
    assert block["ruled_out"] == 1 / 3


def test_a_point_that_nobody_freezes_is_refused():
    both = (Probabilities(sensitivity=0.95), Triage(point=POINT))
    check_requirements(both, ("labels", "probs"))
    other = (Probabilities(sensitivity=0.9), Triage(point=POINT))
    with pytest.raises(ConfigError, match=r"Triage calls films at 'sensitivity@0\.95'"):
        check_requirements(other, ("labels", "probs"))


def test_a_table_without_categories_has_empty_ones():
    one = table()
    bare = dataclasses.replace(
        one,
        classes=("Abnormality",),
        findings=(),
        member=None,
        probs=one.probs[:, -1:],
        labels=one.labels[:, -1:],
    )
    block = run(bare, frozen_at(0.3, column="Abnormality"))
    assert block["column"] == "Abnormality" and block["ruled_out"] == 2 / 4
    assert {row["category"] for row in block["list"]} == {""}
