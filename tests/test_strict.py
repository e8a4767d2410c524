"""Our own functions mix no types: strict promotion holds in all of them.

optax and bfloat16 batch norms need the standard rules, so the session as a whole keeps
them; here every function that a step, an evaluation or a checkpoint calls is run strict. Types
meet when a function is traced: nothing need be computed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax import boxes, checkpoint, explain, losses, objective
from cxr_jax.data.augment import Augment, normalize
from cxr_jax.metrics import bootstrap
from cxr_jax.tasks.classify import Classify
from cxr_jax.types import Batch, Boxes, Regions


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def films():
    rng = np.random.default_rng(0)
    corners = jnp.asarray([[[0.1, 0.2, 0.5, 0.6]]] * 4, jnp.float32)
    mask = jnp.ones((4, 1), bool)
    return Batch(
        image=jnp.asarray(rng.integers(0, 256, (4, 16, 16, 1), np.uint8)),
        labels=jnp.asarray(rng.integers(0, 2, (4, 2)), jnp.float32),
        mask=jnp.ones(4, bool),
        position=jnp.arange(4, dtype=jnp.uint32),
        index=jnp.arange(4, dtype=jnp.int32),
        boxes=Boxes(xyxy=corners, label=jnp.zeros((4, 1), jnp.int32), mask=mask),
        regions=Regions(xyxy=corners, presence=mask, probs=jnp.ones((4, 1, 2))),
    )


def test_augmentation():
    everything = Augment(
        flip=0.5,
        rotation=5.0,
        shear=2.0,
        zoom=(0.9, 1.1),
        translate=0.1,
        crop=(0.8, 1.0),
        crop_aspect=(0.9, 1.1),
        brightness=0.1,
        contrast=(0.9, 1.1),
        blur=1.0,
    )
    colour = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "channels": 3}

    def run(batch):
        moved = everything(batch, 0)
        return moved.image, normalize(moved.image, **colour)

    image, normal = jax.eval_shape(run, films())
    assert image.dtype == normal.dtype == jnp.float32
    assert image.shape[-1] == 1 and normal.shape[-1] == 3


def test_a_mixture_would_be_seen():
    """By tracing alone."""
    ones = jnp.ones(2, jnp.float32), jnp.ones(2, jnp.int32)
    with pytest.raises(ValueError, match="promotion"):
        jax.eval_shape(lambda a, b: a + b, *ones)


@pytest.mark.parametrize("fn", [
    {"name": "cxr_jax.losses.bce"},
    {"name": "cxr_jax.losses.focal", "gamma": 2.0, "alpha": 0.25},
    {"name": "cxr_jax.losses.weighted_bce", "w_pos": 0.3, "w_neg": 0.7},
    {"name": "cxr_jax.losses.asymmetric", "gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05},
])  # fmt: skip
def test_task_losses_and_objective(fn):
    reduce = {"classes": "sum", "batch": "mean"}
    task = Classify(
        model={"name": "cxr_jax.models.densenet.densenet_tiny"},
        head={"name": "cxr_jax.models.heads.PoolThenClassify", "dropout": 0.1},
        terms=({"name": "loss", "fn": fn, "reduce": reduce},),
        classes=("a", "b"),
        mean=(0.5,),
        std=(0.25,),
        channels=1,
    )

    def run(batch, key):
        model = task.create(key)
        loss = task.loss(model, batch, key=key, step=0)
        found = task.predict(model, batch, key=key, samples=2)
        return objective.total(loss), found

    total, found = jax.eval_shape(run, films(), jax.random.key(0))
    assert total.dtype == jnp.float32
    assert found.probs.dtype == found.std.dtype == jnp.float32
    assert callable(losses.bce)


def test_boxes_maps_digests_and_bootstrap():
    a = jnp.asarray([[0.0, 0.0, 0.5, 0.5]])
    assert boxes.iou(a, a).dtype == boxes.giou(a, a).dtype == jnp.float32
    assert explain.upsample(jnp.ones((1, 2, 2, 3)), (4, 4)).shape == (1, 4, 4, 3)
    state = {"x": jnp.ones(3), "n": jnp.int32(2), "b": jnp.asarray([True])}
    assert set(checkpoint.digests(state)) == {"x", "n", "b"}
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (30, 2)).astype(np.float32)
    units = bootstrap.resampling_units([f"p{k // 2}" for k in range(30)])
    scores = rng.random((30, 2), np.float32)
    drawn = bootstrap.bootstrap(jax.random.key(0), scores, labels, units, resamples=4)
    assert drawn.auroc.shape == (4, 2)
