"""Named splits of a dataset, and the passport that says which films were where.

======================  ==============================================================
``official``            the release's test list; its train_val list is divided by patient
``patient_disjoint``    the parts that lists (or the phantom) give each film
``random_patient``      patients drawn by seed
``image_level``         films drawn by seed: **leaks** patients from training into test;
                        kept to measure how much that flatters
======================  ==============================================================

What is drawn depends on names and seed alone (SHA-256), not on a random generator whose
stream may change between versions of a library.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_jax.data.records import Records
from cxr_jax.errors import DataError

SCHEMES = ("official", "patient_disjoint", "random_patient", "image_level")
PARTS = ("train", "val", "test")
FRACTIONS = (0.7, 0.1, 0.2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Record numbers per part, and their passport.

    Attributes:
        parts: ``train``, ``val``, ``test`` → int64 record numbers, ascending.
        passport: what ``split.json`` holds: dataset, version, scheme, seed and fractions
            (None where nothing is drawn), ``parts`` (images, patients, sha256 of the
            newline-joined sorted ids), ``patient_overlap`` (patients in more than one
            part), ``left_out`` (films in no part).
    """

    parts: dict[str, np.ndarray]
    passport: dict[str, Any]


def split_records(
    records: Records,
    scheme: str,
    *,
    dataset: str,
    version: str,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    required: Sequence[str] = PARTS,
) -> Split:
    """Divides a dataset by a named scheme.

    Args:
        records: the table of the dataset.
        scheme: one of ``SCHEMES``.
        dataset: name, for the passport.
        version: version, for the passport.
        seed: of the schemes that draw.
        fractions: shares of train, val and test among patients (films for
            ``image_level``); ``official`` uses the proportion of the first two.
        required: parts that must hold at least one film.

    Returns:
        The parts and the passport.

    Raises:
        DataError: unknown scheme, fractions that are none, a scheme that the dataset has
            no list for, a required part without films, or a patient in two parts.
    """
    if scheme not in SCHEMES:
        raise DataError(
            f"split scheme {scheme!r} is unknown; allowed: {', '.join(SCHEMES)}"
        )
    fractions = _checked(fractions)
    names = _DIVIDE[scheme](records, seed, fractions)
    parts = {part: np.flatnonzero(names == part) for part in PARTS}
    empty = [part for part in required if not len(parts[part])]
    if empty:
        sizes = ", ".join(f"{part} {len(index)}" for part, index in parts.items())
        raise DataError(
            f"split {scheme!r} of {dataset} has no films in {' and '.join(empty)}"
            f" ({sizes}, of {len(records)}); every part needs at least 1: choose another"
            " scheme or fractions, or build more films"
        )
    draws = scheme != "patient_disjoint"
    return Split(
        parts=parts,
        passport={
            "dataset": dataset,
            "version": version,
            "scheme": scheme,
            "seed": seed if draws else None,
            "fractions": list(fractions) if draws else None,
            "parts": {part: _part(records, index) for part, index in parts.items()},
            "patient_overlap": _overlap(records, parts, scheme),
            "left_out": len(records) - sum(map(len, parts.values())),
        },
    )


def ids_sha256(ids: Sequence[str]) -> str:
    """SHA-256, in hex, of the newline-joined sorted ids."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def _checked(fractions: Sequence[float]) -> tuple[float, ...]:
    given = tuple(float(share) for share in fractions)
    if len(given) != 3 or min(given) <= 0 or abs(sum(given) - 1) > 1e-6:
        raise DataError(
            f"split fractions {given}: three numbers above 0 that add up to 1 are"
            f" allowed, such as {FRACTIONS}"
        )
    return given


def _official(records: Records, seed: int, fractions: tuple[float, ...]) -> np.ndarray:
    listed = _column(records, "official")
    train, val, _ = fractions
    own = np.flatnonzero(listed == "train_val")
    names = listed.copy()
    names[own] = _drawn(
        _patients(records)[own], seed, {"val": val / (train + val), "train": 1}
    )
    return names


def _patient_disjoint(
    records: Records, seed: int, fractions: tuple[float, ...]
) -> np.ndarray:
    del seed, fractions  # The lists say everything.
    return _column(records, "patient_disjoint")


def _random_patient(
    records: Records, seed: int, fractions: tuple[float, ...]
) -> np.ndarray:
    return _drawn(_patients(records), seed, _cumulative(fractions))


def _image_level(
    records: Records, seed: int, fractions: tuple[float, ...]
) -> np.ndarray:
    return _drawn(records.id, seed, _cumulative(fractions))


_DIVIDE = dict(
    zip(
        SCHEMES,
        (_official, _patient_disjoint, _random_patient, _image_level),
        strict=True,
    )
)


def _cumulative(fractions: tuple[float, ...]) -> dict[str, float]:
    _, val, test = fractions
    return {"test": test, "val": test + val, "train": 1}


def _drawn(units: np.ndarray, seed: int, upto: dict[str, float]) -> np.ndarray:
    """A part per row: units in an order drawn by seed, cut at cumulative shares."""

    def key(unit: str) -> bytes:
        return hashlib.sha256(f"{seed}\n{unit}".encode()).digest()

    order = sorted(set(units.tolist()), key=key)
    part, start = {}, 0
    for name, share in upto.items():
        stop = round(share * len(order))
        part.update(dict.fromkeys(order[start:stop], name))
        start = stop
    return np.array([part[unit] for unit in units.tolist()], dtype="U9")


def _column(records: Records, scheme: str) -> np.ndarray:
    if scheme not in records.splits:
        have = [name for name in SCHEMES if name in records.splits]
        raise DataError(
            f"the dataset has no lists for the split {scheme!r} (it has"
            f" {', '.join(have) or 'none'}); put the lists"
            " (README, ChestX-ray14) beside the films and build again, or choose"
            " random_patient"
        )
    return records.splits[scheme].astype("U9")


def _patients(records: Records) -> np.ndarray:
    unknown = int((records.patient == "").sum())
    if unknown:
        raise DataError(
            f"{unknown} of {len(records)} films name no patient; a split by patient"
            " needs one for each: complete the table"
        )
    return records.patient


def _part(records: Records, index: np.ndarray) -> dict[str, Any]:
    return {
        "images": len(index),
        "patients": len(set(records.patient[index].tolist()) - {""}),
        "sha256": ids_sha256(records.id[index].tolist()),
    }


def _overlap(records: Records, parts: dict[str, np.ndarray], scheme: str) -> int:
    """Patients with films in more than one part; only ``image_level`` may have any."""
    sets = [set(records.patient[index].tolist()) - {""} for index in parts.values()]
    shared = set().union(*(a & b for k, a in enumerate(sets) for b in sets[:k]))
    if shared and scheme != "image_level":
        raise DataError(
            f"split {scheme!r}: {len(shared)} patients are in more than one part, such as"
            f" {min(shared)}; none is allowed: correct the lists"
        )
    return len(shared)
