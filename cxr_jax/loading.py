"""A run, or a file of weights → a reader of films.

Nothing is ever written to a run: it may be training.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from cxr_jax import config as configs
from cxr_jax import samples, sharding, tta, workdir
from cxr_jax.checkpoint import Checkpoints, sha256
from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.probabilities import frozen_platt
from cxr_jax.models import archives, exporting, layouts, pretrained, torch_names
from cxr_jax.models.passport import Passport
from cxr_jax.models.state import Arrays, ModelDef, flatten
from cxr_jax.predict import Predictor, Scales
from cxr_jax.step import Trainer
from cxr_jax.tasks.base import Task
from cxr_jax.tasks.classify import Classify

# The part that thresholds and calibration were frozen on.
FROZEN_ON = "val"
# A task has a loss, even where nothing is trained.
UNUSED = {
    "name": "bce",
    "fn": {"name": "cxr_jax.losses.bce"},
    "reduce": {"classes": "sum", "batch": "mean"},
}


def load(source: str | os.PathLike, *, batch_size: int = 4) -> Predictor:
    """A reader of films.

    Args:
        source: the workdir of a run with a best checkpoint, or a file of weights: one of
            our exports, or one that ``models.pretrained`` knows.
        batch_size: films that go through the network together; one film takes as long
            as a whole batch.

    Returns:
        The reader. Its probabilities are calibrated where a run was evaluated; weights
        alone give scores.

    Raises:
        ConfigError: no such run or file, a run in which nothing was trained, or weights
            that do not say which classes they were trained for.
        CheckpointError: a damaged checkpoint, or a file that is refused.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: must be at least 1")
    path = epath.Path(source).expanduser()
    if "://" not in str(path):
        path = path.resolve()  # Orbax takes absolute paths alone
    if path.is_file():
        return _from_file(pathlib.Path(path), batch_size)
    config = workdir.read_json(path / workdir.CONFIG)
    if config is None:
        raise ConfigError(
            f"{source}: give the workdir of a run; it holds {workdir.CONFIG}, or a file of"
            " weights"
        )
    config = configs.plain(config)
    task = configs.build(config["task"])
    params, rest, step = _restore(path, config, task)
    digest = sha256({"params": params, "rest": rest})
    return Predictor(
        # Calibration belongs to the scores of an evaluation, which may average views.
        task=tta.wrap(task, config["eval"].get("tta") or {}),
        params=params,
        rest=rest,
        size=_size(path),
        scales=_frozen(path, digest, task.classes),
        about={
            "source": str(source),
            "trained on": config["data"]["dataset"],
            "step": step,
            "weights_sha256": digest,
        },
        batch_size=batch_size,
    )


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
    if found.architecture not in layouts.DEPTHS.values():
        raise ConfigError(
            f"{path.name}: {found.architecture} cannot be built from its name; allowed are"
            f" {', '.join(layouts.DEPTHS.values())}: load the run that made it"
        )
    gray = any(name.endswith("border") for name in archive.arrays)
    home = "cxr_jax.models.gray" if gray else "cxr_jax.models.densenet"
    task = Classify(
        model={"name": f"{home}.{found.architecture}"},
        head={"name": "cxr_jax.models.heads.PoolThenClassify"},
        terms=(UNUSED,),
        classes=found.classes,
        mean=found.mean,
        std=found.std,
        channels=found.channels,
    )
    shapes = ModelDef.of(task.create)
    arrays = pretrained.load(
        {"from": str(path), "head": "keep"},
        flatten(shapes.params),
        flatten(shapes.rest),
        classes=found.classes,
        mean=found.mean,
        std=found.std,
    )
    return Predictor(
        task=task,
        params=jax.device_put(arrays.params),
        rest=jax.device_put(arrays.rest),
        size=found.size,
        scales=Scales(missing="weights alone carry no calibration"),
        about={"source": str(path), **dataclasses.asdict(arrays.passport)},
        batch_size=batch_size,
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


class _Steps(Checkpoints):
    """Steps of a run that may be under way: nothing is tidied, moved or made."""

    def __init__(self, folder: epath.Path):
        self.folder = folder
        options = ocp.CheckpointManagerOptions(
            read_only=True, create=False, save_interval_steps=0
        )
        self._manager = ocp.CheckpointManager(folder, options=options)

    def _move_aside(self, step: int) -> None:
        del step


def _restore(
    path: epath.Path, config: Mapping[str, Any], task: Task
) -> tuple[Arrays, Arrays, int]:
    """The weights of the best checkpoint, its digests verified, and its step."""
    folder = path / "checkpoints" / "best"
    # One device, whatever the run had: the files of a step do not care.
    trainer = Trainer(
        task=task,
        mesh=sharding.make_mesh(jax.local_devices()[:1]),
        phases=config["phases"],
        plateau=config["plateau"],
        augment=lambda batch, seed: batch,
        seed=config["seed"],
        batch_size=config["train"]["batch_size"],
        steps_per_epoch=1,
        accumulate=config["train"]["accumulate"],
        mode=config["checkpoint"]["mode"],
    )
    found = None
    if folder.exists():
        with _quiet(), contextlib.closing(_Steps(folder)) as steps:
            found = steps.restore(lambda meta: trainer.abstract(meta["phase"]))
    if found is None:
        raise ConfigError(
            f"{path} holds no best checkpoint; train first (--mode=train)"
        )
    return found.state.params, found.state.rest, found.step


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax warns that a folder which it is told to read only is read only."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


def _size(path: epath.Path) -> int:
    """Side of the films that a run reads, in pixels."""
    passport = workdir.read_json(path / workdir.SPLIT) or {}
    if "image_size" in passport:
        return int(passport["image_size"])
    # Runs from before the passport had it keep some of their films.
    for part in (FROZEN_ON, "test", "train"):
        shown = samples.read_samples(path / "evaluation" / part)
        if shown is not None:
            return shown.films.shape[1]
    raise ConfigError(
        f"{path}: {workdir.SPLIT} does not say the size of the run's films (image_size);"
        " evaluate it again (--mode=evaluate)"
    )


def _frozen(path: epath.Path, digest: str | None, classes: tuple[str, ...]) -> Scales:
    """Calibration and thresholds, if they belong to these weights."""
    result = workdir.read_json(path / "evaluation" / FROZEN_ON / "result.json")
    if result is None:
        return Scales(missing="the run was not evaluated (--mode=evaluate)")
    if digest is None or result.get("weights_sha256") != digest:
        return Scales(
            missing=f"evaluation/{FROZEN_ON} belongs to other weights (--mode=evaluate)"
        )
    frozen = result.get("frozen") or {}
    points = frozen.get("operating_points") or {}
    chosen = {name: point["youden"]["threshold"] for name, point in points.items()}
    return Scales(
        platt=frozen_platt(frozen, classes),
        thresholds={name: t for name, t in chosen.items() if t is not None},
        missing="" if frozen.get("platt") else "its evaluation froze no calibration",
    )
