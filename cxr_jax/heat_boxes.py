"""From a map per class to one box per class: thresholds, connected parts, tight boxes.

On the host: how many parts a map falls into is not known beforehand.
"""

import dataclasses
import zlib

import numpy as np
from scipy import ndimage
from scipy.special import expit

from cxr_jax.types import Boxes

# Parts hang together by edges and corners.
_NEIGHBOURS = np.ones((3, 3), int)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How boxes are made of maps.

    For each class whose probability exceeds ``found_above``: its map is interpolated to
    ``side`` pixels and stretched to [0, 1]; above each threshold it falls into connected
    parts, and each has a tight box. The best one is kept.

    Attributes:
        thresholds: of the stretched map, to be exceeded.
        side: of the grid that boxes are taken on, in pixels.
        found_above: probability that a class must exceed to have a box.
        dummy: whether a film without any box is given one, of a class at random, one
            pixel of the grid in its corner, score 0: as that code does. It is drawn by
            the order of the film's probabilities, the same in every batch.

    Reference: Wang et al., ChestX-ray8, CVPR 2017, section 3.2 (thresholds of 60 and 180
    of 255); scores as in the code of Müller et al., Weakly supervised object detection in
    chest X-rays with differentiable ROI proposal networks and soft ROI pooling, 2024.
    """

    thresholds: tuple[float, ...] = (60 / 255, 180 / 255)
    side: int = 224
    found_above: float = 0.5
    dummy: bool = False


def best_boxes(
    maps: np.ndarray,
    scores: np.ndarray,
    probs: np.ndarray,
    *,
    rule: Rule,
    boxed: np.ndarray | None = None,
) -> Boxes:
    """The best box of each class.

    Args:
        maps: ``[B, h, w, C]``, of the classes.
        scores: ``[B, h, w, C]``, maps of logits: a box has the sigmoid of their mean
            over its part of the map.
        probs: ``[B, C]``, of whole films.
        rule: of the making.
        boxed: bool ``[C]``, classes that may have boxes; all of them.

    Returns:
        float32 ``[B, C]``, one slot per class. A class that is not found, or whose map is
        flat, has none; of boxes with one score the first threshold's is kept, and of its
        own the one that begins furthest up.
    """
    rows, height, width, classes = maps.shape
    down, right = (interpolation(n, rule.side) for n in (height, width))
    xyxy = np.zeros((rows, classes, 4), np.float32)
    score = np.zeros((rows, classes), np.float32)
    mask = np.zeros((rows, classes), bool)
    boxed = np.ones(classes, bool) if boxed is None else boxed
    wanted = (probs > rule.found_above) & boxed
    for b, c in zip(*np.nonzero(wanted), strict=True):
        fine = down @ maps[b, ..., c].astype(np.float64) @ right.T
        worth = down @ scores[b, ..., c].astype(np.float64) @ right.T
        found = _best(_stretched(fine), worth, rule.thresholds)
        if found is not None:
            mask[b, c], score[b, c] = True, expit(found[0])
            xyxy[b, c] = np.array(found[1]) / rule.side
    if rule.dummy:
        for b in np.flatnonzero(~mask.any(axis=1)):
            c = _drawn(probs[b], boxed)
            mask[b, c], xyxy[b, c, 2:] = True, 1 / rule.side
    label = np.broadcast_to(np.arange(classes, dtype=np.int32), mask.shape)
    return Boxes(xyxy=xyxy, label=label, mask=mask, score=score)


def _drawn(probs: np.ndarray, boxed: np.ndarray) -> int:
    """A class at random, one of those that may have boxes.

    The order of the classes decides: last bits of a probability differ between machines.
    """
    rng = np.random.default_rng(zlib.crc32(np.argsort(probs).tobytes()))
    return int(rng.choice(np.flatnonzero(boxed)))


def interpolation(cells: int, size: int) -> np.ndarray:
    """Weights of bilinear interpolation along one axis, half-pixel centres.

    Args:
        cells: of the map, n.
        size: of the grid, N.

    Returns:
        float64 ``[N, n]``, rows that sum to 1; beyond the outermost centres their value
        stands.
    """
    place = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    distance = np.abs(place[:, None] - np.arange(cells)[None])
    return np.maximum(1 - distance, 0)


def _stretched(image: np.ndarray) -> np.ndarray:
    """To [0, 1]; a flat one to 0."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros_like(image)


def _best(
    image: np.ndarray, worth: np.ndarray, thresholds: tuple[float, ...]
) -> tuple[float, tuple[int, int, int, int]] | None:
    """Mean worth and corners in pixels of the part whose worth is highest."""
    best = None
    for threshold in thresholds:
        parts, count = ndimage.label(image > threshold, _NEIGHBOURS)
        if not count:
            continue
        means = ndimage.mean(worth, parts, np.arange(1, count + 1))
        first = int(np.argmax(means))
        if best is None or means[first] > best[0]:
            y, x = ndimage.find_objects(parts)[first]
            best = float(means[first]), (x.start, y.start, x.stop, y.stop)
    return best
