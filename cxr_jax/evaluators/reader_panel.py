"""What goes into a reader study: the threshold's names, the file, the panel."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from cxr_jax.data.readers import ReaderCalls
from cxr_jax.evaluators.base import Blocks, units_of
from cxr_jax.metrics import operating
from cxr_jax.metrics import reader_study as studies
from cxr_jax.predictions import Predictions


def points_like(name: str) -> tuple[str, ...]:
    """Names of operating points, with the target of a name such as sensitivity@0.95."""
    kind, _, text = name.partition("@")
    try:
        target = {kind: float(text)} if 0 < float(text) <= 1 else {}
    except ValueError:
        target = {}
    known = {k: v for k, v in target.items() if k in ("sensitivity", "specificity")}
    return operating.point_names(**known)


def sha256(path: epath.Path) -> str:
    """Digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def nothing(reason: str) -> Blocks:
    """The block of a study that could not be made."""
    return {"readers": {"reason": reason, "films": 0, "protocols": {}}}


def about(calls: ReaderCalls, read: ReaderCalls) -> dict[str, Any]:
    """What was read: the file, and the part of it that takes part."""
    path = epath.Path(calls.path)
    return {
        "reason": None,
        "file": path.name,
        "sha256": sha256(path),
        "films": len(read.ids),
        "films_elsewhere": len(calls.ids) - len(read.ids),
        "missing_pairs": int(read.absent.sum()),
        "films_with_missing": int(read.absent.any(axis=1).sum()),
        "readers": list(read.readers),
        "classes": list(read.classes),
    }


def make_panel(
    predictions: Predictions,
    rows: np.ndarray,
    columns: Sequence[int],
    read: ReaderCalls,
    thresholds: np.ndarray,
    strict: bool,
) -> studies.Panel:
    """Readers and model on the films that were read.

    Args:
        predictions: of a part.
        rows: of it that were read, in the order of ``read``.
        columns: of it, in the order of ``read.classes``.
        read: the readers' calls.
        thresholds: one per column, NaN for no calls.
        strict: whether a score must be above its threshold.
    """
    scores = predictions.probs[rows][:, columns].astype(np.float64)
    truth = predictions.truth
    above = scores > thresholds if strict else scores >= thresholds
    called = np.where(np.isnan(thresholds), np.nan, above)
    calls = read.calls.astype(np.float64)
    if predictions.member is not None:
        # In a column of other films than this one nobody said anything.
        member = predictions.member[rows][:, columns]
        called = np.where(member, called, np.nan)
        calls = np.where(member[:, None], calls, np.nan)
    return studies.Panel(
        calls=calls,
        scores=scores,
        model=called,
        truth=None if truth is None else truth[rows][:, columns].astype(np.float64),
        units=units_of(predictions, rows),
    )
