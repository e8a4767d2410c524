"""Regions against their usual place: by hand, then what is drawn."""

import numpy as np
import pytest

from cxr_jax import boxes
from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.regions import USUAL, RegionQuality
from cxr_jax.predictions import Predictions
from cxr_jax.types import Batch, Prediction, Regions

NAMES = ("left", "right", "never")


def table(films=40, *, seed=0, error=0.02):
    rng = np.random.default_rng(seed)
    centre = np.array([[0.3, 0.5], [0.7, 0.5], [0.5, 0.5]])
    centre = centre + 0.05 * rng.normal(size=(films, 3, 2))
    true = np.concatenate([centre - 0.15, centre + 0.15], axis=2).astype(np.float32)
    found = (true + error * rng.normal(size=true.shape)).astype(np.float32)
    there = rng.random((films, 3)) < (1.0, 0.7, 0.0)
    zeros = np.zeros((films, 1), np.float32)
    regions = Regions(xyxy=found, presence=there.astype(np.float32), probs=None)
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
