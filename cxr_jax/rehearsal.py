"""What would only go wrong hours later, tried before the first file is written.

Names of parts that are used late (the optimizer of the second phase, an evaluator, the
metric that picks the best checkpoint) are resolved, and evaluators of a validation read two
films with made-up scores. Nothing is compiled.
"""

from collections.abc import Sequence

import numpy as np
from ml_collections import config_dict

from cxr_jax import sampled, tta
from cxr_jax.data import source, splits
from cxr_jax.data.records import Records
from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import Evaluator, check_requirements
from cxr_jax.models.state import flatten
from cxr_jax.predictions import Predictions
from cxr_jax.step import Trainer
from cxr_jax.tasks.base import traits
from cxr_jax.types import Boxes

LOSS = "loss"


def rehearse(
    config: config_dict.ConfigDict,
    *,
    trainer: Trainer,
    dataset: source.Dataset,
    fields: source.Fields,
    evaluators: Sequence[Evaluator],
    costed: bool = True,
) -> None:
    """Refuses a run whose end is wrong before it begins.

    Args:
        config: as resolved.
        trainer: of the run.
        dataset: opened.
        fields: what the run reads of each film.
        evaluators: those that the config names, without intervals.
        costed: whether a loss is taken at validations.

    Raises:
        ConfigError: an unknown part, part of the split, class or metric; the message
            names the key.
        DataError: the dataset lacks a class or a field.
    """
    chosen = config.eval.splits
    if not chosen:
        raise ConfigError(
            f"eval.splits={chosen!r}: give some of {', '.join(splits.PARTS)}"
        )
    for part in chosen:
        splits.parse_part(part)
    source.Reader(dataset, fields)
    sides = dataset.features["image"].shape[:2]
    wrapped = tta.wrap(trainer.task, config.eval.tta)
    if isinstance(wrapped, tta.Views):
        wrapped.check(*sides)
    thinned = sampled.wrap(trainer.task, config.eval.mc, seed=config.seed)
    if isinstance(thinned, sampled.Sampled):
        thinned.check(trainer.model_def, *sides)
    params = flatten(trainer.model_def.params)
    for phase in range(len(trainer.phases)):
        trainer.transformation(phase, params)
    have = ["labels", "probs", *(["truth"] if fields.truth else [])]
    have += [name for name in ("boxes",) if name in dataset.features]
    have += ["std", "information"] if config.eval.mc.samples else []
    said = traits(trainer.task)
    have += ["maps"] if said.maps else []
    have += ["predicted_boxes"] if said.finds_boxes else []
    have += ["regions"] if fields.regions else []
    check_requirements(evaluators, have)
    table = two_films(
        dataset.records,
        trainer.task.classes,
        truth=fields.truth,
        boxes=said.finds_boxes,
    )
    for evaluator in evaluators:
        evaluator.rehearse(table)
    monitors = [evaluator for evaluator in evaluators if evaluator.monitors]
    names = [
        *([LOSS] if costed else []),
        *(name for e in monitors for name in e.monitor(table)),
    ]
    if config.checkpoint.metric not in names:
        raise ConfigError(
            f"checkpoint.metric={config.checkpoint.metric!r}: a validation gives"
            f" {', '.join(names)}"
        )


def two_films(
    records: Records, classes: Sequence[str], *, truth: bool, boxes: bool = False
) -> Predictions:
    """The first two films of a dataset, with made-up labels and scores.

    They have names, patients and studies, by which evaluators find what is told of them.

    Args:
        records: of the dataset.
        classes: of the task.
        truth: whether the true labels are known.
        boxes: whether the task finds boxes; here it finds none.
    """
    labels = np.repeat(np.float32([[0], [1]]), len(classes), axis=1)[: len(records)]
    index = np.arange(len(labels))
    none = np.zeros((len(labels), 1))
    empty = Boxes(
        xyxy=np.zeros((len(labels), 1, 4)),
        label=none.astype(int),
        mask=none > 0,
        score=none,
    )
    return Predictions(
        classes=tuple(classes),
        ids=records.id[index],
        patients=records.patient[index],
        studies=records.study[index],
        index=index,
        probs=labels * 0.5,
        labels=labels,
        truth=labels if truth else None,
        boxes=empty if boxes else None,
        targets=empty if boxes else None,
    )
