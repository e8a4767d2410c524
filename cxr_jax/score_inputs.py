"""What a score is made of: labels, predictions, boxes, readers, read before any is judged."""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cxr_jax import box_scoring, score_boxes, score_flags, scoring, trained_on
from cxr_jax import config as configs
from cxr_jax.data import labelled, leakage, parts
from cxr_jax.evaluators.adjudicated import Adjudicated
from cxr_jax.evaluators.base import Evaluator
from cxr_jax.evaluators.classification import Classification
from cxr_jax.evaluators.comparison import Comparison
from cxr_jax.evaluators.detection import Detection
from cxr_jax.evaluators.readers import Readers

UNCHECKED = (
    "Not known which films the model was trained on; leakage was not checked"
    " (--trained_on)."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """What the command line names, read.

    Attributes:
        flags: the command line.
        source: of the labels.
        part: that is scored.
        take: another part of the same source, by its name.
        shown: what a config says, see ``_shown``.
        ours: the predictions, with boxes where there are some.
        settings: of every evaluator.
        files: what the files say of themselves.
        said: remarks on the films, for the result.
        usual: what is known of boxes from another part.
        detection: the protocol of boxes; None without boxes.
    """

    flags: argparse.Namespace
    source: labelled.LabelSource
    part: parts.Part
    take: Callable[[str], parts.Part]
    shown: dict[str, Any]
    ours: scoring.Scored
    settings: dict[str, Any]
    files: dict[str, Any]
    said: list[str]
    usual: dict[str, Any] = dataclasses.field(default_factory=dict)
    detection: Detection | None = None

    def table(self, path: str, part: parts.Part) -> scoring.Scored:
        """Another table of predictions."""
        rules = _rules(self.flags)
        return scoring.read_scored(path, part=part, source=self.source, rules=rules)


def read(flags: argparse.Namespace) -> Given:
    """Labels, the part, predictions and boxes, if they are named.

    Without ``--predictions``, films whose scores are unknown.

    Raises:
        UserError: a file or a setting that cannot be scored.
    """
    shown = _shown(flags)
    source = labelled.read_source(
        flags.labels,
        data_dir=score_flags.data_dir(flags),
        manual_dir=flags.manual_dir,
        classes=flags.classes or None,
    )
    take = partial(parts.take_part, source, drawing=shown["drawing"])
    part = take(flags.split)
    if flags.predictions:
        ours = scoring.read_scored(
            flags.predictions, part=part, source=source, rules=_rules(flags)
        )
        files = {"predictions": ours.passport}
    else:
        classes = box_scoring.classes_of(source, flags.classes)
        ours, files = scoring.unpredicted(source, part, classes), {}
    said = _unseen(flags, ours, source, leakage.USED)
    settings = {
        "mean_classes": flags.mean_classes or _held(shown["mean_classes"], ours),
        "resamples": flags.resamples,
        "seed": flags.seed,
    }
    Classification(**settings).listed(ours.table.classes)
    given = Given(
        flags=flags,
        source=source,
        part=part,
        take=take,
        shown=shown,
        ours=ours,
        settings=settings,
        files=files,
        said=said,
    )
    return _with_boxes(given) if flags.boxes else given


def _with_boxes(given: Given) -> Given:
    flags = given.flags
    detection = Detection(**given.shown["detection"] | given.settings)
    ours, usual = score_boxes.read(
        _box_files(flags),
        given.ours,
        source=given.source,
        part=given.part,
        validation=parts.validation_of(given.part, flags.split, given.take),
        detection=detection,
    )
    found = ours.passport["boxes"]
    return dataclasses.replace(
        given,
        ours=ours,
        usual=usual,
        detection=detection,
        files=given.files | {"boxes": found},
        said=given.said + box_scoring.remarks(found),
    )


def validation(given: Given) -> tuple[str, scoring.Scored]:
    """The name and the predictions of the part that operating points are frozen on.

    What their file says of itself is added to ``given.files``.
    """
    flags = given.flags
    part = given.take(f"{flags.split.rpartition('/')[0]}/{score_flags.VALIDATION}")
    scored = given.table(flags.validation, part)
    given.files["validation"] = scored.passport
    _unseen(flags, scored, given.source, ("train",))
    return part.name, scored


def beside(given: Given) -> list[Evaluator]:
    """Evaluators of what else is named; what its files say is added to ``given.files``."""
    flags = given.flags
    found: list[Evaluator] = [given.detection] if given.detection else []
    if flags.compare:
        theirs = given.table(flags.compare, given.part)
        given.files["compare"] = theirs.passport
        found.append(_comparison(flags, given.ours, theirs, given.settings))
    if flags.adjudicated:
        labels = scoring.read_adjudicated(flags.adjudicated, given.source, given.ours)
        name = pathlib.Path(flags.adjudicated).name
        found.append(Adjudicated(labels=labels, name=name, **given.settings))
    if flags.readers:
        known = frozenset(given.source.records.id.tolist())
        asked = {"file": flags.readers, "films": known}
        readers = Readers(**given.shown["readers"] | asked | given.settings)
        readers.rehearse(given.ours.table)
        digest = readers.inputs()["file"]
        given.files["readers"] = {"file": flags.readers, "sha256": digest}
        found.append(readers)
    return found


def _unseen(
    flags: argparse.Namespace,
    scored: scoring.Scored,
    source: labelled.LabelSource,
    against: Sequence[str],
) -> list[str]:
    if not flags.trained_on:
        return [UNCHECKED]
    return trained_on.check_unseen(
        scored.table,
        source,
        flags.trained_on,
        allowed=flags.allow_seen,
        against=against,
    )


def _box_files(flags: argparse.Namespace) -> score_boxes.Files:
    return score_boxes.Files(
        boxes=flags.boxes,
        references=flags.reference_boxes,
        manual_dir=flags.manual_dir,
        extra=flags.allow_extra,
        chosen=bool(flags.classes),
    )


def _rules(flags: argparse.Namespace) -> scoring.Rules:
    return scoring.Rules(
        extra=flags.allow_extra,
        missing=flags.allow_missing,
        classes=flags.classes,
        columns=flags.columns,
    )


def _comparison(
    flags: argparse.Namespace,
    ours: scoring.Scored,
    theirs: scoring.Scored,
    settings: dict[str, Any],
) -> Comparison:
    scores, both = scoring.beside(ours, theirs)
    names = [pathlib.Path(p).name for p in (flags.predictions, flags.compare)]
    if names[0] == names[1]:
        names = [f"{names[0]} (ours)", f"{names[1]} (theirs)"]
    return Comparison(
        theirs=scores,
        rows=both,
        names=(names[0], names[1]),
        margin=flags.margin,
        **settings,
    )


def _shown(flags: argparse.Namespace) -> dict[str, Any]:
    """What a config says: published figures, the list of the mean, protocols, division."""
    found = None if flags.config is None else configs.plain(configs.load(flags.config))
    about: dict[str, Any] = {"published": (), "published_boxes": (), "mean_classes": ()}
    about |= {"readers": {}, "detection": {}}
    if found:
        about |= {k: found["report"][k] for k in ("published", "published_boxes")}
        about["mean_classes"] = found["eval"]["mean_classes"]
        about |= {"readers": _said_of(Readers, found)}
        about |= {"detection": _said_of(Detection, found)}
        about["detection"].pop("boxed", None)  # --classes says which.
    if flags.keep_above is not None:
        about["detection"] |= {"keep_above": flags.keep_above}
    seed, made_with = flags.split_seed, flags.trained_on
    return about | {"drawing": trained_on.drawing_of(found, made_with, seed=seed)}


def _said_of(kind: type[Evaluator], config: dict[str, Any]) -> dict[str, Any]:
    """The settings that a config gives an evaluator, if it names it."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    told = [spec for spec in config["eval"]["evaluators"] if spec["name"] == name]
    return {k: v for spec in told[-1:] for k, v in spec.items() if k != "name"}


def _held(names: Sequence[str], scored: scoring.Scored) -> tuple[str, ...]:
    """A config's list, as far as these classes are scored."""
    return tuple(name for name in names if name in scored.table.classes)
