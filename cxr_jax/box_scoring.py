"""Boxes of another program beside labels and reference boxes: nothing is dropped in silence.

Reference boxes are those of a release, of a prepared dataset's records (no pixel is
decoded), or of a CSV file that goes with a CSV file of labels.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cxr_jax.data import labelled, parts, released, tables
from cxr_jax.data import manifest as manifests
from cxr_jax.data.box_files import BoxTable, padded, read_boxes
from cxr_jax.data.labelled import LabelSource
from cxr_jax.data.source import decode_all, open_dataset
from cxr_jax.errors import DataError
from cxr_jax.labels import CXR8
from cxr_jax.predictions import Predictions

EXAMPLES = 3
ALLOWED = (
    f"reference boxes are those of --labels={labelled.CHESTXRAY14} --manual_dir=RAW with"
    f" {released.BOX_FILE} in it, of a prepared dataset whose records hold boxes"
    " (--data_dir), or of --reference_boxes=R.csv with --labels=L.csv"
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Boxed:
    """Predicted boxes of one file beside reference boxes.

    Attributes:
        table: the films, with both.
        passport: what was read: files, digests, counts of boxes and films.
    """

    table: Predictions
    passport: Mapping[str, Any]


def classes_of(source: LabelSource, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """Classes that boxes may have: those of ``labels.CXR8`` among the labels.

    Args:
        source: of the labels.
        wanted: some of these; all where empty.

    Raises:
        DataError: there is none, or one is wanted that is none.
    """
    known = tuple(name for name in CXR8 if name in source.records.classes)
    if unknown := [name for name in wanted if name not in (known or CXR8)]:
        raise DataError(
            f"--classes: {', '.join(unknown)} is no class that has boxes; allowed:"
            f" {', '.join(known or CXR8)}"
        )
    if not known:
        raise DataError(
            f"--boxes: {source.name} labels none of the classes that have boxes:"
            f" {', '.join(CXR8)}"
        )
    return tuple(wanted) or known


def read_references(
    source: LabelSource,
    index: np.ndarray,
    *,
    manual_dir: str | None = None,
    path: epath.PathLike | None = None,
    chosen: bool = False,
) -> BoxTable:
    """Reference boxes that go with labels.

    Args:
        source: of the labels.
        index: rows of its records whose boxes are needed; more may come back.
        manual_dir: folder of the release that the labels are of.
        path: CSV, ``id,class,x1,y1,x2,y2``, where the labels are a CSV file.
        chosen: as of ``beside``.

    Raises:
        DataError: there are none, or they cannot be used; the message says what is
            allowed, or names file and line.
    """
    if path is not None:
        return _from_file(path, source, chosen=chosen)
    if manual_dir is not None:
        return _from_release(manual_dir)
    if not source.version:
        raise DataError(f"{source.name}: no reference boxes are given; {ALLOWED}")
    return _from_dataset(source, index)


def beside(
    path: epath.PathLike,
    films: Predictions,
    references: BoxTable,
    *,
    source: LabelSource,
    part: parts.Part,
    extra: bool = False,
    chosen: bool = False,
) -> Boxed:
    """Reads a file of predicted boxes and sets it beside the reference boxes of films.

    Args:
        path: CSV; see ``data.box_files.read_boxes``. A film without a line has no box.
        films: those that are scored, of the part.
        references: of these films, and of others.
        source: of the labels.
        part: the films that may have boxes.
        extra: whether boxes of other films are left out, and counted, or refused.
        chosen: whether the user chose classes: boxes of others are left out, likewise.

    Raises:
        DataError: a line that cannot be read, by its number; boxes of films that are not
            of the part, counted, with the first; no reference box on any film.
    """
    found = read_boxes(path, classes=_named(source, chosen))
    outside = _check_films(found, source, part, extra=extra)
    table = with_references(films, references)
    if not table.targets.mask.any():
        raise DataError(
            f"none of the {len(films)} films of {source.name}, {part.name}, has a"
            f" reference box of {', '.join(films.classes)}; choose a part whose films"
            f" have some, such as --split=cxr8/test; {ALLOWED}"
        )
    boxes = padded(found, ids=films.ids.tolist(), classes=films.classes)
    table = dataclasses.replace(table, boxes=boxes)
    kept, boxed = int(boxes.mask.sum()), int(boxes.mask.any(axis=1).sum())
    return Boxed(
        table=table,
        passport={
            "file": str(path),
            "sha256": found.sha256,
            "boxes": len(found),
            "scored": kept,
            "films": boxed,
            "films_without": len(films) - boxed,
            "extra": len(np.unique(found.id[outside])),
            "left_out": len(found) - kept - int(outside.sum()),
            "references": {
                "file": references.path,
                "sha256": references.sha256,
                "boxes": int(table.targets.mask.sum()),
                "films": int(table.targets.mask.any(axis=1).sum()),
            },
        },
    )


def with_references(films: Predictions, references: BoxTable) -> Predictions:
    """The films with their reference boxes."""
    targets = padded(references, ids=films.ids.tolist(), classes=films.classes)
    return dataclasses.replace(films, targets=targets)


def remarks(passport: Mapping[str, Any]) -> list[str]:
    """What was read and left out, in words, for the notes of a result."""
    films = passport["films"] + passport["films_without"]
    about = passport["references"]
    first = (
        f"{passport['films']:,} of {films:,} films have a predicted box,"
        f" {passport['films_without']:,} have none; {about['films']:,} have a reference"
        f" box ({about['boxes']:,} boxes, {epath.Path(about['file']).name})."
    )
    found = [first]
    if not passport["films"]:
        found.append("No box at all: a file whose writing failed looks the same.")
    if passport["extra"]:
        found.append(
            f"{passport['extra']:,} films with predicted boxes are not of the part; left"
            " out."
        )
    if passport["left_out"]:
        found.append(
            f"{passport['left_out']:,} predicted boxes are of classes or films that are"
            " not scored; left out."
        )
    return found


def _named(source: LabelSource, chosen: bool) -> tuple[str, ...]:
    """Classes that a file of boxes may name."""
    return CXR8 if chosen else classes_of(source)


def _check_films(
    found: BoxTable, source: LabelSource, part: parts.Part, *, extra: bool
) -> np.ndarray:
    """Which boxes are of films that are not of the part, bool ``[K]``."""
    ids = source.records.id[part.index]
    outside = ~np.isin(found.id, ids)
    strange, every = np.unique(found.id[outside]), len(np.unique(found.id))
    if len(strange) and not extra:
        raise DataError(
            f"{found.path}: {len(strange)} of its {every} films are not of part"
            f" {part.name}, such as {', '.join(strange[:EXAMPLES].tolist())}"
            " (--allow_extra leaves them out)"
        )
    if len(found) and outside.all():
        raise DataError(
            f"{found.path}: none of its {every} films is among the {len(ids)} of"
            f" {source.name}, {part.name}; the first are {found.id[0]} and {ids[0]}"
        )
    return outside


def _from_file(path: epath.PathLike, source: LabelSource, *, chosen: bool) -> BoxTable:
    if source.version:
        raise DataError(
            f"--reference_boxes={path}: {source.name} brings boxes of its own; {ALLOWED}"
        )
    found = read_boxes(path, classes=_named(source, chosen), scored=False)
    known = set(source.records.id.tolist())
    for name, line in zip(found.id.tolist(), found.line, strict=True):
        if name not in known:
            raise DataError(
                f"{path}, line {line}: film {name} is not among the {source.name};"
                " remove the line"
            )
    return found


def _from_release(manual_dir: str) -> BoxTable:
    path = released.first(released.folder(manual_dir), (released.BOX_FILE,))
    if path is None:
        raise DataError(
            f"--manual_dir={manual_dir} holds no {released.BOX_FILE} (or .gz); {ALLOWED}"
        )
    found = tables.read_boxes(path)
    return BoxTable(
        path=str(path),
        sha256=manifests.sha256_of(path),
        id=np.asarray([box.image for box in found], str),
        name=np.asarray([box.label for box in found], str),
        score=None,
        xyxy=np.asarray([box.xyxy for box in found], float),
    )


def _from_dataset(source: LabelSource, index: np.ndarray) -> BoxTable:
    dataset = open_dataset(str(epath.Path(source.file).parent))
    if "boxes" not in dataset.features:
        raise DataError(f"the records of {source.name} hold no boxes; {ALLOWED}")
    records, ids, names, corners = dataset.records, [], [], [np.zeros((0, 4))]
    films = decode_all(dataset, index, ["boxes"])
    for film, boxes in zip(records.id[index].tolist(), films, strict=True):
        ids += [film] * len(boxes["boxes/label"])
        names += [records.classes[label] for label in boxes["boxes/label"]]
        corners.append(boxes["boxes/xyxy"])
    path = dataset.directory / manifests.NAME
    return BoxTable(
        path=str(path),
        sha256=manifests.sha256_of(path),
        id=np.asarray(ids, str),
        name=np.asarray(names, str),
        score=None,
        xyxy=np.concatenate(corners).astype(float),
    )
