"""Monte-Carlo dropout in an evaluation: a task that reads films with thinned networks too.

Validation while training reads films once, without dropout: what picks the checkpoint is
the plain pass.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cxr_jax import config
from cxr_jax.errors import ConfigError
from cxr_jax.models.state import ModelDef
from cxr_jax.tasks.base import Task, Wrapper
from cxr_jax.types import Batch, Prediction

MEAN, PLAIN = "mean", "plain"


def wrap(task: Task, spec: Mapping[str, Any], *, seed: int) -> Task:
    """The task as ``eval.mc`` asks for it.

    Args:
        task: of the run.
        spec: ``samples`` and ``probs``, see ``Sampled``; no samples, or nothing at all,
            is the plain pass.
        seed: of the masks.

    Raises:
        ConfigError: a number of samples, or a kind of probabilities, that there is not.
    """
    given = config.plain(spec)
    if not given.get("samples"):
        return task
    try:
        return Sampled(task=task, seed=seed, **given)
    except TypeError as error:
        raise ConfigError(f"eval.mc: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampled(Wrapper):
    """A task whose predictions carry the spread over dropout masks.

    Attributes:
        samples: passes T with a mask each, at least 1.
        probs: ``mean``, the mean over the passes is the probability, as in Gal and
            Ghahramani; or ``plain``, the pass without dropout stays it.
        seed: of the masks, which depend on nothing else.

    Raises:
        ConfigError: fewer samples, other probabilities.
    """

    samples: int
    probs: str = MEAN
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"eval.mc.samples={self.samples}: must be at least 0")
        if self.probs not in (MEAN, PLAIN):
            raise ConfigError(
                f"eval.mc.probs={self.probs!r}: give {MEAN!r} or {PLAIN!r}"
            )

    def predict(
        self,
        model: nnx.Module,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        samples: int = 0,
    ) -> Prediction:
        """The prediction with its spread; a caller's own ``samples`` are the task's."""
        if samples:
            return self.task.predict(model, batch, key=key, samples=samples)
        key = jax.random.key(self.seed)
        if self.probs == PLAIN:
            return beside_plain(self.task, model, batch, key=key, samples=self.samples)
        return self.task.predict(model, batch, key=key, samples=self.samples)

    def check(self, model_def: ModelDef, height: int, width: int) -> None:
        """Refuses a network without dropout; computes nothing.

        Raises:
            ConfigError: all its passes would be one.
        """
        if not drops(self.task, model_def, height, width):
            raise ConfigError(
                f"eval.mc.samples={self.samples}: this network has no dropout, so all"
                " passes are the same; give task.head.dropout a rate above 0 (and train"
                " with it), or set eval.mc.samples=0"
            )


def beside_plain(
    task: Task, model: nnx.Module, batch: Batch, *, key: jax.Array, samples: int
) -> Prediction:
    """The task's own prediction, with the spread of passes beside it.

    Under ``jax.jit`` the backbone is still computed once: the compiler sees that both
    read the same films with it.
    """
    plain = task.predict(model, batch)
    drawn = task.predict(model, batch, key=key, samples=samples)
    return dataclasses.replace(plain, std=drawn.std, information=drawn.information)


def drops(task: Task, model_def: ModelDef, height: int, width: int) -> bool:
    """Whether anything a task predicts depends on a dropout mask; computes nothing.

    Args:
        task: makes passes.
        model_def: of its network.
        height: of films in pixels.
        width: likewise.
    """
    films = Batch(
        image=jnp.zeros((1, height, width, 1), jnp.uint8),
        labels=np.full((1, len(task.classes)), np.nan, np.float32),
        mask=np.ones(1, bool),
        position=np.zeros(1, np.uint32),
        index=np.zeros(1, np.int32),
    )

    def passes(model: nnx.Module, key: jax.Array) -> jax.Array:
        return task.passes(model, films, key=key, samples=1)

    def shared(params: Any, rest: Any) -> jax.Array:
        model = nnx.merge(model_def.graphdef, params, rest, copy=True)
        each = jax.vmap(lambda key: passes(model, key), out_axes=None)
        return each(jax.random.split(jax.random.key(0)))

    try:
        # An output that is to be the same for all keys must not depend on the key.
        jax.eval_shape(shared, model_def.params, model_def.rest)
    except ValueError:
        return True
    return False
