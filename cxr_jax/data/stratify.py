"""Patients divided so that every part has its share of each label.

Iterative stratification deals out the rarest label first, each of its patients to the part
that lacks most of it. The package ``iterative-stratification`` does that over binary
columns, one row per patient:

- the union of a patient's labels: c is 1 where any of the films has c;
- one more that all patients have. It comes last, when those who have no label are left:
  they are dealt out by it, so that the parts get the sizes asked for;
- levels of each: at least 2, 3, … 8, 10, 12, 15, … films with c, or of any kind.

The union alone divides the patients of each label almost perfectly and their films hardly
better than chance: of ChestX-ray14's patients one has 184 films. Levels divide the films
too, at no cost to the patients. What is left over is evened by exchanging patients of the
same union between parts (``evened``), which leaves the patients of each label as dealt.

Deviation: the paper names neither its unit nor its columns. The union of a patient's labels
is the usual reading; levels and exchanges are additions.

What is drawn depends on names, labels and seed alone. Ties are broken by NumPy's frozen
generator (``RandomState``), but another version of the package may divide otherwise: the
passport's SHA-256 shows it, and a run does not go on with another split.

Reference: Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data",
ECML PKDD 2011.
"""

from collections.abc import Sequence

import numpy as np

from cxr_jax.data import draws
from cxr_jax.data.balance import films_by_patient
from cxr_jax.errors import DataError

# Between one level and the next, from 8 films on.
STEP = 1.25
# Exchanges that each patient is tried for.
ROUNDS = 4


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
        seed: of the order of patients, of ties and of exchanges.
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
    random = np.random.RandomState(int.from_bytes(draws.digest(seed, "")[:4], "big"))
    part = dealt(films, np.bincount(code), fractions, random)
    return evened(films, part, fractions, random)[code]


def dealt(
    films: np.ndarray,
    every: np.ndarray,
    fractions: Sequence[float],
    random: np.random.RandomState,
) -> np.ndarray:
    """Iterative stratification of the union and levels (module).

    Args:
        films: from ``balance.films_by_patient``.
        every: int ``[P]``, all films of each patient.
        fractions: share of each part.
        random: breaks ties.

    Returns:
        int ``[P]``, number of each patient's part.
    """
    # sklearn, which it imports, takes a second: only who stratifies waits for it.
    from iterstrat.ml_stratifiers import IterativeStratification

    counts = np.concatenate([films[:, :-1], every[:, None]], axis=1)
    columns = np.concatenate([counts >= k for k in _levels(every.max())], axis=1)
    shares = np.asarray(fractions, np.float64)
    return IterativeStratification(columns[:, columns.any(axis=0)], shares, random)


def _levels(most: int) -> list[int]:
    """1, 2, … 8, 10, 12, 15, 18, 22, … up to the largest number of films."""
    levels = [1]
    while (level := max(levels[-1] + 1, int(STEP * levels[-1]))) <= most:
        levels.append(level)
    return levels


def evened(
    films: np.ndarray,
    part: np.ndarray,
    fractions: Sequence[float],
    random: np.random.RandomState,
) -> np.ndarray:
    """Exchanges patients of the same union of labels where films get more even by it.

    Pairs are drawn at random, and exchanged if the summed relative distance of all shares
    of films from their targets becomes smaller.

    Args:
        films: int ``[P, C]``, films of each patient with each label.
        part: int ``[P]``, number of each patient's part.
        fractions: share of each part.
        random: draws the pairs.

    Returns:
        int ``[P]``. Each part has as many patients of each union as before.
    """
    part, films = part.copy(), films[:, films.any(axis=0)]
    aims = np.outer(fractions, films.sum(axis=0))
    away = np.stack([films[part == p].sum(axis=0) for p in range(len(aims))]) / aims - 1
    for i, j in _pairs(films > 0, random):
        a, b = part[i], part[j]
        if a == b:
            continue
        step = films[j] - films[i]
        of_a, of_b = away[a] + step / aims[a], away[b] - step / aims[b]
        now = np.abs(away[a]).sum() + np.abs(away[b]).sum()
        # No exchange for a rounding error's sake.
        if np.abs(of_a).sum() + np.abs(of_b).sum() < now - 1e-9:
            away[a], away[b], part[i], part[j] = of_a, of_b, b, a
    return part


def _pairs(union: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """int ``[ROUNDS P, 2]``: each patient with another of the same union, or itself."""
    _, group = np.unique(union, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order, size = np.argsort(group, kind="stable"), np.bincount(group)
    start = np.cumsum(size) - size
    one = np.tile(np.arange(len(union)), ROUNDS)
    place = (random.random_sample(len(one)) * size[group[one]]).astype(np.int64)
    return np.stack([one, order[start[group[one]] + place]], axis=1)
