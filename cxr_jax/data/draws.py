"""Drawing by names and a seed: the same on every machine, whatever the order of rows.

SHA-256 orders units (patients, films), not a random generator whose stream may change
between versions of a library.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from cxr_jax.errors import DataError


def digest(seed: int, unit: str) -> bytes:
    """What a unit is ordered by: SHA-256 of the seed, a line break and its name."""
    return hashlib.sha256(f"{seed}\n{unit}".encode()).digest()


def in_order(units: Iterable[str], seed: int) -> list[str]:
    """Each unit once, in an order drawn by seed."""
    return sorted(set(units), key=lambda unit: digest(seed, unit))


def divided(units: np.ndarray, seed: int, upto: Mapping[str, float]) -> np.ndarray:
    """A part per row: units in an order drawn by seed, cut at cumulative shares.

    Args:
        units: str ``[N]``.
        seed: of the order.
        upto: part → share of units up to its end, ascending; the last is 1.

    Returns:
        str ``[N]``; rows of one unit have one part.
    """
    order = in_order(units.tolist(), seed)
    part, start = {}, 0
    for name, share in upto.items():
        stop = round(share * len(order))
        part.update(dict.fromkeys(order[start:stop], name))
        start = stop
    return np.array([part[unit] for unit in units.tolist()], dtype="U9")


def half(units: np.ndarray, seed: int) -> np.ndarray:
    """Rows of the first units, in an order drawn by seed, that make up half of the rows.

    Args:
        units: str ``[N]``.
        seed: of the order.

    Returns:
        bool ``[N]``; rows of one unit are alike. At least N / 2 of them, and fewer without
        the last unit.
    """
    rows = Counter(units.tolist())
    order = in_order(rows, seed)
    reached = np.cumsum([rows[unit] for unit in order], dtype=np.int64)
    enough = int(np.searchsorted(2 * reached, len(units)))
    return np.isin(units, order[: enough + 1])


def used(patients: np.ndarray, seed: int, share: float) -> np.ndarray:
    """Rows of the patients that are used at all: the first of an order drawn by seed.

    Args:
        patients: str ``[N]``.
        seed: of the order.
        share: of all patients, in (0, 1].

    Returns:
        int64 row numbers, ascending.

    Raises:
        DataError: so small a share that nobody is left.
    """
    order = in_order(patients.tolist(), seed)
    count = round(share * len(order))
    if share < 1 and not count:
        raise DataError(
            f"data.patients={share:g}: none of {len(order)} patients is left; give a"
            " larger share"
        )
    return np.flatnonzero(np.isin(patients, order[:count]))
