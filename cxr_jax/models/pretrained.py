"""Weights from elsewhere: a file or a public name → the arrays of a model.

Strict both ways: an array that is left over on either side, or has another shape, is an
error. What the numbers expect of a film travels with them as a ``Passport``.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cxr_jax.errors import CheckpointError, ConfigError
from cxr_jax.models import (
    archives,
    exporting,
    hub,
    keras_names,
    layouts,
    stems,
    torch_names,
)
from cxr_jax.models.layouts import Source
from cxr_jax.models.passport import Passport

HEADS = ("keep", "fresh")
STEMS = ("fit", "keep")
_KEYS = ("from", "head", "layout", "sha256", "stem")


@dataclasses.dataclass(frozen=True)
class Report:
    """What an import did, for the log.

    Attributes:
        layout: which library's names the file has.
        loaded: how many arrays came from it.
        ignored: names in the file that say nothing to a reader: only
            ``num_batches_tracked``, and the count of a layer that scales films.
        dropped: names of the file's head, where the model starts with a fresh one, and
            of what lies behind the tap at which the model ends.
        fresh: names of the model that keep their initial values.
        changes: a sentence about everything that is not a mere copy.
    """

    layout: str
    loaded: int
    ignored: tuple[str, ...]
    dropped: tuple[str, ...]
    fresh: tuple[str, ...]
    changes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Imported:
    """Arrays for a model, in its shapes and types.

    Attributes:
        params: trainable arrays by name; without the head where it starts fresh.
        rest: batch statistics by name.
        passport: what the arrays are and expect, after any change that was made.
        report: what was done.
        extras: arrays that are no weights: TorchXRayVision's ``op_threshs``.
    """

    params: dict[str, np.ndarray]
    rest: dict[str, np.ndarray]
    passport: Passport
    report: Report
    extras: dict[str, np.ndarray]


def load(
    spec: Mapping[str, Any],
    params: Mapping[str, Any],
    rest: Mapping[str, Any],
    *,
    behind: Mapping[str, Any] | None = None,
    classes: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    epsilon: float = 1e-5,
    cache: str | pathlib.Path | None = None,
) -> Imported:
    """Weights of a file, for the model whose arrays are named.

    Args:
        spec: ``from``: a path, or a name of ``hub.HUB``. ``head``: ``keep`` or
            ``fresh``. ``layout``: a key of ``layouts.LAYOUTS``, or "" to tell by the
            names in the file. ``sha256``: what the file must hash to, or "". ``stem``:
            ``fit``, to the scaling of the model's films; ``keep``, as it is, though
            they are scaled otherwise.
        params: name → anything with ``shape`` and ``dtype``: what the model trains.
        rest: likewise, its batch statistics.
        behind: likewise, what the model would have if it did not end at a tap. A file
            has all of it, which is then checked and dropped, or nothing.
        classes: of the model's head, in order; () if nobody names them.
        mean: what the model's films are normalised by, one per channel of its stem; the
            passport's by default.
        std: likewise.
        epsilon: of the model's batch norms.
        cache: where named weights are kept.

    Returns:
        Arrays that give the source's logits on the same film, unless the stem is kept.
        It is refitted where the model's scaling or number of channels is not the file's,
        see ``stems.fit``;
        the running variances where the library adds another epsilon to them.

    Raises:
        ConfigError: a spec that says nothing known.
        CheckpointError: a file that is absent, damaged, of another digest, asks for
            code, or does not fit the model.
    """
    given = _spec(spec)
    path, entry = _find(given["from"], cache)
    archive = archives.read(path, sha256=given["sha256"])
    model, behind = {**params, **rest}, dict(behind or {})
    source = _source(path.name, archive, {**model, **behind})
    layout = layouts.chosen(given["layout"] or (entry.layout if entry else ""), source)
    passport = exporting.stated(path, archive)
    if passport is None and entry:
        passport = entry.passport(given["from"], archive.sha256)
    if passport is None:
        passport = layouts.assumed(layout, source, path.name, archive.sha256)
    layouts.check_scaling(passport, source, path.name)

    heads = {name for name in {**model, **source.arrays} if name.startswith("head/")}
    fresh = heads if given["head"] == "fresh" else set()
    if given["head"] == "keep":
        _same_classes(passport, source, tuple(classes), path.name)
    wanted = {name: array for name, array in model.items() if name not in fresh}
    found = {name: a for name, a in source.arrays.items() if name not in fresh}
    stem = _fit_stem(found, wanted, passport, mean, std, how=given["stem"])
    cut = {*behind} if {*behind} & {*found} else set()
    _strict(path.name, found, wanted | {name: behind[name] for name in cut}, source)

    shift = layouts.LAYOUTS[layout].epsilon - epsilon
    arrays = {n: _typed(n, found[n], wanted[n].dtype, shift) for n in wanted}
    changes = [stem.change, f"{shift:g} added to every variance" if shift else ""]
    if given["head"] == "fresh":
        passport = dataclasses.replace(passport, classes=(), outputs="none")
    return Imported(
        params={name: arrays[name] for name in params if name in arrays},
        rest={name: arrays[name] for name in rest if name in arrays},
        passport=dataclasses.replace(
            passport, mean=stem.mean, std=stem.std, channels=len(stem.mean)
        ),
        report=Report(
            layout=layout,
            loaded=len(arrays),
            ignored=source.ignored,
            dropped=tuple(
                source.names[n] for n in sorted((fresh | cut) & {*source.names})
            ),
            fresh=tuple(sorted(fresh & {*model})),
            changes=tuple(change for change in changes if change),
        ),
        extras=source.extras,
    )


def _spec(spec: Mapping[str, Any]) -> dict[str, str]:
    given = {"layout": "", "sha256": "", "stem": "fit"} | dict(spec)
    if set(given) != set(_KEYS) or not all(isinstance(v, str) for v in given.values()):
        raise ConfigError(
            f"pretrained={dict(spec)}: give text for from and head, and if you like for"
            " layout, sha256 and stem"
        )
    if given["head"] not in HEADS:
        raise ConfigError(
            f"pretrained.head={given['head']!r}: choose keep (the classes are the file's)"
            " or fresh"
        )
    if given["stem"] not in STEMS:
        raise ConfigError(
            f"pretrained.stem={given['stem']!r}: choose fit (the same function of a film"
            " as in the file) or keep (the same kernel)"
        )
    return given


def _find(
    place: str, cache: str | pathlib.Path | None
) -> tuple[pathlib.Path, hub.Entry | None]:
    """The file of a path or a name. A file goes before a name of the hub."""
    path = pathlib.Path(place).expanduser()
    if path.is_file():
        return path, None
    return hub.fetch(place, cache=cache), hub.HUB[place]


def _source(file: str, archive: archives.Archive, model: Iterable[str]) -> Source:
    if archive.framework != "keras":
        return torch_names.read(archive.arrays)
    try:
        return keras_names.read(archive.arrays, model)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _same_classes(
    passport: Passport, source: Source, classes: tuple[str, ...], file: str
) -> None:
    theirs = passport.classes
    if not source.outputs:
        raise CheckpointError(
            f"{file}: has no head to keep: set pretrained.head to fresh"
        )
    if theirs and len(theirs) != source.outputs:
        raise CheckpointError(
            f"{file}: its passport names {len(theirs)} classes, its head has"
            f" {source.outputs} outputs"
        )
    if [_plain(name) for name in theirs] != [_plain(name) for name in classes]:
        known = ", ".join(theirs) or f"{source.outputs} outputs that nobody names"
        if not theirs and passport.notes:
            known += f" ({passport.notes})"
        raise CheckpointError(
            f"{file}: its classes are {known}; the model's, in order, are"
            f" {', '.join(classes) or 'not named'}: set pretrained.head to fresh, or name"
            f" the file's classes in {file}.passport.json"
        )


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()


def _fit_stem(
    found: dict[str, np.ndarray],
    wanted: Mapping[str, Any],
    passport: Passport,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    *,
    how: str,
) -> stems.Stem:
    """Puts the stem that the model needs among the arrays that were found."""
    stem = stems.of(found, passport)
    kernel, border = "backbone/stem/kernel", "backbone/stem/border"
    if stem is None or kernel not in wanted or len(wanted[kernel].shape) != 4:
        return stems.Stem(np.empty(0), None, passport.mean, passport.std)
    channels = wanted[kernel].shape[2]
    scale = {"mean": mean and tuple(mean), "std": std and tuple(std)}
    if how == "keep":
        scale = {k: v or getattr(stem, k) for k, v in scale.items()}
    change = {"fit": stems.fit, "keep": stems.keep}[how]
    stem = change(stem, channels=channels, border=border in wanted, **scale)
    found[kernel] = stem.kernel
    if stem.border is not None:
        found[border] = stem.border
    elif border in found:
        del found[border]
    return stem


def _strict(
    file: str,
    found: Mapping[str, np.ndarray],
    wanted: Mapping[str, Any],
    source: Source,
) -> None:
    """Refuses anything left over on either side, and any other shape."""
    extra = [*source.unknown, *(source.names.get(n, n) for n in {*found} - {*wanted})]
    missing = {*wanted} - {*found}
    shapes = [
        f"{name} {found[name].shape} for {tuple(wanted[name].shape)}"
        for name in sorted({*found} & {*wanted})
        if found[name].shape != tuple(wanted[name].shape)
    ]
    told = [
        f"{len(names)} {what} ({_few(names)})"
        for what, names in (
            ("arrays of the file have no place in the model", extra),
            ("arrays of the model are not in the file", missing),
            ("arrays have another shape", shapes),
        )
        if names
    ]
    theirs, ours = layouts.architecture(found), layouts.architecture(wanted)
    if told and theirs != ours:
        told.append(f"the file looks like {theirs}, the model is {ours}")
    if told:
        raise CheckpointError(f"{file}: {'; '.join(told)}")


def _few(names: Iterable[str]) -> str:
    names = sorted(" ".join(name.split())[:80] for name in names)
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def _typed(name: str, array: np.ndarray, dtype: Any, shift: float) -> np.ndarray:
    """The array in the model's type; of a variance, with the other epsilon taken in."""
    if array.dtype.kind not in "fV":  # V: bfloat16
        raise CheckpointError(f"{name}: holds {array.dtype}, weights are floats")
    if shift and name.endswith("/var"):
        array = array.astype(np.float64) + shift
    array = np.ascontiguousarray(array.astype(dtype))
    lowest = 0.0 if name.endswith("/var") else -np.inf
    if not np.all(np.isfinite(array)) or np.any(array < lowest):
        raise CheckpointError(f"{name}: holds NaN, infinity or a negative variance")
    return array
