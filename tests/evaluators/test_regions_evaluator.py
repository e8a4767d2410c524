"""Regions against their usual place: by hand, then what is drawn."""

import dataclasses

import numpy as np
import pytest

from cxr_jax import boxes
from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.regions import USUAL, RegionQuality
from cxr_jax.predictions import Predictions
from cxr_jax.types import Batch, Prediction, Regions

NAMES = ("left", "right", "never")


def table(films=40, *, seed=0, error=0.02, often=0.0, presence=None):
    rng = np.random.default_rng(seed)
    centre = np.array([[0.3, 0.5], [0.7, 0.5], [0.5, 0.5]])
    centre = centre + 0.05 * rng.normal(size=(films, 3, 2))
    true = np.concatenate([centre - 0.15, centre + 0.15], axis=2).astype(np.float32)
    found = (true + error * rng.normal(size=true.shape)).astype(np.float32)
    there = rng.random((films, 3)) < (1.0, 0.7, often)
    zeros = np.zeros((films, 1), np.float32)
    said = there if presence is None else presence
    regions = Regions(xyxy=found, presence=None, probs=None, found=said)
    batch = Batch(
        image=None,
        labels=None,
        mask=None,
        position=None,
        index=None,
        regions=Regions(xyxy=true, presence=there, probs=None),
    )
    seen = RegionQuality().observe(
        Prediction(logits=zeros, probs=zeros, regions=regions), batch
    )
    made = Predictions(
        classes=("x",),
        ids=np.array([str(k) for k in range(films)]),
        patients=np.array([str(k // 2) for k in range(films)]),
        studies=np.array([""] * films),
        index=np.arange(films),
        probs=zeros,
        labels=zeros,
        observed={name: np.asarray(leaf) for name, leaf in seen.items()},
    )
    return made, true, found, there


def test_means_run_over_films_where_a_region_is_there():
    films, true, found, there = table()
    block = RegionQuality(regions=NAMES)(films)["regions"]
    iou = np.asarray(boxes.iou(found, true))
    for a, name in enumerate(NAMES[:2]):
        told = block["per_region"][name]
        assert told["iou"]["value"] == pytest.approx(
            iou[there[:, a], a].mean(), rel=1e-5
        )
        assert told["n"] == there[:, a].sum()
    assert plain(block)["per_region"]["never"]["iou"]["value"] is None
    values = [block["per_region"][n]["iou"]["value"] for n in NAMES[:2]]
    assert block["mean"]["iou"]["value"] == pytest.approx(np.mean(values))


def test_the_usual_place_is_frozen_elsewhere_and_beaten_by_looking():
    evaluator = RegionQuality(regions=NAMES, resamples=80)
    other, true, _, there = table(seed=1)
    frozen = evaluator.freeze(other)
    assert set(frozen[USUAL]) == {"left", "right"}
    expected = true[there[:, 1], 1].astype(float).mean(axis=0)
    np.testing.assert_allclose(frozen[USUAL]["right"], expected, rtol=1e-6)
    block = evaluator(table(seed=2)[0], frozen)["regions"]
    mean = block["mean"]
    assert mean["iou"]["value"] > mean["usual"]["value"]
    assert mean["difference"]["value"] == pytest.approx(
        mean["iou"]["value"] - mean["usual"]["value"]
    )
    assert mean["difference"]["low"] > 0
    assert mean["iou"]["low"] < mean["iou"]["value"] < mean["iou"]["high"]
    assert "usual" not in evaluator(table(seed=2)[0])["regions"]["mean"]


def test_perfect_regions_reach_one():
    films, *_ = table(error=0.0)
    mean = RegionQuality(regions=NAMES)(films)["regions"]["mean"]
    assert mean["iou"]["value"] == pytest.approx(1.0, abs=1e-6)


def test_a_region_without_a_usual_place_is_left_out_of_the_difference():
    """It is on no validation film: an IoU of 0 there would flatter the difference."""
    evaluator = RegionQuality(regions=NAMES, resamples=40)
    frozen = evaluator.freeze(table(seed=1)[0])
    block = plain(evaluator(table(seed=2, often=0.5)[0], frozen)["regions"])
    told = block["per_region"]["never"]
    assert told["n"] > 10 and 0 < told["iou"]["value"] < 1
    for name in ("usual", "difference"):
        assert told[name]["value"] is None and told[name]["low"] is None
        assert told[name]["reason"] == "unknown: on no film of the validation part"
        known = [block["per_region"][n][name]["value"] for n in NAMES[:2]]
        assert block["mean"][name]["value"] == pytest.approx(np.mean(known))
    three = [block["per_region"][n]["iou"]["value"] for n in NAMES]
    assert block["mean"]["iou"]["value"] == pytest.approx(np.mean(three))


def test_presence_by_hand():
    """Left: found on 30 of 40. Right: on 4 of 5 where it is, on 1 of 5 where not."""
    _, _, _, there = table()
    said = np.zeros((40, 3), bool)
    said[:30, 0] = True
    here, gone = np.flatnonzero(there[:, 1]), np.flatnonzero(~there[:, 1])
    said[here[: len(here) * 4 // 5], 1] = True
    said[gone[: len(gone) // 5], 1] = True
    block = RegionQuality(regions=NAMES, resamples=30)(table(presence=said)[0])[
        "regions"
    ]
    left, right, never = block["per_region"].values()
    assert left["found"]["value"] == 30 / 40 and left["absent"] == 0
    assert left["found"]["low"] < 30 / 40 < left["found"]["high"]
    assert left["falsely_found"]["value"] is None
    assert left["falsely_found"]["reason"] == "undefined: absent from no film"
    share = (len(here) * 4 // 5) / len(here)
    assert right["found"]["value"] == pytest.approx(share)
    false = (len(gone) // 5) / len(gone)
    assert 0 < false and right["falsely_found"]["value"] == pytest.approx(false)
    assert right["n"] == len(here) and right["absent"] == len(gone)
    assert never["found"]["reason"] == "undefined: on no film"
    assert never["falsely_found"]["value"] == 0
    mean = block["mean"]
    assert mean["found"]["value"] == pytest.approx((30 / 40 + share) / 2)
    assert mean["falsely_found"]["value"] == pytest.approx(false / 2)


def test_without_any_region_figures_are_null_and_say_why():
    films = table()[0]
    nowhere = np.zeros((40, 3), bool)
    films = dataclasses.replace(
        films, observed=films.observed | {"regions/there": nowhere}
    )
    evaluator = RegionQuality(regions=NAMES, resamples=20)
    block = plain(evaluator(films, evaluator.freeze(table(seed=1)[0]))["regions"])
    for told in (block["mean"], *block["per_region"].values()):
        for name in ("iou", "usual", "difference", "found"):
            assert told[name]["value"] is None and told[name]["low"] is None
            assert told[name]["reason"] == "undefined: on no film"
    assert block["mean"]["falsely_found"]["value"] is not None
