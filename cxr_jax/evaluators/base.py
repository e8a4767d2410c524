"""What every evaluator is, and the check that it can run.

Evaluators are small plug-ins: a table of predictions in, blocks of ``result.json`` out.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax.errors import ConfigError
from cxr_jax.metrics import bootstrap
from cxr_jax.predictions import Predictions
from cxr_jax.types import Batch, Prediction

Blocks = dict[str, dict[str, Any]]


def units_of(
    predictions: Predictions, rows: np.ndarray | slice = slice(None)
) -> bootstrap.Units:
    """What a bootstrap draws of a table, or of some rows of it: patients, or its studies."""
    patients = bootstrap.resampling_units(predictions.patients[rows])
    if predictions.unit == "patient":
        return patients
    studies = bootstrap.resampling_units(predictions.studies[rows], name="study")
    return dataclasses.replace(studies, patient=patients.code)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """A named protocol.

    An evaluation of the validation part calls ``freeze`` before the evaluator itself;
    what comes out is written down with the weights it belongs to, and handed to the
    evaluator on every other part. Nothing is ever chosen on the part it is reported on.

    Attributes:
        mean_classes: the fixed list that means run over; all classes where empty.
        resamples: of the patient bootstrap; 0 for no intervals.
        seed: of everything that is drawn.
        requires: fields of Batch, Prediction or the records without which it cannot run.
        monitors: whether the means of its ``metrics`` are taken at every validation of a
            training, where ``checkpoint.metric`` may name one.
        randomised: whether it also wants what ``observe`` gives for fresh weights, under
            the prefix ``randomised/``.
    """

    mean_classes: tuple[str, ...] = ()
    resamples: int = 0
    seed: int = 0
    requires: ClassVar[tuple[str, ...]] = ()
    monitors: ClassVar[bool] = False
    randomised: ClassVar[bool] = False

    def observe(self, prediction: Prediction, batch: Batch) -> dict[str, jax.Array]:
        """In the jitted step: what it wants to know of each film beyond its scores.

        Maps and features never leave the device; a few numbers per film do.

        Returns:
            Name → ``[B, …]``, found again in ``Predictions.observed``.
        """
        del prediction, batch
        return {}

    def rehearse(self, predictions: Predictions) -> None:
        """Before the first step, on made-up films: refuses files that it could not use.

        Raises:
            ConfigError: a file is missing, or does not fit the config.
            DataError: a file is wrong.
        """
        del predictions

    def inputs(self) -> dict[str, str]:
        """Files of its own that it reads: a result stands only while they are the same.

        Returns:
            Name of the setting → SHA-256 of the file that it means.
        """
        return {}

    def freezes(self) -> tuple[str, ...]:
        """Names of the operating points that ``freeze`` chooses for each class."""
        return ()

    def calls_at(self) -> str:
        """Name of the frozen operating point at which it calls films; empty: at none."""
        return ""

    def freeze(self, predictions: Predictions) -> dict[str, Any]:
        """On the validation part: what the other parts are judged by.

        Returns:
            A mapping that JSON can hold, under names of its own.
        """
        del predictions
        return {}

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """The evaluation.

        Args:
            predictions: of one part.
            frozen: what all evaluators froze on the validation part; empty where there is
                no validation part, as with another program's predictions.

        Returns:
            Block of ``result.json`` → its content.
        """
        raise TypeError(f"{type(self).__name__} does not say how it evaluates")

    def monitor(self, predictions: Predictions) -> dict[str, Any]:
        """The ``metrics`` alone, where it ``monitors``: taken at every validation."""
        return self(predictions)["metrics"]

    def judged(self, predictions: Predictions) -> Predictions:
        """The table that its figures are of: the films, or what it makes of them."""
        return predictions

    def listed(self, classes: Sequence[str]) -> list[int]:
        """Columns that means run over.

        Raises:
            ConfigError: ``mean_classes`` names a class that is not there.
        """
        wanted = self.mean_classes or tuple(classes)
        if unknown := [name for name in wanted if name not in classes]:
            raise ConfigError(
                f"eval.mean_classes names {', '.join(unknown)}; the classes are"
                f" {', '.join(classes)}: choose among them"
            )
        return [list(classes).index(name) for name in wanted]


def check_requirements(
    evaluators: Sequence[Evaluator], available: Iterable[str]
) -> None:
    """Refuses, before the first step, evaluators that lack what they need.

    Args:
        evaluators: to be run.
        available: fields that dataset and task provide, such as ``labels``, ``probs``.

    Raises:
        ConfigError: names the evaluator and the missing fields, or an operating point that
            none of the others freezes.
    """
    available = set(available)
    points = [name for evaluator in evaluators for name in evaluator.freezes()]
    for evaluator in evaluators:
        if missing := [f for f in evaluator.requires if f not in available]:
            raise ConfigError(
                f"{type(evaluator).__name__} needs {', '.join(missing)}; there is only"
                f" {', '.join(sorted(available))}: choose another evaluator or dataset"
            )
        point = evaluator.calls_at()
        if point and points and point not in points:
            raise ConfigError(
                f"{type(evaluator).__name__} calls films at {point!r}; the validation part"
                f" freezes {', '.join(points)}: name one of them, or give the evaluator"
                " that freezes points the same target"
            )


def observe(
    evaluators: Sequence[Evaluator], prediction: Prediction, batch: Batch
) -> dict[str, jax.Array]:
    """What all evaluators observe of a batch; two that give one name must agree."""
    found: dict[str, jax.Array] = {}
    for evaluator in evaluators:
        found |= evaluator.observe(prediction, batch)
    return found


def plain(value: Any) -> Any:
    """A value as JSON holds it: arrays as lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
