"""Evaluators that judge studies, not films: MURA's views are read together."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax import config, studies
from cxr_jax.data import groups, records
from cxr_jax.errors import ConfigError, DataError
from cxr_jax.evaluators.base import Blocks, Evaluator, check_requirements, units_of
from cxr_jax.evaluators.classification import Classification
from cxr_jax.metrics import bootstrap, ranking
from cxr_jax.predictions import UNITS, Predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByStudy(Evaluator):
    """Other evaluators, on a table with one row per study.

    Reference: Rajpurkar et al., MURA, 2017, sections 3 and 4.

    Attributes:
        of: the evaluators, as a config names them.
        column: attribute of the films in ``groups.csv`` that every figure is broken down
            by, such as ``body_part``; empty for no breakdown.
        order: its values, in the order of the columns.
        whole: name of the column of all studies.
        unit: what intervals draw: ``patient``, or ``study`` as the paper drew them, which
            takes two studies of one patient for independent.
        directory: of the prepared dataset.

    Raises:
        ConfigError: another unit.
    """

    of: Sequence[Mapping[str, Any]] = ()
    column: str = ""
    order: tuple[str, ...] = ()
    whole: str = "All"
    unit: str = "patient"
    directory: str = ""
    requires: ClassVar[tuple[str, ...]] = ("probs", "labels")
    monitors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(
                f"ByStudy: unit={self.unit!r}; allowed are {', '.join(UNITS)}"
            )

    def inner(self) -> tuple[Evaluator, ...]:
        """The evaluators, built."""
        found = []
        # The headline is the figure of all studies, not a mean over their types.
        listed = (self.whole,) if self.column else self.mean_classes
        for spec in self.of:
            one = config.build(
                spec,
                mean_classes=listed,
                resamples=self.resamples,
                seed=self.seed,
            )
            here = {"directory": self.directory, "by_study": True}
            told = {name: value for name, value in here.items() if hasattr(one, name)}
            found.append(dataclasses.replace(one, **told))
        return tuple(found)

    def rehearse(self, predictions: Predictions) -> None:
        """Refuses what the evaluators would refuse, and a dataset without the column."""
        inner = self.inner()
        # Of single films nothing is observed for them.
        check_requirements(inner, self.requires)
        if self.directory:
            self._check_films(records.read_records(self.directory))
        table = self._broken_down(
            predictions, np.full(len(predictions), self._first_name())
        )
        for one in inner:
            one.rehearse(table)

    def _check_films(self, films: records.Records) -> None:
        """Every film of the dataset has a study, and a value that has a column."""
        values = np.full(len(films), self._first_name())
        if self.column:
            values = self._categories(groups.read_groups(self.directory, films.id))
        wrong = (films.study == "") | ~np.isin(values, self.order or ("",))
        if wrong.any():
            k = np.flatnonzero(wrong)[0]
            raise DataError(
                f"film {films.id[k]} has the study {str(films.study[k])!r} and the"
                f" {self.column or 'column'} {str(values[k])!r}; allowed are a study, and"
                f" one of {', '.join(self.order)}"
            )

    def inputs(self) -> dict[str, str]:
        """Files of the evaluators."""
        return {
            f"of.{k}.{name}": digest
            for k, one in enumerate(self.inner())
            for name, digest in one.inputs().items()
        }

    def freezes(self) -> tuple[str, ...]:
        """Operating points of studies."""
        return tuple(name for one in self.inner() for name in one.freezes())

    def freeze(self, predictions: Predictions) -> dict[str, Any]:
        """What the evaluators freeze on the studies of the validation part."""
        table, _ = self._table(predictions)
        found: dict[str, Any] = {}
        for one in self.inner():
            found |= one.freeze(table)
        return found

    def monitor(self, predictions: Predictions) -> dict[str, Any]:
        """Metrics of studies; readers, worklist and the rest wait for the evaluation."""
        table, _ = self._table(predictions)
        watching = [one for one in self.inner() if one.monitors]
        return {k: v for one in watching for k, v in one.monitor(table).items()}

    def judged(self, predictions: Predictions) -> Predictions:
        """Studies, by category."""
        return self._table(predictions)[0]

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """Blocks of the evaluators, and ``studies``: how films became studies."""
        table, read = self._table(predictions)
        blocks: Blocks = {
            "studies": {
                "n": len(table),
                "films": len(predictions),
                "views": _histogram(read.views),
                "rule": "mean of the films' probabilities",
                "disagreeing": list(read.disagreeing),
                "column": self.column,
                "of_films": self._of_films(predictions),
                "gain": self._gain(predictions, table),
            }
        }
        for one in self.inner():
            for name, content in one(table, frozen).items():
                blocks.setdefault(name, {}).update(content)
        return blocks

    def _of_films(self, predictions: Predictions) -> dict[str, Any]:
        """The same ranking before films became studies."""
        films = Classification(resamples=self.resamples, seed=self.seed)
        return films(dataclasses.replace(predictions, unit=self.unit))["metrics"]

    def _gain(self, films: Predictions, table: Predictions) -> dict[str, Any] | None:
        """AUROC of all studies minus that of single films, on the same resamples."""
        if len(films.classes) != 1:
            return None
        values, drawn = [], []
        for one in (table, dataclasses.replace(films, unit=self.unit)):
            known = one.labels if one.truth is None else one.truth
            scores, labels = one.probs[:, -1:], known[:, -1:]
            values.append(float(ranking.auroc(scores, labels)[0]))
            if self.resamples:
                # The same units by the same names: both draw the same.
                key, units = jax.random.key(self.seed), units_of(one)
                found = bootstrap.bootstrap(
                    key, scores, labels, units, resamples=self.resamples
                )
                drawn.append(found.auroc[:, 0].astype(np.float64))
        gap = bootstrap.Interval(low=None, high=None, discarded=0)
        if drawn:
            gap = bootstrap.percentile_interval(drawn[0] - drawn[1])
        value = values[0] - values[1]
        return {
            "metric": "auroc" if table.truth is None else "auroc@truth",
            "value": value if np.isfinite(value) else None,
            **dataclasses.asdict(gap),
        }

    def _table(self, predictions: Predictions) -> tuple[Predictions, studies.Studies]:
        read = studies.by_study(predictions)
        table = dataclasses.replace(read.table, unit=self.unit)
        read = dataclasses.replace(read, table=table)
        if not self.column:
            return read.table, read
        known = groups.read_groups(self.directory, predictions.ids)
        film = self._categories(known)
        first = np.unique(read.film, return_index=True)[1]
        category = film[first]
        if (film != category[read.film]).any():
            name = read.table.ids[read.film[film != category[read.film]][0]]
            raise DataError(
                f"study {name} has films of several values of {self.column}; one is"
                " allowed: build the dataset again"
            )
        return self._broken_down(read.table, category), read

    def _broken_down(self, table: Predictions, category: np.ndarray) -> Predictions:
        if not self.column:
            return table
        return studies.by_category(table, category, names=self.order, whole=self.whole)

    def _categories(self, known: Mapping[str, np.ndarray]) -> np.ndarray:
        if self.column not in known:
            raise DataError(
                f"the dataset tells no {self.column} of its films (it tells"
                f" {', '.join(known) or 'nothing'}); choose another dataset, or no"
                " `column` in the evaluator"
            )
        return known[self.column]

    def _first_name(self) -> str:
        return self.order[0] if self.order else ""


def _histogram(views: np.ndarray) -> dict[str, int]:
    """Number of views → number of studies."""
    values, counts = np.unique(views, return_counts=True)
    return {str(v): int(c) for v, c in zip(values, counts, strict=True)}
