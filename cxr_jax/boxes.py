"""Boxes as arrays: convert, clip, measure, compare, move. Pure, jittable, fixed shapes.

A box is ``xyxy`` = (x1, y1, x2, y2) with x to the right and y downwards, in [0, 1]
relative to the image unless said otherwise; the last axis always holds the four numbers.
A box is degenerate when x2 <= x1 or y2 <= y1; its area is 0.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def xyxy_from_cxcywh(boxes: ArrayLike) -> jax.Array:
    """Corners from centre and size: (cx - w/2, cy - h/2, cx + w/2, cy + h/2).

    Args:
        boxes: ``[..., 4]``, centre x, centre y, width, height.

    Returns:
        ``[..., 4]`` corners; degenerate where a size is not positive.
    """
    centre, size = jnp.split(jnp.asarray(boxes), 2, axis=-1)
    return jnp.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def cxcywh_from_xyxy(boxes: ArrayLike) -> jax.Array:
    """Centre and size from corners: ((x1 + x2)/2, (y1 + y2)/2, x2 - x1, y2 - y1).

    Args:
        boxes: ``[..., 4]`` corners.

    Returns:
        ``[..., 4]``, centre x, centre y, width, height.
    """
    low, high = jnp.split(jnp.asarray(boxes), 2, axis=-1)
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def clip(boxes: ArrayLike) -> jax.Array:
    """The part of each box that lies in the image.

    Args:
        boxes: ``[..., 4]`` corners, any real numbers.

    Returns:
        ``[..., 4]`` corners in [0, 1]; a box wholly outside becomes degenerate.
    """
    return jnp.clip(jnp.asarray(boxes), 0.0, 1.0)


def area(boxes: ArrayLike) -> jax.Array:
    """Area: max(x2 - x1, 0) · max(y2 - y1, 0).

    Args:
        boxes: ``[..., 4]`` corners.

    Returns:
        ``[...]``, at least 0; a share of the image where the boxes are in [0, 1].
    """
    low, high = jnp.split(jnp.asarray(boxes), 2, axis=-1)
    return jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)


def iou(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """Intersection over union of boxes in the same place of two arrays.

    IoU = |A ∩ B| / |A ∪ B|, and 0 where the union is empty.

    Args:
        a: ``[..., 4]`` corners.
        b: ``[..., 4]`` corners, of the same rank; axes of length 1 broadcast.

    Returns:
        ``[...]`` in [0, 1].
    """
    overlap, union = _overlap_and_union(jnp.asarray(a), jnp.asarray(b))
    return _ratio(overlap, union)


def giou(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """Generalised IoU of boxes in the same place of two arrays.

    GIoU = IoU - (|H| - |A ∪ B|) / |H|, where H is the smallest box around both; the
    fraction is 0 where H is empty. Its gradient stays useful when the boxes are apart.

    Args:
        a: ``[..., 4]`` corners.
        b: ``[..., 4]`` corners, of the same rank; axes of length 1 broadcast.

    Returns:
        ``[...]`` in [-1, 1]; 1 for equal boxes, towards -1 for small boxes far apart.

    Reference:
        Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, algorithm 1.
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    overlap, union = _overlap_and_union(a, b)
    low = jnp.minimum(a[..., :2], b[..., :2])
    high = jnp.maximum(a[..., 2:], b[..., 2:])
    hull = area(jnp.concatenate([low, high], axis=-1))
    return _ratio(overlap, union) - _ratio(hull - union, hull)


def pairwise_iou(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """IoU of every box of one set with every box of another.

    Args:
        a: ``[..., N, 4]`` corners.
        b: ``[..., M, 4]`` corners.

    Returns:
        ``[..., N, M]`` in [0, 1].
    """
    return iou(jnp.asarray(a)[..., :, None, :], jnp.asarray(b)[..., None, :, :])


def pairwise_giou(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """GIoU of every box of one set with every box of another.

    Args:
        a: ``[..., N, 4]`` corners.
        b: ``[..., M, 4]`` corners.

    Returns:
        ``[..., N, M]`` in [-1, 1].
    """
    return giou(jnp.asarray(a)[..., :, None, :], jnp.asarray(b)[..., None, :, :])


def transform(boxes: ArrayLike, matrix: ArrayLike) -> jax.Array:
    """The smallest upright box around each box after an affine map.

    The four corners p go to A·p + t; the box around them comes back. It is exact under
    flips, shifts, zooms and quarter turns, and larger than the turned box otherwise.

    Args:
        boxes: ``[..., N, 4]`` corners.
        matrix: ``[..., 2, 3]`` or ``[..., 3, 3]``, rows (A | t) in the units of the
            boxes, from old to new coordinates.

    Returns:
        ``[..., N, 4]`` corners, not clipped: see ``clip`` and ``visible_share``.
    """
    x1, y1, x2, y2 = jnp.moveaxis(jnp.asarray(boxes), -1, 0)
    corners = jnp.stack(
        [
            jnp.stack([x1, x2, x1, x2], axis=-1),
            jnp.stack([y1, y1, y2, y2], axis=-1),
        ],
        axis=-2,
    )  # [..., N, 2, 4]
    matrix = jnp.asarray(matrix)[..., None, :2, :]
    linear, shift = matrix[..., :2], matrix[..., 2:]
    # Written out: a matmul may run in reduced precision on an accelerator.
    moved = jnp.sum(linear[..., :, :, None] * corners[..., None, :, :], -2) + shift
    return jnp.concatenate([moved.min(axis=-1), moved.max(axis=-1)], axis=-1)


def visible_share(boxes: ArrayLike) -> jax.Array:
    """Share of each box's area that lies in the image: |clip(A)| / |A|.

    Args:
        boxes: ``[..., 4]`` corners, any real numbers.

    Returns:
        ``[...]`` in [0, 1]; 0 for a degenerate box.
    """
    return jnp.minimum(_ratio(area(clip(boxes)), area(boxes)), 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Fused:
    """Boxes that stand for clusters of boxes, padded.

    Attributes:
        xyxy: ``[..., N, 4]``.
        score: ``[..., N]``, 0 for padding.
        mask: bool ``[..., N]``.
    """

    xyxy: jax.Array
    score: jax.Array
    mask: jax.Array


def fuse(boxes: ArrayLike, score: ArrayLike, mask: ArrayLike, *, above: float) -> Fused:
    """Weighted boxes fusion of one set of boxes: overlapping ones become their mean.

    Boxes are taken by falling score, equal ones in the order given. Each joins the
    cluster whose fused box it overlaps most, the earliest of equals, if that IoU lies
    above ``above``, and opens a cluster of its own otherwise. A fused box is the mean of
    its members weighted by score; its score is the highest of theirs. Boxes without area
    are left out.

    Args:
        boxes: ``[..., N, 4]`` corners; every leading axis is a set of its own.
        score: ``[..., N]`` in [0, 1].
        mask: bool ``[..., N]``, False for padding.
        above: IoU that a member must exceed.

    Returns:
        Clusters in the order in which they were opened, which is that of their scores.

    Reference: Solovyev et al., Weighted boxes fusion, Image and Vision Computing 2021,
    section 3, for one model and scores by their maximum.
    """
    boxes, score, mask = jnp.asarray(boxes), jnp.asarray(score), jnp.asarray(mask)
    mask = mask & (area(boxes) > 0)
    order = jnp.argsort(jnp.where(mask, -score, jnp.inf), axis=-1, stable=True)
    boxes = jnp.take_along_axis(boxes, order[..., None], axis=-2)
    score, mask = (jnp.take_along_axis(x, order, axis=-1) for x in (score, mask))
    slots = jax.lax.broadcasted_iota(int, score.shape, score.ndim - 1)

    def join(clusters: tuple[jax.Array, ...], member: tuple[jax.Array, ...]):
        total, weight, best, count = clusters
        box, score, kept = member
        opened = slots < count[..., None]
        overlap = iou(_mean(total, weight), box[..., None, :])
        overlap = jnp.where(opened, overlap, -1.0)
        near = jnp.max(overlap, axis=-1) > above
        slot = jnp.where(near, jnp.argmax(overlap, axis=-1), count)
        here = (slots == slot[..., None]) & kept[..., None]
        # A score of 0 still counts as a member, with a weight that moves nothing.
        added = jnp.where(here, jnp.maximum(score, _LEAST)[..., None], 0.0)
        total = total + added[..., None] * box[..., None, :]
        best = jnp.where(here, jnp.maximum(best, score[..., None]), best)
        return (
            total,
            weight + added,
            best,
            count + (kept & ~near).astype(count.dtype),
        ), None

    zeros = jnp.zeros_like(score)
    start = (jnp.zeros_like(boxes), zeros, zeros, jnp.zeros(score.shape[:-1], int))
    members = (
        jnp.moveaxis(boxes, -2, 0),
        *(jnp.moveaxis(x, -1, 0) for x in (score, mask)),
    )
    (total, weight, best, count), _ = jax.lax.scan(join, start, members)
    return Fused(xyxy=_mean(total, weight), score=best, mask=slots < count[..., None])


# The weight of a score of 0.
_LEAST = 1e-12


def _mean(total: jax.Array, weight: jax.Array) -> jax.Array:
    some = weight[..., None] > 0
    return jnp.where(some, total / jnp.where(some, weight[..., None], 1.0), 0.0)


def _overlap_and_union(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    overlap = area(jnp.concatenate([low, high], axis=-1))
    return overlap, area(a) + area(b) - overlap


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Quotient, 0 for an empty denominator; both branches keep gradients finite."""
    safe = denominator > 0
    return jnp.where(safe, numerator / jnp.where(safe, denominator, 1.0), 0.0)
