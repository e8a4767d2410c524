"""Films for a gallery of boxes, chosen by a rule that shows failures too."""

import dataclasses
import io
from collections.abc import Callable

import numpy as np
from etils import epath

from cxr_jax.metrics.detection import overlaps
from cxr_jax.predictions import Predictions, write_atomically
from cxr_jax.types import Batch, Boxes

FILE = "boxes.npz"
FOUND, LEAST, ALARM = "median overlap", "least overlap", "loudest without a reference"
VERDICTS = ("Missed", "Found", "False alarm")
# IoU above which a gallery says that a box was found.
ENOUGH = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BoxSamples:
    """K films, each shown for one class.

    Attributes:
        films: uint8 ``[K, H, W]``.
        classes: str ``[K]``, the shown class.
        kinds: str ``[K]``, why it was chosen.
        verdicts: str ``[K]``, one of ``VERDICTS``.
        ids: str ``[K]``.
        scores: float ``[K]``, highest score of its predicted boxes; NaN without any.
        overlaps: float ``[K]``, best IoU with a reference box; NaN without one.
        predicted: float32 ``[K, N, 4]``, boxes of the class, NaN for none.
        reference: float32 ``[K, M, 4]``, likewise.
    """

    films: np.ndarray
    classes: np.ndarray
    kinds: np.ndarray
    verdicts: np.ndarray
    ids: np.ndarray
    scores: np.ndarray
    overlaps: np.ndarray
    predicted: np.ndarray
    reference: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One film, shown for one class."""

    row: int
    column: int
    kind: str


def choose(predictions: Predictions) -> list[Choice]:
    """Three films of each class that has reference boxes, as far as there are any.

    The film whose best overlap is the median of those found, the one of least overlap
    among films with a reference box, and the one with the highest score among films
    without; ties go to the first film.
    """
    choices = []
    for column in range(len(predictions.classes)):
        best = _best_overlap(predictions, column)
        score = _score(predictions, column)
        boxed = np.flatnonzero(np.isfinite(best))
        if not len(boxed):
            continue
        found = boxed[best[boxed] > ENOUGH]
        rows = {}
        if len(found):
            order = found[np.argsort(best[found], kind="stable")]
            rows[FOUND] = order[len(order) // 2]
        rows[LEAST] = boxed[np.argmin(best[boxed])]
        free = np.flatnonzero(~np.isfinite(best) & np.isfinite(score))
        if len(free):
            rows[ALARM] = free[np.argmax(score[free])]
        choices += [
            Choice(row=int(row), column=column, kind=kind) for kind, row in rows.items()
        ]
    return choices


def collect(
    predictions: Predictions, *, load: Callable[[np.ndarray], Batch]
) -> BoxSamples | None:
    """Reads the chosen films; None where no class has reference boxes.

    Args:
        predictions: with ``boxes`` and ``targets``.
        load: record numbers → a Batch of host arrays.
    """
    choices = choose(predictions)
    if not choices:
        return None
    rows = [choice.row for choice in choices]
    columns = [choice.column for choice in choices]
    films = np.concatenate(
        [np.asarray(load(predictions.index[[row]]).image)[:, :, :, 0] for row in rows]
    )
    best = np.array(
        [_best_overlap(predictions, c)[r] for r, c in zip(rows, columns, strict=True)]
    )
    scores = np.array(
        [_score(predictions, c)[r] for r, c in zip(rows, columns, strict=True)]
    )
    verdicts = np.where(
        np.isnan(best), VERDICTS[2], np.where(best > ENOUGH, VERDICTS[1], VERDICTS[0])
    )
    return BoxSamples(
        films=films,
        classes=np.array([predictions.classes[c] for c in columns]),
        kinds=np.array([choice.kind for choice in choices]),
        verdicts=verdicts,
        ids=predictions.ids[rows],
        scores=scores,
        overlaps=best,
        predicted=_of_class(predictions.boxes, rows, columns),
        reference=_of_class(predictions.targets, rows, columns),
    )


def write(directory: epath.PathLike, samples: BoxSamples | None) -> None:
    """Writes ``boxes.npz`` into ``evaluation/SPLIT``, or removes an older one."""
    path = epath.Path(directory) / FILE
    if samples is None:
        path.unlink(missing_ok=True)
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **vars(samples))
    write_atomically(path, buffer.getvalue())


def read(directory: epath.PathLike) -> BoxSamples | None:
    """Reads ``boxes.npz``; None where there is none."""
    path = epath.Path(directory) / FILE
    if not path.exists():
        return None
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return BoxSamples(**arrays)


def _of_class(boxes: Boxes, rows: list[int], columns: list[int]) -> np.ndarray:
    mine = np.asarray(boxes.mask)[rows]
    mine = mine & (np.asarray(boxes.label)[rows] == np.asarray(columns)[:, None])
    shown = np.where(mine[..., None], np.asarray(boxes.xyxy)[rows], np.nan)
    return shown.astype(np.float32)


def _score(predictions: Predictions, column: int) -> np.ndarray:
    """Highest score of each film's boxes of a class, ``[N]``; NaN without any."""
    boxes = predictions.boxes
    mine = np.asarray(boxes.mask) & (np.asarray(boxes.label) == column)
    best = np.where(mine, np.asarray(boxes.score, float), -np.inf).max(axis=1)
    return np.where(mine.any(axis=1), best, np.nan)


def _best_overlap(predictions: Predictions, column: int) -> np.ndarray:
    """Best IoU of a predicted box with a reference box of the class, ``[N]``.

    0 where none was predicted, NaN where there is no reference.
    """
    best = np.full(len(predictions), np.nan)
    for row in range(len(predictions)):
        ours, theirs = (
            np.asarray(b.xyxy[row], float)[b.mask[row] & (b.label[row] == column)]
            for b in (predictions.boxes, predictions.targets)
        )
        if len(theirs):
            best[row] = overlaps(ours, theirs)[0].max(initial=0.0)
    return best
