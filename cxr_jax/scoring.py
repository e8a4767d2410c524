"""Predictions of another program, put beside labels: nothing is dropped in silence."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cxr_jax.data import columns, labelled, parts, splits
from cxr_jax.errors import DataError
from cxr_jax.predictions import MINED_LABELS, PHANTOM_TRUTH, READ_LABELS, Predictions

EXAMPLES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What a file of predictions may lack or have beyond the films of a part.

    Attributes:
        extra: films of no row in the part are left out, and counted.
        missing: films without a prediction are left out, and counted.
        classes: the classes to be scored; all of the labels where empty.
        columns: header of the classes with ``*``, such as ``prob_*``, or None.
    """

    extra: bool = False
    missing: bool = False
    classes: tuple[str, ...] = ()
    columns: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """The films of one part, with the predictions of one file.

    Attributes:
        table: with the labels of each film; without probabilities where nobody gave any.
        passport: what was read: file, digest, columns, counts of films left out.
        sha256: of the sorted ids that were scored.
    """

    table: Predictions
    passport: Mapping[str, Any]
    sha256: str


def read_scored(
    path: epath.PathLike,
    *,
    source: labelled.LabelSource,
    part: parts.Part,
    rules: Rules,
) -> Scored:
    """Reads a file of predictions and sets it beside the labels of a part.

    Args:
        path: CSV; see ``data.columns.read_films``.
        source: of the labels.
        part: the films to be scored.
        rules: what the file may lack.

    Returns:
        The table in the order of the part. Patients are those of the labels; where these
        know none, those of the file; where it has none, those that ChestX-ray14's names
        begin with.

    Raises:
        DataError: a class is missing, a cell is no probability, films of the part are
            missing or others are there; the message counts them and names the first.
    """
    records = source.records
    wanted = rules.classes or records.classes
    if unknown := [name for name in wanted if name not in records.classes]:
        raise DataError(
            f"--classes: {', '.join(unknown)} is not among the labels; allowed:"
            f" {', '.join(records.classes)}"
        )
    film = columns.read_films(
        path, columns.PROBABILITY, classes=wanted, pattern=rules.columns
    )
    place = {name: k for k, name in enumerate(film.id.tolist())}
    ids = records.id[part.index]
    row = np.asarray([place.get(name, -1) for name in ids.tolist()], dtype=int)
    extra = np.setdiff1d(film.id, ids)
    _compare(film, part, ids[row < 0], extra, rules)
    index, row = part.index[row >= 0], row[row >= 0]
    if not len(row):
        raise DataError(
            f"{path}: none of its {len(film)} films is among the {len(ids)} of"
            f" {source.name}, {part.name}; the first are {film.id[0]} and {ids[0]}"
        )
    patients = records.patient[index]
    if not (patients != "").any() and "patient" in film.about:
        patients = film.about["patient"][row]
    # As the file gives them: in float32 those near 1 would become ties.
    probs = film.values[row]
    table = _table(source, index, film.classes, patients=patients, probs=probs)
    return Scored(
        table=table,
        sha256=splits.ids_sha256(table.ids.tolist()),
        passport={
            "file": str(path),
            "sha256": film.sha256,
            "films": len(film),
            "scored": len(row),
            "missing": len(ids) - len(row),
            "extra": len(extra),
            "columns": dict(film.columns),
            "unused_columns": list(film.unused),
        },
    )


def unpredicted(
    source: labelled.LabelSource, part: parts.Part, classes: Sequence[str]
) -> Scored:
    """The films of a part and their labels, without a prediction.

    Args:
        source: of the labels.
        part: the films, all of them.
        classes: those of the labels that are wanted, in this order.
    """
    patients = source.records.patient[part.index]
    table = _table(source, part.index, classes, patients=patients)
    passport = {"scored": len(table)}
    return Scored(table=table, passport=passport, sha256=part.sha256)


def beside(ours: Scored, theirs: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Another file's probabilities, row by row as ours.

    Returns:
        float64 ``[N, C]``, NaN where the other file has no such film; bool ``[N]``,
        films that both have.

    Raises:
        DataError: they have no film in common.
    """
    place = {name: k for k, name in enumerate(theirs.table.ids.tolist())}
    row = np.asarray([place.get(name, -1) for name in ours.table.ids.tolist()])
    both = row >= 0
    if not both.any():
        raise DataError(
            f"{theirs.passport['file']}: has no film in common with"
            f" {ours.passport['file']}; give predictions of the same films"
        )
    return np.where(both[:, None], theirs.table.probs[row], np.nan), both


def read_adjudicated(
    path: epath.PathLike, source: labelled.LabelSource, scored: Scored
) -> np.ndarray:
    """Adjudicated labels of the films that were scored.

    Args:
        path: CSV: ``id`` and one column of 0, 1 or nothing for each class it judges.
        source: of the usual labels, whose ids are known.
        scored: the films, in order.

    Returns:
        float64 ``[N, C]``; NaN where nothing was adjudicated.

    Raises:
        DataError: a film that the usual labels do not know, by line; or none of those
            that were scored.
    """
    table = scored.table
    film = columns.read_films(path, columns.LABEL, classes=table.classes, subset=True)
    known = set(source.records.id.tolist())
    for name, line in zip(film.id.tolist(), film.line, strict=True):
        if name not in known:
            raise DataError(
                f"{path}, line {line}: film {name} is not among the labels of"
                f" {source.name}; remove the line"
            )
    labels = np.full(table.probs.shape, np.nan)
    place = {name: k for k, name in enumerate(film.id.tolist())}
    row = np.asarray([place.get(name, -1) for name in table.ids.tolist()])
    held = [table.classes.index(name) for name in film.classes]
    labels[np.ix_(row >= 0, held)] = film.values[row[row >= 0]]
    if not np.isfinite(labels).any():
        raise DataError(
            f"{path}: adjudicates none of the {len(table)} films that are scored"
        )
    return labels


def reference(source: labelled.LabelSource) -> str:
    """What the labels are, in the words that stand beside every figure."""
    file = epath.Path(source.file).name
    own = {"mura": READ_LABELS, "phantom_bone": PHANTOM_TRUTH}
    if (dataset := source.name.partition("/")[0]) in own:
        return own[dataset]
    return {
        labelled.MINED: MINED_LABELS,
        labelled.SIMULATED: "Reference: simulated labels with a report's errors, not the"
        " true state.",
        labelled.GIVEN: f"Reference: the labels of {file}, taken as they stand.",
    }[source.kind]


def remarks(scored: Scored) -> list[str]:
    """What was left out, in words, for the notes of the result."""
    passport, found = scored.passport, []
    if passport.get("missing"):
        found.append(
            f"{passport['missing']:,} films of the part have no prediction and are left"
            " out: the figures are of the others."
        )
    if passport.get("extra"):
        found.append(
            f"{passport['extra']:,} predicted films are not of the part; left out."
        )
    unused = [name for name in passport.get("unused_columns", ()) if name.strip()]
    if unused:
        found.append(f"Columns that were not scored: {', '.join(unused)}.")
    return found


def _compare(
    film: columns.FilmTable,
    part: parts.Part,
    missing: np.ndarray,
    extra: np.ndarray,
    rules: Rules,
) -> None:
    wrong = []
    if len(missing) and not rules.missing:
        wrong.append(
            f"{len(missing)} of the {len(part.index)} films of part {part.name} are"
            f" missing, such as {_some(missing)} (--allow_missing leaves them out)"
        )
    if len(extra) and not rules.extra:
        wrong.append(
            f"{len(extra)} of its {len(film)} films are not of the part, such as"
            f" {_some(extra)} (--allow_extra leaves them out)"
        )
    if wrong:
        raise DataError(f"{film.path}: {'; '.join(wrong)}")


def _table(
    source: labelled.LabelSource,
    index: np.ndarray,
    classes: Sequence[str],
    *,
    patients: np.ndarray,
    probs: np.ndarray | None = None,
) -> Predictions:
    records = source.records
    held = [records.classes.index(name) for name in classes]
    return Predictions(
        classes=tuple(classes),
        ids=records.id[index],
        patients=labelled.patients_of(records.id[index], patients),
        studies=records.study[index],
        index=np.full(len(index), -1),
        probs=probs,
        labels=records.labels[np.ix_(index, held)],
        age=records.age[index],
        sex=records.sex[index],
        view=records.view[index],
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(str(name) for name in names[:EXAMPLES])
