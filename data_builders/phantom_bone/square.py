"""From a rectangular film to the stored square, for maps and boxes as for pixels."""

import dataclasses
from typing import Literal

import cv2
import numpy as np

# An abnormality is visible where it changes the stored film by this much, of 255.
VISIBLE = 10.0
# A box holds what changes by more than this share of the largest change.
BOX_THRESHOLD = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a film lies in its square: rows and columns from ``top`` and ``left``."""

    size: int
    top: int
    left: int
    height: int
    width: int


def placement(
    height: int, width: int, *, size: int, fit: Literal["pad", "stretch"]
) -> Placement:
    """Where `cxr_jax.data.image.reduce_film` puts a film of that shape."""
    if fit == "stretch":
        return Placement(size=size, top=0, left=0, height=size, width=size)
    longest = max(height, width)
    tall, wide = (max(1, round(n * size / longest)) for n in (height, width))
    top, left = (size - tall) // 2, (size - wide) // 2
    return Placement(size=size, top=top, left=left, height=tall, width=wide)


def reduce_map(values: np.ndarray, where: Placement) -> np.ndarray:
    """Area means of any real values of a film, zero beside it; ``[size, size]``."""
    shape = (where.width, where.height)
    small = cv2.resize(values.astype(np.float32), shape, interpolation=cv2.INTER_AREA)
    out = np.zeros((where.size, where.size), np.float32)
    rows = slice(where.top, where.top + where.height)
    out[rows, where.left : where.left + where.width] = small
    return out


def box_of(change: np.ndarray) -> np.ndarray | None:
    """Box xyxy in [0, 1] of a change of the stored film, in gray values of 255.

    Tight around the pixels with more than `BOX_THRESHOLD` of the largest change; None
    where that is below `VISIBLE`: in this view the abnormality is not seen.
    """
    strong = np.abs(change)
    peak = float(strong.max())
    if peak < VISIBLE:
        return None
    strong = strong > BOX_THRESHOLD * peak
    row, col = np.flatnonzero(strong.any(1)), np.flatnonzero(strong.any(0))
    box = np.array([col[0], row[0], col[-1] + 1, row[-1] + 1], np.float32)
    return box / np.float32(len(change))
