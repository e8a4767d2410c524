"""Patients divided so that every part has its share of each label.

Iterative stratification deals out the rarest label first, each of its patients to the part
that lacks most of it. The package ``iterative-stratification`` does that over binary
columns, one row per patient. Its columns here are

- the union of a patient's labels: c is 1 where any of the films has c;
- films without a label, as one more such class, and patients who have no other films;
- levels: at least 2, 3, … 8, 10, 12, 15, … films with c (``_levels``).

The union alone divides the patients of each label almost perfectly and their films hardly
better than chance: of ChestX-ray14's patients one has 184 films. Levels divide the films as
well, at no cost to the patients. Ties are broken at random, which moves the result: of
``TRIES`` divisions the one with the smallest deviation (``data.balance``, films and
patients added) is taken.

Deviation: the paper names neither its unit nor its columns; the union of a patient's labels
is the usual reading, and levels and tries are additions to it.

What is drawn depends on names, labels and seed alone. The generator that breaks ties is
NumPy's frozen one (``RandomState``), but another version of the package may divide
otherwise: the passport's SHA-256 shows it, and a run does not go on with another split.

Reference: Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data",
ECML PKDD 2011.
"""

from collections.abc import Sequence

import numpy as np

from cxr_jax.data import draws
from cxr_jax.data.balance import by_part, deviation, films_by_patient
from cxr_jax.errors import DataError

TRIES = 4
# Between one level and the next, from 5 films on.
STEP = 1.25


def stratified(
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    seed: int,
    fractions: Sequence[float],
) -> np.ndarray:
    """A part per film.

    Args:
        labels: ``[N, C]`` in {0, 1}; NaN (unknown) counts as 0.
        patients: str ``[N]``.
        seed: of the order of patients and of ties.
        fractions: share of each part, above 0, together 1.

    Returns:
        int64 ``[N]``, number of the part; films of a patient have one part.

    Raises:
        DataError: no film has a label.
    """
    if not (labels > 0).any():
        raise DataError(
            "data.scheme=stratified: the dataset has no film with a positive label to"
            " stratify by; choose random_patient"
        )
    rank = {name: k for k, name in enumerate(draws.in_order(patients.tolist(), seed))}
    code = np.array([rank[name] for name in patients.tolist()])
    films = films_by_patient(labels, code)
    columns = _columns(films)
    tries = [_divided(columns, fractions, seed, k) for k in range(TRIES)]
    return min(tries, key=lambda part: _uneven(films, part, fractions))[code]


def _columns(films: np.ndarray) -> np.ndarray:
    """bool ``[P, …]``: what is divided, for each class the union first."""
    levels = [films >= level for level in _levels(films.max())]
    only = (films[:, :-1] == 0).all(axis=1, keepdims=True)
    columns = np.concatenate([*levels, only], axis=1)
    return columns[:, columns.any(axis=0)]


def _levels(most: int) -> list[int]:
    """1, 2, … 8, 10, 12, 15, 18, 22, … up to the largest number of films."""
    levels = [1]
    while (level := max(levels[-1] + 1, int(STEP * levels[-1]))) <= most:
        levels.append(level)
    return levels


def _divided(
    columns: np.ndarray, fractions: Sequence[float], seed: int, number: int
) -> np.ndarray:
    from iterstrat.ml_stratifiers import IterativeStratification

    ties = int.from_bytes(draws.digest(seed, f"ties {number}")[:4], "big")
    return IterativeStratification(
        columns, np.asarray(fractions, np.float64), np.random.RandomState(ties)
    )


def _uneven(films: np.ndarray, part: np.ndarray, fractions: Sequence[float]) -> float:
    counted = by_part(films[:, :-1], part, len(fractions))
    return sum(deviation(counts, fractions) for counts in counted.values())
