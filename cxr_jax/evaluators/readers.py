"""A reader study: the model among the readers of a film, by the protocols of the papers."""

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from etils import epath

from cxr_jax.data import readers as reader_files
from cxr_jax.data import records
from cxr_jax.data.readers import ReaderCalls
from cxr_jax.errors import ConfigError
from cxr_jax.evaluators import reader_blocks
from cxr_jax.evaluators.base import Blocks, Evaluator
from cxr_jax.labels import NIH14
from cxr_jax.metrics import agreement, bootstrap, operating
from cxr_jax.metrics import reader_study as studies
from cxr_jax.predictions import Predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Readers(Evaluator):
    """Readers and model against each other, the readers' majority, and the truth.

    Only films that readers read take part. Published on 420 films that are not public, for
    pneumonia: AUROC .788 (v1; whether pooled or a mean is not said, so both are given); F1
    of the model .435 (.387, .481), of the readers .387 (.330, .442), difference .051
    (.005, .084) (v3).

    Reference: Rajpurkar et al., arXiv:1711.05225, v1 and v3.

    Attributes:
        file: reader calls, see ``data.readers``; ``readers.csv`` of the dataset where
            empty.
        directory: of the prepared dataset, whose films and classes may occur; where
            empty, those of the predictions may.
        films: further ids that may occur where there is no dataset.
        protocols: of ``agreement.NAMES``; ``truth`` where it is known.
        threshold: what makes the model's scores calls: a number in (0, 1), as text too, or
            the name of an operating point frozen on the validation part. The papers do not
            state theirs.
        tie: see ``agreement.Votes``.
        least: likewise.
        draws: resamples of patients; none where ``resamples`` is 0.
        margin: of non-inferiority, named before the result is seen; 0 for none.
        focus: class that figures show in full.
    """

    file: str = ""
    directory: str = ""
    films: Collection[str] = ()
    protocols: tuple[str, ...] = agreement.NAMES
    threshold: str | float = "f1"
    tie: str = "negative"
    least: int = 3
    draws: int = 10_000
    margin: float = 0.0
    focus: str = "Pneumonia"
    requires: ClassVar[tuple[str, ...]] = ("probs",)

    def __post_init__(self) -> None:
        for name, least, most in (("draws", 0, np.inf), ("margin", 0, 1)):
            value = getattr(self, name)
            if not least <= value < most:
                raise ConfigError(
                    f"the reader study's {name} is {value}; allowed: at least {least}"
                    f"{'' if np.isinf(most) else f' and below {most}'}"
                )
        if unknown := [n for n in self.protocols if n not in agreement.NAMES]:
            raise ConfigError(
                f"the reader study's protocol {unknown[0]!r} is unknown; allowed:"
                f" {', '.join(agreement.NAMES)}"
            )
        self._check_threshold()
        _ = self.votes  # Refuses a wrong rule.

    @property
    def votes(self) -> agreement.Votes:
        """The rule of the majority."""
        return agreement.Votes(tie=self.tie, least=self.least)

    def load(self, predictions: Predictions) -> ReaderCalls | None:
        """The reader file, checked against the protocols before anything is computed.

        Args:
            predictions: ids and classes that may occur where no dataset is given.

        Returns:
            All its calls; None where the dataset has no ``readers.csv`` and no file is
            named.

        Raises:
            DataError: the file, by line.
            ConfigError: an unknown protocol, or one that these readers do not allow.
        """
        ids = {*predictions.ids.tolist(), *self.films}
        classes = (*NIH14, *predictions.classes)
        if self.directory:
            table = records.read_records(self.directory)
            ids, classes = table.id, table.classes
        path = self._path()
        if path is None:
            return None
        found = reader_files.read_readers(
            path, ids=ids, classes=tuple(dict.fromkeys(classes))
        )
        if "each_other" in self.protocols:
            found.require_complete("each_other")
        unread = np.full_like(found.calls[:1], 0)
        for name in self.protocols:
            agreement.compare(
                name, unread, unread[:, 0], truth=unread[:, 0], votes=self.votes
            )
        return found

    def inputs(self) -> dict[str, str]:
        """The reader file, where there is one."""
        path = self._path()
        return {} if path is None or not path.exists() else {"file": _sha256(path)}

    def _path(self) -> epath.Path | None:
        """The file that was named; else that of the dataset, if it has one."""
        if self.file:
            return epath.Path(self.file).expanduser()
        found = epath.Path(self.directory) / reader_files.NAME
        return found if self.directory and found.exists() else None

    def rehearse(self, predictions: Predictions) -> None:
        """Refuses a file, or a panel, that the protocols cannot use."""
        self.load(predictions)

    def calls_at(self) -> str:
        """The point that the model's calls are compared with readers at."""
        return str(self.threshold) if self._number() is None else ""

    def _number(self) -> float | None:
        """The threshold where it is a number: settings on a command line are text."""
        try:
            return float(self.threshold)
        except ValueError:
            return None

    def _check_threshold(self) -> None:
        """Refuses a number out of range, and names that no validation part freezes."""
        number = self._number()
        if number is None and self.threshold in _points_like(self.threshold):
            return
        if number is None or not 0 < number < 1:
            raise ConfigError(
                f"the reader study's threshold is {self.threshold!r}; allowed: a number in"
                f" (0, 1), or one of {', '.join(_points_like(''))}"
            )

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """The block ``readers``."""
        calls = self.load(predictions)
        if calls is None:
            return _nothing(
                f"no reader file: the dataset has no {reader_files.NAME}; name one in"
                " the evaluator's `file`"
            )
        rows = np.flatnonzero(np.isin(predictions.ids, calls.ids))
        classes = [n for n in predictions.classes if n in calls.classes]
        if not len(rows) or not classes:
            return _nothing(
                "no film of this part was read by readers, or no class of it"
            )
        thresholds, why = self._thresholds(classes, frozen or {})
        read = calls.select(predictions.ids[rows], classes)
        panel = _panel(predictions, rows, read, thresholds)
        resamples = self.draws if self.resamples else 0
        left_out = {}
        if panel.truth is None and "truth" in self.protocols:
            left_out["truth"] = "no truth is known of these films"
        found = studies.study_readers(
            panel,
            [name for name in self.protocols if name not in left_out],
            key=jax.random.key(self.seed),
            resamples=resamples,
            votes=self.votes,
        )
        focus = self.focus if self.focus in classes else classes[0]
        about = _about(calls, read) | {
            "patients": panel.units.count,
            "focus": focus,
            "threshold": {
                "name": self.threshold if self._number() is None else self._number(),
                "rule": "called where the raw score is at least the threshold",
                "values": dict(zip(classes, thresholds, strict=True)),
                "reasons": why,
            },
            "tie": self.tie,
            "least": self.least,
            "margin": self.margin,
            "resampling_unit": panel.units.name,
            "resamples": resamples,
            "left_out": left_out,
        }
        protocols = {
            name: reader_blocks.protocol_block(
                name,
                study,
                scores=panel.scores,
                read=read,
                focus=focus,
                margin=self.margin,
            )
            for name, study in found.protocols.items()
        }
        agree = map(reader_blocks.plain, found.fleiss)
        bias = reader_blocks.bias_block(panel, found, classes, tie=self.tie)
        more = {
            "protocols": protocols,
            "fleiss": dict(zip(classes, agree, strict=True)),
            "bias": bias,
        }
        return {"readers": about | more}

    def _thresholds(
        self, classes: Sequence[str], frozen: Mapping[str, Any]
    ) -> tuple[np.ndarray, dict[str, str]]:
        """One per class, NaN where there is none, and why."""
        if (number := self._number()) is not None:
            return np.full(len(classes), number), {}
        points = frozen.get("operating_points") or {}
        values, why = np.full(len(classes), np.nan), {}
        for c, name in enumerate(classes):
            if name not in points:
                why[name] = "no operating point was frozen on a validation part"
                continue
            if self.threshold not in points[name]:
                raise ConfigError(
                    f"the reader study's threshold is {self.threshold!r}; frozen on the"
                    f" validation part: {', '.join(points[name])}; give one of them, a"
                    " number, or the evaluator that freezes points the same target"
                )
            point = points[name][self.threshold]
            if point["threshold"] is None:
                why[name] = point.get("reason") or "unattainable on the validation part"
            else:
                values[c] = point["threshold"]
        return values, why


def _points_like(name: str) -> tuple[str, ...]:
    """Names of operating points, with the target of a name such as sensitivity@0.95."""
    kind, _, text = name.partition("@")
    try:
        target = {kind: float(text)} if 0 < float(text) <= 1 else {}
    except ValueError:
        target = {}
    known = {k: v for k, v in target.items() if k in ("sensitivity", "specificity")}
    return operating.point_names(**known)


def _sha256(path: epath.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _nothing(reason: str) -> Blocks:
    return {"readers": {"reason": reason, "films": 0, "protocols": {}}}


def _about(calls: ReaderCalls, read: ReaderCalls) -> dict[str, Any]:
    """What was read: the file, and the part of it that takes part."""
    path = epath.Path(calls.path)
    return {
        "reason": None,
        "file": path.name,
        "sha256": _sha256(path),
        "films": len(read.ids),
        "films_elsewhere": len(calls.ids) - len(read.ids),
        "missing_pairs": int(read.absent.sum()),
        "films_with_missing": int(read.absent.any(axis=1).sum()),
        "readers": list(read.readers),
        "classes": list(read.classes),
    }


def _panel(
    predictions: Predictions,
    rows: np.ndarray,
    read: ReaderCalls,
    thresholds: np.ndarray,
) -> studies.Panel:
    columns = [predictions.classes.index(name) for name in read.classes]
    scores = predictions.probs[rows][:, columns].astype(np.float64)
    truth = predictions.truth
    called = np.where(np.isnan(thresholds), np.nan, scores >= thresholds)
    return studies.Panel(
        calls=read.calls.astype(np.float64),
        scores=scores,
        model=called,
        truth=None if truth is None else truth[rows][:, columns].astype(np.float64),
        units=bootstrap.resampling_units(predictions.patients[rows]),
    )
