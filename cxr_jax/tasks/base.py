"""The protocol between a paper and everything that is not one."""

import dataclasses
from typing import Any, Protocol

import jax
from flax import nnx

from cxr_jax.types import Batch, Loss, Prediction


class Task(Protocol):
    """What a paper decides: what is predicted, what it costs, how it is read out.

    Methods that take a model are pure functions of its state under ``jax.jit``, but for
    batch statistics, which ``loss`` writes into the model it is given. A task has no state
    of its own that changes.

    Attributes:
        classes: names of the classes, in the order of the last axis.
        finishes: fields of a prediction, beyond scores, that ``finalize`` reads: they
            are fetched for it. None of them where the task does not say.
    """

    classes: tuple[str, ...]
    finishes: tuple[str, ...] = ()

    def create(self, key: jax.Array) -> nnx.Module:
        """A model with fresh weights.

        Call it under ``jax.jit`` and return its state (``models.state.ModelDef`` does):
        eager creation computes weight after weight.
        """

    def loss(
        self,
        model: nnx.Module,
        batch: Batch,
        *,
        key: jax.Array | None,
        step: jax.typing.ArrayLike,
    ) -> Loss:
        """Named terms of the loss.

        With a key it sets the training mode per submodule; without one it costs the
        batch in evaluation mode, as validation does.
        """

    def predict(
        self,
        model: nnx.Module,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        samples: int = 0,
    ) -> Prediction:
        """What the model says, in fixed shapes.

        With ``samples`` > 0 it is what so many passes with dropout say together:
        ``probs`` is their mean, ``std`` and ``information`` their spread. Each pass has
        one mask for all films, which depends on (key, number of the pass) alone.
        """

    def passes(
        self, model: nnx.Module, batch: Batch, *, key: jax.Array, samples: int
    ) -> jax.Array:
        """Logits ``[T, B, C]`` of those passes, one by one."""

    def finalize(self, prediction: Prediction) -> Prediction:
        """On the host, in NumPy: what fixed shapes cannot do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrapper:
    """A task that reads films in another way, and is its task in all else.

    Attributes:
        task: that is wrapped.
    """

    task: Task

    @property
    def classes(self) -> tuple[str, ...]:
        """The task's."""
        return self.task.classes

    @property
    def maps(self) -> Any:
        """The task's: what maps its predictions carry."""
        return getattr(self.task, "maps", False)

    @property
    def finishes(self) -> tuple[str, ...]:
        """The task's."""
        return getattr(self.task, "finishes", ())

    def create(self, key: jax.Array) -> nnx.Module:
        """The task's model."""
        return self.task.create(key)

    def loss(
        self,
        model: nnx.Module,
        batch: Batch,
        *,
        key: jax.Array | None,
        step: jax.typing.ArrayLike,
    ) -> Loss:
        """The task's loss, of films as the plain pass reads them."""
        return self.task.loss(model, batch, key=key, step=step)

    def passes(
        self, model: nnx.Module, batch: Batch, *, key: jax.Array, samples: int
    ) -> jax.Array:
        """The task's passes with dropout."""
        return self.task.passes(model, batch, key=key, samples=samples)

    def finalize(self, prediction: Prediction) -> Prediction:
        """The task's."""
        return self.task.finalize(prediction)
