"""Some findings pass by pass: what a spread over dropout masks is made of.

Chosen by rule, and one of them is wrong although its spread is small: low spread does not
mean correct.
"""

import dataclasses
import io
from collections.abc import Callable

import jax
import numpy as np
from etils import epath

from cxr_jax.predictions import Predictions, write_atomically
from cxr_jax.types import Batch

FILE = "passes.npz"
# Numbers of passes that are drawn; the first of them are among the last.
SHOWN = (25, 100)
WIDEST, MIDDLE, SURE = (
    "largest spread",
    "median spread",
    "smallest spread among those called wrongly at 0.5",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One finding.

    Attributes:
        row: of the predictions.
        column: of the class.
        kind: ``WIDEST``, ``MIDDLE`` or ``SURE``.
    """

    row: int
    column: int
    kind: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Passes:
    """K findings, pass by pass; the content of ``passes.npz``.

    Attributes:
        probs: float32 ``[K, T]``.
        ids: str ``[K]``.
        classes: str ``[K]``.
        kinds: str ``[K]``, why it was chosen.
        labels: float32 ``[K]`` in {0, 1}, NaN where unknown.
    """

    probs: np.ndarray
    ids: np.ndarray
    classes: np.ndarray
    kinds: np.ndarray
    labels: np.ndarray


def choose(predictions: Predictions) -> list[Choice]:
    """Picks findings among all films and classes with a known label.

    Args:
        predictions: with ``std``.
    """
    std = predictions.std.astype(np.float64)
    labels = predictions.labels
    known = np.isfinite(labels)
    wrong = known & ((predictions.probs >= 0.5) != (labels == 1))
    found = []
    for kind, among in ((WIDEST, known), (MIDDLE, known), (SURE, wrong)):
        places = np.flatnonzero(among)
        if len(places):
            ranked = places[np.argsort(std.ravel()[places], kind="stable")]
            at = {WIDEST: -1, MIDDLE: len(ranked) // 2, SURE: 0}[kind]
            row, column = np.unravel_index(ranked[at], std.shape)
            found.append(Choice(row=int(row), column=int(column), kind=kind))
    return found


def collect(
    predictions: Predictions,
    *,
    load: Callable[[np.ndarray], Batch],
    read: Callable[[Batch], jax.Array],
) -> Passes | None:
    """Reads the chosen films again, pass by pass; for one process alone.

    Args:
        predictions: with ``std``.
        load: record numbers → a Batch of host arrays.
        read: jitted; logits ``[T, B, C]`` of a batch.

    Returns:
        The findings, or None where no label is known.
    """
    choices = choose(predictions)
    if not choices:
        return None
    rows = [choice.row for choice in choices]
    columns = [choice.column for choice in choices]
    logits = np.asarray(jax.device_get(read(load(predictions.index[rows]))), np.float64)
    mine = logits[:, np.arange(len(choices)), columns].T
    return Passes(
        probs=(0.5 + 0.5 * np.tanh(mine / 2)).astype(np.float32),
        ids=predictions.ids[rows],
        classes=np.asarray([predictions.classes[c] for c in columns]),
        kinds=np.asarray([choice.kind for choice in choices]),
        labels=predictions.labels[rows, columns].astype(np.float32),
    )


def write(directory: epath.PathLike, passes: Passes | None) -> None:
    """Writes ``passes.npz`` into ``evaluation/SPLIT``; None takes away an older one."""
    path = epath.Path(directory) / FILE
    if passes is None:
        path.unlink(missing_ok=True)
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **vars(passes))
    write_atomically(path, buffer.getvalue())


def read(directory: epath.PathLike) -> Passes | None:
    """Reads ``passes.npz``; None where there is none."""
    path = epath.Path(directory) / FILE
    if not path.exists():
        return None
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return Passes(**arrays)
