"""Predictions of another program, put beside labels: nothing is dropped in silence."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cxr_jax.data import columns, labelled, leakage, splits, tables
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
    """Predictions of one file on one part.

    Attributes:
        table: with the labels of each film.
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
    part: labelled.Part,
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
    table = _table(film, row, source, index)
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


def check_unseen(
    scored: Scored,
    source: labelled.LabelSource,
    trained_on: epath.PathLike,
    *,
    allowed: bool = False,
    against: Sequence[str] = leakage.USED,
) -> list[str]:
    """Refuses films, and patients, that a model was made with.

    Args:
        scored: the films it is judged by.
        source: of their labels, which knows the patients of ids.
        trained_on: a run, or a list of film names, one a line.
        allowed: whether the user asked for it by name.
        against: parts of the run that count.

    Returns:
        What must be said beside the figures.

    Raises:
        DataError: films or patients in common, or nothing that says what was trained on.
    """
    path = epath.Path(trained_on)
    if path.is_dir():
        name = str(_told(path, "split.json", "dataset"))
        if source.version and name.partition("/")[0] != source.name.partition("/")[0]:
            return [
                f"The run of --trained_on learnt from {name}: other films than these."
            ]
        own = leakage.read_ids(path / leakage.FILE)
    else:
        own = {"train": _named(tables.read_list(path).names, source)}
    table = scored.table
    found = leakage.check_unseen(
        leakage.Films(ids=table.ids.tolist(), patients=table.patients.tolist()),
        own,
        what=str(path),
        allowed=True,  # The refusal is worded here, with the flag of this command.
        against=against,
    )
    if found and not allowed:
        raise DataError(
            f"--trained_on={path}: {found}, such as {', '.join(found.examples)}; figures"
            " on them would flatter: score other films, or add --allow_seen to have them"
            " anyway"
        )
    if found:
        return [f"LEAKS, as asked for: {found}. The figures flatter."]
    return [f"No film and no patient of {path.name} is among the scored films."]


def drawing_of(
    config: Mapping[str, Any] | None,
    trained_on: epath.PathLike | None,
    *,
    seed: int | None = None,
) -> labelled.Drawing:
    """How the films were divided: as a config says, else as a run that is named did.

    Args:
        config: as resolved, or None.
        trained_on: a run, or a file that says nothing about it, or None.
        seed: asked for by name: before all others.

    Raises:
        DataError: the ``config.json`` of the run cannot be used.
    """
    data, run = config and config["data"], epath.Path(trained_on or "")
    if data is None and trained_on and (run / "config.json").exists():
        data = _told(run, "config.json", "data")
    fields = [field.name for field in dataclasses.fields(labelled.Drawing)]
    told = {name: data[name] for name in fields if name in (data or {})}
    told |= {} if seed is None else {"split_seed": seed}
    return labelled.Drawing(**told)


def _told(run: epath.Path, file: str, key: str) -> Any:
    try:
        return json.loads((run / file).read_text())[key]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise DataError(
            f"--trained_on={run}: has no {file} of a run; give a workdir, or a list of"
            " film names"
        ) from None


def _named(names: Sequence[str], source: labelled.LabelSource) -> leakage.Films:
    """Films of a list, with the patients that labels or their own names tell."""
    records = source.records
    known = dict(zip(records.id.tolist(), records.patient.tolist(), strict=True))
    match = [labelled.FILM_NAME.fullmatch(name) for name in names]
    told = [m[1] if m else "" for m in match]
    pairs = zip(names, told, strict=True)
    return leakage.Films(ids=names, patients=[known.get(n, p) for n, p in pairs])


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
    if passport["missing"]:
        found.append(
            f"{passport['missing']:,} films of the part have no prediction and are left"
            " out: the figures are of the others."
        )
    if passport["extra"]:
        found.append(
            f"{passport['extra']:,} predicted films are not of the part; left out."
        )
    if unused := [name for name in passport["unused_columns"] if name.strip()]:
        found.append(f"Columns that were not scored: {', '.join(unused)}.")
    return found


def _compare(
    film: columns.FilmTable,
    part: labelled.Part,
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
    film: columns.FilmTable,
    row: np.ndarray,
    source: labelled.LabelSource,
    index: np.ndarray,
) -> Predictions:
    records = source.records
    held = [records.classes.index(name) for name in film.classes]
    patients = records.patient[index]
    if not (patients != "").any() and "patient" in film.about:
        patients = film.about["patient"][row]
    return Predictions(
        classes=film.classes,
        ids=records.id[index],
        patients=labelled.patients_of(records.id[index], patients),
        studies=records.study[index],
        index=np.full(len(index), -1),
        # As the file gives them: in float32 those near 1 would become ties.
        probs=film.values[row],
        labels=records.labels[np.ix_(index, held)],
        age=records.age[index],
        sex=records.sex[index],
        view=records.view[index],
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(str(name) for name in names[:EXAMPLES])
