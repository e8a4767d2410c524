"""Operating points: chosen on one table of scores, reported on another.

A film is called where its score is at least the threshold. Scores are raw: a threshold is a
rank in disguise, and no monotone calibration moves the films on either side of it.
"""

import dataclasses

import jax
import numpy as np
from sklearn import metrics as sk

from cxr_jax.metrics.bootstrap import Units
from cxr_jax.metrics.ranking import LabelCount
from cxr_jax.metrics.sums import (
    Bounds,
    bounds,
    bounds_of_rate,
    resample_sums,
    sum_by_unit,
)

COUNTS = ("tp", "fp", "tn", "fn")
# The counts whose patients a rate rests on, of rates that cannot leave [0, 1].
RESTS_ON = {
    "sensitivity": ("tp", "fn"),
    "specificity": ("tn", "fp"),
    "ppv": ("tp", "fp"),
    "npv": ("tn", "fn"),
}
# Why a rate is no number, by name.
UNDEFINED = {
    "sensitivity": "undefined: no positive film",
    "specificity": "undefined: no negative film",
    "ppv": "undefined: no film is called",
    "npv": "undefined: every film is called",
    "lr_positive": "no number: no negative film is called",
    "lr_negative": "no number: every negative film is called",
    "flags_per_100": "undefined: no film has a label",
    "f1": "undefined: no positive film, and none is called",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A threshold, with what it did where it was chosen.

    Attributes:
        threshold: films with at least this score are called; None: unattainable.
        sensitivity: on the films of the choice.
        specificity: likewise.
        reason: why there is no threshold, or None.
        flag: that few patients carry it, or None.
    """

    threshold: float | None
    sensitivity: float | None = None
    specificity: float | None = None
    reason: str | None = None
    flag: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """A figure of an operating point.

    Attributes:
        value: None where it is undefined or infinite.
        low: lower end of the 95% interval, None without one.
        high: upper end; None also where the interval is open.
        discarded: resamples in which it was undefined, left out.
        reason: why ``value`` or ``high`` is None, or None.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    discarded: int = 0
    reason: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictive:
    """PPV and NPV at some prevalences, arrays of one shape."""

    ppv: np.ndarray
    npv: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecisionCurve:
    """Net benefit of each class's calls over threshold probabilities.

    Attributes:
        model: float64 ``[C, K]``, true positives per film; NaN without labels.
        low, high: float64 ``[C, K]``, 95% interval; None without resamples.
        treat_all: float64 ``[C, K]``, of calling every film; of calling none it is 0.
    """

    model: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    treat_all: np.ndarray


def point_names(
    *, sensitivity: float = 0.9, specificity: float = 0.9
) -> tuple[str, str, str, str]:
    """What ``choose_points`` gives, in its order."""
    wanted = (f"sensitivity@{sensitivity:g}", f"specificity@{specificity:g}")
    return ("youden", *wanted, "f1")


def choose_points(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    count: LabelCount,
    sensitivity: float = 0.9,
    specificity: float = 0.9,
) -> dict[str, Point]:
    """Chooses the thresholds of one class among its scores.

    ``youden``: highest sensitivity + specificity - 1. ``sensitivity@s``: the highest
    threshold with at least this sensitivity. ``specificity@s``: the lowest threshold with
    at least this specificity. ``f1``: highest 2 TP / (2 TP + FP + FN). Of equals, the
    highest threshold. A point that every film passes, or no positive one, is none.

    Args:
        scores: ``[N]``, finite.
        labels: ``[N]`` in {0, 1} or NaN (left out).
        count: of this class.
        sensitivity: in (0, 1].
        specificity: in (0, 1].

    Returns:
        Name → point.

    Reference: Youden, Cancer 3 (1950).
    """
    names = point_names(sensitivity=sensitivity, specificity=specificity)
    if count.undefined:
        return {n: Point(threshold=None, reason=count.undefined) for n in names}
    known = np.isfinite(labels)
    # In falling order; the first threshold, above every score, calls no film.
    fpr, tpr, threshold = (
        column[1:]
        for column in sk.roc_curve(
            labels[known], scores[known].astype(np.float64), drop_intermediate=False
        )
    )
    positives, negatives = count.positives, count.n - count.positives
    tp, fp = np.rint(tpr * positives), np.rint(fpr * negatives)
    useful = (tp > 0) & (fp < negatives)
    met = {
        names[0]: (useful & (tpr > fpr), tpr - fpr),
        names[1]: (useful & (tp >= sensitivity * positives - 1e-9), threshold),
        names[2]: (useful & (fp <= (1 - specificity) * negatives + 1e-9), -threshold),
        names[3]: (useful, 2 * tp / (tp + fp + positives)),
    }
    return {
        name: _point(threshold, tpr, fpr, *met[name], name=name, flag=count.flag)
        for name in names
    }


def count_calls(called: np.ndarray, labels: np.ndarray, units: Units) -> np.ndarray:
    """Confusion counts of each patient.

    Args:
        called: bool ``[N, K]``.
        labels: ``[N, K]`` in {0, 1} or NaN (left out).
        units: the patient of each film.

    Returns:
        float32 ``[units, K, 4]``, in the order of ``COUNTS``; they add up.
    """
    positive, negative = labels == 1, labels == 0
    cells = [called & positive, called & negative, ~called & negative]
    cells = np.stack([*cells, ~called & positive], axis=-1)
    return sum_by_unit(cells.astype(np.float32), units)


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Rates from confusion counts.

    Args:
        counts: ``[..., 4]``, in the order of ``COUNTS``.

    Returns:
        Name → float64 ``[...]``; NaN where a rate is undefined, infinite where a
        likelihood ratio is. ``flags_per_100`` is called films of 100.
    """
    tp, fp, tn, fn = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        return {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "lr_positive": sensitivity / (fp / (tn + fp)),
            "lr_negative": (fn / (tp + fn)) / specificity,
            "flags_per_100": 100 * (tp + fp) / (tp + fp + tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
        }


def rate(
    name: str,
    value: float,
    resampled: np.ndarray | None,
    *,
    per_unit: np.ndarray | None = None,
) -> Rate:
    """One rate with its interval, in words where it is no number.

    Args:
        name: of the rate.
        value: NaN where it is undefined.
        resampled: ``[R]``; None for no interval.
        per_unit: counts of each patient, ``[units, 4]``, for the exact interval of a
            share that is 0 or 1.
    """
    found = Bounds(low=None, high=None, discarded=0)
    if resampled is not None and name in RESTS_ON and per_unit is not None:
        cells = [COUNTS.index(n) for n in RESTS_ON[name]]
        patients = int((per_unit[:, cells].sum(axis=1) > 0).sum())
        found = bounds_of_rate(value, resampled, patients)
    elif resampled is not None:
        found = bounds(resampled)
    reason = None if np.isfinite(value) else UNDEFINED[name]
    if reason is None and found.high is not None and np.isinf(found.high):
        reason = f"open interval; in some resamples {UNDEFINED[name]}"
    return Rate(
        value=_finite(value),
        low=_finite(found.low),
        high=_finite(found.high),
        discarded=found.discarded,
        reason=reason,
    )


def predictive_values(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: np.ndarray
) -> Predictive:
    """``PPV = se π / (se π + (1 - sp)(1 - π))``, ``NPV = sp (1 - π) / (sp (1 - π) + (1 - se) π)``.

    Args:
        sensitivity: se in [0, 1].
        specificity: sp in [0, 1].
        prevalence: π in [0, 1]; shapes broadcast.

    Returns:
        Both, NaN where no film, or every film, is called.
    """
    yes, no = prevalence, 1 - np.asarray(prevalence, np.float64)
    with np.errstate(invalid="ignore"):
        ppv = sensitivity * yes / (sensitivity * yes + (1 - specificity) * no)
        npv = specificity * no / (specificity * no + (1 - sensitivity) * yes)
    return Predictive(ppv=ppv, npv=npv)


def decision_curve(
    probs: np.ndarray,
    labels: np.ndarray,
    units: Units,
    *,
    thresholds: np.ndarray,
    key: jax.Array | None = None,
    resamples: int = 0,
) -> DecisionCurve:
    """Net benefit, ``TP / n - FP / n · t / (1 - t)``, of calling films with p ≥ t.

    Args:
        probs: ``[N, C]``, calibrated: only then t is a probability.
        labels: ``[N, C]`` in {0, 1} or NaN (left out).
        units: the patient of each film.
        thresholds: t, ``[K]`` in (0, 1).
        key: of the patient bootstrap; the same one gives the same resamples.
        resamples: of the interval; 0 for none.

    Returns:
        The curves of all classes.

    Reference: Vickers and Elkin, Medical Decision Making 26 (2006).
    """
    odds = thresholds / (1 - thresholds)
    # Per class, so that [N, C, K] never lies in memory as a whole.
    per_class = []
    for p, y in zip(probs.T, labels.T, strict=True):
        called = p[:, None] >= thresholds
        per_class.append(
            count_calls(called, np.repeat(y[:, None], len(odds), 1), units)
        )
    sums = np.stack(per_class, axis=1)

    def benefit(counts: np.ndarray) -> np.ndarray:
        counts = np.asarray(counts, np.float64)
        with np.errstate(invalid="ignore"):
            share = counts / counts.sum(axis=-1, keepdims=True)
        return share[..., 0] - share[..., 1] * odds

    low = high = None
    if resamples and key is not None:
        drawn = benefit(resample_sums(key, sums, resamples=resamples))
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    total = sums.sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        share = (total[..., 0] + total[..., 3]) / total.sum(axis=-1)
    return DecisionCurve(
        model=benefit(total), low=low, high=high, treat_all=share - (1 - share) * odds
    )


def _point(
    threshold: np.ndarray,
    tpr: np.ndarray,
    fpr: np.ndarray,
    allowed: np.ndarray,
    worth: np.ndarray,
    *,
    name: str,
    flag: str | None,
) -> Point:
    """The most worthy of the allowed thresholds; they fall, so the first of equals."""
    if not allowed.any():
        return Point(
            threshold=None,
            reason=f"unattainable: no threshold reaches {name} without calling every"
            " film, or no positive one",
            flag=flag,
        )
    best = int(np.argmax(np.where(allowed, worth, -np.inf)))
    return Point(
        threshold=float(threshold[best]),
        sensitivity=float(tpr[best]),
        specificity=float(1 - fpr[best]),
        flag=flag,
    )


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
