"""A reader study: the model among the readers of a film, by the protocols of the papers."""

import dataclasses
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
from cxr_jax.evaluators.reader_panel import (
    about,
    make_panel,
    nothing,
    points_like,
    sha256,
)
from cxr_jax.labels import NIH14
from cxr_jax.metrics import agreement
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
        by_study: whether the calls name studies of the dataset, not films.
        protocols: of ``agreement.NAMES``; ``truth`` where it is known.
        threshold: what makes the model's scores calls: a number in (0, 1), as text too, or
            the name of an operating point frozen on the validation part. The papers do not
            state theirs.
        tie: see ``agreement.Votes``.
        least: likewise.
        draws: resamples of patients; none where ``resamples`` is 0.
        margin: of non-inferiority, named before the result is seen; 0 for none.
        focus: class that figures show in full.
        strict: whether a score at the threshold itself is no call, as MURA's "greater
            than 0.5".
        gold: the readers whose majority is the reference of the other readers and the
            model (protocol ``panel``; MURA's later paper: 3 of 6), by their names, or how
            many, counted from the first of the file; 0 for none.
    """

    file: str = ""
    directory: str = ""
    films: Collection[str] = ()
    by_study: bool = False
    protocols: tuple[str, ...] = agreement.NAMES
    threshold: str | float = "f1"
    tie: str = "negative"
    least: int = 3
    draws: int = 10_000
    margin: float = 0.0
    focus: str = "Pneumonia"
    strict: bool = False
    gold: int | tuple[str, ...] = 0
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
        classes = (*NIH14, *(predictions.findings or predictions.classes))
        if self.directory:
            table = records.read_records(self.directory)
            ids = {*(table.study if self.by_study else table.id).tolist()} - {""}
            classes = table.classes
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
        self._panel(found.readers)  # Refuses a wrong one.
        return found

    def _panel(self, readers: Sequence[str]) -> np.ndarray:
        """Who forms the panel, bool ``[R]``."""
        if isinstance(self.gold, int):
            member = np.arange(len(readers)) < self.gold
        else:
            if strange := [name for name in self.gold if name not in readers]:
                raise ConfigError(
                    f"the reader study's gold names {strange[0]!r}; the file has"
                    f" {', '.join(readers)}"
                )
            member = np.isin(readers, self.gold)
        if self.gold and (member.all() or not member.any()):
            raise ConfigError(
                f"the reader study's gold is {self.gold} of {len(readers)} readers;"
                " some must be left to be judged: give fewer, or 0"
            )
        return member

    def inputs(self) -> dict[str, str]:
        """The reader file, where there is one."""
        path = self._path()
        return {} if path is None or not path.exists() else {"file": sha256(path)}

    def _path(self) -> epath.Path | None:
        """The file that was named; else that of the dataset, if it has one."""
        if self.file:
            return epath.Path(self.file).expanduser()
        found = epath.Path(self.directory) / reader_files.NAME
        return found if self.directory and found.exists() else None

    def rehearse(self, predictions: Predictions) -> None:
        """Refuses a file, or a panel, that the protocols cannot use."""
        if predictions.member is not None and "each_other" in self.protocols:
            raise ConfigError(
                "the reader study's protocol 'each_other' needs every call, and in a"
                " column of one category of films the others have none; leave it out"
            )
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
        if number is None and self.threshold in points_like(self.threshold):
            return
        if number is None or not 0 < number < 1:
            raise ConfigError(
                f"the reader study's threshold is {self.threshold!r}; allowed: a number in"
                f" (0, 1), or one of {', '.join(points_like(''))}"
            )

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """The block ``readers``."""
        calls = self.load(predictions)
        if calls is None:
            return nothing(
                f"no reader file: the dataset has no {reader_files.NAME}; name one in"
                " the evaluator's `file`"
            )
        rows = np.flatnonzero(np.isin(predictions.ids, calls.ids))
        about_what = predictions.findings or predictions.classes
        columns = [c for c, name in enumerate(about_what) if name in calls.classes]
        classes = [predictions.classes[c] for c in columns]
        if not len(rows) or not classes:
            return nothing(
                "no film of this part was read by readers, or no class of it"
            )
        thresholds, why = self._thresholds(classes, frozen or {})
        read = dataclasses.replace(
            calls.select(predictions.ids[rows], [about_what[c] for c in columns]),
            classes=tuple(classes),
        )
        panel = make_panel(predictions, rows, columns, read, thresholds, self.strict)
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
        head = about(calls, read) | {
            "patients": len(np.unique(panel.units.patients)),
            "focus": focus,
            "threshold": {
                "name": self.threshold if self._number() is None else self._number(),
                "rule": "called where the raw score is"
                f" {'above' if self.strict else 'at least'} the threshold",
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
        if self.gold:
            protocols["panel"] = self._by_gold(panel, read, focus, resamples)
        agree = map(reader_blocks.plain, found.fleiss)
        bias = reader_blocks.bias_block(panel, found, classes, tie=self.tie)
        more = {
            "protocols": protocols,
            "fleiss": dict(zip(classes, agree, strict=True)),
            "bias": bias,
        }
        return {"readers": head | more}

    def _by_gold(
        self, panel: studies.Panel, read: ReaderCalls, focus: str, resamples: int
    ) -> dict[str, Any]:
        """The other readers and the model against the majority of the first few."""
        member = self._panel(read.readers)
        least = min(self.least, int(member.sum()))
        gold = agreement.vote(
            panel.calls[:, member], agreement.Votes(tie=self.tie, least=least)
        )
        rest = dataclasses.replace(panel, calls=panel.calls[:, ~member], truth=gold)
        read_by_some = np.isfinite(panel.calls).any(axis=(1, 2))
        others = tuple(np.array(read.readers)[~member].tolist())
        found = studies.study_readers(
            rest, ["truth"], key=jax.random.key(self.seed), resamples=resamples
        )
        return reader_blocks.protocol_block(
            "panel",
            found.protocols["truth"],
            scores=panel.scores,
            read=dataclasses.replace(read, readers=others),
            focus=focus,
            margin=self.margin,
        ) | {
            "gold": np.array(read.readers)[member].tolist(),
            "without_majority": int((read_by_some & np.isnan(gold).all(axis=1)).sum()),
        }

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
