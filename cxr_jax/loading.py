"""A run, or a file of weights → a reader of films.

Nothing is ever written to a run: it may be training.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from flax import nnx

from cxr_jax import best, sampled, tta, workdir
from cxr_jax.checkpoint import sha256
from cxr_jax.errors import CheckpointError, ConfigError
from cxr_jax.evaluators.probabilities import frozen_platt
from cxr_jax.models import archives, exporting, layouts, pretrained, torch_names
from cxr_jax.models import origin as origins
from cxr_jax.models.origin import Origin
from cxr_jax.models.passport import Passport
from cxr_jax.models.state import ModelDef, flatten
from cxr_jax.predict import Predictor, Scales
from cxr_jax.tasks.base import Task
from cxr_jax.tasks.classify import Classify

# A task has a loss, even where nothing is trained.
UNUSED = {
    "name": "bce",
    "fn": {"name": "cxr_jax.losses.bce"},
    "reduce": {"classes": "sum", "batch": "mean"},
}
# What a constructor raises of arguments that make no sense to it.
_NONSENSE = (TypeError, ValueError, AttributeError, ArithmeticError, LookupError)


def load(source: str | os.PathLike, *, batch_size: int = 4) -> Predictor:
    """A reader of films.

    Args:
        source: the workdir of a run with a best checkpoint, or a file of weights: one of
            our exports, or one that ``models.pretrained`` knows.
        batch_size: films that go through the network together; one film takes as long
            as a whole batch.

    Returns:
        The reader. Its probabilities are calibrated where a run was evaluated, also when
        they come from its export; weights of others give scores.

    Raises:
        ConfigError: no such run or file, a run in which nothing was trained, or weights
            that do not say which classes they were trained for.
        CheckpointError: a damaged checkpoint, or a file that is refused.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: must be at least 1")
    path = epath.Path(source).expanduser()
    if path.is_file():
        return _from_file(pathlib.Path(path), batch_size)
    if not path.exists():
        raise ConfigError(
            f"{source} does not exist; give the workdir of a run, or a file of weights"
        )
    if not (path / workdir.CONFIG).exists():
        raise ConfigError(
            f"{source}: give the workdir of a run; it holds {workdir.CONFIG}, or a file of"
            " weights"
        )
    found = best.read(source)
    # Calibration belongs to the scores of an evaluation, which may average views, and
    # passes with dropout.
    asked, seed = found.config["eval"], found.config["seed"]
    task = sampled.wrap(found.task, asked.get("mc") or {}, seed=seed)
    return Predictor(
        task=tta.wrap(task, asked.get("tta") or {}),
        params=found.params,
        rest=found.rest,
        size=found.size,
        fit=found.fit,
        enlarge=found.enlarge,
        scales=_scales(found.frozen, found.task.classes, found.missing),
        about={
            "source": str(source),
            "trained on": found.config["data"]["dataset"],
            "step": found.step,
            "weights_sha256": found.weights_sha256,
            **_passes(asked.get("mc") or {}, seed),
        },
        batch_size=batch_size,
    )


def _passes(asked: Mapping[str, Any], seed: int) -> dict[str, str]:
    """What the probabilities are, where dropout was sampled."""
    if not asked.get("samples"):
        return {}
    of = "their mean" if asked["probs"] == sampled.MEAN else "the plain pass"
    said = f"{asked['samples']}, masks of seed {seed}; the score is {of}"
    return {"passes with dropout": said}


def _from_file(path: pathlib.Path, batch_size: int) -> Predictor:
    """Weights as their passport says they are to be used."""
    archive = archives.read(path)
    found = exporting.stated(path, archive) or _assumed(path, archive)
    if found.outputs != "sigmoid" or not found.classes:
        raise ConfigError(
            f"{path.name}: outputs={found.outputs!r} for {len(found.classes)} named"
            " classes; a reader needs sigmoid and names: write them into"
            f" {exporting.sidecar(path).name}"
        )
    origin = exporting.made_by(path, archive)
    network = origin.network if origin else _named(path, found, archive)
    try:
        task = _task(network, found)
        reading = _augmented(task, origin)
        shapes = ModelDef.of(task.create)
    except _NONSENSE as error:
        raise CheckpointError(
            f"{path.name}: its network cannot be built ({type(error).__name__}:"
            f" {' '.join(str(error).split())[:200]}): export the run again"
        ) from error
    arrays = pretrained.load(
        {"from": str(path), "head": "keep"},
        flatten(shapes.params),
        flatten(shapes.rest),
        classes=found.classes,
        mean=found.mean,
        std=found.std,
    )
    scales = Scales(missing="weights alone carry no calibration")
    about = {"source": str(path), **dataclasses.asdict(arrays.passport)}
    if origin:
        digest = sha256({"params": arrays.params, "rest": arrays.rest})
        scales = _exported(path, origin, found.classes, digest)
        about |= {"trained on": origin.dataset, "step": origin.step}
        about |= {"weights_sha256": digest}
    return Predictor(
        task=reading,
        params=jax.device_put(arrays.params),
        rest=jax.device_put(arrays.rest),
        size=found.size,
        fit=origin.fit if origin else "stretch",
        enlarge=origin.enlarge if origin else False,
        scales=scales,
        about=about,
        batch_size=batch_size,
    )


def _task(network: Mapping[str, Any], passport: Passport) -> Task:
    """The network that a file describes, made of parts of this package alone."""
    for part in (network["model"], network["head"]):
        origins.check_part(part, under="cxr_jax.models.", kind=nnx.Module)
    return Classify(
        **network,
        terms=(UNUSED,),
        classes=passport.classes,
        mean=passport.mean,
        std=passport.std,
        channels=passport.channels,
    )


def _named(
    path: pathlib.Path, passport: Passport, archive: archives.Archive
) -> dict[str, Any]:
    """The network of a file that only names its architecture."""
    if passport.architecture not in layouts.DEPTHS.values():
        raise ConfigError(
            f"{path.name}: {passport.architecture} cannot be built from its name; allowed"
            f" are {', '.join(layouts.DEPTHS.values())}: load the run that made it"
        )
    gray = any(name.endswith("border") for name in archive.arrays)
    home = "cxr_jax.models.gray" if gray else "cxr_jax.models.densenet"
    return {
        "model": {"name": f"{home}.{passport.architecture}"},
        "head": {"name": "cxr_jax.models.heads.PoolThenClassify"},
    }


def _augmented(task: Task, origin: Origin | None) -> Task:
    """The task as the evaluation read films, whose scores were calibrated."""
    if origin is None:
        return task
    given = {key: value for key, value in origin.mc.items() if key != "seed"}
    task = sampled.wrap(task, given, seed=origin.mc.get("seed", 0))
    if not origin.tta:
        return task
    origins.check_part(origin.tta, under="cxr_jax.tta.", kind=tta.Views)
    return tta.wrap(task, origin.tta)


def _exported(
    path: pathlib.Path, origin: Origin, classes: tuple[str, ...], digest: str
) -> Scales:
    """Calibration and thresholds of an export, if they belong to its arrays."""
    if digest != origin.weights_sha256:
        return Scales(missing="its calibration belongs to other weights")
    try:
        return _scales(origin.frozen, classes, origin.missing)
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path.name}: its calibration cannot be read ({error}): export the run again"
        ) from error


def _scales(
    frozen: Mapping[str, Any], classes: tuple[str, ...], missing: str
) -> Scales:
    """Calibration and thresholds, as an evaluation froze them."""
    points = frozen.get("operating_points") or {}
    chosen = {name: point["youden"]["threshold"] for name, point in points.items()}
    if points and not {*points} & {*classes}:
        missing = f"it was frozen on studies ({', '.join(points)}), not on single films"
    return Scales(
        platt=frozen_platt(frozen, classes),
        thresholds={name: t for name, t in chosen.items() if t is not None},
        missing=missing,
    )


def _assumed(path: pathlib.Path, archive: archives.Archive) -> Passport:
    """What the library that wrote a file does by default."""
    if archive.framework != "torch":
        raise ConfigError(
            f"{path.name}: names no classes; write {exporting.sidecar(path).name} beside"
            " it"
        )
    source = torch_names.read(archive.arrays)
    return layouts.assumed(source.likely, source, path.name, archive.sha256)
