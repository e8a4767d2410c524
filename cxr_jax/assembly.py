"""The parts of a run, made from its config: task, trainer, evaluators, first weights."""

import dataclasses
import json
import logging
import re
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import config_dict

from cxr_jax import config as configs
from cxr_jax import frequencies, optim, outline, sharding
from cxr_jax.division import Division
from cxr_jax.errors import CheckpointError, ConfigError
from cxr_jax.evaluators.base import Evaluator
from cxr_jax.models import pretrained
from cxr_jax.models.state import ModelDef, flatten
from cxr_jax.predictions import write_atomically
from cxr_jax.step import Trainer, TrainState
from cxr_jax.tasks.base import Task

log = logging.getLogger(__name__)
_SPREAD = 0.02


def make_task(config: config_dict.ConfigDict, division: Division) -> Task:
    """The task, with what its terms count on the training films.

    Raises:
        DataError: a class that the dataset lacks, or that cannot be weighed.
    """
    spec = configs.plain(config.task)
    if "terms" in spec:
        known = configs.build(spec)
        classes = tuple(getattr(known, "labelled", known.classes))
        labels = division.labels(classes)
        counted = frequencies.count_terms(
            spec["terms"], labels, classes=classes, groups=division.train_groups()
        )
        if config.data.truth and list(counted) != list(configs.plain(spec["terms"])):
            raise ConfigError(
                "data.truth=True: task.terms are weighed by counts of the labels, which"
                " are not what is learnt; give numbers"
            )
        spec["terms"] = counted
    return configs.build(spec)


def make_trainer(config: config_dict.ConfigDict, task: Task, *, films: int) -> Trainer:
    """The static half of training.

    Args:
        config: as resolved.
        task: built from it.
        films: draws of an epoch.

    Raises:
        ConfigError: a batch size that does not divide among the devices, or micro-batches
            under a term that counts the labels of a batch.
    """
    mesh = sharding.make_mesh()
    for key in ("train.batch_size", "eval.batch_size"):
        sharding.check_batch_size(configs.get(config, key), mesh, key=key)
    _check_balance(config)
    return Trainer(
        task=task,
        mesh=mesh,
        phases=config.phases,
        plateau=config.plateau,
        augment=configs.build(config.augment),
        seed=config.seed,
        batch_size=config.train.batch_size,
        steps_per_epoch=max(1, films // config.train.batch_size),
        accumulate=config.train.accumulate,
        mode=config.checkpoint.mode,
    )


def _check_balance(config: config_dict.ConfigDict) -> None:
    """Counts of micro-batches would weigh labels otherwise than those of their batch."""
    parts = config.train.accumulate
    for term in config.task.get("terms", ()):
        if parts > 1 and term.get("balance"):
            raise ConfigError(
                f"train.accumulate={parts}: the term {term['name']!r} weighs labels by"
                " their share of the whole batch (balance), which no micro-batch knows;"
                " set train.accumulate=1, or leave out its balance"
            )


def make_evaluators(
    config: config_dict.ConfigDict, *, resamples: int, directory: str = ""
) -> tuple[Evaluator, ...]:
    """The evaluators that a config names.

    Args:
        config: as resolved.
        resamples: of their bootstraps.
        directory: of the dataset, for those that read a file beside its records.
    """
    built = [
        configs.build(
            spec,
            mean_classes=config.eval.mean_classes,
            resamples=resamples,
            seed=config.seed,
        )
        for spec in config.eval.evaluators
    ]
    return tuple(
        dataclasses.replace(e, directory=directory) if hasattr(e, "directory") else e
        for e in built
    )


def first_state(
    config: config_dict.ConfigDict, trainer: Trainer, workdir: epath.Path
) -> TrainState:
    """The state before the first step: random weights, or those of ``pretrained``.

    Parameters that ``pretrained.redraw`` names are then drawn anew; see ``redrawn``. What
    was taken from where is logged and written to ``WORKDIR/pretrained.json``: a
    passport and a report, or those of each part under its name.

    Raises:
        ConfigError: an unknown public name, or no network to fetch it; a file that is
            damaged, unsafe, or does not fit the network; a part that the network lacks;
            a pattern that names no parameter.
    """
    state = trainer.init()
    files, patterns = _files(config), tuple(config.pretrained.redraw)
    drawn = redrawn(state.params, patterns, seed=config.seed)
    if not files:
        return trainer.adopt(state, drawn, {})
    behind = _behind(config, trainer.model_def)
    written = {}
    for part, given in files.items():
        imported = _imported(config, trainer.model_def, part, given, behind)
        state = trainer.adopt(state, imported.params, imported.rest)
        written[part] = {
            "passport": json.loads(imported.passport.to_json()),
            "report": dataclasses.asdict(imported.report),
        }
    if jax.process_index() == 0:
        text = json.dumps(written.get("", written), indent=1)
        write_atomically(workdir / "pretrained.json", text + "\n")
    return trainer.adopt(state, drawn, {})


def redrawn(
    params: Mapping[str, jax.Array], patterns: tuple[str, ...], *, seed: int
) -> dict[str, jax.Array]:
    """Parameters by pattern, drawn anew: N(0, 0.02²), biases 0. Statistics are kept.

    Args:
        params: name → parameter.
        patterns: shell-style, such as ``("backbone/*",)``; none for no parameters.
        seed: each parameter is a function of it and of its own name.

    Raises:
        ConfigError: a pattern that names no parameter.

    Reference: the released code of ADPD, whose initialiser overwrites the kernels and
    scales of the weights that it has just loaded.
    """
    for pattern in patterns:
        if not any(optim.matches(name, (pattern,)) for name in params):
            raise ConfigError(
                f"pretrained.redraw={pattern!r} names no parameter, such as"
                f" {', '.join(sorted(params)[:3])}"
            )

    def draw(name: str, old: jax.Array) -> jax.Array:
        if name.endswith("/bias"):
            return jnp.zeros_like(old)
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
        return _SPREAD * jax.random.normal(key, old.shape, old.dtype)

    return {n: draw(n, x) for n, x in params.items() if optim.matches(n, patterns)}


def _files(config: config_dict.ConfigDict) -> dict[str, dict[str, str]]:
    """Part of the backbone → what to import into it; "" stands for the whole model."""
    whole = configs.plain(config.pretrained)
    whole.pop("redraw")
    parts = whole.pop("parts", {})
    parts = {name: part for name, part in parts.items() if part.get("from")}
    if whole["from"] and parts:
        raise ConfigError(
            f"pretrained.from={whole['from']!r} and pretrained.parts.{min(parts)}: give"
            " a file for the whole network, or one for each of its parts"
        )
    files = {"": whole} if whole["from"] else parts
    return {
        name: {key: value for key, value in given.items() if value}
        for name, given in files.items()
    }


def _imported(
    config: config_dict.ConfigDict,
    model: ModelDef,
    part: str,
    given: dict[str, str],
    behind: dict[str, Any],
) -> pretrained.Imported:
    """Arrays of one file, under the names that they have in the whole model."""
    key = f"pretrained.parts.{part}.from" if part else "pretrained.from"
    # A file knows one network: to it, the part is the backbone.
    inside = f"backbone/{part}/" if part else ""
    alone = "backbone/" if part else ""
    params, rest, behind = (
        {alone + n[len(inside) :]: a for n, a in arrays.items() if n.startswith(inside)}
        for arrays in (flatten(model.params), flatten(model.rest), behind)
    )
    if not params:
        raise ConfigError(f"{key}: the network has no part {part!r}")
    try:
        imported = pretrained.load(
            given | {"head": "fresh"} if part else given,
            params,
            rest,
            behind=behind,
            classes=config.task.classes,
            mean=config.task.mean,
            std=config.task.std,
            epsilon=model.epsilon(inside),
        )
    except CheckpointError as error:  # of a file that the user named
        raise ConfigError(f"{key}: {error}") from error
    _tell(given["from"], imported.report)
    params, rest = (
        {inside + name[len(alone) :]: a for name, a in arrays.items()}
        for arrays in (imported.params, imported.rest)
    )
    return dataclasses.replace(imported, params=params, rest=rest)


def _tell(name: str, report: pretrained.Report) -> None:
    log.info(
        "%s arrays of %s (%s layout); fresh: %s; %s",
        report.loaded,
        name,
        report.layout,
        ", ".join(report.fresh) or "none",
        " ".join(report.changes) or "all as they were",
    )


def _behind(config: config_dict.ConfigDict, model: ModelDef) -> dict[str, Any]:
    """What the model would have besides if its backbones did not end at a tap."""
    spec = configs.plain(config.task)
    whole = _unended(spec["model"])
    if whole == spec["model"]:
        return {}
    goes_on = ModelDef.of(configs.build({**spec, "model": whole}).create)
    own = flatten(model.params) | flatten(model.rest)
    every = flatten(goes_on.params) | flatten(goes_on.rest)
    return {name: array for name, array in every.items() if name not in own}


def _unended(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {key: _unended(value) for key, value in part.items() if key != "until"}


def summary(config: config_dict.ConfigDict) -> str:
    """The network's parts with their output shapes, every parameter, and their counts.

    Shapes are of films as large as the dataset's name says, or the config, or of 224
    pixels.
    """
    task = configs.build(config.task)
    model = ModelDef.of(task.create)
    size = _film_size(config)
    told = outline.outline(task, model, phases=config.phases, size=size)
    params, rest = flatten(model.params), flatten(model.rest)
    lines = [f"films of {size} pixels", outline.text(told), ""] if told else []
    lines += [f"{name:60} {x.shape!s:>20} {x.size:>12,}" for name, x in params.items()]
    count = {"parameters": params, "batch statistics": rest}
    for what, names in count.items():
        lines.append(f"{what}: {sum(x.size for x in names.values()):,}")
    for number, phase in enumerate(config.phases, start=1):
        trained = optim.partition(params, phase)[0]
        total = sum(x.size for x in trained.values())
        lines.append(f"trainable in phase {number}: {total:,}")
    return "\n".join(lines)


def _film_size(config: config_dict.ConfigDict) -> int:
    """Pixels of a side."""
    told = re.search(r"/(\d+)px", config.data.dataset)
    if told:
        return int(told[1])
    return config.augment.size or config.task.get("size", 0) or 224


def describe(
    config: config_dict.ConfigDict, trainer: Trainer, workdir: epath.Path, *, size: int
) -> None:
    """Writes ``WORKDIR/model.json``, what the network is made of; see ``outline``."""
    told = outline.outline(
        trainer.task, trainer.model_def, phases=config.phases, size=size
    )
    if told is not None:
        text = json.dumps(told, indent=1, ensure_ascii=False)
        write_atomically(workdir / outline.FILE, text + "\n")
