"""Findings by anatomical region, and boxes of findings made of the boxes of regions: ADPD."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cxr_jax import boxes, config, objective
from cxr_jax.data import augment
from cxr_jax.errors import ConfigError
from cxr_jax.labels import IMAGENOME_FINDINGS, REGIONS29
from cxr_jax.models import pooling
from cxr_jax.models.decoder import RegionOutput
from cxr_jax.models.heads import Classifier
from cxr_jax.types import Batch, Boxes, Loss, Prediction, Regions

# What a term may cost.
QUANTITIES = ("presence", "coordinates", "giou", "findings", "film")
# Where the labels of whole films come from.
FILM_LABELS = ("regions", "labels")
NO_PASSES = "regions are read without dropout: give samples=0 (eval.mc.samples)"
# Probabilities of whole films stay this far from certainty, so that they have logits.
_LEAST = 1e-7
# Sides of a region that is there, in shares of a film of 224 pixels.
_THIN = 1e-3 / 224


class Anatomy:
    """A network that reads regions, what it costs, and how boxes of findings follow.

    A term costs one ``quantity``; its first axis counts regions of all films together:

    ===============  ==========================  =====================================
    ``quantity``     axes of the term            of
    ===============  ==========================  =====================================
    ``presence``     ``regions``                 every region: whether it is there
    ``coordinates``  ``regions, coordinates``    regions that are: cx, cy, w, h
    ``giou``         ``regions``                 regions that are: GIoU, whose target is 1
    ``findings``     ``regions, findings``       regions that are: labels of each
    ``film``         ``batch, findings``         films: labels of the whole
    ===============  ==========================  =====================================

    Args:
        model: the backbone: ``name`` is a dotted path, other keys are its arguments
            (``in_channels`` and ``rngs`` are given by the task).
        head: the decoder, likewise (``features``, ``regions``, ``findings`` and ``rngs``
            are given).
        terms: one mapping per term, see ``objective.Term.of``, with ``quantity``.
        classes: of the boxes that come out, in order.
        mapping: class → findings whose probabilities it is the mean of. Classes that it
            lacks are never found.
        findings: names of what regions are labelled with.
        regions: names of the regions, one token each.
        mean: one number per channel, of films in [0, 1].
        std: likewise.
        channels: what the backbone takes, 1 or 3; gray films are repeated.
        size: side in pixels of the films that the backbone takes; others are resampled,
            averaging where they are larger. 0 for films as they are.
        film_labels: labels of whole films: ``"regions"``, any of their regions;
            ``"labels"``, those of the dataset, whose classes are then the findings.
        sharpness: r of the pooling over regions that are there.
        present_above: logit above which a region is there, when reading.
        found_above: probability above which a finding is.
        fuse_above: IoU above which boxes of a class are fused; 1 for never.

    Raises:
        ConfigError: an unknown quantity, class or finding.

    Reference: Müller et al., MICCAI 2023, sections 2.2 to 2.4.
    """

    maps = ""
    finds_boxes = True
    # Fields of a batch that its loss reads.
    reads = ("regions",)

    def __init__(
        self,
        *,
        model: Mapping[str, Any],
        head: Mapping[str, Any],
        terms: Sequence[Mapping[str, Any]],
        classes: Sequence[str],
        mapping: Mapping[str, Sequence[str]],
        mean: Sequence[float],
        std: Sequence[float],
        channels: int,
        findings: Sequence[str] = IMAGENOME_FINDINGS,
        regions: Sequence[str] = REGIONS29,
        size: int = 0,
        film_labels: str = "regions",
        sharpness: float = 5.0,
        present_above: float = 0.5,
        found_above: float = 0.5,
        fuse_above: float = 0.03,
    ):
        self.classes, self.findings = tuple(classes), tuple(findings)
        self.regions = tuple(regions)
        self.objective = objective.Objective.of(terms)
        self.model, self.head = dict(model), dict(head)
        self.mean, self.std, self.channels = tuple(mean), tuple(std), channels
        self.sharpness, self.film_labels = sharpness, film_labels
        self.size = size
        self.present_above, self.found_above = present_above, found_above
        self.fuse_above = fuse_above
        self.mapping = {name: tuple(of) for name, of in dict(mapping).items()}
        if not 0 <= fuse_above <= 1:
            raise ConfigError(f"task.fuse_above={fuse_above}: an IoU, 0 to 1")
        self._check()

    @property
    def labelled(self) -> tuple[str, ...]:
        """Labels of whole films that it learns from."""
        return self.findings if self.film_labels == "labels" else self.classes

    def _check(self) -> None:
        for term in self.objective.terms:
            if term.quantity not in QUANTITIES:
                raise ConfigError(
                    f"task.terms: {term.name!r} has quantity={term.quantity!r}: give one"
                    f" of {', '.join(QUANTITIES)}"
                )
        if self.film_labels not in FILM_LABELS:
            raise ConfigError(
                f"task.film_labels={self.film_labels!r}: {' or '.join(FILM_LABELS)}"
            )
        for name, sources in self.mapping.items():
            unknown = [of for of in sources if of not in self.findings]
            if name not in self.classes or unknown or not sources:
                raise ConfigError(
                    f"task.mapping: {name!r} from {', '.join(sources) or 'nothing'}: a"
                    " class of task.classes needs findings of task.findings;"
                    f" unknown: {', '.join(unknown) or name}"
                )

    def create(self, key: jax.Array) -> Classifier:
        """A model with fresh weights; call it under ``jax.jit``."""
        rngs = nnx.Rngs(params=key)
        backbone = config.build(self.model, in_channels=self.channels, rngs=rngs)
        head = config.build(
            self.head,
            features=backbone.num_features(),
            regions=len(self.regions),
            findings=len(self.findings),
            rngs=rngs,
        )
        return Classifier(backbone, head)

    def preprocess(self, image: jax.Array) -> jax.Array:
        """Films of one size, normalised, as the backbone takes them."""
        if self.size and image.shape[1:3] != (self.size, self.size):
            shape = (len(image), self.size, self.size, image.shape[-1])
            image = jax.image.resize(augment.as_float(image), shape, "linear")
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
        """The terms on one batch; see ``tasks.base.Task``."""
        view = nnx.view(
            model, use_running_average=key is None, raise_if_not_found=False
        )
        said = view(self.preprocess(batch.image), key=key)
        losses = []
        for term in self.objective.terms:
            predicted, target, mask = self._quantity(term.quantity, said, batch)
            losses.append(term(predicted, target, mask=mask, step=step))
        return objective.merge(*losses)

    def _quantity(
        self, name: str, said: RegionOutput, batch: Batch
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What was said, what is true (NaN where unknown), and which rows are real."""
        if name == "film":
            return *self._of_films(said, batch), batch.mask
        present = _present(batch.regions)
        real = jnp.repeat(batch.mask, present.shape[1])
        if name == "presence":
            return said.presence.ravel(), present.astype(jnp.float32).ravel(), real
        if name == "giou":
            corners = boxes.xyxy_from_cxcywh(said.cxcywh)
            true = jnp.where(present[..., None], batch.regions.xyxy, 0.0)
            overlap = boxes.giou(corners, true)
            return overlap.ravel(), jnp.where(present, 1.0, jnp.nan).ravel(), real
        told = {
            "coordinates": (said.cxcywh, boxes.cxcywh_from_xyxy(batch.regions.xyxy)),
            "findings": (said.findings, batch.regions.probs),
        }
        predicted, target = told[name]
        target = jnp.where(present[..., None], target, jnp.nan)
        rows = -1, target.shape[-1]
        return predicted.reshape(rows), target.reshape(rows), real

    def _of_films(
        self, said: RegionOutput, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        """Logits of whole films and their labels; unknown where no region is there."""
        present = _present(batch.regions)
        if self.film_labels == "labels":
            labels = batch.labels
        else:
            labels = jnp.max(
                jnp.where(present[..., None], batch.regions.probs, 0.0), axis=1
            )
        some = jnp.any(present, axis=1, keepdims=True)
        # Any region will do where none is there: the label is unknown, the value is not.
        pooled = self.pool(jax.nn.sigmoid(said.findings), present | ~some)
        return logit(pooled), jnp.where(some, labels, jnp.nan)

    def pool(self, probs: jax.Array, present: jax.Array) -> jax.Array:
        """Probabilities of whole films.

        Args:
            probs: ``[B, A, C]``, of regions.
            present: bool ``[B, A]``, at least one per film.

        Returns:
            ``[B, C]``, clipped into (0, 1).
        """
        mask = jnp.broadcast_to(present[..., None], probs.shape)
        pooled = pooling.lse(probs, mask, r=self.sharpness, axis=1)
        return jnp.clip(pooled, _LEAST, 1 - _LEAST)

    def predict(
        self,
        model: Classifier,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        samples: int = 0,
    ) -> Prediction:
        """Regions, boxes of findings, and probabilities of whole films.

        Args:
            model: any mode; it reads its running statistics here.
            batch: films; neither labels nor regions are looked at.
            key: nothing is drawn.
            samples: 0.

        Returns:
            ``boxes`` holds one slot per class, in their order. ``probs`` of a film and
            class is its pooled probability over the regions that are there.

        Raises:
            ConfigError: passes with dropout are asked for.
        """
        del key
        if samples:
            raise ConfigError(NO_PASSES)
        reading = nnx.view(model, use_running_average=True, raise_if_not_found=False)
        return self.read(reading(self.preprocess(batch.image)))

    def read(self, said: RegionOutput) -> Prediction:
        """What follows from a network's output, in fixed shapes on the device."""
        xyxy = boxes.clip(boxes.xyxy_from_cxcywh(said.cxcywh))
        present = said.presence > self.present_above
        probs = jax.nn.sigmoid(said.findings)
        mapped, positive = self.mapped(probs)
        some = jnp.any(present, axis=1, keepdims=True)
        pooled = self.pool(mapped, present | ~some)
        pooled = jnp.where(some, pooled, _LEAST)
        prediction = Prediction(
            logits=logit(pooled),
            probs=pooled,
            boxes=self._boxes(xyxy, mapped, positive & present[..., None]),
            regions=Regions(
                xyxy=xyxy,
                presence=jax.nn.sigmoid(said.presence),
                probs=probs,
                found=present,
            ),
        )
        return jax.tree.map(
            lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, prediction
        )

    def mapped(self, probs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Probabilities of classes, and whether any of their findings is there.

        Args:
            probs: ``[B, A, F]`` of findings.

        Returns:
            Means ``[B, A, C]``, 0 for a class without findings, and bool ``[B, A, C]``.
        """
        means, found = [], []
        for name in self.classes:
            columns = [self.findings.index(of) for of in self.mapping.get(name, ())]
            own = probs[..., jnp.array(columns, int)]
            means.append(
                own.mean(axis=-1) if columns else jnp.zeros_like(probs[..., 0])
            )
            found.append(jnp.any(own > self.found_above, axis=-1))
        return jnp.stack(means, axis=-1), jnp.stack(found, axis=-1)

    def _boxes(self, xyxy: jax.Array, score: jax.Array, mask: jax.Array) -> Boxes:
        """The best box of each class, ``[B, C]``, of candidates ``[B, A, C]``."""
        score, mask = jnp.swapaxes(score, 1, 2), jnp.swapaxes(mask, 1, 2)
        xyxy = jnp.broadcast_to(xyxy[:, None], (*score.shape, 4))
        mask = mask & (boxes.area(xyxy) > 0)
        if self.fuse_above < 1:
            fused = boxes.fuse(xyxy, score, mask, above=self.fuse_above)
            xyxy, score, mask = fused.xyxy, fused.score, fused.mask
        best = jnp.argmax(jnp.where(mask, score, -1.0), axis=-1, keepdims=True)
        kept = jnp.take_along_axis(mask, best, axis=-1)[..., 0]
        score = jnp.take_along_axis(score, best, axis=-1)[..., 0]
        xyxy = jnp.take_along_axis(xyxy, best[..., None], axis=-2)[..., 0, :]
        label = jnp.broadcast_to(jnp.arange(len(self.classes)), kept.shape)
        return Boxes(
            xyxy=jnp.where(kept[..., None], xyxy, 0.0),
            label=label.astype(jnp.int32),
            mask=kept,
            score=jnp.where(kept, score, 0.0),
        )

    def passes(
        self, model: Classifier, batch: Batch, *, key: jax.Array, samples: int
    ) -> jax.Array:
        """There are none.

        Raises:
            ConfigError: always.
        """
        del model, batch, key, samples
        raise ConfigError(NO_PASSES)

    def finalize(self, prediction: Prediction) -> Prediction:
        """Nothing is left to do on the host."""
        return prediction


def logit(probs: jax.Array) -> jax.Array:
    """``ln p - ln(1 - p)`` of probabilities in (0, 1)."""
    return jnp.log(probs) - jnp.log1p(-probs)


def _present(regions: Regions) -> jax.Array:
    """Regions whose box has an inside, bool ``[B, A]``."""
    low, high = jnp.split(jnp.asarray(regions.xyxy), 2, axis=-1)
    return jnp.asarray(regions.presence) & jnp.all(high - low > _THIN, axis=-1)
