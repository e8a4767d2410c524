"""The best weights of a run, their digests verified, and what was frozen with them.

Nothing is ever written to a run: it may be training.
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath

from cxr_jax import config as configs
from cxr_jax import samples, sharding, workdir
from cxr_jax.checkpoint import Checkpoints, Restored, sha256
from cxr_jax.data import image
from cxr_jax.errors import ConfigError
from cxr_jax.models.state import Arrays
from cxr_jax.step import Trainer
from cxr_jax.tasks.base import Task

# The part that thresholds and calibration were frozen on.
FROZEN_ON = "val"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """What a run leaves to those who read films with it.

    Attributes:
        config: of the run, as plain mappings.
        task: built from it.
        params: of the best checkpoint.
        rest: its batch statistics.
        step: at which it was taken.
        weights_sha256: digest of params and rest.
        size: side in pixels of the films that the run reads.
        fit: how a film that is not square became one, see ``image.reduce_film``.
        enlarge: whether smaller films were enlarged, likewise.
        frozen: what was frozen on validation films with these very weights.
        missing: why there is no calibration; "" where there is one.
    """

    config: Mapping[str, Any]
    task: Task
    params: Arrays
    rest: Arrays
    step: int
    weights_sha256: str
    size: int
    frozen: Mapping[str, Any]
    missing: str
    fit: image.Fit = "stretch"
    enlarge: bool = False


def read(source: str | os.PathLike) -> Best:
    """The best checkpoint of a run.

    Args:
        source: its workdir, local or remote.

    Raises:
        ConfigError: no run, one in which nothing was trained, or one that does not say
            the size of its films.
        CheckpointError: a damaged checkpoint.
    """
    path = epath.Path(source).expanduser()
    if "://" not in str(path):
        path = path.resolve()  # Orbax takes absolute paths alone
    config = workdir.read_json(path / workdir.CONFIG)
    if config is None:
        raise ConfigError(
            f"{source}: give the workdir of a run; it holds {workdir.CONFIG}"
        )
    config = configs.plain(config)
    task = configs.build(config["task"])
    found = _restore(path, config, task)
    params, rest = found.state.params, found.state.rest
    digest = sha256({"params": params, "rest": rest})
    frozen, missing = _frozen(path, digest, config["eval"])
    return Best(
        config=config,
        task=task,
        params=params,
        rest=rest,
        step=found.step,
        weights_sha256=digest,
        size=_size(path),
        frozen=frozen,
        missing=missing,
        **_square(path),
    )


def _restore(path: epath.Path, config: Mapping[str, Any], task: Task) -> Restored:
    """The best checkpoint, its digests verified."""
    folder = path / "checkpoints"
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
    if (folder / "best").exists():
        with (
            _quiet(),
            _opened(folder / "best") as best,
            _opened(folder / "latest") as latest,
        ):
            found = best.restore(trainer.saved, spare=latest)
    if found is None:
        raise ConfigError(
            f"{path} holds no best checkpoint; train first (--mode=train)"
        )
    return found


def _opened(folder: epath.Path) -> contextlib.closing[Checkpoints]:
    return contextlib.closing(Checkpoints(folder, keep=1, read_only=True))


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


def _judging(path: epath.Path) -> dict[str, Any]:
    """The passport of the films that judged a run: what was frozen belongs to them."""
    passport = workdir.read_json(path / workdir.SPLIT) or {}
    return passport.get("evaluation") or passport


def _size(path: epath.Path) -> int:
    """Side of the films that a run reads, in pixels."""
    passport = _judging(path)
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


def _square(path: epath.Path) -> dict[str, Any]:
    """How films became squares of that size; stretched where the run does not say."""
    passport = _judging(path)
    how = {"fit": passport.get("fit", "stretch")}
    how["enlarge"] = passport.get("enlarge", False)
    if how["fit"] not in image.FITS or not isinstance(how["enlarge"], bool):
        raise ConfigError(
            f"{path}: {workdir.SPLIT} says fit={how['fit']!r}, enlarge={how['enlarge']!r};"
            f" allowed are {', '.join(image.FITS)}, and true or false; evaluate it again"
            " (--mode=evaluate)"
        )
    return how


def _sampling(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """``eval.mc`` as far as probabilities depend on it: empty for the plain pass."""
    asked = evaluation.get("mc") or {}
    # Spread beside the plain pass leaves probabilities alone.
    return dict(asked) if asked.get("samples") and asked["probs"] == "mean" else {}


def _frozen(
    path: epath.Path, digest: str, evaluation: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """What was frozen, if it belongs to these weights and settings; else why nothing is.

    Args:
        path: of the run.
        digest: of the weights.
        evaluation: ``eval`` of the run's config.
    """
    result = workdir.read_json(path / "evaluation" / FROZEN_ON / "result.json")
    if result is None:
        return {}, "the run was not evaluated (--mode=evaluate)"
    if result.get("weights_sha256") != digest:
        return (
            {},
            f"evaluation/{FROZEN_ON} belongs to other weights (--mode=evaluate)",
        )
    settings = result["settings"]
    if (settings.get("tta") or {}) != (evaluation.get("tta") or {}):
        return {}, f"evaluation/{FROZEN_ON} averaged other views (--mode=evaluate)"
    if _sampling(settings) != _sampling(evaluation):
        return {}, f"evaluation/{FROZEN_ON} averaged other passes (--mode=evaluate)"
    frozen = result.get("frozen") or {}
    calibrated = bool(frozen.get("platt"))
    return frozen, "" if calibrated else "its evaluation froze no calibration"
