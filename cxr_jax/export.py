"""The best weights of a run as one file, with all that it takes to read films with it."""

import errno
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from cxr_jax import best
from cxr_jax.best import Best
from cxr_jax.checkpoint import host
from cxr_jax.errors import ConfigError
from cxr_jax.models import exporting, layouts
from cxr_jax.models.origin import FROZEN, Origin
from cxr_jax.models.passport import Passport
from cxr_jax.predictions import RESEARCH_USE
from cxr_jax.tasks.classify import Classify

log = logging.getLogger(__name__)

# What the libraries whose layout this is add to every variance.
# What that layout has a place for.
DENSE = ("cxr_jax.models.densenet.", "cxr_jax.models.gray.")
HEAD = "cxr_jax.models.heads.PoolThenClassify"
EPSILON = layouts.LAYOUTS["torchvision"].epsilon
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_REFUSED += (errno.EISDIR, errno.ENOENT)


def export_run(
    workdir: str | os.PathLike, output_file: str | os.PathLike
) -> pathlib.Path:
    """Writes ``FILE.safetensors`` and ``FILE.safetensors.passport.json``.

    Arrays have torchvision's names and axes. The passport (scaling, size, classes) and,
    under ``run``, an ``Origin`` (how the network is built, thresholds and calibration
    with the digest of the weights that they belong to) stand in the file's metadata and
    in the JSON beside it. ``cxr_jax.load`` of the file then reads films as of the run.

    Args:
        workdir: of a run with a best checkpoint; nothing in it is touched.
        output_file: ends in ``.safetensors``; its folder is made where absent. A file
            that is there is replaced.

    Returns:
        The path of the file.

    Raises:
        ConfigError: no such run, a task that no export describes, or a place that is
            not for exports.
        CheckpointError: a damaged checkpoint, or a network with arrays that no DenseNet
            of torchvision has.
    """
    path = _place(workdir, output_file)
    found = best.read(workdir)
    origin = _origin(found)
    if found.missing:
        log.warning("no calibration goes with %s: %s", path.name, found.missing)
    params, rest = jax.tree.map(host, (found.params, found.rest))
    passport = _passport(found, layouts.architecture(params), run=_name(workdir))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        exporting.export(path, params, rest, passport, origin=origin)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise ConfigError(
            f"--output={output_file} cannot be written: {error.strerror}; give a file in"
            " a folder that you may write to"
        ) from error
    return path


def _place(workdir: str | os.PathLike, output_file: str | os.PathLike) -> pathlib.Path:
    """Where the file shall lie, before anything is read."""
    if "://" in os.fspath(output_file):
        raise ConfigError(f"--output={output_file}: give a file on this machine")
    path = pathlib.Path(output_file).expanduser().resolve()
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"--output={output_file}: exports are .safetensors, name it so"
        )
    run = pathlib.Path(workdir).expanduser().resolve()
    if path.is_relative_to(run):
        raise ConfigError(
            f"--output={output_file} lies in the run, which is only read: give a place"
            " outside of it"
        )
    return path


def _name(workdir: str | os.PathLike) -> str:
    return pathlib.Path(workdir).expanduser().resolve().name


def _origin(found: Best) -> Origin:
    task = found.task
    if type(task) is not Classify:
        raise ConfigError(
            f"task.name={found.config['task']['name']}: an export describes runs of"
            f" {Classify.__module__}.{Classify.__name__}; load the run itself"
        )
    parts = [task.model["name"], task.head["name"]]
    if not parts[0].startswith(DENSE) or parts[1] != HEAD:
        raise ConfigError(
            f"{' under '.join(part.rpartition('.')[2] for part in parts)}: an export is"
            " in torchvision's layout, which has DenseNets under one linear layer"
            f" ({HEAD.rpartition('.')[2]}) alone; load the run itself"
        )
    epsilon = task.model.get("epsilon", EPSILON)
    if epsilon != EPSILON:
        raise ConfigError(
            f"task.model.epsilon={epsilon:g}: whoever reads torchvision's layout takes"
            f" {EPSILON:g}, which gives other numbers; load the run itself"
        )
    tta = found.config["eval"].get("tta") or {}
    network = {"model": task.model, "head": task.head}
    network |= {"size": task.size, "maps": task.maps}
    content = {
        "dataset": found.config["data"]["dataset"],
        "step": found.step,
        "weights_sha256": found.weights_sha256,
        "network": network,
        "tta": {k: v for k, v in tta.items() if v} if tta.get("name") else {},
        "mc": _passes(found.config),
        "frozen": {k: found.frozen[k] for k in FROZEN if found.frozen.get(k)},
        "missing": found.missing,
        "fit": found.fit,
        "enlarge": found.enlarge,
    }
    return Origin(**json.loads(json.dumps(content)))


def _passes(config: Mapping[str, Any]) -> dict[str, Any]:
    """``eval.mc`` and the seed of its masks; nothing for the plain pass."""
    asked = config["eval"].get("mc") or {}
    return {**asked, "seed": config["seed"]} if asked.get("samples") else {}


def _passport(found: Best, architecture: str, *, run: str) -> Passport:
    task, notes = found.task, [RESEARCH_USE]
    if task.size:
        notes.append(f"The network takes the middle {task.size} pixels of a film.")
    usual = architecture in layouts.DEPTHS.values() and set(task.model) == {"name"}
    if not usual:
        notes.append("Not a network of torchvision's own: run.network says how it is.")
    return Passport(
        architecture=architecture,
        source=f"run {run}, step {found.step}, of {_recipe(found)}",
        licence="unknown",
        mean=task.mean,
        std=task.std,
        channels=task.channels,
        size=found.size,
        classes=task.classes,
        notes=" ".join(notes),
    )


def _recipe(found: Best) -> str:
    words = found.config["variants"]
    name = found.config["name"] + (f":{','.join(words)}" if words else "")
    return f"{name} on {found.config['data']['dataset']}"
