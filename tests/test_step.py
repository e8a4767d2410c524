"""Laws of the training step, on films made of noise and a one-block network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from cxr_jax import objective, sharding
from cxr_jax.errors import ConfigError
from cxr_jax.step import Trainer
from cxr_jax.tasks.classify import Classify
from cxr_jax.types import Batch

TERM = {
    "name": "bce",
    "fn": {"name": "cxr_jax.losses.bce"},
    "reduce": {"classes": "sum", "batch": "mean"},
}


def task(**model):
    return Classify(
        model={"name": "cxr_jax.models.densenet.densenet_tiny"} | model,
        head={"name": "cxr_jax.models.heads.PoolThenClassify"} | model,
        terms=(TERM,),
        classes=("a", "b", "c"),
        mean=(0.5,),
        std=(0.25,),
        channels=1,
    )


def films(step, size=8, pixels=8):
    rng = np.random.default_rng(step)
    return Batch(
        image=rng.integers(0, 256, (size, pixels, pixels, 1), np.uint8),
        labels=rng.integers(0, 2, (size, 3)).astype(np.float32),
        mask=np.ones(size, bool),
        position=np.arange(step * size, (step + 1) * size, dtype=np.uint32),
        index=np.arange(size, dtype=np.int32),
    )


def trainer(devices=1, phases=None, task_=None, **changes):
    given = {
        "task": task_ or task(),
        "mesh": sharding.make_mesh(jax.devices()[:devices]),
        "phases": phases or (common.phase(epochs=2.0, learning_rate=0.01),),
        "plateau": {"factor": 0.1, "patience": 1, "rtol": 1e-4, "min_scale": 1e-6},
        "augment": lambda batch, seed: batch,
        "seed": 0,
        "batch_size": 8,
        "steps_per_epoch": 3,
    }
    return Trainer(**(given | changes))


def run(trainer, steps, state=None, phase=0, batches=films):
    state = trainer.init() if state is None else state
    step = trainer.step(phase)
    seen = []
    for number in range(steps):
        state, metrics = step(state, sharding.to_global(batches(number), trainer.mesh))
        seen.append(float(metrics["loss"]))
    return state, seen


def test_a_step_learns_and_counts():
    state, losses = run(trainer(), 30, batches=lambda _: films(0))
    assert losses[-1] < losses[0] * 0.8
    assert int(state.step) == 30


def test_a_step_in_bfloat16_learns_and_keeps_its_state_in_float32():
    half = task()
    half.model["dtype"] = "bfloat16"
    subject = trainer(task_=half)
    state, losses = run(subject, 30, batches=lambda _: films(0))
    whole, first = run(trainer(), 1)
    # Three digits of a number that layers of rounded sums have gone into.
    assert losses[0] == pytest.approx(first[0], rel=0.02)
    assert losses[-1] < losses[0] * 0.8
    types, wanted = (jax.tree.map(lambda x: x.dtype, s) for s in (state, whole))
    assert types == wanted
    batch = sharding.to_global(films(0), subject.mesh)
    assert "bf16" in subject.step(0).lower(state, batch).as_text()


def test_the_first_loss_is_the_formula_in_float64():
    subject = trainer()
    state = subject.init()
    model = subject.model_def.merge(state.params, state.rest)
    batch = films(0)
    from flax import nnx

    view = nnx.view(model, use_running_average=False, raise_if_not_found=False)
    z = np.float64(view(subject.task.preprocess(jnp.asarray(batch.image))))
    y = np.float64(batch.labels)
    bce = np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))
    _, losses = run(subject, 1)
    np.testing.assert_allclose(losses[0], bce.sum(-1).mean(), rtol=1e-5)


def test_batch_statistics_move():
    subject = trainer()
    before = {k: np.asarray(v) for k, v in subject.init().rest.items()}
    after, _ = run(subject, 1)
    assert before and all(
        np.any(before[k] != np.asarray(v)) for k, v in after.rest.items()
    )


def test_a_step_compiles_once():
    subject = trainer()
    step, state = subject.step(0), subject.init()
    for number in range(4):
        state, _ = step(state, sharding.to_global(films(number), subject.mesh))
    assert step._cache_size() == 1


def test_a_bad_batch_leaves_the_state_as_it_was():
    subject = trainer()
    good, _ = run(subject, 2)

    def poisoned(number):
        batch = films(number)
        if number == 2:
            batch = dataclasses.replace(
                batch, image=np.full((8, 8, 8, 1), np.nan, np.float32)
            )
        else:
            batch = dataclasses.replace(batch, image=np.float32(batch.image) / 255)
        return batch

    good, _ = run(subject, 2, batches=poisoned)
    bad, _ = run(subject, 4, batches=poisoned)
    assert int(bad.bad_step) == 2 and int(bad.step) == 2
    for name in good.params:
        np.testing.assert_array_equal(good.params[name], bad.params[name])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_batch_statistic_that_is_not_finite_is_a_bad_step(value):
    """Training takes the batch's own, so loss and gradient never see it."""
    subject = trainer()
    state = subject.init()
    name = next(name for name in state.rest if "mean" in str(name))
    broken = {**state.rest, name: jnp.full_like(state.rest[name], value)}
    state = dataclasses.replace(state, rest=broken)
    batch = sharding.to_global(films(0), subject.mesh)
    state, metrics = subject.step(0)(state, batch)
    assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"])
    assert int(state.bad_step) == 0 and int(state.step) == 0


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    # Without batch statistics in the way the law is exact: they are per micro-batch.
    linear = {"name": "tests.none"}
    del linear
    whole, parts = trainer(), trainer(accumulate=4)
    batch = dataclasses.replace(
        films(0), image=np.repeat(films(0).image[:1], 8, axis=0)
    )
    a, la = run(whole, 1, batches=lambda _: batch)
    b, lb = run(parts, 1, batches=lambda _: batch)
    # Every film is the same, so every micro-batch has the statistics of the whole.
    np.testing.assert_allclose(la, lb, rtol=1e-6)
    for name in ("head/linear/kernel", "head/linear/bias"):
        np.testing.assert_allclose(a.params[name], b.params[name], rtol=1e-4)


def test_missing_labels_are_counted_over_the_whole_batch_not_per_micro_batch():
    labels = films(0).labels.copy()
    labels[::4] = np.nan  # one micro-batch of four knows nothing at all
    image = np.repeat(films(0).image[:1], 8, axis=0)
    batch = dataclasses.replace(films(0), image=image, labels=labels)
    _, whole = run(trainer(), 1, batches=lambda _: batch)
    _, parts = run(trainer(accumulate=4), 1, batches=lambda _: batch)
    np.testing.assert_allclose(whole, parts, rtol=1e-6)


def test_frozen_parameters_do_not_move_and_have_no_moments():
    phases = (common.phase(freeze=("backbone/*",)),)
    subject = trainer(phases=phases)
    before = {k: np.asarray(v) for k, v in subject.init().params.items()}
    after, _ = run(subject, 2)
    for name, value in after.params.items():
        assert np.any(value != before[name]) == name.startswith("head/"), name
    shapes = {np.shape(x) for x in jax.tree.leaves(after.opt_state)}
    assert before["backbone/stem/kernel"].shape not in shapes


def norms(state):
    return {k: np.asarray(v) for k, v in state.rest.items() if k.endswith("/mean")}


@pytest.mark.parametrize(
    ("thaw", "moves"),
    [((), ()), (("backbone/*norm*",), ("norm",)), (("*/stem_norm/*",), ("stem_norm",))],
)
def test_a_frozen_norm_keeps_its_statistics_and_a_thawed_one_does_not(thaw, moves):
    subject = trainer(phases=(common.phase(freeze=("backbone/*",), thaw=thaw),))
    start = subject.init()
    before, scales = norms(start), dict(start.params)
    scales = {k: np.asarray(v) for k, v in scales.items() if k.endswith("/scale")}
    after, _ = run(subject, 2)
    for name, value in norms(after).items():
        assert np.any(value != before[name]) == any(m in name for m in moves), name
    for name, value in scales.items():
        moved = np.any(np.asarray(after.params[name]) != value)
        assert moved == any(m in name for m in moves), name


def test_a_frozen_backbone_reads_films_as_an_evaluation_does():
    # The head's gradient is then of the very features that validation sees.
    subject = trainer(phases=(common.phase(freeze=("backbone/*",)),))
    batch = films(0)
    state = subject.init()
    model = subject.model_def.merge(state.params, state.rest)
    expected = objective.total(subject.task.loss(model, batch, key=None, step=0))
    _, losses = run(subject, 1, batches=lambda _: batch)
    np.testing.assert_allclose(losses[0], expected, rtol=1e-6)


def test_thawing_what_is_not_frozen_is_refused():
    phase = common.phase(freeze=("head/*",), thaw=("backbone/*",))
    with pytest.raises(ConfigError, match="no frozen parameter"):
        trainer(phases=(phase,)).init()


def test_an_unknown_name_to_freeze_is_refused():
    with pytest.raises(ConfigError, match="nothing_like_it"):
        trainer(phases=(common.phase(freeze=("nothing_like_it",)),)).init()


@pytest.mark.parametrize(("how", "count"), [("reset", 0), ("carry", 2)])
def test_the_optimizer_at_a_switch_of_phases(how, count):
    phases = (
        common.phase(freeze=("backbone/*",)),
        common.phase(optimizer_at_switch=how),
    )
    subject = trainer(phases=phases)
    first, _ = run(subject, 2)
    second = subject.next_phase(first)
    assert jax.tree.structure(second) == jax.tree.structure(subject.abstract(1))
    group = second.opt_state[1].inner_states["0" if how == "carry" else "1"].inner_state
    assert int(group[1].count) == count
    if how == "carry":
        old = first.opt_state[1].inner_states["0"].inner_state[1].mu["head/linear/bias"]
        np.testing.assert_array_equal(group[1].mu["head/linear/bias"], old)
        thawed = second.opt_state[1].inner_states["1"].inner_state
        assert int(thawed[1].count) == 0
    run(subject, 1, state=second, phase=1)


def test_the_plateau_divides_the_rate_and_the_best_is_kept():
    subject = trainer()
    state = subject.init()
    for value in (1.0, 0.5, 0.7, 0.6):
        state = subject.validated(
            dataclasses.replace(state, step=state.step + 1), value
        )
    # 0.7 and 0.6 are no better than 0.5: each is waited for once (patience 1).
    np.testing.assert_allclose(state.plateau.scale, 0.01, rtol=1e-6)
    assert (float(state.best), int(state.best_step), int(state.stale)) == (0.5, 2, 2)
    undefined = subject.validated(state, float("nan"))
    assert float(undefined.best) == 0.5 and int(undefined.stale) == 3


def test_a_metric_that_shall_rise_is_not_better_when_it_stays():
    subject = trainer(mode="max")
    state = subject.init()
    for value in (0.8, 0.8, 0.79999):
        state = subject.validated(state, value)
    assert float(state.best) == np.float32(0.8) and int(state.stale) == 2
    np.testing.assert_allclose(state.plateau.scale, 0.01, rtol=1e-6)


def test_a_carried_optimizer_starts_the_new_schedule_at_its_beginning():
    cosine = {"name": "cxr_jax.optim.warmup_cosine"}
    phases = (
        common.phase(freeze=("backbone/*",), schedule=cosine),
        common.phase(schedule=cosine, optimizer_at_switch="carry"),
    )
    subject = trainer(phases=phases)
    first, _ = run(subject, 3)  # the whole phase: its cosine has come down to 0
    second = subject.next_phase(first)
    before = np.asarray(second.params["head/linear/bias"])
    after, _ = run(subject, 1, state=second, phase=1)
    assert np.any(np.asarray(after.params["head/linear/bias"]) != before)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="multiple of 3"):
        trainer(accumulate=3)


def test_the_scale_multiplies_the_update():
    subject = trainer()
    one, _ = run(subject, 1)
    start = subject.init()
    scaled = dataclasses.replace(
        start, plateau=start.plateau._replace(scale=jnp.float32(0.5))
    )
    half, _ = run(subject, 1, state=scaled)
    origin = {k: np.asarray(v) for k, v in subject.init().params.items()}
    for name, value in origin.items():
        full = np.asarray(one.params[name]) - value
        np.testing.assert_allclose(half.params[name] - value, full / 2, atol=2e-7)
