"""Whether maps point at findings: the pointing game, IoU, and what chance would reach.

A case is one class on one film that has boxes of it. All numbers are means over the cases
of a class; a difference of two means on the same patients is resampled as one.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from cxr_jax.metrics.confusion import ratio
from cxr_jax.metrics.sums import resample_sums


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cases:
    """Boxes of one class on one film, together.

    Attributes:
        film: int ``[K]``, row of the film.
        column: int ``[K]``, class.
        slot: int ``[K]``, the first of its boxes; the map is the same for all of them.
        boxes: K arrays ``[n, 4]``, xyxy in [0, 1].
        area: float64 ``[K]``, share of the film that they cover, each place once.
    """

    film: np.ndarray
    column: np.ndarray
    slot: np.ndarray
    boxes: Sequence[np.ndarray]
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.film)


def gather_cases(xyxy: np.ndarray, label: np.ndarray, mask: np.ndarray) -> Cases:
    """Groups boxes by film and class.

    Args:
        xyxy: ``[N, S, 4]``, in [0, 1].
        label: int ``[N, S]``, class of each box.
        mask: bool ``[N, S]``, False for padding.

    Returns:
        The cases, film by film, class by class.
    """
    mask = np.asarray(mask, bool)
    label = np.asarray(label, np.int64)
    film, slot = np.nonzero(mask)
    column = label[film, slot]
    width = int(column.max(initial=0)) + 1
    _, first = np.unique(film * width + column, return_index=True)
    film, column, slot = film[first], column[first], slot[first]
    boxes = [
        np.asarray(xyxy[f], np.float64)[mask[f] & (label[f] == c)]
        for f, c in zip(film, column, strict=True)
    ]
    area = np.asarray([union_area(some) for some in boxes], np.float64)
    return Cases(film=film, column=column, slot=slot, boxes=boxes, area=area)


def union_area(boxes: np.ndarray) -> float:
    """Area that boxes ``[n, 4]`` cover, places under several of them once."""
    boxes = np.asarray(boxes, np.float64)
    x, y = np.unique(boxes[:, [0, 2]]), np.unique(boxes[:, [1, 3]])
    x1, y1, x2, y2 = (column[:, None] for column in boxes.T)
    across = (x1 <= x[:-1]) & (x[1:] <= x2)
    down = (y1 <= y[:-1]) & (y[1:] <= y2)
    cover = (down[:, :, None] & across[:, None, :]).any(axis=0)
    return float(np.diff(y) @ cover @ np.diff(x))


def pointing_hits(cases: Cases, points: np.ndarray) -> np.ndarray:
    """The pointing game: 1 where a point lies in any box of its case, edges included.

    Args:
        cases: K cases.
        points: ``[K, 2]``, x and y in [0, 1]; NaN points nowhere and misses.

    Returns:
        float64 ``[K]``, 0 or 1.

    Reference: Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016.
        Deviation: no margin of 15 pixels around the boxes.
    """
    hits = [
        ((some[:, :2] <= point) & (point <= some[:, 2:])).all(axis=1).any()
        for some, point in zip(cases.boxes, points, strict=True)
    ]
    return np.asarray(hits, np.float64)


def best_iou(cases: Cases, found: np.ndarray) -> np.ndarray:
    """IoU of one box per case with the box of the case that fits it best.

    Args:
        cases: K cases.
        found: ``[K, 4]``; NaN or empty boxes give 0.

    Returns:
        float64 ``[K]`` in [0, 1].
    """
    values = []
    for some, box in zip(cases.boxes, np.asarray(found, np.float64), strict=True):
        low, high = np.maximum(some[:, :2], box[:2]), np.minimum(some[:, 2:], box[2:])
        overlap = np.prod(np.maximum(high - low, 0), axis=1)
        own = np.prod(np.maximum(box[2:] - box[:2], 0))
        union = np.prod(some[:, 2:] - some[:, :2], axis=1) + own - overlap
        ratio = overlap / np.where(union > 0, union, 1)
        values.append(np.nan_to_num(ratio).max())
    return np.asarray(values, np.float64)


def mean_boxes(cases: Cases) -> dict[int, np.ndarray]:
    """Mean corners of all boxes of each class: class → ``[4]``."""
    return {
        int(c): np.concatenate(
            [some for some, k in zip(cases.boxes, cases.column, strict=True) if k == c]
        ).mean(axis=0)
        for c in np.unique(cases.column)
    }


def resample_means(
    key: jax.Array,
    values: Mapping[str, np.ndarray],
    *,
    column: np.ndarray,
    unit: np.ndarray,
    classes: int,
    units: int,
    resamples: int,
    chunk: int = 512,
) -> dict[str, np.ndarray]:
    """Means per class on resampled units, the same units for every measure.

    Args:
        key: of the bootstrap, see ``sums.resample_sums``.
        values: measure → float ``[K]``, finite.
        column: int ``[K]``, class of each case.
        unit: int ``[K]``, what is drawn, of each case.
        classes: C.
        units: how many there are to draw from.
        resamples: R.
        chunk: resamples held in memory together.

    Returns:
        Measure → float64 ``[R, C]``; NaN where a resample has no case of the class.
    """
    table = np.stack([np.ones(len(column)), *values.values()], axis=1)
    # A patient without a case may be drawn, and adds nothing.
    sums = np.zeros((units, classes, table.shape[1]), np.float32)
    np.add.at(sums, (unit, column), table)
    drawn = resample_sums(key, sums, resamples=resamples, chunk=chunk)
    count = drawn[..., 0]
    return {name: ratio(drawn[..., k + 1], count) for k, name in enumerate(values)}
