"""The boxes of a score: beside labels and reference boxes, judged as those of a run are."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cxr_jax import box_scoring, evaluate, scoring
from cxr_jax.data import parts
from cxr_jax.data.labelled import LabelSource
from cxr_jax.evaluators.detection import Detection
from cxr_jax.evaluators.detection_blocks import shown_at

# What an accuracy is said beside: that of no box at all.
NONE = "no boxes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """What the command line names.

    Attributes:
        boxes: CSV of predicted boxes.
        references: CSV of reference boxes, or None.
        manual_dir: folder of the release that the labels are of, or None.
        extra: whether boxes of films that are not of the part are left out.
        chosen: whether ``--classes`` names those that are scored.
    """

    boxes: epath.PathLike
    references: epath.PathLike | None = None
    manual_dir: str | None = None
    extra: bool = False
    chosen: bool = False


def read(
    files: Files,
    films: scoring.Scored,
    *,
    source: LabelSource,
    part: parts.Part,
    validation: parts.Part | None,
    detection: Detection,
) -> tuple[scoring.Scored, dict[str, Any]]:
    """Sets predicted boxes beside reference boxes.

    Args:
        files: to be read.
        films: of the part, with predictions or without.
        source: of their labels.
        part: that is scored.
        validation: another part of the same split, whose reference boxes say where boxes
            usually are: that takes no prediction.
        detection: the protocol.

    Returns:
        The films with boxes; and what the protocol freezes on the validation part.

    Raises:
        DataError: what ``box_scoring`` refuses.
    """
    needed = [p.index for p in (part, validation) if p is not None]
    references = box_scoring.read_references(
        source,
        np.concatenate(needed),
        manual_dir=files.manual_dir,
        path=files.references,
        chosen=files.chosen,
    )
    found = box_scoring.beside(
        files.boxes,
        films.table,
        references,
        source=source,
        part=part,
        extra=files.extra,
        chosen=files.chosen,
    )
    passport = {**films.passport, "boxes": found.passport}
    films = dataclasses.replace(films, table=found.table, passport=passport)
    if validation is None:
        return films, {}
    known = scoring.unpredicted(source, validation, films.table.classes).table
    known = box_scoring.with_references(known, references)
    return films, evaluate.freeze([detection], known)


def words(result: Mapping[str, Any]) -> Sequence[str]:
    """What must be said beside the figures of a result; nothing without boxes."""
    block = result.get("detection")
    if not block:
        return []
    name, found = f"loc_acc@{shown_at(block['thresholds']):g}", []
    mean, none = result["metrics"][name]["mean"], block["rows"][NONE][name]
    if mean["value"] is not None:
        found.append(f"{name}: {mean['value']:.3f}; without any box it is {none:.3f}")
    if count := block["unboxed"]:
        found.append(
            f"{count:,} of {block['n']:,} films have a label of these classes that nobody"
            " boxed: a box there counts as false"
        )
    return found
