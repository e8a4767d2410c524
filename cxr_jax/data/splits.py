"""Named splits of a dataset, and the passport that says which films were where.

==========================  ==========================================================
``official``                the release's test list; its train_val list is divided by
                            patient
``patient_disjoint``        the parts that lists (or the phantom) give each film
``released``                the release's own train and val lists; a test part need not
                            be there
``imagenome``               the lists of Chest ImaGenome, beside MIMIC-CXR's own parts
``random_patient``          patients drawn by seed
``stratified``              patients drawn by seed, so that every part has its share of
                            each label (``data.stratify``)
``set_apart``               ``holdout`` films drawn first, for testing; other films of
                            their patients left out; the rest divided by patient into
                            train and val. The stand-in for CheXNet's unpublished 420
``set_apart_image_level``   the same, the rest divided by film: **leaks** patients from
                            training into validation
``image_level``             films drawn by seed: **leaks** patients from training into
                            test; kept to measure how much that flatters
``cxr8``                    films that have a box of one of the eight classes
                            (``labels.CXR8``), all for testing
``cxr8_halves``             the same, halved by patient: val and test. Of the patients
                            without a box, films with one of the eight findings, or with
                            none of all, train methods that learn from labels of films
``cxr8_halves_image_level`` the same, other films of the patients with boxes train too:
                            **leaks** patients from training into val and test
==========================  ==========================================================

What is drawn depends on names and seed alone (``data.draws``); for ``stratified`` on
labels too, and on the version of a library.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_jax.data.balance import balance
from cxr_jax.data.records import Records
from cxr_jax.data.schemes import (
    FRACTIONS,
    HALVES,
    LEAKING,
    LISTED,
    PARTS,
    SAMPLING,
    SCHEMES,
    SET_APART,
    WITHOUT_TEST,
    Draw,
    names_of_parts,
)
from cxr_jax.errors import DataError

# Films of CheXNet's test set.
HOLDOUT = 420
# Stands beside every figure on a validation part.
MODEL_SELECTION = (
    "Figures on a validation part are model selection, not a test: its films chose the"
    " checkpoint, and steered the learning rate where a plateau lowers it."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Record numbers per part, and their passport.

    Attributes:
        parts: ``train``, ``val``, ``test`` → int64 record numbers, ascending.
        passport: what ``split.json`` holds: dataset, version, scheme, seed and fractions
            (None where they play no part), ``parts`` (images, patients, sha256 of the
            newline-joined sorted ids), ``patient_overlap`` (patients in more than one
            part), ``left_out`` (films in no part). Where films are set apart, also
            ``holdout``: how many, and ``holdout_from``: among which. Of the schemes in
            ``SAMPLING`` ``patients``: the share of patients that is used; of
            ``stratified`` ``balance`` (``data.balance``).
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
    holdout: int = HOLDOUT,
    holdout_from: str = "",
    patients: float = 1.0,
    required: Sequence[str] | None = None,
) -> Split:
    """Divides a dataset by a named scheme.

    Args:
        records: the table of the dataset.
        scheme: one of ``SCHEMES``.
        dataset: name, for the passport.
        version: version, for the passport.
        seed: of the schemes that draw.
        fractions: shares of train, val and test among patients (films for
            ``image_level``); the halves take none. Schemes that have their test films already use the
            proportion of the first two; the third may be 0 there.
        holdout: films that are set apart, at least 1.
        holdout_from: a listed part to draw them from, such as
            ``patient_disjoint/test``: where readers were asked about those films alone.
            Empty for all films, as CheXNet drew its 420 from the general set.
        patients: share of patients that is used at all, in (0, 1], drawn by seed before
            anything else; films of the others are left out. Below 1 for the schemes in
            ``SAMPLING`` alone.
        required: parts that must hold at least one film; all that the scheme has unless
            given.

    Returns:
        The parts and the passport.

    Raises:
        DataError: unknown scheme, fractions that are none, a share of patients that is
            none or that the scheme does not take, a scheme that the dataset has no list
            or labels for, too few films to set apart, a required part without films, or
            a patient in two parts.
    """
    if scheme not in SCHEMES:
        raise DataError(
            f"split scheme {scheme!r} is unknown; allowed: {', '.join(SCHEMES)}"
        )
    if scheme in SET_APART and holdout_from:
        parse_part(holdout_from, key="data.holdout_from")
    draw = Draw(
        seed=seed,
        fractions=fractions,
        holdout=holdout,
        holdout_from=holdout_from,
        patients=patients,
    ).checked(scheme)
    names = names_of_parts(records, scheme, draw)
    parts = {part: np.flatnonzero(names == part) for part in PARTS}
    if required is None:
        required = PARTS[:2] if scheme in WITHOUT_TEST else PARTS
    _check_filled(parts, required, f"split {scheme!r} of {dataset}", len(records))
    about = {"dataset": dataset, "version": version, "scheme": scheme}
    return Split(parts=parts, passport=about | _passport(records, parts, scheme, draw))


def parse_part(name: str, *, key: str = "eval.splits") -> tuple[str, str]:
    """The scheme and the part that a name means.

    Args:
        name: ``test``, or ``SCHEME/PART`` such as ``official/test``.
        key: where it was given, for the message.

    Returns:
        The scheme, empty where the name gives none, and the part.

    Raises:
        DataError: an unknown one.
    """
    scheme, slash, part = name.rpartition("/")
    if part not in PARTS or (slash and scheme not in SCHEMES):
        raise DataError(
            f"{key}={name!r} is no part of a split: give {', '.join(PARTS)}, or one of"
            f" another scheme, SCHEME/PART, with a scheme of {', '.join(SCHEMES)}"
        )
    return scheme, part


def ids_sha256(ids: Sequence[str]) -> str:
    """SHA-256, in hex, of the newline-joined sorted ids."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def _check_filled(
    parts: dict[str, np.ndarray], required: Sequence[str], what: str, every: int
) -> None:
    if empty := [part for part in required if not len(parts[part])]:
        sizes = ", ".join(f"{part} {len(index)}" for part, index in parts.items())
        raise DataError(
            f"{what} has no films in {' and '.join(empty)} ({sizes}, of {every}); every"
            " part needs at least 1: choose another scheme, fractions or share of"
            " patients, or build more films"
        )


def _passport(
    records: Records, parts: dict[str, np.ndarray], scheme: str, draw: Draw
) -> dict[str, Any]:
    draws_any = scheme not in LISTED
    shared = draws_any and scheme not in HALVES
    found: dict[str, Any] = {
        "seed": draw.seed if draws_any else None,
        "fractions": list(draw.fractions) if shared else None,
    }
    if scheme in SET_APART:
        found |= {"holdout": draw.holdout, "holdout_from": draw.holdout_from}
    if scheme in SAMPLING:
        found["patients"] = draw.patients
    found |= {
        "parts": {part: _part(records, index) for part, index in parts.items()},
        "patient_overlap": _overlap(records, parts, scheme),
        "left_out": len(records) - sum(map(len, parts.values())),
    }
    if scheme == "stratified":
        found["balance"] = balance(records, parts, draw.fractions)
    return found


def _part(records: Records, index: np.ndarray) -> dict[str, Any]:
    return {
        "images": len(index),
        "patients": len(set(records.patient[index].tolist()) - {""}),
        "sha256": ids_sha256(records.id[index].tolist()),
    }


def _overlap(records: Records, parts: dict[str, np.ndarray], scheme: str) -> int:
    """Patients with films in more than one part; only ``LEAKING`` schemes may have any."""
    sets = [set(records.patient[index].tolist()) - {""} for index in parts.values()]
    shared = set().union(*(a & b for k, a in enumerate(sets) for b in sets[:k]))
    if shared and scheme not in LEAKING:
        raise DataError(
            f"split {scheme!r}: {len(shared)} patients are in more than one part, such as"
            f" {min(shared)}; none is allowed: correct the lists"
        )
    return len(shared)
