"""Reading a part of a split with given weights: predictions of every film, and the loss."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from cxr_jax import evaluate, objective, progress
from cxr_jax.checkpoint import host
from cxr_jax.data.records import Records
from cxr_jax.evaluators.base import Evaluator, observe
from cxr_jax.models.state import Arrays, ModelDef
from cxr_jax.predictions import Predictions
from cxr_jax.preemption import Stopped, Stopper
from cxr_jax.tasks.base import Task, traits
from cxr_jax.types import Batch, Loss, Prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a split, as an evaluation reads it.

    Attributes:
        batches: makes the padded device batches, from the first film on.
        records: the dataset's table.
        index: record numbers of the part, ``[n]``.
    """

    batches: Callable[[], Iterator[Batch]]
    records: Records
    index: np.ndarray


class Reader:
    """A task and its network, compiled once for all weights and parts.

    Args:
        task: predicts and costs.
        model_def: of the task's network.
        stopper: asked after every batch.
        evaluators: observe each batch on the device.
        costs: whether a loss is taken; it is NaN otherwise.
        batch_size: of training: what a term sums over films is told of so many.
    """

    def __init__(
        self,
        task: Task,
        model_def: ModelDef,
        stopper: Stopper,
        *,
        evaluators: Sequence[Evaluator] = (),
        costs: bool = True,
        batch_size: int = 1,
    ):
        self._costs, self._batch_size = costs, batch_size
        self._task, self._model_def, self._stopper = task, model_def, stopper
        self._evaluators = tuple(evaluators)
        self._compiled: Callable[..., tuple[Prediction, Loss]] | None = None

    def compile(self, params: Arrays, rest: Arrays, part: Part) -> None:
        """Compiles ahead of the first step, while nothing is unsaved."""
        batch = next(part.batches())
        # Each process finishes the films that it read: rows of what is said of them must
        # not lie elsewhere, as the compiler could choose.
        rows = getattr(batch.mask, "sharding", None)
        read = jax.jit(self._read, out_shardings=(rows, None))
        self._compiled = read.lower(params, rest, batch).compile()

    def __call__(
        self, params: Arrays, rest: Arrays, part: Part
    ) -> tuple[Predictions, float]:
        """Every film's prediction, and the loss over all films.

        Raises:
            Stopped: a signal came.
        """
        if self._compiled is None:
            self.compile(params, rest, part)
        losses: list[Loss] = []

        def predict(batch: Batch) -> Prediction:
            prediction, loss = self._compiled(params, rest, batch)
            losses.append(loss)
            return prediction

        batches = part.batches()
        if jax.process_index() == 0:
            batches = progress.track(
                batches,
                total=len(part.index),
                what="films",
                size=lambda batch: len(batch.mask),
            )
        table = evaluate.predict_split(
            predict,
            batches,
            records=part.records,
            expected=part.index,
            classes=self._task.classes,
            finalize=self._task.finalize,
            on_batch=self._poll,
        )
        if not self._costs:
            return table, float("nan")
        share = self._batch_size / len(part.index)
        return table, _total(jax.device_get(losses), share=share)

    def with_maps(self, params: Arrays, rest: Arrays) -> Callable[[Batch], Prediction]:
        """Predictions with maps, on one device of this process alone."""

        @jax.jit
        def predict(params: Arrays, rest: Arrays, batch: Batch) -> Prediction:
            return self._task.predict(self._model_def.merge(params, rest), batch)

        return functools.partial(predict, *jax.tree.map(host, (params, rest)))

    def passes(
        self, params: Arrays, rest: Arrays, *, samples: int, seed: int
    ) -> Callable[[Batch], jax.Array]:
        """Logits ``[T, B, C]`` pass by pass, on one device of this process alone."""

        @jax.jit
        def read(params: Arrays, rest: Arrays, batch: Batch) -> jax.Array:
            model, key = self._model_def.merge(params, rest), jax.random.key(seed)
            return self._task.passes(model, batch, key=key, samples=samples)

        return functools.partial(read, *jax.tree.map(host, (params, rest)))

    def _read(
        self, params: Arrays, rest: Arrays, batch: Batch
    ) -> tuple[Prediction, Loss | None]:
        model = self._model_def.merge(params, rest)
        prediction = self._task.predict(model, batch)
        observed = observe(self._evaluators, prediction, batch)
        # Maps stay on the device that made them: the compiler drops what is not asked.
        wanted = "maps" in traits(self._task).finishes
        maps = prediction.maps if wanted else None
        prediction = dataclasses.replace(prediction, maps=maps, observed=observed)
        if not self._costs:
            return prediction, None
        return prediction, self._task.loss(model, batch, key=None, step=0)

    def _poll(self, number: int) -> None:
        del number
        if self._stopper.poll():
            raise Stopped


def _total(losses: list[Loss], *, share: float) -> float:
    """The loss over all films: sums first, one division at the end.

    Args:
        losses: of batches.
        share: of a training batch among these films. A term without a denominator grows
            with the films: it is told of as many as a training step sees.
    """

    def add(*values: Any) -> float:
        return float(np.sum(np.asarray(values, np.float64)))

    numerators = jax.tree.map(add, *(loss.numerators for loss in losses))
    denominators = jax.tree.map(add, *(loss.denominators for loss in losses))
    numerators = {
        name: value if denominators[name] else value * share
        for name, value in numerators.items()
    }
    loss = Loss(
        numerators=numerators, denominators=denominators, weights=losses[0].weights
    )
    return float(objective.total(loss))
