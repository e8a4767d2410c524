"""How well scores rank films: AUROC, average precision and ROC points, per class.

Scikit-learn in float64. A label may be NaN (unknown): that film is left out for that class only.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from sklearn import metrics as sk

from cxr_jax.errors import DataError

FEW_POSITIVE_PATIENTS = 20
FEW = f"fewer than {FEW_POSITIVE_PATIENTS} positive patients"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    """One number of a result, with all that is needed to judge it.

    Attributes:
        value: the figure, None where it is undefined.
        low: lower end of the 95% interval, None without one.
        high: upper end.
        n: films with a known label.
        positives: films labelled positive.
        positive_patients: patients with at least one such film.
        resampling_unit: what the bootstrap drew.
        resamples: how many resamples were drawn.
        discarded: resamples left out, because they held one label only.
        flag: a warning to print beside the figure, or None.
        reason: why ``value`` (or its interval) is None, or None.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    positives: int
    positive_patients: int
    resampling_unit: str
    resamples: int = 0
    discarded: int = 0
    flag: str | None = None
    reason: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelCount:
    """How much evidence the labels of one class hold; fields as in ``Value``."""

    n: int
    positives: int
    positive_patients: int

    @property
    def undefined(self) -> str | None:
        """Why nothing can be ranked, or None when both labels occur."""
        if self.n == 0:
            return "undefined: no film has a label"
        if self.positives == 0:
            return "undefined: no positive film"
        if self.positives == self.n:
            return "undefined: no negative film"
        return None

    @property
    def flag(self) -> str | None:
        """The warning that too few patients carry the figure, or None."""
        return FEW if self.positive_patients < FEW_POSITIVE_PATIENTS else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RocCurve:
    """Points of one ROC curve, from (0, 0) to (1, 1), thinned for drawing.

    Attributes:
        fpr: float64 ``[K]``, 1 - specificity, rising.
        tpr: float64 ``[K]``, sensitivity.
    """

    fpr: np.ndarray
    tpr: np.ndarray


def check_table(
    scores: np.ndarray, labels: np.ndarray, *, ids: Sequence[str] | None = None
) -> None:
    """Refuses what no metric may be computed from.

    Args:
        scores: ``[N, C]``, finite.
        labels: ``[N, C]`` in {0, 1} or NaN.
        ids: names of the N films, for the message.

    Raises:
        DataError: shapes differ, a score is not finite, or a label is none of 0, 1, NaN.
    """
    if scores.shape != labels.shape or scores.ndim != 2:
        raise DataError(
            f"scores {scores.shape} and labels {labels.shape} must both be [films, classes]"
        )
    names = np.asarray(range(len(scores)) if ids is None else ids)
    bad = ~np.isfinite(scores).all(axis=1)
    if bad.any():
        raise DataError(
            f"{bad.sum()} of {len(scores)} films have a score that is not finite, first: "
            f"{_first(names[bad])}; scores must be numbers, check the model or the file"
        )
    odd = ~(np.isnan(labels) | (labels == 0) | (labels == 1)).all(axis=1)
    if odd.any():
        raise DataError(
            f"{odd.sum()} films have a label other than 0, 1 or unknown, first: "
            f"{_first(names[odd])}; correct the label table"
        )


def count_labels(labels: np.ndarray, units: np.ndarray) -> list[LabelCount]:
    """Counts films and patients per class.

    Args:
        labels: ``[N, C]`` in {0, 1} or NaN.
        units: int ``[N]``, the patient of each film.

    Returns:
        One count per class.
    """
    return [
        LabelCount(
            n=int(np.isfinite(column).sum()),
            positives=int((column == 1).sum()),
            positive_patients=len(np.unique(units[column == 1])),
        )
        for column in labels.T
    ]


def auroc(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, P(s⁺ > s⁻) + ½ P(s⁺ = s⁻), per class.

    Args:
        scores: ``[N, C]``, finite, larger means more likely.
        labels: ``[N, C]`` in {0, 1} or NaN.

    Returns:
        float64 ``[C]``; NaN where a class lacks one of both labels.

    Reference: Hanley and McNeil, Radiology 143 (1982).
    """
    return _per_class(sk.roc_auc_score, scores, labels)


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision, Σₖ (Rₖ - Rₖ₋₁) Pₖ over distinct thresholds, per class.

    Args:
        scores: ``[N, C]``, finite.
        labels: ``[N, C]`` in {0, 1} or NaN.

    Returns:
        float64 ``[C]``; NaN where a class lacks one of both labels.
    """
    return _per_class(sk.average_precision_score, scores, labels)


METRICS = {"auroc": auroc, "average_precision": average_precision}


def roc_curve(scores: np.ndarray, labels: np.ndarray, *, points: int = 200) -> RocCurve:
    """The ROC curve of one class.

    Args:
        scores: ``[N]``, finite.
        labels: ``[N]`` in {0, 1} or NaN, both labels present.
        points: at most about this many points are kept, both corners always.

    Returns:
        The thinned curve; thinning follows the arc, so steep parts keep their points.
    """
    known = np.isfinite(labels)
    fpr, tpr, _ = sk.roc_curve(labels[known], scores[known].astype(np.float64))
    if len(fpr) > points:
        arc = fpr + tpr
        keep = np.searchsorted(arc, np.linspace(0, 2, points)).clip(0, len(arc) - 1)
        keep = np.unique(np.concatenate([[0], keep, [len(arc) - 1]]))
        fpr, tpr = fpr[keep], tpr[keep]
    return RocCurve(fpr=fpr, tpr=tpr)


def _per_class(
    metric: Callable[..., float], scores: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Applies a metric to each class that has both labels; NaN for the others."""
    values = np.full(labels.shape[1], np.nan)
    for c, column in enumerate(labels.T):
        known = np.isfinite(column)
        if len(np.unique(column[known])) == 2:
            values[c] = metric(column[known], scores[known, c].astype(np.float64))
    return values


def _first(names: np.ndarray, count: int = 3) -> str:
    return ", ".join(str(name) for name in names[:count])
