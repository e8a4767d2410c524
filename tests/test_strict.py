"""Our own functions mix no types in float32: they are traced under strict promotion.

Types meet when a function is traced, so that nearly nothing is computed. Covered are
augmentation; every task, backbone and head, with its loss, gradient and prediction;
dropout, views and passes; the step, with micro-batches and without, what a validation
does to the state, and a switch of phases; overlaps of boxes, maps and where they point,
digests, and the bootstraps of classes, sums and readers. Not covered are optax and the
schedules that it calls, which mix types; networks in bfloat16, whose layers ask
``promote_types`` for a common type, which strict rules refuse; and whatever NumPy
computes. The session as a whole keeps the standard rules.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import adpd, common
from cxr_jax import boxes, checkpoint, explain, objective, optim, sampled, sharding, tta
from cxr_jax.data.augment import Augment, normalize
from cxr_jax.metrics import bootstrap, reader_bootstrap, sums
from cxr_jax.step import Trainer
from cxr_jax.tasks.anatomy import Anatomy
from cxr_jax.tasks.classify import Classify
from cxr_jax.tasks.heatmaps import Heatmaps
from cxr_jax.types import Batch, Boxes, Regions

TINY = {"name": "cxr_jax.models.densenet.densenet_tiny"}
EFFICIENT = {"name": "cxr_jax.models.efficientnet.efficientnet_tiny"}
FUSED = {
    "name": "cxr_jax.models.fusion.AttentionFusion",
    "dense": TINY,
    "efficient": EFFICIENT,
    "width": 4,
    "mean": (0.5,),
    "std": (0.25,),
}


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


def task(kind=Classify, model=TINY, **given):
    plain = {
        "model": model,
        "head": {"name": "cxr_jax.models.heads.PoolThenClassify", "dropout": 0.1},
        "terms": (
            {
                "name": "loss",
                "fn": {"name": "cxr_jax.losses.bce"},
                "reduce": {"classes": "sum", "batch": "mean"},
            },
        ),
        "classes": ("a", "b"),
        "mean": (0.5,),
        "std": (0.25,),
        "channels": 1,
    }
    return kind(**plain | given)


def traced(task):
    """Types of a gradient, of a loss as in an evaluation, and of a prediction."""

    def run(batch, key):
        model = task.create(key)

        def cost(model, key):
            return objective.total(task.loss(model, batch, key=key, step=0))

        return nnx.grad(cost)(model, key), cost(model, None), task.predict(model, batch)

    gradient, cost, found = jax.eval_shape(run, films(), jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    assert cost.dtype == found.probs.dtype == jnp.float32
    return found


@pytest.mark.parametrize("fn", [
    {"name": "cxr_jax.losses.bce"},
    {"name": "cxr_jax.losses.focal", "gamma": 2.0, "alpha": 0.25},
    {"name": "cxr_jax.losses.weighted_bce", "w_pos": 0.3, "w_neg": 0.7},
    {"name": "cxr_jax.losses.asymmetric", "gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05},
])  # fmt: skip
def test_task_losses_and_objective(fn):
    reduce = {"classes": "sum", "batch": "mean"}
    traced(task(terms=({"name": "loss", "fn": fn, "reduce": reduce},)))


@pytest.mark.parametrize(
    "model",
    [
        EFFICIENT | {"drop_connect": 0.2},
        FUSED | {"films": "pixels"},
        {"name": "cxr_jax.models.simple_cnn.SimpleCNN", "widths": (4, 8)},
    ],
)
def test_networks(model):
    traced(task(model=model))


def test_a_head_with_a_hidden_layer():
    head = {"name": "cxr_jax.models.heads.PoolHiddenClassify", "hidden": 4}
    traced(task(head=head, maps="grad_cam"))


def test_boxes_of_maps():
    """A loss that counts the labels of its batch, and boxes made on the host."""
    term = {
        "name": "loss",
        "fn": {"name": "cxr_jax.losses.weighted_bce"},
        "balance": True,
        "reduce": {"classes": "mean", "batch": "mean"},
    }
    subject = task(Heatmaps, terms=(term,), normal="b", side=16)
    found = traced(subject)
    found = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), found)
    assert subject.finalize(found).boxes.xyxy.shape == (4, 2, 4)


@pytest.mark.parametrize("how", [
    {"finding_head": "mlp", "region_features": "roi"},
    {"finding_head": "transformer"},
])  # fmt: skip
def test_regions(how):
    decoder = {"name": "cxr_jax.models.decoder.RegionDecoder", "width": 8, "heads": 2}
    found = traced(
        task(
            Anatomy,
            head=decoder | how,
            terms=(*adpd.REGIONS, adpd.FINDINGS, adpd.FILM),
            mapping={"a": ("shadow", "fluid")},
            findings=("shadow", "fluid"),
            regions=("left",),
        )
    )
    assert found.boxes.score.dtype == found.regions.probs.dtype == jnp.float32


@pytest.mark.parametrize("wrap", [
    lambda task: tta.Flip(task=task),
    lambda task: tta.Flip(task=task, average="logits"),
    lambda task: tta.TenCrop(task=task, size=12),
    lambda task: sampled.Sampled(task=task, samples=2),
    lambda task: sampled.Sampled(task=task, samples=2, probs="plain"),
    lambda task: tta.Flip(task=sampled.Sampled(task=task, samples=2)),
])  # fmt: skip
def test_views_and_passes(wrap):
    subject = wrap(task())

    def run(batch, key):
        model = subject.create(key)
        passes = subject.passes(model, batch, key=key, samples=2)
        drawn = subject.predict(model, batch, key=key, samples=2)
        return subject.predict(model, batch), drawn, passes

    found, drawn, passes = jax.eval_shape(run, films(), jax.random.key(0))
    assert found.probs.dtype == passes.dtype == jnp.float32
    assert drawn.std.dtype == drawn.information.dtype == jnp.float32


@pytest.fixture
def theirs(monkeypatch):
    """optax keeps the standard rules; what it is given and gives back is ours."""

    def leave(make):
        def made(*args, **kwargs):
            transformation = make(*args, **kwargs)

            def update(*args, **kwargs):
                with jax.numpy_dtype_promotion("standard"):
                    return transformation.update(*args, **kwargs)

            return optax.GradientTransformationExtraArgs(transformation.init, update)

        return made

    monkeypatch.setattr(optim, "chain", leave(optim.chain))
    monkeypatch.setattr(optim, "plateau", leave(optim.plateau))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_a_validation_and_a_switch_of_phases(theirs, accumulate):
    carried = common.phase(optimizer_at_switch="carry")
    trainer = Trainer(
        task=task(),
        mesh=sharding.make_mesh(jax.devices()[:1]),
        phases=(common.phase(freeze=("backbone/*",)), carried),
        plateau={"factor": 0.1, "patience": 1, "rtol": 1e-4, "min_scale": 1e-6},
        augment=Augment(flip=0.5, rotation=5.0),
        seed=0,
        batch_size=4,
        steps_per_epoch=3,
        accumulate=accumulate,
    )
    batch = dataclasses.replace(films(), boxes=None, regions=None)
    value = jax.ShapeDtypeStruct((), jnp.float32)
    whole = trainer.abstract(0)
    state, metrics = jax.eval_shape(trainer.step(0), whole, batch)
    assert {x.dtype for x in jax.tree.leaves(metrics)} == {jnp.dtype("float32")}
    state = jax.eval_shape(trainer._validated, state, value)
    assert types(state) == types(whole)
    second = jax.eval_shape(lambda state: trainer._enter(1, state), state)
    assert types(second) == types(trainer.abstract(1))
    after, _ = jax.eval_shape(trainer.step(1), second, batch)
    assert types(after) == types(second)


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype.name), tree)


def test_boxes_maps_digests_and_bootstrap():
    a = jnp.asarray([[0.0, 0.0, 0.5, 0.5]])
    assert boxes.iou(a, a).dtype == boxes.giou(a, a).dtype == jnp.float32
    assert explain.upsample(jnp.ones((1, 2, 2, 3)), (4, 4)).shape == (1, 4, 4, 3)
    located = jax.eval_shape(explain.locate, jnp.ones((4, 2, 2, 3)))
    assert located.peak.dtype == located.xyxy.dtype == jnp.float32
    shown = films().boxes
    maps = jnp.ones((4, 2, 2)), shown.xyxy, shown.mask
    assert jax.eval_shape(explain.mass_inside, *maps).dtype == jnp.float32
    kernel = jnp.ones((3, 2)), jnp.ones(2), np.array([0.1, 0.2])
    ratio = jax.eval_shape(explain.probability_ratio, jnp.ones((4, 2, 2, 3)), *kernel)
    assert ratio.dtype == jnp.float32
    state = {"x": jnp.ones(3), "n": jnp.int32(2), "b": jnp.asarray([True])}
    assert set(checkpoint.digests(state)) == {"x", "n", "b"}
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (30, 2)).astype(np.float32)
    units = bootstrap.resampling_units([f"p{k // 2}" for k in range(30)])
    scores = rng.random((30, 2), np.float32)
    key = jax.random.key(0)
    drawn = bootstrap.bootstrap(key, scores, labels, units, resamples=4)
    assert drawn.auroc.shape == (4, 2)
    table = sums.sum_by_unit(labels, units)
    assert sums.resample_sums(key, table, resamples=4).shape == (4, 2)
    ranking = reader_bootstrap.rank_groups(scores, np.stack([labels] * 3, 1), units)
    drawn = reader_bootstrap.resample(
        key, labels, ranking, units, readers=2, resamples=4
    )
    assert drawn.auroc.shape == (4, 3, 2)
