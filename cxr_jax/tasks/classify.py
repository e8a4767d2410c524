"""Multi-label classification of films: CheXNet and its relatives."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cxr_jax import config, explain
from cxr_jax.data import augment, resample
from cxr_jax.errors import ConfigError
from cxr_jax.models import thinned
from cxr_jax.models.heads import Classifier
from cxr_jax.objective import Objective
from cxr_jax.types import Batch, Loss, Prediction

# Kinds of maps; both come with the same forward pass.
CAM, GRAD_CAM = "cam", "grad_cam"


class Classify:
    """A backbone, a head that pools and classifies, and a sum of elementwise terms.

    Args:
        model: the backbone: ``name`` is a dotted path, other keys are its arguments
            (``in_channels`` and ``rngs`` are given by the task).
        head: the head, likewise (``features``, ``classes`` and ``rngs`` are given).
        terms: one mapping per term, see ``objective.Term.of``.
        classes: names of the classes.
        mean: one number per channel, of films in [0, 1].
        std: likewise.
        channels: what the backbone takes, 1 or 3; gray films are repeated.
        size: pixels of the middle that is read of larger films; 0 for whole films. Maps
            are framed by the whole film all the same.
        maps: what predictions carry of each class: ``"cam"`` (heads that pool and have
            a ``kernel``), ``"grad_cam"`` (any head), or nothing where empty. True and
            False stand for ``"cam"`` and nothing. Under ``jax.jit`` maps that the
            caller does not return cost nothing.

    Raises:
        ConfigError: another kind of maps.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, Any],
        head: Mapping[str, Any],
        terms: Sequence[Mapping[str, Any]],
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        channels: int,
        size: int = 0,
        maps: str | bool = CAM,
    ):
        self.classes = tuple(classes)
        self.objective = Objective.of(terms)
        self.model, self.head = dict(model), dict(head)
        self.mean, self.std, self.channels = tuple(mean), tuple(std), channels
        self.size = size
        self.maps = {True: CAM, False: ""}.get(maps, maps)
        if self.maps not in (CAM, GRAD_CAM, ""):
            raise ConfigError(
                f"task.maps={maps!r}: give {CAM!r}, {GRAD_CAM!r}, or '' for none"
            )

    def create(self, key: jax.Array) -> Classifier:
        """A model with fresh weights; call it under ``jax.jit``."""
        rngs = nnx.Rngs(params=key)
        backbone = config.build(self.model, in_channels=self.channels, rngs=rngs)
        head = config.build(
            self.head,
            features=backbone.num_features(),
            classes=len(self.classes),
            rngs=rngs,
        )
        return Classifier(backbone, head)

    def preprocess(self, image: jax.Array) -> jax.Array:
        """The middle of films, normalised, as the backbone takes it."""
        image = resample.centre(image, self.size)
        return augment.normalize(
            image, mean=self.mean, std=self.std, channels=self.channels
        )

    def loss(
        self,
        model: Classifier,
        batch: Batch,
        *,
        key: jax.Array | None,
        step: jax.typing.ArrayLike,
    ) -> Loss:
        """The terms on one batch.

        Args:
            model: with a key, its batch statistics are updated.
            batch: films and labels.
            key: of the dropout masks; None costs the batch as ``predict`` reads it.
            step: of the training, for scheduled weights.
        """
        view = nnx.view(
            model, use_running_average=key is None, raise_if_not_found=False
        )
        logits = view(self.preprocess(batch.image), key=key)
        return self.objective(
            logits, batch.labels, mask=batch.mask, step=step, group=batch.group
        )

    def predict(
        self,
        model: Classifier,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        samples: int = 0,
    ) -> Prediction:
        """Logits, probabilities, maps; with ``samples`` > 0 Monte-Carlo dropout too.

        The backbone runs once: only what lies behind the dropout is sampled.

        Args:
            model: any mode; it reads its running statistics here.
            batch: films; labels are not looked at.
            key: of the dropout masks, where ``samples`` > 0.
            samples: passes T with a dropout mask each, see ``passes``. ``probs`` is then
                their mean, ``logits`` its logit, ``std`` their standard deviation.

        Returns:
            float32 throughout.

        Raises:
            ConfigError: class activation maps of a head without ``kernel``.

        Reference: Gal and Ghahramani, Dropout as a Bayesian approximation, ICML 2016.
        """
        head, features = self._read(model, batch)
        if samples:
            drawn = thinned.passes(head, features, key=key, samples=samples)
            found = Prediction(**vars(thinned.spread(drawn)))
        else:
            logits = head(features)
            found = Prediction(logits=logits, probs=jax.nn.sigmoid(logits))
        maps = self._maps(head, features)
        if maps is not None and self.size:
            side = batch.image.shape[1]
            maps = resample.frame_maps(maps, seen=self.size, side=side)
        found = dataclasses.replace(found, maps=maps)
        return jax.tree.map(lambda x: x.astype(jnp.float32), found)

    def passes(
        self, model: Classifier, batch: Batch, *, key: jax.Array, samples: int
    ) -> jax.Array:
        """Logits ``[T, B, C]`` of the passes that ``predict`` sums up, in float32."""
        head, features = self._read(model, batch)
        drawn = thinned.passes(head, features, key=key, samples=samples)
        return drawn.astype(jnp.float32)

    def _read(self, model: Classifier, batch: Batch) -> tuple[nnx.Module, jax.Array]:
        """The head in its reading mode, and what the backbone gives it."""
        reading = nnx.view(model, use_running_average=True, raise_if_not_found=False)
        return reading.head, reading.features(self.preprocess(batch.image))

    def _maps(self, head: nnx.Module, features: jax.Array) -> jax.Array | None:
        if self.maps == GRAD_CAM:
            return explain.grad_cam(head, features)
        if self.maps == CAM and not hasattr(head, "kernel"):
            raise ConfigError(
                f"{type(head).__name__} has no kernel for class activation maps: set"
                f" task.maps={GRAD_CAM!r}"
            )
        return explain.cam(features, head.kernel) if self.maps else None

    def finalize(self, prediction: Prediction) -> Prediction:
        """Nothing is left to do on the host."""
        return prediction
