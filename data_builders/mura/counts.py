"""How many studies and films of each body part: of tables as read, and as published."""

import dataclasses
from collections.abc import Iterable

from cxr_jax.labels import BODY_PARTS
from data_builders.mura.release import PARTS, Entry

VERSION = "1.1"


@dataclasses.dataclass(frozen=True)
class Counts:
    """Studies and films of one body part, by the label of the study."""

    studies_negative: int = 0
    studies_positive: int = 0
    films_negative: int = 0
    films_positive: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """Films, studies and patients of a part; a patient may have several body parts."""

    films: int
    studies: int
    patients: int


# Of release v1.1, counted in its tables. The test set was never released.
EXPECTED = {
    "train": {
        "Elbow": Counts(1094, 660, 2925, 2006),
        "Finger": Counts(1280, 655, 3138, 1968),
        "Forearm": Counts(590, 287, 1164, 661),
        "Hand": Counts(1497, 521, 4059, 1484),
        "Humerus": Counts(321, 271, 673, 599),
        "Shoulder": Counts(1364, 1457, 4211, 4168),
        "Wrist": Counts(2134, 1326, 5765, 3987),
    },
    "valid": {
        "Elbow": Counts(92, 66, 235, 230),
        "Finger": Counts(92, 83, 214, 247),
        "Forearm": Counts(69, 64, 150, 151),
        "Hand": Counts(101, 66, 271, 189),
        "Humerus": Counts(68, 67, 148, 140),
        "Shoulder": Counts(99, 95, 285, 278),
        "Wrist": Counts(140, 97, 364, 295),
    },
}
EXPECTED_TOTALS = {
    "train": Totals(films=36_808, studies=13_457, patients=11_184),
    "valid": Totals(films=3_197, studies=1_199, patients=783),
}


def release_counts(entries: Iterable[Entry]) -> dict[str, dict[str, Counts]]:
    """Counts films and their studies.

    Args:
        entries: the films.

    Returns:
        ``train`` and ``valid`` → body part → counts, all of ``labels.BODY_PARTS``.
    """
    films = list(entries)
    studies = {film.study.name: film.study for film in films}.values()
    counts = {
        part: {name: dict.fromkeys(_FIELDS, 0) for name in BODY_PARTS} for part in PARTS
    }
    for kind, several in (
        ("films", [film.study for film in films]),
        ("studies", studies),
    ):
        for study in several:
            sign = "positive" if study.abnormal else "negative"
            counts[study.part][study.body_part][f"{kind}_{sign}"] += 1
    return {
        part: {name: Counts(**fields) for name, fields in by_type.items()}
        for part, by_type in counts.items()
    }


def release_totals(entries: Iterable[Entry]) -> dict[str, Totals]:
    """``train`` and ``valid`` → films, their studies and patients."""
    films = list(entries)
    return {part: _totals([f for f in films if f.study.part == part]) for part in PARTS}


def _totals(films: list[Entry]) -> Totals:
    return Totals(
        films=len(films),
        studies=len({film.study.name for film in films}),
        patients=len({film.study.patient for film in films}),
    )


_FIELDS = tuple(field.name for field in dataclasses.fields(Counts))
