"""Test-time augmentation: a task that reads several views of each film, and averages.

A wrapper has the task's own methods; only ``predict`` differs. Validation while training
reads films once: what picks the checkpoint is the plain pass.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cxr_jax import config
from cxr_jax.data.resample import centre, frame_maps
from cxr_jax.errors import ConfigError
from cxr_jax.models.thinned import logit_of_mean
from cxr_jax.tasks.base import Task, Wrapper, traits
from cxr_jax.types import Batch, Prediction

PROBS, LOGITS = "probs", "logits"


def wrap(task: Task, spec: Mapping[str, Any]) -> Task:
    """The task as an evaluation reads it.

    Args:
        task: of the run.
        spec: ``name`` (a dotted path; empty for the plain pass), and arguments of that
            kind; those that are empty or 0 are left to their defaults.

    Raises:
        ConfigError: an unknown kind, or arguments that it does not take.
    """
    given = {key: value for key, value in config.plain(spec).items() if value}
    return config.build(given, task=task) if "name" in given else task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views(Wrapper, abc.ABC):
    """What the kinds of test-time augmentation share.

    Views are read one after the other (``lax.map``): memory is that of one.

    Attributes:
        average: ``probs``, the mean of probabilities, whose logit becomes ``logits``; or
            ``logits``, the mean of logits, whose sigmoid becomes ``probs``. The order of
            films differs between the two.

    Raises:
        ConfigError: another average.
    """

    average: str = PROBS

    def __post_init__(self) -> None:
        if self.average not in (PROBS, LOGITS):
            raise ConfigError(
                f"eval.tta.average={self.average!r}: give {PROBS!r} or {LOGITS!r}"
            )

    def check(self, height: int, width: int) -> None:
        """Refuses films without room for the views, and boxes; computes nothing.

        Args:
            height: of the films in pixels.
            width: likewise.

        Raises:
            ConfigError: they have none, or the task predicts boxes on the device.
        """
        said = traits(self.task)
        if said.finds_boxes and not said.finishes:
            raise self._no_mean()
        film = jax.ShapeDtypeStruct((1, height, width, 1), jnp.uint8)
        jax.eval_shape(self._views, film)

    def _no_mean(self) -> ConfigError:
        return ConfigError(
            f"eval.tta.name={type(self).__name__}: this task predicts boxes, which have no"
            " mean over views; set eval.tta.name to nothing"
        )

    def predict(
        self,
        model: nnx.Module,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        samples: int = 0,
    ) -> Prediction:
        """The task's prediction, averaged over the views.

        Where dropout is sampled, all views see the same masks. ``std`` is the mean of the
        views' spreads, which is at least the spread of their mean, and ``information``
        the mean of the views' own, that of label and mask where the view is known.

        Raises:
            ConfigError: films without room for the views, or a task that predicts boxes
                or regions: these have no mean.
        """
        views = self._views(jnp.asarray(batch.image))

        def read(image: jax.Array) -> Prediction:
            view = dataclasses.replace(batch, image=image)
            return self.task.predict(model, view, key=key, samples=samples)

        found = jax.lax.map(read, views)
        if found.boxes is not None or found.regions is not None:
            raise self._no_mean()
        logits, probs = self._mean(found)
        return Prediction(
            logits=logits,
            probs=probs,
            std=None if found.std is None else jnp.mean(found.std, axis=0),
            information=(
                None
                if found.information is None
                else jnp.mean(found.information, axis=0)
            ),
            maps=None if found.maps is None else self._maps(found.maps, batch.image),
        )

    def passes(
        self, model: nnx.Module, batch: Batch, *, key: jax.Array, samples: int
    ) -> jax.Array:
        """The task's passes with dropout, each averaged over the views."""

        def read(image: jax.Array) -> jax.Array:
            view = dataclasses.replace(batch, image=image)
            return self.task.passes(model, view, key=key, samples=samples)

        found = jax.lax.map(read, self._views(jnp.asarray(batch.image)))
        return self._mean_logits(found)

    def _mean(self, found: Prediction) -> tuple[jax.Array, jax.Array]:
        logits = self._mean_logits(found.logits)
        if self.average == LOGITS:
            return logits, jax.nn.sigmoid(logits)
        return logits, jnp.mean(found.probs, axis=0)

    def _mean_logits(self, logits: jax.Array) -> jax.Array:
        """Over the first axis, the views."""
        if self.average == LOGITS:
            return jnp.mean(logits, axis=0)
        return logit_of_mean(logits)

    @abc.abstractmethod
    def _views(self, image: jax.Array) -> jax.Array:
        """``[V, B, h, w, K]``, the first of them upright."""

    @abc.abstractmethod
    def _maps(self, maps: jax.Array, image: jax.Array) -> jax.Array:
        """``[V, B, h, w, C]`` → ``[B, h', w', C]`` over the whole films."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip(Views):
    """The film and its mirror image.

    Maps are the mean of the film's own and of the mirror image's, mirrored back.
    """

    def _views(self, image: jax.Array) -> jax.Array:
        return jnp.stack([image, image[:, :, ::-1]])

    def _maps(self, maps: jax.Array, image: jax.Array) -> jax.Array:
        del image
        return (maps[0] + maps[1][:, :, ::-1]) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class TenCrop(Views):
    """The middle and the four corners of the film, and their mirror images.

    Maps are those of the middle, as it is, framed by the whole film: they explain one
    view of ten.

    Attributes:
        size: side of the views in pixels, smaller than the film's.

    Raises:
        ConfigError: no size.

    Reference: Krizhevsky et al., ImageNet classification with deep convolutional neural
    networks, NIPS 2012, section 4.1, who averaged probabilities; the offsets are those of
    torchvision's ``TenCrop``.
    """

    size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ConfigError(f"eval.tta.size={self.size}: give the pixels of a view")

    def _views(self, image: jax.Array) -> jax.Array:
        height, width = image.shape[1:3]
        if min(height, width) <= self.size:
            raise ConfigError(
                f"eval.tta.size={self.size}: films of {height}×{width} have no corners"
                " of that size; give fewer pixels, or a dataset with larger films"
            )
        near, far = slice(None, self.size), slice(-self.size, None)
        corners = [
            image[:, down, right] for down in (near, far) for right in (near, far)
        ]
        upright = jnp.stack([centre(image, self.size), *corners])
        return jnp.concatenate([upright, upright[:, :, :, ::-1]])

    def _maps(self, maps: jax.Array, image: jax.Array) -> jax.Array:
        return frame_maps(maps[0], seen=self.size, side=image.shape[1])
