"""The protocol between a paper and everything that is not one."""

import dataclasses
from typing import Protocol

import jax
from flax import nnx

from cxr_jax.types import Batch, Loss, Prediction


class Task(Protocol):
    """What a paper decides: what is predicted, what it costs, how it is read out.

    Methods that take a model are pure functions of its state under ``jax.jit``, but for
    batch statistics, which ``loss`` writes into the model it is given. A task has no state
    of its own that changes.

    What else it may say of itself, see ``Traits``.

    Attributes:
        classes: names of the classes, in the order of the last axis.
    """

    classes: tuple[str, ...]

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
class Traits:
    """What a task says of itself by attributes of these names, and means where it does not.

    Attributes:
        labelled: labels of whole films that it learns from; its classes.
        reads: fields of a batch, beyond films and labels, that its loss reads.
        regions: names of the regions that a batch holds; all of them.
        findings: names of what regions are labelled with; all of them.
        maps: the kind of maps that its predictions carry; "" for none.
        finds_boxes: whether its predictions carry boxes.
        finishes: fields of a prediction, beyond scores, that ``finalize`` reads: they
            are fetched for it.
    """

    labelled: tuple[str, ...]
    reads: tuple[str, ...] = ()
    regions: tuple[str, ...] | None = None
    findings: tuple[str, ...] | None = None
    maps: str = ""
    finds_boxes: bool = False
    finishes: tuple[str, ...] = ()


def traits(task: Task) -> Traits:
    """Those of a task, or of the one that is wrapped."""
    while isinstance(task, Wrapper):
        task = task.task
    names = [field.name for field in dataclasses.fields(Traits)]
    said = {name: getattr(task, name) for name in names if hasattr(task, name)}
    return Traits(**{"labelled": tuple(task.classes)} | said)


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
