"""What the flag ``--trained_on`` names: a run, or a list of films that made a model."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cxr_jax.data import labelled, leakage, parts, tables
from cxr_jax.errors import DataError
from cxr_jax.predictions import Predictions

NOT_DRAWN = (
    "The run of --trained_on was chosen on films that cannot be drawn again from these"
    " labels; leakage was not checked."
)


def check_unseen(
    films: Predictions,
    source: labelled.LabelSource,
    trained_on: epath.PathLike,
    *,
    allowed: bool = False,
    against: Sequence[str] = leakage.USED,
) -> list[str]:
    """Refuses films, and patients, that a model was made with.

    Args:
        films: those it is judged by.
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
        if not source.version or _family(name) == _family(source.name):
            own = leakage.read_ids(path / leakage.FILE)
        elif (own := _chosen_on(path, source)) is None:
            return [
                f"The run of --trained_on learnt from {name}: other films than these."
            ]
        elif not own:
            return [NOT_DRAWN]
    else:
        own = {"train": _named(tables.read_list(path).names, source)}
    found = leakage.check_unseen(
        leakage.Films(ids=films.ids.tolist(), patients=films.patients.tolist()),
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
) -> parts.Drawing:
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
    fields = [field.name for field in dataclasses.fields(parts.Drawing)]
    told = {name: data[name] for name in fields if name in (data or {})}
    told |= {} if seed is None else {"split_seed": seed}
    return parts.Drawing(**told)


def _chosen_on(
    run: epath.Path, source: labelled.LabelSource
) -> dict[str, leakage.Films] | None:
    """The validation films of a run that is judged by another dataset than it learnt from.

    Returns:
        None where that dataset is another one than the labels'; nothing where the films
        that are drawn from these labels are not those of the run.
    """
    passport = _read(run, "split.json").get("evaluation") or {}
    if _family(str(passport.get("dataset"))) != _family(source.name):
        return None
    try:
        split, drawing = f"{passport['scheme']}/val", drawing_of(None, run)
        part = parts.take_part(source, split, drawing=drawing)
        same = part.sha256 == passport["parts"]["val"]["sha256"]
    except (DataError, KeyError):
        return {}
    return {"val": leakage.Films.of(source.records, part.index)} if same else {}


def _family(dataset: str) -> str:
    """A dataset whatever the size of its films."""
    return dataset.partition("/")[0]


def _told(run: epath.Path, file: str, key: str) -> Any:
    try:
        return _read(run, file)[key]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise DataError(
            f"--trained_on={run}: has no {file} of a run; give a workdir, or a list of"
            " film names"
        ) from None


def _read(run: epath.Path, file: str) -> Any:
    return json.loads((run / file).read_text())


def _named(names: Sequence[str], source: labelled.LabelSource) -> leakage.Films:
    """Films of a list, with the patients that labels or their own names tell."""
    records = source.records
    known = dict(zip(records.id.tolist(), records.patient.tolist(), strict=True))
    match = [labelled.FILM_NAME.fullmatch(name) for name in names]
    told = [m[1] if m else "" for m in match]
    pairs = zip(names, told, strict=True)
    return leakage.Films(ids=names, patients=[known.get(n, p) for n, p in pairs])
