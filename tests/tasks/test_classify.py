"""The classification task: a pure step over split state, and what it predicts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cxr_jax import objective
from cxr_jax.errors import ConfigError
from cxr_jax.tasks.classify import Classify
from cxr_jax.types import Batch

CLASSES = ("bright", "dark", "rare")
BASE = {
    "model": {"name": "cxr_jax.models.densenet.densenet_tiny"},
    "head": {"name": "cxr_jax.models.heads.PoolThenClassify", "dropout": 0.5},
    "terms": (
        {
            "name": "bce",
            "fn": {"name": "cxr_jax.losses.bce"},
            "reduce": {"batch": "mean", "classes": "sum"},
        },
    ),
    "classes": CLASSES,
    "mean": (0.5,),
    "std": (0.25,),
    "channels": 1,
}


@pytest.fixture(scope="module")
def task():
    return Classify(**BASE)


@pytest.fixture(scope="module")
def split(task):
    """The static half, parameters and batch statistics of a fresh model."""
    model = nnx.eval_shape(task.create, jax.eval_shape(lambda: jax.random.key(0)))
    create = jax.jit(lambda key: nnx.split(task.create(key), nnx.Param, ...)[1:])
    return nnx.split(model, nnx.Param, ...)[0], *create(jax.random.key(0))


@pytest.fixture(scope="module")
def predict(task, split):
    return jax.jit(lambda batch: task.predict(nnx.merge(*split, copy=True), batch))


def films(rows=8, seed=0):
    rng = np.random.default_rng(seed)
    bright = rng.integers(0, 2, rows)
    image = rng.integers(0, 120, (rows, 16, 16, 1)) + 120 * bright[:, None, None, None]
    labels = np.stack([bright, 1 - bright, np.full(rows, np.nan)], axis=1)
    return Batch(
        image=image.astype(np.uint8),
        labels=labels.astype(np.float32),
        mask=np.ones(rows, bool),
        position=np.arange(rows, dtype=np.uint32),
        index=np.arange(rows, dtype=np.int32),
    )


def make_step(task, graphdef, rate=0.05):
    """The form a training step takes: pure, with the other state carried beside."""

    def step(params, rest, batch, key):
        def loss_of(params):
            # The copy keeps batch statistics apart from the tracers outside.
            model = nnx.merge(graphdef, params, rest, copy=True)
            loss = task.loss(model, batch, key=key, step=0)
            return objective.total(loss), nnx.split(model, nnx.Param, ...)[2]

        (value, new), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradients)
        return params, new, value

    return step


def test_a_pure_sharded_step_learns_and_carries_batch_statistics(task, split):
    graphdef, params, rest = split
    devices = jax.devices()[: 2 if len(jax.devices()) > 1 else 1]
    mesh = jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )
    whole, rows = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",))
    )
    step = jax.jit(make_step(task, graphdef), out_shardings=whole)
    params, rest = jax.device_put((params, rest), whole)
    batch = jax.device_put(films(), rows)
    first = rest
    values = []
    for number in range(25):
        params, rest, value = step(params, rest, batch, jax.random.key(number))
        values.append(float(value))
    assert values[-1] < 0.6 * values[0]
    assert jax.tree.structure(rest) == jax.tree.structure(first)
    for old, new in zip(jax.tree.leaves(first), jax.tree.leaves(rest), strict=True):
        assert not np.allclose(old, new)
    assert step._cache_size() == 1


def test_creation_under_jit_obeys_shardings(task):
    mesh = jax.make_mesh(
        (1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1]
    )
    whole = NamedSharding(mesh, PartitionSpec())
    create = jax.jit(lambda key: nnx.state(task.create(key)), out_shardings=whole)
    one, again, other = (create(jax.random.key(seed)) for seed in (1, 1, 2))
    kernels = [state.backbone.stem.kernel[...] for state in (one, again, other)]
    assert kernels[0].sharding == whole
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.allclose(kernels[0], kernels[2])


def test_denominators_cost_no_forward_pass(task, split):
    def count(params, batch):
        model = nnx.merge(split[0], params, split[2], copy=True)
        return task.loss(model, batch, key=jax.random.key(0), step=0).denominators

    compiled = jax.jit(count).lower(split[1], films()).compile().as_text()
    assert "convolution" not in compiled
    assert "dot(" not in compiled


def test_prediction_is_float32_and_consistent(task, split, predict):
    found = predict(films())
    assert found.logits.shape == found.probs.shape == (8, 3)
    assert found.maps.shape == (8, 8, 8, 3)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(
        found.probs, 1 / (1 + np.exp(-np.float64(found.logits))), rtol=1e-5
    )
    bias = split[1].head.linear.bias[...]
    np.testing.assert_allclose(
        found.maps.mean((1, 2)) + bias[None], found.logits, atol=1e-5
    )
    assert task.finalize(found) is found


def test_bfloat16_predictions_are_float32_too():
    task = Classify(**BASE | {"model": BASE["model"] | {"dtype": "bfloat16"}})
    found = jax.eval_shape(
        lambda key: task.predict(task.create(key), films()), jax.random.key(0)
    )
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}


def test_a_prediction_depends_on_its_own_film_only(predict):
    whole = predict(films())
    batch = films()
    changed = dataclasses.replace(
        batch,
        image=np.concatenate([batch.image[:4], np.zeros_like(batch.image[4:])]),
        mask=np.arange(8) < 4,
        labels=np.full_like(batch.labels, np.nan),
    )
    np.testing.assert_allclose(predict(changed).logits[:4], whole.logits[:4], atol=1e-6)


def test_reading_leaves_the_model_as_it_was(task, split):
    model = nnx.merge(*split, copy=True)
    model.train()
    before = jax.tree.map(np.asarray, nnx.state(model))

    @jax.jit
    def read(state):
        model = nnx.merge(split[0], state)
        task.predict(model, films())
        return nnx.state(model)

    after = read(nnx.state(model))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_without_a_key_the_loss_is_that_of_the_prediction(task, split, predict):
    """As validation costs a batch: running statistics, no dropout, nothing written."""

    @jax.jit
    def cost(batch):
        model = nnx.merge(*split, copy=True)
        loss = task.loss(model, batch, key=None, step=0)
        return objective.total(loss), nnx.split(model, nnx.Param, ...)[2]

    batch = films()
    found, rest = cost(batch)
    z, y = np.float64(predict(batch).logits), np.float64(batch.labels)
    expected = np.nansum(np.logaddexp(0, z) - z * y, axis=1).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, rest, split[2])


def test_dropout_spreads_predictions_around_the_plain_one(task, split, predict):
    sample = jax.jit(
        functools.partial(task.predict, samples=500), static_argnames="samples"
    )
    model = nnx.merge(*split, copy=True)
    found = sample(model, films(), key=jax.random.key(1))
    plain = predict(films())
    assert found.std.shape == (8, 3)
    assert (found.std > 0).all()
    p = np.float64(found.probs)
    np.testing.assert_allclose(found.logits, np.log(p / (1 - p)), atol=1e-5)
    assert (
        np.abs(found.probs - plain.probs) < 6 * found.std / np.sqrt(500) + 5e-3
    ).all()
    assert plain.std is None


def test_maps_are_left_out_where_the_config_says_so(split):
    task = Classify(**BASE, maps=False)
    found = jax.eval_shape(lambda: task.predict(nnx.merge(*split, copy=True), films()))
    assert found.maps is None


def test_grad_cam_is_offered_and_of_this_head_shows_what_cam_shows(split):
    def maps(kind):
        task = Classify(**BASE, maps=kind)
        return task.predict(nnx.merge(*split, copy=True), films()).maps

    cam, same, grad = jax.jit(lambda: tuple(map(maps, ("cam", True, "grad_cam"))))()
    np.testing.assert_array_equal(cam, same)
    np.testing.assert_allclose(grad, np.maximum(cam, 0) / 64, atol=1e-6)


class Squares(nnx.Module):
    """A head of no weights, so without a kernel."""

    def __call__(self, features, *, key=None):
        return (features**2).mean((1, 2))[:, :3]


def test_a_head_without_kernel_has_grad_cam_alone(split):
    model = nnx.merge(*split, copy=True)
    model.head = nnx.data(Squares())
    found = Classify(**BASE, maps="grad_cam").predict(model, films())
    assert found.maps.shape == (8, 8, 8, 3) and found.maps.min() == 0
    with pytest.raises(ConfigError, match="Squares has no kernel.*grad_cam"):
        Classify(**BASE).predict(model, films())
    with pytest.raises(ConfigError, match="task.maps='heat'.*'cam'"):
        Classify(**BASE, maps="heat")


def test_gray_films_feed_a_network_made_for_colour():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    task = Classify(**BASE | {"mean": mean, "std": std, "channels": 3})
    batch = films()
    found = task.preprocess(jnp.asarray(batch.image))
    expected = (np.float64(batch.image) / 255 - mean) / std
    np.testing.assert_allclose(found, expected, atol=1e-5)
    model = nnx.eval_shape(task.create, jax.eval_shape(lambda: jax.random.key(0)))
    assert model.backbone.stem.kernel.shape == (3, 3, 3, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"name": "cxr_jax.models.densenet.densnet"}}, "densenet"),
        ({"model": BASE["model"] | {"tap": "norm5"}}, "norm5.*relu"),
        ({"terms": ()}, "terms"),
    ],
)
def test_a_wrong_part_is_named(change, words):
    with pytest.raises(ConfigError, match=words):
        Classify(**BASE | change).create(jax.random.key(0))


def test_larger_films_are_read_in_the_middle(split):
    """The same network on the middle alone says the same; its maps are framed."""
    middle = films()
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (8, 20, 20, 1)).astype(np.uint8)
    image[:, 2:18, 2:18] = middle.image
    whole = dataclasses.replace(middle, image=image)
    task = Classify(**BASE, size=16)
    read = jax.jit(lambda batch: task.predict(nnx.merge(*split, copy=True), batch))
    got, alone = read(whole), read(middle)
    np.testing.assert_allclose(got.logits, alone.logits, rtol=1e-6)
    assert got.maps.shape[1] == round(alone.maps.shape[1] * 20 / 16)
    cost = [
        objective.total(task.loss(nnx.merge(*split, copy=True), b, key=None, step=0))
        for b in (whole, middle)
    ]
    np.testing.assert_allclose(cost[0], cost[1], rtol=1e-6)
