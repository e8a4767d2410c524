"""How a run divides its films: which train it, in what order, and which may judge it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import config_dict

from cxr_jax import config as configs
from cxr_jax.data import leakage, splits
from cxr_jax.data.groups import Categories, read_categories
from cxr_jax.data.leakage import Films
from cxr_jax.data.order import Order, order_of
from cxr_jax.data.source import Dataset
from cxr_jax.errors import DataError

LABELS = "labels.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Division:
    """A dataset, divided as a config says.

    Attributes:
        config: as resolved.
        dataset: opened.
        split: the run's own.
        order: of its training films; None where none train.
        groups: of all films, where ``data.group`` names an attribute.
    """

    config: config_dict.ConfigDict
    dataset: Dataset
    split: splits.Split
    order: Order | None
    groups: Categories | None = None

    def named(self, name: str) -> tuple[splits.Split, str]:
        """The split and the part that a name means: ``test``, or ``official/test``."""
        scheme, part = splits.parse_part(name)
        if scheme in ("", self.config.data.scheme):
            return self.split, part
        return split_of(self.config, self.dataset, scheme, required=(part,)), part

    def notes(self, name: str) -> tuple[str, ...]:
        """What must stand beside figures on a part: what its films were used for.

        Raises:
            DataError: films or patients that the run was made with, unless their part, a
                leaking scheme or ``eval.allow_seen`` asks for them by name.
        """
        split, part = self.named(name)
        own = split is self.split
        if own and part == "train":
            return ("Figures on the training part say nothing about other films.",)
        known = own and self.config.data.scheme in splits.LEAKING
        found = leakage.check_unseen(
            self._films(split.parts[part]),
            {key: self._films(index) for key, index in self.split.parts.items()},
            what=name,
            allowed=known or self.config.eval.allow_seen,
            against=("train",) if own and part == "val" else leakage.USED,
        )
        notes = (splits.MODEL_SELECTION,) if own and part == "val" else ()
        return (*notes, f"Leakage into {name}: {found}.") if found else notes

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """Labels of the training films, ``[n, C]``, NaN where unknown.

        Raises:
            DataError: the dataset lacks a class.
        """
        records = self.dataset.records
        if missing := records.missing(classes):
            raise DataError(
                f"the dataset has no class {', '.join(missing)}; it has"
                f" {', '.join(records.classes)}"
            )
        return records.pick(classes)[self.split.parts["train"]]

    def label_counts(self) -> dict[str, Any]:
        """The content of ``labels.json``: how often each label of the dataset is given.

        Returns:
            ``classes``, of the dataset; and ``films``, ``none`` (films that no label calls
            positive, and one calls negative) and ``positives`` (class → films), each by
            ``dataset`` and part.
        """
        records = self.dataset.records
        every = {"dataset": np.arange(len(records)), **self.split.parts}
        labels = {name: records.labels[index] for name, index in every.items()}
        return {
            "classes": list(records.classes),
            "films": {name: len(rows) for name, rows in labels.items()},
            "none": {
                name: int(((rows != 1).all(axis=1) & (rows == 0).any(axis=1)).sum())
                for name, rows in labels.items()
            },
            "positives": {
                name: {
                    label: int(count)
                    for label, count in zip(
                        records.classes, (rows == 1).sum(axis=0), strict=True
                    )
                }
                for name, rows in labels.items()
            },
        }

    def train_groups(self) -> Categories | None:
        """Groups of the training films."""
        if self.groups is None:
            return None
        own = self.groups.code[self.split.parts["train"]]
        return dataclasses.replace(self.groups, code=own)

    def ids(self) -> bytes:
        """The content of ``split_ids.csv.gz``."""
        return leakage.format_ids(self.dataset.records, self.split.parts)

    def _films(self, index: np.ndarray) -> Films:
        return Films.of(self.dataset.records, index)


def divide(
    config: config_dict.ConfigDict, dataset: Dataset, *, learn: bool = True
) -> Division:
    """Divides a dataset, and orders what trains.

    Args:
        config: as resolved.
        dataset: opened.
        learn: whether films of it train; there need be none where they only judge.

    Raises:
        ConfigError: an oversampling that cannot be.
        DataError: a scheme that the dataset does not allow; a part of ``eval.splits``
            that is unknown, or made of films that the run is made with.
    """
    judged = [splits.parse_part(name) for name in config.eval.splits]
    own = [part for scheme, part in judged if scheme in ("", config.data.scheme)]
    required = None if learn else ("val", *own)
    split = split_of(config, dataset, config.data.scheme, required=required)
    order = None
    if learn:
        order = order_of(
            dataset.records,
            split.parts["train"],
            seed=config.seed,
            **configs.plain(config.data.oversample),
        )
    name, groups = config.data.group, None
    if name:
        groups = read_categories(dataset.directory, dataset.records.id, name)
    found = Division(
        config=config, dataset=dataset, split=split, order=order, groups=groups
    )
    for name in config.eval.splits:
        found.notes(name)
    return found


def split_of(
    config: config_dict.ConfigDict,
    dataset: Dataset,
    scheme: str,
    *,
    required: Sequence[str] | None = None,
) -> splits.Split:
    """A dataset by a scheme, with the seed and the shares of a config.

    The share of patients is that of the run's own scheme, and of others that take one:
    films of a list are all of them.
    """
    takes = scheme == config.data.scheme or scheme in splits.SAMPLING
    return splits.split_records(
        dataset.records,
        scheme,
        dataset=dataset.manifest.name,
        version=dataset.manifest.version,
        seed=config.data.split_seed,
        fractions=config.data.fractions,
        holdout=config.data.holdout,
        holdout_from=config.data.holdout_from,
        patients=config.data.patients if takes else 1.0,
        required=required,
    )
