"""How evenly a split divides each label, in films and in patients.

Of a label c, the share of its films that fall into part p is n_pc / n_c; its target is
the part's share f_p of ``data.fractions``. The **deviation** of a split is the mean
absolute relative distance from the target over parts and labels,

    d = mean over p and c of | n_pc / (n_c f_p) − 1 |,

n counting films; and likewise with n counting patients who have the label on a film.
Labels of no film are left out: they have no share. The share of a label among the films
of a part, against that among all films, is n_pc / n_c against the share of all films that
fall into the part: the same figure, but for parts that are a little larger or smaller
than asked for.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_jax.data.records import Records

UNITS = ("films", "patients")
# Films without a label; "No Finding" in ChestX-ray14.
NONE = "none of these"


def films_by_patient(labels: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Films of each patient with each label.

    Args:
        labels: ``[N, C]`` in {0, 1}; NaN (unknown) counts as 0.
        code: int ``[N]``, number of the patient, from 0, none left out.

    Returns:
        int64 ``[P, C + 1]``; the last column counts films without any label.
    """
    positive = labels > 0
    columns = np.concatenate([positive, ~positive.any(axis=1, keepdims=True)], axis=1)
    films = np.zeros((code.max(initial=-1) + 1, columns.shape[1]), np.int64)
    np.add.at(films, code, columns)
    return films


def by_part(films: np.ndarray, part: np.ndarray, parts: int) -> dict[str, np.ndarray]:
    """Films, and patients, of each label in each part.

    Args:
        films: from ``films_by_patient``.
        part: int ``[P]``, number of each patient's part.
        parts: how many there are.

    Returns:
        ``films`` and ``patients`` → int64 ``[parts, C + 1]``.
    """
    counts = {"films": films, "patients": (films > 0).astype(np.int64)}
    return {
        unit: np.stack([count[part == p].sum(axis=0) for p in range(parts)])
        for unit, count in counts.items()
    }


def deviation(counts: np.ndarray, targets: Sequence[float]) -> float | None:
    """d of a split (module).

    Args:
        counts: int ``[parts, C]``, films or patients of each label in each part.
        targets: share of each part, above 0.

    Returns:
        d, 0 if divided as asked; None if there is no label. The sum is rounded once, so
        it is the same on every machine.
    """
    every = counts.sum(axis=0)
    known = np.flatnonzero(every)
    away = [
        abs(counts[p, c] / (every[c] * f) - 1)
        for p, f in enumerate(targets)
        for c in known
    ]
    return math.fsum(away) / len(away) if away else None


def balance(
    records: Records, parts: Mapping[str, np.ndarray], targets: Sequence[float]
) -> dict[str, Any]:
    """What the passport of a split says about its labels.

    Args:
        records: the table of the dataset.
        parts: part → record numbers; no patient is in two.
        targets: share of each part.

    Returns:
        ``targets``: part → share; ``films`` and ``patients``: each ``deviation``, and
        ``classes``: name → part → ``count`` and ``share`` of that label's films (or
        patients), None where there is none. The last, ``NONE``, is of films without a
        label; the deviation is of the others.
    """
    part = np.repeat(np.arange(len(parts)), [len(index) for index in parts.values()])
    index = np.concatenate(list(parts.values()))
    _, first, code = np.unique(
        records.patient[index], return_index=True, return_inverse=True
    )
    films = films_by_patient(records.labels[index], code)
    counted = by_part(films, part[first], len(parts))
    names = (*records.classes, NONE)
    return {
        "targets": dict(zip(parts, map(float, targets), strict=True)),
        **{unit: _about(counted[unit], parts, targets, names) for unit in UNITS},
    }


def _about(
    counts: np.ndarray,
    parts: Sequence[str],
    targets: Sequence[float],
    names: Sequence[str],
) -> dict[str, Any]:
    d = deviation(counts[:, :-1], targets)
    return {
        "deviation": None if d is None else round(d, 6),
        "classes": {
            name: dict(zip(parts, _shares(column), strict=True))
            for name, column in zip(names, counts.T.tolist(), strict=True)
        },
    }


def _shares(column: Sequence[int]) -> list[dict[str, float | None]]:
    every = sum(column)
    share = [round(n / every, 6) if every else None for n in column]
    return [{"count": n, "share": s} for n, s in zip(column, share, strict=True)]
