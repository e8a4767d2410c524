"""Test-time augmentation against loops over views that are cut and mirrored by hand."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from cxr_jax import explain, sharding, tta
from cxr_jax.errors import ConfigError
from cxr_jax.models.state import ModelDef
from cxr_jax.tasks.base import traits
from cxr_jax.tasks.classify import Classify
from cxr_jax.types import Batch, Boxes, Prediction

SIZE, SIDE = 16, 22


@pytest.fixture(scope="module")
def task():
    return Classify(
        model={"name": "cxr_jax.models.densenet.densenet_tiny"},
        head={"name": "cxr_jax.models.heads.PoolThenClassify", "dropout": 0.5},
        terms=(
            {
                "name": "bce",
                "fn": {"name": "cxr_jax.losses.bce"},
                "reduce": {"batch": "mean", "classes": "sum"},
            },
        ),
        classes=("a", "b"),
        mean=(0.5,),
        std=(0.25,),
        channels=1,
    )


@pytest.fixture(scope="module")
def state(task):
    static = ModelDef.of(task.create)
    return static, *jax.jit(lambda k: static.init(task.create, k))(jax.random.key(0))


def films(side=SIDE, rows=3):
    rng = np.random.default_rng(0)
    return Batch(
        image=rng.integers(0, 256, (rows, side, side, 1)).astype(np.uint8),
        labels=np.zeros((rows, 2), np.float32),
        mask=np.ones(rows, bool),
        position=np.arange(rows, dtype=np.uint32),
        index=np.arange(rows, dtype=np.int32),
    )


def predict(task, state, batch, **how):
    static, params, rest = state
    read = jax.jit(
        lambda b: task.predict(static.merge(params, rest), b, **how),
    )
    return jax.device_get(read(batch))


def one_by_one(task, state, views, **how):
    """Each view as a batch of its own."""
    same = films(SIZE)
    found = [
        predict(task, state, dataclasses.replace(same, image=view), **how)
        for view in views
    ]
    return jax.tree.map(lambda *x: np.stack(x).astype(np.float64), *found)


def ten(image):
    far = SIDE - SIZE
    upright = [
        image[:, top : top + SIZE, left : left + SIZE]
        for top, left in ((3, 3), (0, 0), (0, far), (far, 0), (far, far))
    ]
    return upright + [view[:, :, ::-1] for view in upright]


def logit(p):
    return np.log(p) - np.log1p(-p)


def test_ten_crops_are_the_mean_of_ten_predictions(task, state):
    wrapped = tta.TenCrop(task=task, size=SIZE)
    got = predict(wrapped, state, films())
    each = one_by_one(task, state, ten(films().image))
    assert np.ptp(each.probs, axis=0).min() > 1e-3  # the views do differ
    np.testing.assert_allclose(got.probs, each.probs.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(got.logits, logit(got.probs), atol=1e-5)
    assert got.std is None


def test_the_maps_of_ten_crops_are_those_of_the_middle(task, state):
    got = predict(tta.TenCrop(task=task, size=SIZE), state, films())
    middle = one_by_one(task, state, ten(films().image)[:1]).maps[0]
    cells = middle.shape[1]
    assert got.maps.shape[1] == round(cells * SIDE / SIZE)
    # Upsampled to the film, they fit the map of the middle where the middle is.
    frame = explain.upsample(got.maps, (SIDE, SIDE))
    whole = np.ravel(explain.upsample(middle.astype(np.float32), (SIZE, SIZE)))
    fit = {
        (top, left): np.corrcoef(
            np.ravel(frame[:, top : top + SIZE, left : left + SIZE]), whole
        )[0, 1]
        for top in range(7)
        for left in range(7)
    }
    assert max(fit, key=fit.get) == (3, 3) and fit[3, 3] > 0.9


def test_flips_average_films_and_maps(task, state):
    batch = films(SIZE)
    got = predict(tta.Flip(task=task), state, batch)
    each = one_by_one(task, state, [batch.image, batch.image[:, :, ::-1]])
    np.testing.assert_allclose(got.probs, each.probs.mean(axis=0), rtol=1e-5)
    maps = (each.maps[0] + each.maps[1][:, :, ::-1]) / 2
    np.testing.assert_allclose(got.maps, maps, atol=1e-5)
    # A film and its mirror image are then the same film.
    mirrored = dataclasses.replace(batch, image=batch.image[:, :, ::-1])
    other = predict(tta.Flip(task=task), state, mirrored)
    np.testing.assert_allclose(other.probs, got.probs, rtol=1e-5)
    np.testing.assert_allclose(other.maps[:, :, ::-1], got.maps, atol=1e-5)


def test_logits_may_be_averaged_instead(task, state):
    batch = films(SIZE)
    got = predict(tta.Flip(task=task, average="logits"), state, batch)
    each = one_by_one(task, state, [batch.image, batch.image[:, :, ::-1]])
    mean = each.logits.mean(axis=0)
    np.testing.assert_allclose(got.logits, mean, rtol=1e-4)
    np.testing.assert_allclose(got.probs, 1 / (1 + np.exp(-mean)), rtol=1e-5)


def test_dropout_is_sampled_in_every_view(task, state):
    how = {"key": jax.random.key(3), "samples": 4}
    batch = films(SIZE)
    got = predict(tta.Flip(task=task), state, batch, **how)
    each = one_by_one(task, state, [batch.image, batch.image[:, :, ::-1]], **how)
    np.testing.assert_allclose(got.std, each.std.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(got.probs, each.probs.mean(axis=0), rtol=1e-5)
    assert got.std.min() > 0


class Certain:
    """A task whose logits are far from 0; the mirror image of a dark film is bright."""

    classes = ("a",)
    boxes = None

    def predict(self, model, batch, *, key=None, samples=0):
        left = batch.image[:, 0, 0, 0] > 0
        logits = jax.numpy.where(left, 60.0, -110.0)[:, None]
        probs = jax.nn.sigmoid(logits)
        return Prediction(logits=logits, probs=probs, boxes=self.boxes)


def test_certain_views_keep_finite_logits():
    batch = films(2, rows=3)
    image = np.zeros((3, 2, 2, 1), np.uint8)
    image[1] = 255
    image[2, :, 0] = 255
    got = tta.Flip(task=Certain()).predict(
        nnx.Module(), dataclasses.replace(batch, image=image)
    )
    # σ(-110) is 0 in float32, and σ(60) is 1; half of each is a half.
    np.testing.assert_allclose(got.logits[:, 0], [-110, 60, 0], atol=1e-4)


def test_views_of_a_sharded_batch_stay_where_their_films_are(task, state):
    mesh = sharding.make_mesh(jax.devices()[: 2 if len(jax.devices()) > 1 else 1])
    batch = films(rows=4)
    wrapped = tta.TenCrop(task=task, size=SIZE)
    alone = predict(wrapped, state, batch)
    spread = predict(wrapped, state, sharding.to_global(batch, mesh))
    np.testing.assert_allclose(spread.probs, alone.probs, rtol=1e-5)


def test_a_wrapper_is_its_task_in_all_else(task, state):
    wrapped = tta.wrap(task, {"name": "cxr_jax.tta.Flip", "size": 0, "average": ""})
    assert isinstance(wrapped, tta.Flip) and wrapped.average == "probs"
    assert wrapped.classes == task.classes and traits(wrapped) == traits(task)
    assert traits(wrapped).maps == task.maps
    static, params, rest = state
    batch = films(SIZE)
    costs = [
        jax.jit(lambda b, t=t: t.loss(static.merge(params, rest), b, key=None, step=0))
        for t in (task, wrapped)
    ]
    a, b = (jax.device_get(cost(batch)) for cost in costs)
    assert a == b
    assert tta.wrap(task, {"name": "", "size": 224}) is task


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "cxr_jax.tta.Flop"}, "did you mean Flip"),
        ({"name": "cxr_jax.tta.Flip", "size": 9}, "refused its arguments"),
        ({"name": "cxr_jax.tta.TenCrop"}, "eval.tta.size=0: give the pixels"),
        ({"name": "cxr_jax.tta.Flip", "average": "max"}, "average='max': give 'probs'"),
    ],
)
def test_impossible_settings_are_refused(task, spec, words):
    with pytest.raises(ConfigError, match=words):
        tta.wrap(task, spec)


def test_films_without_room_are_refused_before_anything_is_computed(task):
    wrapped = tta.TenCrop(task=task, size=SIZE)
    wrapped.check(SIDE, SIDE)
    with pytest.raises(ConfigError, match="size=16: films of 16×22 have no corners"):
        wrapped.check(16, 22)


def test_boxes_have_no_mean():
    some = Boxes(xyxy=np.zeros((1, 4)), label=np.zeros(1), mask=np.ones(1, bool))
    boxed = Certain()
    boxed.boxes = some
    with pytest.raises(ConfigError, match="predicts boxes, which have no mean"):
        tta.Flip(task=boxed).predict(nnx.Module(), films(2))
