"""The films of a run: those that train it, and those that judge it."""

import dataclasses
import hashlib
import json
from typing import Any

from ml_collections import config_dict

from cxr_jax.data import pipeline
from cxr_jax.division import Division, divide
from cxr_jax.tasks.base import Task, traits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Films:
    """A dataset as a run uses it.

    Attributes:
        dataset: opened.
        division: which films are in which part.
        fields: what is read of each film.
        costed: whether a loss can be taken on them.
    """

    dataset: pipeline.Dataset
    division: Division
    fields: pipeline.Fields
    costed: bool = True


def open_training(
    config: config_dict.ConfigDict, task: Task, *, data_dir: str
) -> Films:
    """The films that train, and judge too unless there are others.

    Raises:
        ConfigError: an oversampling that cannot be.
        DataError: a dataset that is not prepared, or cannot be divided as asked.
    """
    if config.data.evaluation.dataset:
        config = _changed(config, {"eval.splits": ()})
    return _open(config, task, data_dir=data_dir, learn=True)


def open_judging(
    config: config_dict.ConfigDict, task: Task, own: Films, *, data_dir: str
) -> Films:
    """The films that judge: those of ``data.evaluation``, or the run's own.

    A loss is taken on films of another dataset only if the task needs no more than labels
    of its classes.

    Raises:
        DataError: as ``open_training``.
    """
    asked = config.data.evaluation
    if not asked.dataset:
        return own
    changes = {"data.dataset": asked.dataset, "data.group": ""}
    changes |= {"data.scheme": asked.scheme or config.data.scheme}
    changes |= {"data.oversample.label": "", "data.patients": 1.0}
    return _open(_changed(config, changes), task, data_dir=data_dir, learn=False)


def _open(
    config: config_dict.ConfigDict, task: Task, *, data_dir: str, learn: bool
) -> Films:
    dataset = pipeline.open_dataset(config.data.dataset, data_dir=data_dir)
    division = divide(config, dataset, learn=learn)
    said = traits(task)
    fields = pipeline.Fields(
        classes=said.labelled if learn else task.classes,
        truth="truth" in dataset.features,
        learn_truth=learn and config.data.truth,
        regions=learn and "regions" in said.reads,
        region_names=said.regions,
        findings=said.findings,
        group=None if division.groups is None else division.groups.code,
    )
    _sign(division.split.passport, dataset)
    costed = learn or (not said.reads and said.labelled == tuple(task.classes))
    return Films(dataset=dataset, division=division, fields=fields, costed=costed)


def _sign(passport: dict[str, Any], dataset: pipeline.Dataset) -> None:
    """Tells what films are made of: the ids alone do not tell one table from another."""
    manifest = dataclasses.asdict(dataset.manifest)
    text = json.dumps(manifest, sort_keys=True).encode()
    passport["image_size"] = dataset.manifest.image_size
    # How films became square: prediction does the same.
    extra = dataset.manifest.extra
    passport |= {key: extra[key] for key in ("fit", "enlarge") if key in extra}
    passport["manifest_sha256"] = hashlib.sha256(text).hexdigest()


def _changed(
    config: config_dict.ConfigDict, changes: dict[str, Any]
) -> config_dict.ConfigDict:
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(changes)
    return copy
