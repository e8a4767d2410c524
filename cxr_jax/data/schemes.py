"""How each named split (``data.splits``) gives films their parts."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from cxr_jax.data import draws, stratify
from cxr_jax.data.records import Records
from cxr_jax.errors import DataError
from cxr_jax.labels import CXR8

PARTS = ("train", "val", "test")
FRACTIONS = (0.7, 0.1, 0.2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """How a scheme is drawn; see ``splits.split_records``.

    Attributes:
        seed: of everything that is drawn.
        fractions: shares of train, val and test.
        holdout: films that are set apart.
        holdout_from: ``SCHEME/PART`` to draw them from; empty for all films.
        patients: share of patients that is used.
    """

    seed: int
    fractions: tuple[float, ...]
    holdout: int
    holdout_from: str
    patients: float

    def checked(self, scheme: str) -> "Draw":
        """The same, of plain numbers.

        Raises:
            DataError: shares that are none, or that the scheme does not take.
        """
        _check_fractions(
            self.fractions,
            test_is_listed=scheme in (*TEST_FIRST, *LISTED, *HALVES),
        )
        _check_patients(self.patients, scheme)
        return dataclasses.replace(
            self,
            fractions=tuple(map(float, self.fractions)),
            patients=float(self.patients),
        )


def names_of_parts(records: Records, scheme: str, draw: Draw) -> np.ndarray:
    """A part per film.

    Args:
        records: the table of the dataset.
        scheme: one of ``SCHEMES``.
        draw: checked.

    Returns:
        str ``[N]`` of ``PARTS``, or empty where a film is left out.

    Raises:
        DataError: no lists, labels or patients for the scheme, or too few films.
    """
    return _DIVIDE[scheme](records, draw)


def _check_fractions(fractions: Sequence[float], *, test_is_listed: bool) -> None:
    given = tuple(map(float, fractions))
    positive = given[:2] if test_is_listed else given
    fits = len(given) == 3 and min(positive) > 0 and min(given) >= 0
    if not fits or abs(sum(given) - 1) > 1e-6:
        raise DataError(
            f"split fractions {given}: three numbers above 0 that add up to 1 are"
            f" allowed, such as {FRACTIONS}"
        )


def _check_patients(patients: float, scheme: str) -> None:
    if not 0 < patients <= 1:
        raise DataError(
            f"data.patients={patients:g}: a share above 0 and at most 1 is allowed"
        )
    if patients < 1 and scheme not in SAMPLING:
        raise DataError(
            f"data.patients={patients:g}: the split {scheme!r} takes all patients;"
            f" give 1, or choose {' or '.join(SAMPLING)}"
        )


def _official(records: Records, draw: Draw) -> np.ndarray:
    listed = _column(records, "official")
    own = np.flatnonzero(listed == "train_val")
    names = listed.copy()
    patients = _patients(records)[own]
    names[own] = draws.divided(patients, draw.seed, _first_two(draw))
    return names


def _patient_disjoint(records: Records, draw: Draw) -> np.ndarray:
    del draw  # The lists say everything.
    return _column(records, "patient_disjoint")


def _released(records: Records, draw: Draw) -> np.ndarray:
    del draw  # Likewise; there need not be a test part.
    return _column(records, "released")


def _imagenome(records: Records, draw: Draw) -> np.ndarray:
    del draw  # Likewise.
    return _column(records, "imagenome")


def _cxr8(records: Records, draw: Draw) -> np.ndarray:
    del draw  # Likewise; films with a box, and no other.
    return _column(records, "cxr8")


def _cxr8_halves(records: Records, draw: Draw) -> np.ndarray:
    patients = _patients(records)
    boxed = _cxr8(records, draw) == "test"
    return _around_halves(records, draw, np.isin(patients, patients[boxed]))


def _cxr8_halves_image_level(records: Records, draw: Draw) -> np.ndarray:
    return _around_halves(records, draw, _cxr8(records, draw) == "test")


def _around_halves(records: Records, draw: Draw, kept_out: np.ndarray) -> np.ndarray:
    """Films with boxes in two halves; others train, unless they are kept out."""
    boxed = np.flatnonzero(_cxr8(records, draw) == "test")
    half = draws.half(_patients(records)[boxed], draw.seed)
    names = _unnamed(records)
    names[boxed] = np.where(half, "val", "test")
    names[~kept_out & _of_cxr8(records)] = "train"
    return names


def _of_cxr8(records: Records) -> np.ndarray:
    """Films with one of the eight findings, or with no finding at all."""
    if missing := [name for name in CXR8 if name not in records.classes]:
        raise DataError(
            f"no labels of {', '.join(missing)} (there are {', '.join(records.classes)});"
            f" the halves of the films with boxes need {', '.join(CXR8)}: choose another"
            " scheme"
        )
    eight = [records.classes.index(name) for name in CXR8]
    labels = records.labels
    return (labels[:, eight] == 1).any(axis=1) | (labels == 0).all(axis=1)


def _random_patient(records: Records, draw: Draw) -> np.ndarray:
    patients, names = _patients(records), _unnamed(records)
    used = draws.used(patients, draw.seed, draw.patients)
    upto = _cumulative(draw.fractions)
    names[used] = draws.divided(patients[used], draw.seed, upto)
    return names


def _stratified(records: Records, draw: Draw) -> np.ndarray:
    patients, names = _patients(records), _unnamed(records)
    used = draws.used(patients, draw.seed, draw.patients)
    how = {"seed": draw.seed, "fractions": draw.fractions}
    part = stratify.stratified(records.labels[used], patients[used], **how)
    names[used] = np.array(PARTS)[part]
    return names


def _image_level(records: Records, draw: Draw) -> np.ndarray:
    return draws.divided(records.id, draw.seed, _cumulative(draw.fractions))


def _set_apart(records: Records, draw: Draw) -> np.ndarray:
    return _after_holdout(records, draw, _patients(records))


def _set_apart_image_level(records: Records, draw: Draw) -> np.ndarray:
    return _after_holdout(records, draw, records.id)


def _after_holdout(records: Records, draw: Draw, units: np.ndarray) -> np.ndarray:
    """Test films first; then the units of patients that have none, in two parts."""
    patients = _patients(records)
    test = _holdout(records, draw)
    free = np.flatnonzero(~np.isin(patients, patients[test]))
    names = _unnamed(records)
    names[test] = "test"
    names[free] = draws.divided(units[free], draw.seed, _first_two(draw))
    return names


def _holdout(records: Records, draw: Draw) -> np.ndarray:
    """Films are drawn, not patients: whoever was filmed more often is likelier in it."""
    among = np.arange(len(records))
    if draw.holdout_from:
        scheme, _, part = draw.holdout_from.rpartition("/")
        among = np.flatnonzero(_column(records, scheme) == part)
    if not 0 < draw.holdout <= len(among):
        where = f" of {draw.holdout_from}" if draw.holdout_from else ""
        raise DataError(
            f"data.holdout={draw.holdout}: 1 to {len(among)} films{where} can be set"
            " apart; give fewer, or draw them from more films"
        )
    digest = draws.digest
    order = sorted(among.tolist(), key=lambda k: digest(draw.seed, records.id[k]))
    return np.array(order[: draw.holdout])


def _first_two(draw: Draw) -> dict[str, float]:
    train, val, _ = draw.fractions
    return {"val": val / (train + val), "train": 1}


def _cumulative(fractions: tuple[float, ...]) -> dict[str, float]:
    _, val, test = fractions
    return {"test": test, "val": test + val, "train": 1}


def _unnamed(records: Records) -> np.ndarray:
    return np.full(len(records), "", dtype="U9")


def _column(records: Records, scheme: str) -> np.ndarray:
    if scheme not in records.splits:
        have = [name for name in SCHEMES if name in records.splits]
        raise DataError(
            f"the dataset has no lists for the split {scheme!r} (it has"
            f" {', '.join(have) or 'none'}); choose one of these, or random_patient, or"
            " put the lists (README) beside the films, delete the prepared dataset and"
            " build it again"
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


_DIVIDE = {
    "official": _official,
    "patient_disjoint": _patient_disjoint,
    "released": _released,
    "imagenome": _imagenome,
    "random_patient": _random_patient,
    "stratified": _stratified,
    "set_apart": _set_apart,
    "set_apart_image_level": _set_apart_image_level,
    "image_level": _image_level,
    "cxr8": _cxr8,
    "cxr8_halves": _cxr8_halves,
    "cxr8_halves_image_level": _cxr8_halves_image_level,
}
SCHEMES = tuple(_DIVIDE)
# Patients may stand in several parts of these: whoever wants that says so by name.
LEAKING = ("image_level", "set_apart_image_level", "cxr8_halves_image_level")
# Of these a share of the patients may be drawn first (``data.patients``).
SAMPLING = ("random_patient", "stratified")
LISTED = ("patient_disjoint", "released", "imagenome", "cxr8")
# Drawn by seed alone: shares do not matter.
HALVES = ("cxr8_halves", "cxr8_halves_image_level")
WITHOUT_TEST = ("released",)
SET_APART = ("set_apart", "set_apart_image_level")
TEST_FIRST = ("official", *SET_APART)
