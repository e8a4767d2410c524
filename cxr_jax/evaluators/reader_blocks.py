"""What a reader study found, as ``result.json`` holds it under ``readers``."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_jax.data.readers import ReaderCalls
from cxr_jax.metrics import agreement, confusion, estimates, ranking
from cxr_jax.metrics.estimates import Estimate
from cxr_jax.metrics.reader_study import Figures, Panel, Ranked, Studies, Study

# Of one curve: in the figure of the class in focus, four more are drawn beside it.
CURVE_POINTS, GROUP_POINTS = 80, 40


def protocol_block(
    name: str,
    study: Study,
    *,
    scores: np.ndarray,
    read: ReaderCalls,
    focus: str,
    margin: float,
) -> dict[str, Any]:
    """One protocol: per class, counts, figures with verdicts, and the ROC.

    Args:
        name: of the protocol.
        study: what it found.
        scores: ``[N, C]``, of the model.
        read: names of readers and classes.
        focus: class that figures show in full.
        margin: of non-inferiority; 0 for none.
    """
    references = {
        "majority": [f"all but {n}" for n in read.readers],
        "each_other": [*read.readers, "model"],
        "truth": ["truth"],
        "panel": ["majority of the panel"],
    }[name]
    per_class = {}
    for c, label in enumerate(read.classes):
        counts = dict(zip(references, study.counts[c], strict=True))
        flags = [count.flag for count in counts.values() if count.flag]
        block: dict[str, Any] = {
            "references": {k: dataclasses.asdict(v) for k, v in counts.items()},
            "flag": flags[0] if flags else None,
        }
        for metric in confusion.METRICS:
            figures = study.metrics[metric][c]
            why = confusion.UNDEFINED[metric]
            block[metric] = _figures(figures, read.readers, margin, why=why)
        if study.ranked:
            labels = study.references[:, :, c]
            block["roc"] = _roc(study.ranked[c], references, scores[:, c], labels)
            if label == focus and labels.shape[1] > 1:
                block["roc"]["group_curves"] = [
                    _curve(scores[:, c], column, GROUP_POINTS) for column in labels.T
                ]
        per_class[label] = block
    return {"references": references, "per_class": per_class}


def bias_block(
    panel: Panel, found: Studies, classes: Sequence[str], *, tie: str
) -> dict[str, Any]:
    """What the majority made of readers whose true figures are known.

    Args:
        panel: with the truth.
        found: by ``majority`` and ``truth``.
        classes: names of the columns.
        tie: see ``agreement.Votes``.

    Returns:
        Class → figures of the readers' average against the truth, as expected of
        independent readers against the majority, and as measured; empty where one of
        the protocols was left out.
    """
    if not {"majority", "truth"} <= set(found.protocols):
        return {}
    names = ("sensitivity", "specificity")
    true = [_of_readers(found.protocols["truth"].metrics[n]) for n in names]
    known = np.isfinite(panel.truth)
    positive = (panel.truth == 1).sum(axis=0)
    prevalence = positive / np.maximum(known.sum(axis=0), 1)
    expected = agreement.expected_against_votes(*true, prevalence, tie=tie)
    block: dict[str, Any] = {}
    for c, label in enumerate(classes):
        block[label] = {"prevalence": prevalence[c]}
        for k, name in enumerate(names):
            measured = found.protocols["majority"].metrics[name][c].average.value
            block[label][name] = {
                "truth": true[k][:, c].mean(),
                "expected": getattr(expected, name)[:, c].mean(),
                "measured": measured,
            }
    return block


def plain(estimate: Estimate, *, why: str = "") -> dict[str, Any]:
    """An estimate; the interval over readers only where there is one, or why it is none."""
    found = dataclasses.asdict(estimate)
    if why and estimate.value is None:
        found["reason"] = why
    if estimate.low_readers is None:
        found = {k: v for k, v in found.items() if not k.endswith("_readers")}
    return found


def _figures(
    figures: Figures, names: Sequence[str], margin: float, *, why: str
) -> dict[str, Any]:
    gap = figures.difference
    said = {
        "verdict": estimates.verdict(gap.low, gap.high, margin=margin),
        "verdict_readers": estimates.verdict(
            gap.low_readers, gap.high_readers, margin=margin
        ),
    }
    return {
        "readers": {
            n: plain(e, why=why) for n, e in zip(names, figures.readers, strict=True)
        },
        "average": plain(figures.average, why=why),
        "model": plain(figures.model, why=why),
        "difference": plain(gap, why=why) | said,
    }


def _roc(
    ranked: Ranked, references: Sequence[str], scores: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Areas, and the curve of all references pooled."""
    count = labels.shape[1]
    return {
        "groups": {n: plain(e) for n, e in zip(references, ranked.groups, strict=True)},
        "mean": plain(ranked.mean),
        "pooled": plain(ranked.pooled),
        "reader_area": plain(ranked.reader_area),
        "separation": plain(ranked.separation),
        "curve": _curve(np.repeat(scores, count), labels.reshape(-1), CURVE_POINTS),
    }


def _curve(
    scores: np.ndarray, labels: np.ndarray, points: int
) -> dict[str, np.ndarray] | None:
    """None where one of both labels is missing."""
    if len(np.unique(labels[np.isfinite(labels)])) < 2:
        return None
    curve = ranking.roc_curve(scores, labels, points=points)
    return {"fpr": curve.fpr.round(4), "tpr": curve.tpr.round(4)}


def _of_readers(figures: Sequence[Figures]) -> np.ndarray:
    """``[R, C]``; NaN where undefined."""
    rows = [
        [np.nan if e.value is None else e.value for e in f.readers] for f in figures
    ]
    return np.asarray(rows).T
