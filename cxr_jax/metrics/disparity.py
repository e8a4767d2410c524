"""What a model does to subgroups, on the same resampled patients for all of them."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from cxr_jax.metrics import bootstrap, calibration, ranking
from cxr_jax.metrics.bootstrap import Units
from cxr_jax.metrics.confusion import ratio
from cxr_jax.metrics.subgroups import Group
from cxr_jax.metrics.sums import resample_sums, sum_by_unit

# A group with fewer positive patients of a class is not shown for that class.
FEWEST_PATIENTS = 10
PER_CLASS = ("auroc", "tpr", "fpr", "calibration")
# A rate of films, not of a class: a finding is there, and no class is called.
MISSED = "falsely_no_finding"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calls:
    """A table of films, as subgroups are measured on it.

    Attributes:
        scores: ``[N, C]``, raw.
        labels: ``[N, C]`` in {0, 1} or NaN.
        thresholds: ``[C]``, NaN where a class has none.
        probs: ``[N, C]`` calibrated; NaN in columns that are not.
        units: the patient of each film.
    """

    scores: np.ndarray
    labels: np.ndarray
    thresholds: np.ndarray
    probs: np.ndarray
    units: Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """Values of groups, with resamples of the same patients for all.

    Attributes:
        value: float64 ``[G, C]``, or ``[G]``; NaN where undefined or suppressed.
        drawn: float32 ``[R, G, C]``, or ``[R, G]``; R is 0 without resamples.
        patients: int ``[G, C]``, or ``[G]``, that the values rest on.
    """

    value: np.ndarray
    drawn: np.ndarray
    patients: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """All that is measured of the groups.

    Attributes:
        measures: ``auroc``, ``tpr``, ``fpr`` and ``calibration`` (mean probability less
            frequency) per class; ``falsely_no_finding`` per group. They rest on patients
            positive or negative, whichever are fewer; positive; negative; with a known
            label; with a finding.
        counts: per group, per class.
        negative_patients: int ``[G, C]``.
        with_finding: per group: films with a known label, with a finding, their patients.
        mean_probability, frequency, ece: float64 ``[G, C]``, of calibrated probabilities.
    """

    measures: dict[str, Measure]
    counts: list[list[ranking.LabelCount]]
    negative_patients: np.ndarray
    with_finding: list[ranking.LabelCount]
    mean_probability: np.ndarray
    frequency: np.ndarray
    ece: np.ndarray


def measure_groups(
    calls: Calls,
    groups: Sequence[Group],
    *,
    key: jax.Array | None = None,
    resamples: int = 0,
) -> Measured:
    """Measures every group, on the same resampled patients.

    TPR and FPR at the thresholds; ``falsely_no_finding``: among films with any finding,
    the share for which no class is called.

    Args:
        calls: the table.
        groups: of its films.
        key: of the patient bootstrap.
        resamples: R; 0 for none.

    Returns:
        The measurements; classes with fewer than 10 positive patients in a group are NaN
        there, and what rests on negative films also with fewer than 10 negative ones.

    Reference: Seyyed-Kalantari et al., Nature Medicine 27 (2021): a finding missed as
    "no finding" is underdiagnosed.
    """
    counts, with_finding = _support(calls, groups)
    patients = _patients(calls, groups)
    positives, negatives = patients["tpr"], patients["fpr"]
    few = positives < FEWEST_PATIENTS
    few_negative = few | (negatives < FEWEST_PATIENTS)
    cells, missed = _sums(calls, groups)
    total, total_missed = (
        cells.sum(0, dtype=np.float64),
        missed.sum(0, dtype=np.float64),
    )
    empty = np.zeros((0, *total.shape)), np.zeros((0, *total_missed.shape))
    drawn, drawn_missed = empty
    if resamples and key is not None:
        drawn = resample_sums(key, cells, resamples=resamples)
        drawn_missed = resample_sums(key, missed, resamples=resamples)
    areas = _areas(calls, groups, few_negative, key=key, resamples=resamples)
    found = {"auroc": Measure(**areas, patients=patients["auroc"])}
    point, many = _rates(total), _rates(drawn)
    for name, hidden in (("tpr", few), ("fpr", few_negative), ("calibration", few)):
        found[name] = Measure(
            value=np.where(hidden, np.nan, point[name]),
            drawn=np.where(hidden, np.nan, many[name]).astype(np.float32),
            patients=patients[name],
        )
    concerned = np.array([c.positive_patients for c in with_finding])
    scarce = concerned < FEWEST_PATIENTS
    found[MISSED] = Measure(
        value=np.where(scarce, np.nan, ratio(*np.moveaxis(total_missed, -1, 0))),
        drawn=np.where(scarce, np.nan, ratio(*np.moveaxis(drawn_missed, -1, 0))),
        patients=concerned,
    )
    shown = {n: np.where(few, np.nan, point[n]) for n in ("probability", "frequency")}
    return Measured(
        measures=found,
        counts=counts,
        negative_patients=negatives,
        with_finding=with_finding,
        mean_probability=shown["probability"],
        frequency=shown["frequency"],
        ece=_errors(calls, groups, few),
    )


def _support(
    calls: Calls, groups: Sequence[Group]
) -> tuple[list[list[ranking.LabelCount]], list[ranking.LabelCount]]:
    code, counts, found = calls.units.patients, [], []
    finding = _any_finding(calls.labels)
    for group in groups:
        labels, unit = calls.labels[group.member], code[group.member]
        counts.append(ranking.count_labels(labels, unit))
        found += ranking.count_labels(finding[group.member][:, None], unit)
    return counts, found


def _patients(calls: Calls, groups: Sequence[Group]) -> dict[str, np.ndarray]:
    """Patients that each measure rests on, int ``[G, C]``."""

    def of(films: np.ndarray) -> np.ndarray:
        code = calls.units.patients
        each = [[np.unique(code[g.member & f]).size for f in films.T] for g in groups]
        return np.array(each, int)

    positive, negative = of(calls.labels == 1), of(calls.labels == 0)
    return {
        "auroc": np.minimum(positive, negative),
        "tpr": positive,
        "fpr": negative,
        "calibration": of(np.isfinite(calls.labels)),
    }


def _any_finding(labels: np.ndarray) -> np.ndarray:
    """1 with any finding, 0 without, NaN where an unknown label decides."""
    found = (labels == 1).any(axis=1)
    return np.where(found, 1.0, np.where(np.isnan(labels).any(axis=1), np.nan, 0.0))


def _sums(calls: Calls, groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
    """Per unit and group: what the rates of each class are made of, and of the films."""
    positive, negative = calls.labels == 1, calls.labels == 0
    with np.errstate(invalid="ignore"):
        called = calls.scores.astype(np.float64) >= calls.thresholds
    known = np.isfinite(calls.labels)
    shown = np.where(known, np.nan_to_num(calls.probs), 0)
    cells = [called & positive, positive, called & negative, negative, shown]
    table = np.stack([c.astype(np.float32) for c in cells], axis=-1)
    finding = _any_finding(calls.labels) == 1
    missed = np.stack([finding & ~called.any(axis=1), finding], 1).astype(np.float32)
    if np.isnan(calls.thresholds).all():
        missed[:, 0] = np.nan  # Nothing can be called: no one missed it either.
    parts = [sum_by_unit(table * g.member[:, None, None], calls.units) for g in groups]
    films = [
        sum_by_unit(np.where(g.member[:, None], missed, 0), calls.units) for g in groups
    ]
    cells = np.stack(parts, axis=1)
    # What has no threshold, or no probability, has no rate: NaN for good.
    cells[..., np.isnan(calls.thresholds), 0:3:2] = np.nan
    cells[..., np.isnan(calls.probs).any(axis=0), 4] = np.nan
    return cells, np.stack(films, axis=1)


def _rates(cells: np.ndarray) -> dict[str, np.ndarray]:
    hit, positive, alarm, negative, probs = np.moveaxis(
        np.asarray(cells, np.float64), -1, 0
    )
    n = positive + negative
    probability, frequency = ratio(probs, n), ratio(positive, n)
    return {
        "tpr": ratio(hit, positive),
        "fpr": ratio(alarm, negative),
        "probability": probability,
        "frequency": frequency,
        "calibration": probability - frequency,
    }


def _areas(
    calls: Calls,
    groups: Sequence[Group],
    hidden: np.ndarray,
    *,
    key: jax.Array | None,
    resamples: int,
) -> dict[str, np.ndarray]:
    """AUROC of each group on its own films, padded to few shapes for the compiler."""
    shape = hidden.shape
    value = np.full(shape, np.nan)
    drawn = np.full((resamples if key is not None else 0, *shape), np.nan, np.float32)
    for g, group in enumerate(groups):
        if hidden[g].all():
            continue
        rows = np.flatnonzero(group.member)
        labels = np.where(hidden[g], np.nan, calls.labels[rows])
        value[g] = ranking.auroc(calls.scores[rows], labels)
        if not len(drawn):
            continue
        spare = max(0, 1 << int(len(rows) - 1).bit_length()) - len(rows)
        rows = np.pad(rows, (0, spare))
        labels = np.pad(labels, ((0, spare), (0, 0)), constant_values=np.nan)
        units = calls.units.of(rows)
        drawn[:, g] = bootstrap.bootstrap(
            key, calls.scores[rows], labels, units, resamples=resamples
        ).auroc
    return {"value": value, "drawn": drawn}


def _errors(calls: Calls, groups: Sequence[Group], few: np.ndarray) -> np.ndarray:
    """ECE of each group and class; NaN where suppressed or uncalibrated."""
    value = np.full(few.shape, np.nan)
    for g, group in enumerate(groups):
        for c in np.flatnonzero(~few[g] & np.isfinite(calls.probs).all(axis=0)):
            found = calibration.measure_calibration(
                calls.probs[group.member, c], calls.labels[group.member, c]
            )
            value[g, c] = np.nan if found is None else found.ece
    return value
