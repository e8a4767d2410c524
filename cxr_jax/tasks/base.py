"""The protocol between a paper and everything that is not one."""

from typing import Protocol

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
        """What the model says, in fixed shapes; ``samples > 0`` adds dropout's spread."""

    def finalize(self, prediction: Prediction) -> Prediction:
        """On the host, in NumPy: what fixed shapes cannot do."""
