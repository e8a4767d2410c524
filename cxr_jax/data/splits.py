"""Named splits of a dataset, and the passport that says which films were where.

==========================  ==========================================================
``official``                the release's test list; its train_val list is divided by
                            patient
``patient_disjoint``        the parts that lists (or the phantom) give each film
``released``                the release's own train and val lists; a test part need not
                            be there
``random_patient``          patients drawn by seed
``set_apart``               ``holdout`` films drawn first, for testing; other films of
                            their patients left out; the rest divided by patient into
                            train and val. The stand-in for CheXNet's unpublished 420
``set_apart_image_level``   the same, the rest divided by film: **leaks** patients from
                            training into validation
``image_level``             films drawn by seed: **leaks** patients from training into
                            test; kept to measure how much that flatters
==========================  ==========================================================

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

PARTS = ("train", "val", "test")
FRACTIONS = (0.7, 0.1, 0.2)
# Films of CheXNet's test set.
HOLDOUT = 420
# Stands beside every figure on a validation part.
MODEL_SELECTION = (
    "Figures on a validation part are model selection, not a test: its films chose the"
    " checkpoint and steered the learning rate."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Record numbers per part, and their passport.

    Attributes:
        parts: ``train``, ``val``, ``test`` → int64 record numbers, ascending.
        passport: what ``split.json`` holds: dataset, version, scheme, seed and fractions
            (None where nothing is drawn), ``parts`` (images, patients, sha256 of the
            newline-joined sorted ids), ``patient_overlap`` (patients in more than one
            part), ``left_out`` (films in no part). Where films are set apart, also
            ``holdout``: how many, and ``holdout_from``: among which.
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
            ``image_level``). Schemes that have their test films already use the
            proportion of the first two; the third may be 0 there.
        holdout: films that are set apart, at least 1.
        holdout_from: a listed part to draw them from, such as
            ``patient_disjoint/test``: where readers were asked about those films alone.
            Empty for all films, as CheXNet drew its 420 from the general set.
        required: parts that must hold at least one film; all that the scheme has unless
            given.

    Returns:
        The parts and the passport.

    Raises:
        DataError: unknown scheme, fractions that are none, a scheme that the dataset has
            no list for, too few films to set apart, a required part without films, or a
            patient in two parts.
    """
    if scheme not in SCHEMES:
        raise DataError(
            f"split scheme {scheme!r} is unknown; allowed: {', '.join(SCHEMES)}"
        )
    drawn = _Draw(
        seed=seed,
        fractions=_checked(
            fractions, test_is_listed=scheme in (*_TEST_FIRST, *_LISTED)
        ),
        holdout=holdout,
        holdout_from=holdout_from,
    )
    names = _DIVIDE[scheme](records, drawn)
    parts = {part: np.flatnonzero(names == part) for part in PARTS}
    wanted = PARTS[:2] if scheme in _WITHOUT_TEST else PARTS
    wanted = wanted if required is None else required
    empty = [part for part in wanted if not len(parts[part])]
    if empty:
        sizes = ", ".join(f"{part} {len(index)}" for part, index in parts.items())
        raise DataError(
            f"split {scheme!r} of {dataset} has no films in {' and '.join(empty)}"
            f" ({sizes}, of {len(records)}); every part needs at least 1: choose another"
            " scheme or fractions, or build more films"
        )
    draws = scheme not in _LISTED
    return Split(
        parts=parts,
        passport={
            "dataset": dataset,
            "version": version,
            "scheme": scheme,
            "seed": seed if draws else None,
            "fractions": list(drawn.fractions) if draws else None,
            **(drawn.set_apart() if scheme in _SET_APART else {}),
            "parts": {part: _part(records, index) for part, index in parts.items()},
            "patient_overlap": _overlap(records, parts, scheme),
            "left_out": len(records) - sum(map(len, parts.values())),
        },
    )


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Draw:
    seed: int
    fractions: tuple[float, ...]
    holdout: int
    holdout_from: str

    def set_apart(self) -> dict[str, Any]:
        return {"holdout": self.holdout, "holdout_from": self.holdout_from}


def _checked(fractions: Sequence[float], *, test_is_listed: bool) -> tuple[float, ...]:
    given = tuple(float(share) for share in fractions)
    positive = given[:2] if test_is_listed else given
    fits = len(given) == 3 and min(positive) > 0 and min(given) >= 0
    if not fits or abs(sum(given) - 1) > 1e-6:
        raise DataError(
            f"split fractions {given}: three numbers above 0 that add up to 1 are"
            f" allowed, such as {FRACTIONS}"
        )
    return given


def _official(records: Records, draw: _Draw) -> np.ndarray:
    listed = _column(records, "official")
    own = np.flatnonzero(listed == "train_val")
    names = listed.copy()
    names[own] = _drawn(_patients(records)[own], draw.seed, _first_two(draw))
    return names


def _patient_disjoint(records: Records, draw: _Draw) -> np.ndarray:
    del draw  # The lists say everything.
    return _column(records, "patient_disjoint")


def _released(records: Records, draw: _Draw) -> np.ndarray:
    del draw  # Likewise; there need not be a test part.
    return _column(records, "released")


def _random_patient(records: Records, draw: _Draw) -> np.ndarray:
    return _drawn(_patients(records), draw.seed, _cumulative(draw.fractions))


def _image_level(records: Records, draw: _Draw) -> np.ndarray:
    return _drawn(records.id, draw.seed, _cumulative(draw.fractions))


def _set_apart(records: Records, draw: _Draw) -> np.ndarray:
    return _after_holdout(records, draw, _patients(records))


def _set_apart_image_level(records: Records, draw: _Draw) -> np.ndarray:
    return _after_holdout(records, draw, records.id)


def _after_holdout(records: Records, draw: _Draw, units: np.ndarray) -> np.ndarray:
    """Test films first; then the units of patients that have none, in two parts."""
    patients = _patients(records)
    test = _holdout(records, draw)
    free = np.flatnonzero(~np.isin(patients, patients[test]))
    names = np.full(len(records), "", dtype="U9")
    names[test] = "test"
    names[free] = _drawn(units[free], draw.seed, _first_two(draw))
    return names


def _holdout(records: Records, draw: _Draw) -> np.ndarray:
    """Films are drawn, not patients: whoever was filmed more often is likelier in it."""
    among = np.arange(len(records))
    if draw.holdout_from:
        scheme, part = parse_part(draw.holdout_from, key="data.holdout_from")
        among = np.flatnonzero(_column(records, scheme) == part)
    if not 0 < draw.holdout <= len(among):
        where = f" of {draw.holdout_from}" if draw.holdout_from else ""
        raise DataError(
            f"data.holdout={draw.holdout}: 1 to {len(among)} films{where} can be set"
            " apart; give fewer, or draw them from more films"
        )
    order = sorted(among.tolist(), key=lambda k: _key(draw.seed, records.id[k]))
    return np.array(order[: draw.holdout])


_DIVIDE = {
    "official": _official,
    "patient_disjoint": _patient_disjoint,
    "released": _released,
    "random_patient": _random_patient,
    "set_apart": _set_apart,
    "set_apart_image_level": _set_apart_image_level,
    "image_level": _image_level,
}
SCHEMES = tuple(_DIVIDE)
# Patients may stand in several parts of these: whoever wants that says so by name.
LEAKING = ("image_level", "set_apart_image_level")
_LISTED = ("patient_disjoint", "released")
_WITHOUT_TEST = ("released",)
_SET_APART = ("set_apart", "set_apart_image_level")
_TEST_FIRST = ("official", *_SET_APART)


def _first_two(draw: _Draw) -> dict[str, float]:
    train, val, _ = draw.fractions
    return {"val": val / (train + val), "train": 1}


def _key(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{unit}".encode()).digest()


def _cumulative(fractions: tuple[float, ...]) -> dict[str, float]:
    _, val, test = fractions
    return {"test": test, "val": test + val, "train": 1}


def _drawn(units: np.ndarray, seed: int, upto: dict[str, float]) -> np.ndarray:
    """A part per row: units in an order drawn by seed, cut at cumulative shares."""
    order = sorted(set(units.tolist()), key=lambda unit: _key(seed, unit))
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
            f" {', '.join(have) or 'none'}); choose one of these, or random_patient, or"
            " put the lists (README) beside the films and build again"
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
    """Patients with films in more than one part; only ``LEAKING`` schemes may have any."""
    sets = [set(records.patient[index].tolist()) - {""} for index in parts.values()]
    shared = set().union(*(a & b for k, a in enumerate(sets) for b in sets[:k]))
    if shared and scheme not in LEAKING:
        raise DataError(
            f"split {scheme!r}: {len(shared)} patients are in more than one part, such as"
            f" {min(shared)}; none is allowed: correct the lists"
        )
    return len(shared)
