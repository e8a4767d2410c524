"""The training state and the step: a pure function of (state, batch), for every paper."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cxr_jax import objective, optim
from cxr_jax.errors import ConfigError
from cxr_jax.models.state import Arrays, ModelDef
from cxr_jax.sharding import replicated
from cxr_jax.tasks.base import Task
from cxr_jax.types import Batch

Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a run needs to go on, and nothing else.

    The data position is ``step * batch_size``, and every random number is drawn from
    ``key`` folded with the step, so neither needs a state of its own.

    Attributes:
        step: int32, steps done.
        phase: int32, number of the current phase.
        phase_start: int32, step at which the phase began.
        params: name → parameter.
        rest: name → other model state (batch statistics).
        opt_state: of the phase's transformation, over trainable parameters only.
        plateau: of the plateau schedule; its ``scale`` multiplies every update.
        best: float32, best validated metric so far.
        best_step: int32, where that was; -1 for never.
        stale: int32, validations since.
        validated: int32, step of the last validation: a run that was stopped within one
            repeats it before it goes on.
        bad_step: int32, first step whose loss was not finite; -1 for none.
        key: uint32, key data of the run's random key.
        task_state: whatever a task carries from epoch to epoch.
    """

    step: jax.Array
    phase: jax.Array
    phase_start: jax.Array
    params: Arrays
    rest: Arrays
    opt_state: Any
    plateau: Any
    best: jax.Array
    best_step: jax.Array
    stale: jax.Array
    validated: jax.Array
    bad_step: jax.Array
    key: jax.Array
    task_state: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """What stays the same over all steps of a run.

    Attributes:
        task: the task.
        mesh: devices, one axis ``data``.
        phases: one mapping per phase: ``epochs``, ``freeze``, ``thaw``, ``begin``
            (``last`` or ``best``), ``optimizer``, ``schedule``, ``learning_rate``, ``clip_norm``, ``optimizer_at_switch``,
            ``stop_after`` (validations without improvement; 0 for never).
        plateau: arguments of the plateau schedule.
        augment: ``(batch, seed) → batch``, on the device.
        seed: of initialisation, order, augmentation and dropout.
        batch_size: global.
        steps_per_epoch: of the training split.
        accumulate: micro-batches per step.
        mode: ``min`` or ``max``: which way the validated metric is better.
    """

    task: Task
    mesh: jax.sharding.Mesh
    phases: Sequence[Mapping[str, Any]]
    plateau: Mapping[str, Any]
    augment: Callable[[Batch, int], Batch]
    seed: int
    batch_size: int
    steps_per_epoch: int
    accumulate: int = 1
    mode: str = "min"

    def __post_init__(self) -> None:
        rows = self.mesh.size * self.accumulate
        if self.batch_size % rows:
            raise ConfigError(
                f"train.batch_size={self.batch_size} does not divide among"
                f" {self.mesh.size} devices and train.accumulate={self.accumulate}:"
                f" give a multiple of {rows}"
            )
        # Frozen dataclass: what follows from the fields is set once, here.
        object.__setattr__(self, "model_def", ModelDef.of(self.task.create))
        whole = replicated(self.mesh)
        start = jax.jit(self._init, static_argnums=0, out_shardings=whole)
        object.__setattr__(self, "_start", start)

    def phase_steps(self, phase: int) -> int:
        """Length of a phase in steps."""
        return max(1, round(self.phases[phase]["epochs"] * self.steps_per_epoch))

    def _since(self, phase: int, params: Arrays) -> dict[str, int]:
        """Trainable parameter → the phase whose optimizer state it stems from."""
        since: dict[str, int] = {}
        for number in range(phase + 1):
            spec = self.phases[number]
            trainable, _ = optim.partition(params, spec)
            known = since if spec["optimizer_at_switch"] == "carry" else {}
            since = {name: known.get(name, number) for name in trainable}
        return since

    def transformation(self, phase: int, params: Arrays) -> Any:
        """The optax transformation of a phase."""
        return optim.chain(
            self.phases[phase],
            steps=self.phase_steps(phase),
            since=self._since(phase, params),
        )

    def init(self, phase: int = 0) -> TrainState:
        """A fresh state, laid out over the mesh; ``phase`` fixes the optimizer's tree."""
        return self._start(phase)

    def adopt(
        self, state: TrainState, params: Mapping[str, Any], rest: Mapping[str, Any]
    ) -> TrainState:
        """A fresh state with these arrays in place of its own; others stay.

        The optimizer's state stays too: those in use hold no copy of the parameters.
        """
        whole = replicated(self.mesh)

        def put(old: Arrays, new: Mapping[str, Any]) -> Arrays:
            given = {name: jax.device_put(new[name], whole) for name in new}
            return old | given

        return dataclasses.replace(
            state, params=put(state.params, params), rest=put(state.rest, rest)
        )

    def abstract(self, phase: int) -> TrainState:
        """Shapes, types and shardings of a state in ``phase``, for a restore."""
        sharding = replicated(self.mesh)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            jax.eval_shape(lambda *a: self._begin(phase, *a), *self.model_def.shapes),
        )

    def saved(self, meta: Mapping[str, Any]) -> TrainState:
        """``abstract`` of the phase that the meta of a checkpoint names."""
        return self.abstract(meta["phase"])

    def _init(self, phase: int) -> TrainState:
        key = jax.random.fold_in(jax.random.key(self.seed), 0)
        return self._begin(phase, *self.model_def.init(self.task.create, key))

    def _begin(self, phase: int, params: Arrays, rest: Arrays) -> TrainState:
        key = jax.random.key(self.seed)
        trainable, _ = optim.partition(params, self.phases[phase])
        return TrainState(
            step=jnp.int32(0),
            phase=jnp.int32(phase),
            phase_start=jnp.int32(0),
            params=params,
            rest=rest,
            opt_state=self.transformation(phase, params).init(trainable),
            plateau=optim.plateau(self.plateau).init({}),
            best=jnp.float32(jnp.inf if self.mode == "min" else -jnp.inf),
            best_step=jnp.int32(-1),
            stale=jnp.int32(0),
            validated=jnp.int32(0),
            bad_step=jnp.int32(-1),
            key=jax.random.key_data(jax.random.fold_in(key, 1)),
            task_state={},
        )

    def next_phase(self, state: TrainState) -> TrainState:
        """The state at the beginning of the next phase."""
        phase = int(state.phase) + 1
        whole = replicated(self.mesh)
        return jax.jit(lambda s: self._enter(phase, s), out_shardings=whole)(state)

    def _enter(self, phase: int, state: TrainState) -> TrainState:
        trainable, _ = optim.partition(state.params, self.phases[phase])
        opt_state = self.transformation(phase, state.params).init(trainable)
        if self.phases[phase]["optimizer_at_switch"] == "carry":
            opt_state = optim.carry(opt_state, state.opt_state)
        return dataclasses.replace(
            state,
            phase=state.phase + 1,
            phase_start=state.step,
            stale=jnp.zeros_like(state.stale),
            opt_state=opt_state,
            plateau=optim.plateau(self.plateau).init({}),
        )

    def step(self, phase: int) -> Callable[[TrainState, Batch], Any]:
        """The jitted step of a phase: ``(state, batch) → (state, metrics)``."""
        whole = replicated(self.mesh)
        return jax.jit(
            lambda state, batch: self._step(phase, state, batch),
            donate_argnums=0,
            out_shardings=(whole, whole),
        )

    def _step(
        self, phase: int, state: TrainState, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        trainable, frozen = optim.partition(state.params, self.phases[phase])
        batch = self.augment(batch, self.seed)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        gradients, rest, loss = self._gradients(trainable, frozen, state, batch, key)
        transformation = self.transformation(phase, state.params)
        updates, opt_state = transformation.update(
            gradients, state.opt_state, trainable
        )
        scale = state.plateau.scale
        updates = jax.tree.map(lambda u: u * scale.astype(u.dtype), updates)
        total = objective.total(loss)
        norm = optax.tree.norm(gradients)
        new = dataclasses.replace(
            state,
            step=state.step + 1,
            params={**optax.apply_updates(trainable, updates), **frozen},
            rest=rest,
            opt_state=opt_state,
        )
        finite = jnp.isfinite(total) & jnp.isfinite(norm)
        finite &= jnp.isfinite(optax.tree.norm(updates)) & _all_finite(rest)
        metrics = {"loss": total, "grad_norm": norm, "lr_scale": scale}
        return _unless_bad(state, new, finite), metrics | objective.log_entries(loss)

    def _gradients(
        self,
        trainable: Arrays,
        frozen: Arrays,
        state: TrainState,
        batch: Batch,
        key: jax.Array,
    ) -> tuple[Arrays, Arrays, Any]:
        """Gradient of the loss over the whole global batch, in micro-batches."""

        def loss_of(trainable: Arrays, rest: Arrays, batch: Batch, key: jax.Array):
            params = {**trainable, **frozen}
            model = self.model_def.merge(params, rest, frozen=frozen)
            loss = self.task.loss(model, batch, key=key, step=state.step)
            return loss, self.model_def.split(model)[1]

        def share(trainable, rest, batch, key, denominators):
            loss, rest = loss_of(trainable, rest, batch, key)
            loss = dataclasses.replace(
                loss, denominators=denominators or loss.denominators
            )
            return objective.total(loss), (loss, rest)

        grad = jax.grad(share, has_aux=True)
        if self.accumulate == 1:
            gradients, (loss, rest) = grad(trainable, state.rest, batch, key, None)
            return gradients, rest, loss

        micro = jax.tree.map(self._micro_batches, batch)
        keys = jax.random.split(key, self.accumulate)
        # Denominators are counts over the whole batch, so they come first. They do not
        # depend on the network: the compiler drops its forward pass here.
        counts = jax.lax.map(
            lambda m: loss_of(trainable, state.rest, *m)[0].denominators, (micro, keys)
        )
        denominators = jax.tree.map(lambda c: jnp.sum(c, axis=0), counts)

        def body(carry, item):
            sums, rest = carry
            gradients, (loss, rest) = grad(trainable, rest, *item, denominators)
            sums = jax.tree.map(jnp.add, sums, gradients)
            return (sums, rest), loss

        zeros = jax.tree.map(jnp.zeros_like, trainable)
        (gradients, rest), losses = jax.lax.scan(
            body, (zeros, state.rest), (micro, keys)
        )
        loss = dataclasses.replace(
            losses,
            numerators=jax.tree.map(lambda n: jnp.sum(n, axis=0), losses.numerators),
            denominators=denominators,
            weights=jax.tree.map(lambda w: w[0], losses.weights),
        )
        return gradients, rest, loss

    def _micro_batches(self, x: jax.Array) -> jax.Array:
        # Row r goes to micro-batch r % k: every device keeps the rows it holds.
        x = x.reshape(-1, self.accumulate, *x.shape[1:])
        return jnp.moveaxis(x, 1, 0)

    def validated(self, state: TrainState, value: float) -> TrainState:
        """The state after a validation: plateau, best metric, stale count.

        Args:
            state: before it.
            value: the metric; NaN (undefined) counts as no improvement.
        """
        return self._validated(state, np.float32(value))

    @functools.cached_property
    def _validated(self) -> Callable[[TrainState, Any], TrainState]:
        def update(state: TrainState, value: jax.Array) -> TrainState:
            falls = self.mode == "min"
            better = value < state.best if falls else value > state.best
            # The rule is relative, so a metric that shall rise enters as its distance
            # from 1, not as a negative number.
            _, plateau = optim.plateau(self.plateau).update(
                {}, state.plateau, value=value if falls else 1.0 - value
            )
            return dataclasses.replace(
                state,
                plateau=plateau,
                best=jnp.where(better, value, state.best),
                best_step=jnp.where(better, state.step, state.best_step),
                stale=jnp.where(better, 0, state.stale + 1),
                validated=state.step,
            )

        return jax.jit(update, out_shardings=replicated(self.mesh))


def _all_finite(arrays: Arrays) -> jax.Array:
    # By their norm, as for gradients: hundreds of "all finite" joined into one took XLA's
    # CPU compiler twice as long as all the rest of DenseNet-121's step.
    return jnp.isfinite(optax.tree.norm([x for x in arrays.values() if _is_float(x)]))


def _is_float(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _unless_bad(old: TrainState, new: TrainState, finite: jax.Array) -> TrainState:
    """``new``, or ``old`` for good once a step was not finite."""
    good = finite & (old.bad_step < 0)
    kept = jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
    first = jnp.where(old.bad_step < 0, old.step, old.bad_step)
    return dataclasses.replace(kept, bad_step=jnp.where(good, old.bad_step, first))
