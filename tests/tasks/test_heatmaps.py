"""A classifier whose maps become boxes: what they score, and who has none."""

import dataclasses

import jax
import numpy as np
import pytest

from cxr_jax import heat_boxes
from cxr_jax.errors import ConfigError
from cxr_jax.labels import NO_FINDING
from cxr_jax.models.state import ModelDef
from cxr_jax.tasks.heatmaps import Heatmaps
from cxr_jax.types import Batch, Prediction

CLASSES = ("Mass", "Nodule", NO_FINDING)


def make(**changes):
    given = {
        "model": {"name": "cxr_jax.models.densenet.densenet_tiny"},
        "head": {"name": "cxr_jax.models.heads.PoolThenClassify", "prior": 0.7},
        "terms": (
            {
                "name": "bce",
                "fn": {"name": "cxr_jax.losses.weighted_bce"},
                "balance": True,
                "reduce": {"classes": "mean", "batch": "mean"},
            },
        ),
        "classes": CLASSES,
        "mean": (0.5,),
        "std": (0.25,),
        "channels": 1,
        "side": 32,
    }
    return Heatmaps(**given | changes)


def said(maps, probs):
    maps, probs = np.asarray(maps, np.float32), np.asarray(probs, np.float32)
    return Prediction(logits=np.log(probs / (1 - probs)), probs=probs, maps=maps)


def random_maps(seed=0, rows=2):
    return np.random.default_rng(seed).normal(size=(rows, 4, 4, 3))


def test_the_mean_of_a_map_is_its_logit():
    task = make()
    rng = np.random.default_rng(0)
    batch = Batch(
        image=rng.integers(0, 256, (2, 32, 32, 1), np.uint8),
        labels=np.zeros((2, 3), np.float32),
        mask=np.ones(2, bool),
        position=np.arange(2, dtype=np.uint32),
        index=np.arange(2, dtype=np.int32),
    )
    define = ModelDef.of(task.create)

    @jax.jit
    def read(key):
        model = task.create(key)
        return task.predict(model, batch)

    found = read(jax.random.key(0))
    assert define is not None and found.boxes is None
    mean = np.asarray(found.maps, np.float64).mean(axis=(1, 2))
    np.testing.assert_allclose(mean, found.logits, rtol=1e-5, atol=1e-5)
    done = task.finalize(jax.device_get(found))
    assert done.boxes.mask.shape == (2, 3) and not done.boxes.mask[:, 2].any()


def test_films_without_findings_are_no_class_with_boxes():
    done = make().finalize(said(random_maps(), [[0.9, 0.2, 0.99], [0.6, 0.8, 0.99]]))
    assert done.boxes.mask.tolist() == [[True, False, False], [True, True, False]]


def test_a_dummy_box_is_of_a_class_with_boxes():
    task, quiet = make(dummy_box=True), said(random_maps(), [[0.1, 0.1, 0.9]] * 2)
    done = task.finalize(quiet).boxes
    assert (done.mask.sum(axis=1) == 1).all() and not done.mask[:, 2].any()
    assert not make().finalize(quiet).boxes.mask.any()


def test_a_box_scores_how_little_its_place_looks_normal():
    maps = random_maps()
    probs = [[0.9, 0.9, 0.1]] * 2
    ours = make().finalize(said(maps, probs)).boxes
    rule = heat_boxes.Rule(side=32)
    told = np.broadcast_to(-maps[..., 2:], maps.shape)
    theirs = heat_boxes.best_boxes(
        np.float32(maps), np.float32(told), np.array(probs), rule=rule
    )
    np.testing.assert_allclose(ours.score[:, :2], theirs.score[:, :2], atol=1e-6)
    # A film that looks more normal everywhere has the same boxes, at lower scores.
    normal = maps + np.array([0, 0, 2.0])
    lower = make().finalize(said(normal, probs)).boxes
    np.testing.assert_array_equal(lower.xyxy, ours.xyxy)
    assert (lower.score[:, :2] < ours.score[:, :2]).all()


def test_a_box_may_score_its_own_class():
    maps = random_maps()
    probs = [[0.9, 0.9, 0.1]] * 2
    task = make(box_score="class")
    ours, raised = (
        task.finalize(said(maps + up, probs)).boxes
        for up in (0.0, np.array([1.0, 0.0, 5.0]))
    )
    assert (raised.score[:, 0] > ours.score[:, 0]).all()
    np.testing.assert_allclose(raised.score[:, 1], ours.score[:, 1], atol=1e-6)


def test_everything_but_boxes_is_what_it_was():
    given = said(random_maps(), [[0.9, 0.2, 0.99], [0.6, 0.8, 0.99]])
    done = make().finalize(given)
    for name in ("logits", "probs", "maps"):
        np.testing.assert_array_equal(getattr(done, name), getattr(given, name))
    assert dataclasses.replace(done, boxes=None).maps is given.maps


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"box_score": "loud"}, "task.box_score='loud'"),
        ({"maps": "grad_cam"}, "task.maps='grad_cam'"),
        ({"normal": "Fine"}, "task.normal='Fine' is not one of task.classes"),
    ],
)
def test_what_cannot_be_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        make(**changes)
