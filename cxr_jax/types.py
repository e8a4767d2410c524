"""The pytrees that cross module boundaries, and their shape vocabulary.

Axes: ``B`` batch, ``H W`` space, ``C`` classes, ``A`` anatomical regions, ``N`` boxes.
Boxes are ``xyxy`` in [0, 1], relative to the image, everywhere.
"""

import dataclasses

import jax
from jax.typing import ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Boxes:
    """A fixed number of boxes per image, padded.

    Attributes:
        xyxy: float32 ``[B, N, 4]``, corners in [0, 1].
        label: int32 ``[B, N]``, class index.
        mask: bool ``[B, N]``, False for padding.
        score: float32 ``[B, N]`` in [0, 1] for predictions, None for references.
    """

    xyxy: ArrayLike
    label: ArrayLike
    mask: ArrayLike
    score: ArrayLike | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Regions:
    """One box per anatomical region.

    Attributes:
        xyxy: float32 ``[B, A, 4]``.
        presence: ``[B, A]``: bool for references, a probability for predictions.
        probs: float32 ``[B, A, C]``: labels in {0, 1} for references, probabilities for predictions.
        found: bool ``[B, A]`` for predictions: what the task takes for there.
    """

    xyxy: ArrayLike
    presence: ArrayLike
    probs: ArrayLike
    found: ArrayLike | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """What the pipeline gives the device: fixed shapes, no strings.

    Attributes:
        image: uint8 ``[B, H, W, K]``, as stored; float32 in [0, 1] after augmentation.
        labels: float32 ``[B, C]`` in {0, 1}; NaN where the label is unknown.
        mask: bool ``[B]``, False for padding rows.
        position: uint32 ``[B]``, index in the global sample stream; keys the augmentation.
        index: int32 ``[B]``, record number; string ids stay on the host.
        truth: float32 ``[B, C]``, the true state where it is known (phantoms), else None.
        group: int32 ``[B]``, a per-record category that a loss may weight by (body part), else None.
        boxes: reference boxes, or None.
        regions: reference regions, or None.
    """

    image: ArrayLike
    labels: ArrayLike
    mask: ArrayLike
    position: ArrayLike
    index: ArrayLike
    truth: ArrayLike | None = None
    group: ArrayLike | None = None
    boxes: Boxes | None = None
    regions: Regions | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What everyone downstream reads, whatever the paper.

    Attributes:
        logits: float32 ``[B, C]``, before the sigmoid.
        probs: float32 ``[B, C]``, after it.
        maps: float32 ``[B, H, W, C]``, one map per class on the feature grid, or None.
        boxes: predicted boxes, or None.
        regions: predicted regions, or None.
        std: float32 ``[B, C]``, spread over dropout masks, or None.
        information: float32 ``[B, C]``, mutual information of label and mask in nats, with ``std``.
        observed: name → ``[B, …]``, what evaluators observed of each film, or None.
    """

    logits: ArrayLike
    probs: ArrayLike
    maps: ArrayLike | None = None
    boxes: Boxes | None = None
    regions: Regions | None = None
    std: ArrayLike | None = None
    information: ArrayLike | None = None
    observed: dict[str, ArrayLike] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """Sums, not means: dividing is left to whoever knows the whole global batch.

    The loss is ``sum_t weights[t] * numerators[t] / denominators[t]``.

    Attributes:
        numerators: term name → scalar, differentiable.
        denominators: term name → scalar, a count that does not depend on parameters.
        weights: term name → scalar.
    """

    numerators: dict[str, ArrayLike]
    denominators: dict[str, ArrayLike]
    weights: dict[str, ArrayLike]
