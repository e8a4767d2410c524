"""The training loop: one for every paper, read from top to bottom.

It knows batches, numbers and when things are due; what a step computes is in ``step.py``.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from cxr_jax.checkpoint import Checkpoints
from cxr_jax.errors import CheckpointError
from cxr_jax.logbook import Logbook
from cxr_jax.preemption import Stopped, Stopper
from cxr_jax.step import Trainer, TrainState
from cxr_jax.types import Batch


class NonFinite(ArithmeticError):
    """A loss or gradient was not finite.

    Attributes:
        step: the first such step; the state before it is saved.
    """

    def __init__(self, step: int):
        super().__init__(f"loss or gradient is not finite at step {step}")
        self.step = step


class Hook(Protocol):
    """Observes a run; never changes its state."""

    def on_step(self, step: int) -> None:
        """After every step was dispatched."""

    def on_log(self, step: int, epoch: float, split: str, values: Mapping) -> None:
        """Whenever numbers are known."""

    def close(self) -> None:
        """When the run ends, however it ends."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where a run writes, and who watches it.

    Attributes:
        latest: periodic checkpoints.
        best: the checkpoint with the best validated metric.
        logbook: where numbers go.
        stopper: asked between steps.
        save_every: steps between two saves of ``latest``.
        log_every: steps between two log lines.
        hooks: observers.
    """

    latest: Checkpoints
    best: Checkpoints
    logbook: Logbook
    stopper: Stopper
    save_every: int
    log_every: int
    hooks: Sequence[Hook] = ()


def fit(
    trainer: Trainer,
    state: TrainState,
    batches: Callable[[int], Iterator[Batch]],
    around: Surroundings,
    *,
    validate: Callable[[TrainState], dict[str, float]],
    metric: str,
) -> TrainState:
    """Trains until the last phase is done.

    Args:
        trainer: the static half of the run.
        state: where it stands: fresh, or restored.
        batches: from a step to the endless device batches that begin there.
        around: checkpoints, logbook, signals, hooks.
        validate: from a state to named numbers on the validation split.
        metric: which of those numbers decides what is best.

    Returns:
        The final state; its best ancestor is in ``around.best``.

    Raises:
        Stopped: a signal came; the state is saved.
        NonFinite: a loss was not finite; the state before it is saved.
    """
    loop = _Loop(trainer, around, validate, metric)
    programs: dict[int, Callable] = {}
    # A kill between the two saves of a validation leaves the best one missing.
    if int(state.best_step) == int(state.step) >= 0:
        loop.save_best(state, again=True)
    while True:
        # Numbers the loop decides by are kept on the host: reading the state at every
        # step would wait for the device.
        phase, step, start = map(int, (state.phase, state.step, state.phase_start))
        end = start + trainer.phase_steps(phase)
        stale = loop.is_stale(state)
        if step < end:
            stream = batches(step)
            first = next(stream)
            stream = itertools.chain([first], stream)
            # Ahead of the first step, and while nothing is unsaved: a signal within
            # the compilation ends the process at once, and what does not compile or
            # fit is known before hours are spent on the phases before it.
            programs = programs or _compile(trainer, phase, first)
            train_step = programs[phase]
        around.stopper.begin()
        loop.start_clock()
        while True:
            if loop.is_due(step, start, end) and int(state.validated) != step:
                state = loop.validation(state)
                stale = loop.is_stale(state)
            if step >= end or stale:
                break
            if around.stopper.poll():
                loop.log_training(state, step)
                loop.save(state)
                around.latest.wait()
                raise Stopped
            state, metrics = train_step(state, next(stream))
            step += 1
            loop.after_step(state, step, metrics)
        around.latest.wait()
        around.best.wait()
        around.stopper.end()
        if phase + 1 == len(trainer.phases):
            return state
        state = loop.next_phase(state)


def _compile(trainer: Trainer, phase: int, batch: Batch) -> dict[int, Callable]:
    """The steps of a phase and of all after it."""
    return {
        number: trainer.step(number).lower(trainer.abstract(number), batch).compile()
        for number in range(phase, len(trainer.phases))
    }


class _Loop:
    """What happens between steps."""

    def __init__(
        self,
        trainer: Trainer,
        around: Surroundings,
        validate: Callable[[TrainState], dict[str, float]],
        metric: str,
    ):
        self._trainer = trainer
        self._around = around
        self._validate = validate
        self._metric = metric
        self._pending: list[Mapping[str, Any]] = []
        self._clock = time.perf_counter()

    def start_clock(self) -> None:
        """Leaves out of the speed what is not training: compiling, validating."""
        self._clock = time.perf_counter()

    def is_due(self, step: int, start: int, end: int) -> bool:
        """Whether ``step`` ends an epoch, or the phase that runs from start to end."""
        if step == start:
            return False
        return step == end or (step - start) % self._trainer.steps_per_epoch == 0

    def is_stale(self, state: TrainState) -> bool:
        """Whether the phase's patience is over."""
        limit = self._trainer.phases[int(state.phase)]["stop_after"]
        return bool(limit) and int(state.stale) >= limit

    def next_phase(self, state: TrainState) -> TrainState:
        """The state at the beginning of the next phase.

        Raises:
            CheckpointError: it begins with the best weights, and they cannot be read.
        """
        trainer, best = self._trainer, int(state.best_step)
        begin = trainer.phases[int(state.phase) + 1]["begin"]
        if begin == "best" and best not in (-1, int(state.step)):
            found = self._around.best.restore(
                trainer.saved,
                step=best,
                spare=self._around.latest,
            )
            if found is None:
                raise CheckpointError(
                    f"the next phase begins with the best weights, of step {best}, and"
                    f" {self._around.best.folder} has none: start in a new workdir"
                )
            state = dataclasses.replace(
                state, params=found.state.params, rest=found.state.rest
            )
        return trainer.next_phase(state)

    def after_step(
        self, state: TrainState, step: int, metrics: Mapping[str, Any]
    ) -> None:
        """Logs and saves when their step has come."""
        self._pending.append(metrics)
        for hook in self._around.hooks:
            hook.on_step(step)
        if step % self._around.log_every == 0:
            self.log_training(state, step)
        if step % self._around.save_every == 0:
            self.save(state)

    def validation(self, state: TrainState) -> TrainState:
        """Evaluate → plateau and best metric → save, in this order."""
        step = int(state.step)
        self.log_training(state, step)
        self._stop_if_bad(state)
        try:
            values = self._validate(state)
        except Stopped:
            self.save(state)
            self._around.latest.wait()
            raise
        state = self._trainer.validated(state, values[self._metric])
        self._log(state, step, "val", values)
        self.save(state)
        if int(state.best_step) == step:
            self.save_best(state)
        self.start_clock()
        return state

    def save(self, state: TrainState) -> None:
        """Saves to ``latest``, unless the state is behind a bad step: then raises."""
        self._stop_if_bad(state)
        self._around.best.wait()
        self._around.latest.save(int(state.step), state, self._meta(state))

    def save_best(self, state: TrainState, *, again: bool = False) -> None:
        """Saves to ``best``, when what it descends from is on disk."""
        self._around.latest.wait()
        meta = self._meta(state)
        self._around.best.save(int(state.step), state, meta, again=again)

    def _meta(self, state: TrainState) -> dict[str, Any]:
        return {
            "phase": int(state.phase),
            "position": int(state.step) * self._trainer.batch_size,
            "best": {self._metric: float(state.best), "step": int(state.best_step)},
        }

    def _stop_if_bad(self, state: TrainState) -> None:
        bad = int(state.bad_step)
        if bad < 0:
            return
        # The step keeps the state before the bad batch: that is the last good one.
        good = dataclasses.replace(state, bad_step=jnp.full_like(state.bad_step, -1))
        self._around.latest.save(int(state.step), good, self._meta(state))
        self._around.latest.wait()
        raise NonFinite(bad)

    def log_training(self, state: TrainState, step: int) -> None:
        """Logs the means over the steps since the last line."""
        if not self._pending:
            return
        rows, self._pending = jax.device_get(self._pending), []
        values = {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}
        now = time.perf_counter()
        speed = len(rows) * self._trainer.batch_size / (now - self._clock)
        self._clock = now
        self._log(state, step, "train", values | {"examples_per_second": speed})
        self._stop_if_bad(state)

    def _log(
        self, state: TrainState, step: int, split: str, values: Mapping[str, float]
    ) -> None:
        phase = int(state.phase)
        epoch = step / self._trainer.steps_per_epoch
        self._around.logbook.write(
            step=step, epoch=epoch, split=split, phase=phase, **values
        )
        for hook in self._around.hooks:
            hook.on_log(step, epoch, split, values)
