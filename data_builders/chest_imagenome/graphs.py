"""Scene graphs: where the regions of a film lie, and what its report says of each.

A film has one JSON file, ``DICOM_SceneGraph.json``, in ``scene_graph.zip`` or in a folder.
Of its ``objects`` a box is taken from ``original_x1`` …, in pixels of the film, and clipped
to it. Of its ``attributes`` every ``CATEGORY|yes|NAME`` is taken, of the findings of
``labels.IMAGENOME_FINDINGS``; what is denied or not mentioned is 0. Every box and every
statement is counted, by what became of it.

Reference: Wu et al., "Chest ImaGenome Dataset for Clinical Reasoning", NeurIPS Datasets and
Benchmarks 2021; Müller et al., "Anatomy-Driven Pathology Detection on Chest X-rays", MICCAI
2023, for the rules.
"""

import collections
import dataclasses
import functools
import json
import pathlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cxr_jax.errors import DataError
from cxr_jax.labels import IMAGENOME_FINDINGS, REGIONS29
from data_builders.reduction import Refused

SUFFIX = "_SceneGraph.json"
CORNERS = ("original_x1", "original_y1", "original_x2", "original_y2")
# The list holds those of the first category, then those of the second.
CATEGORIES = {
    "anatomicalfinding": IMAGENOME_FINDINGS[:43],
    "disease": IMAGENOME_FINDINGS[43:],
}
FINDINGS = {
    (category, name): IMAGENOME_FINDINGS.index(name)
    for category, names in CATEGORIES.items()
    for name in names
}
FINDINGS["anatomicalfinding", "subdiaphragmatic air"] = FINDINGS[
    "anatomicalfinding", "sub-diaphragmatic air"
]
REGIONS = {name: k for k, name in enumerate(REGIONS29)}
# Of a file, an archive, its compression or password, nesting, or a number too large.
_DAMAGE = (
    OSError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    OverflowError,
)
# No coordinate in pixels is as large.
_FAR = 1e9
# What is counted, groups of the manifest's ``scene_graphs``: what became of every box and
# statement; and the names that are none of ours.
BY_REASON = ("boxes", "statements")
BY_NAME = ("boxes_elsewhere", "statements_elsewhere", "unknown_findings")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One scene graph to read: name of the film and of its file, height and width."""

    id: str
    member: str
    height: int
    width: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """What a scene graph says of one film.

    Attributes:
        viewpoint: as written, such as ``PA``.
        sex: ``M``, ``F`` or ``""``.
        boxes: number of names that have a valid box, whatever their name.
        repeated: names that have several; their box is the smallest around all.
        xyxy: float32 ``[29, 4]`` in pixels of the film; zeros where absent.
        said: int16 ``[n, 2]``, region and finding of what is affirmed.
        film: int16 ``[m]``, findings affirmed anywhere.
        counts: (group, reason) → how often.
    """

    viewpoint: str
    sex: str
    boxes: int
    repeated: tuple[str, ...]
    xyxy: np.ndarray
    said: np.ndarray
    film: np.ndarray
    counts: Mapping[tuple[str, str], int]

    def region_labels(self) -> np.ndarray:
        """uint8 ``[29, 53]``."""
        out = np.zeros((len(REGIONS29), len(IMAGENOME_FINDINGS)), np.uint8)
        out[self.said[:, 0], self.said[:, 1]] = 1
        return out

    def film_labels(self) -> np.ndarray:
        """float32 ``[53]`` in {0, 1}."""
        out = np.zeros(len(IMAGENOME_FINDINGS), np.float32)
        out[self.film] = 1
        return out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """An archive or a folder of scene graphs; cheap to hand to another process."""

    path: pathlib.Path

    def members(self) -> dict[str, str]:
        """Name of a film → name of its file within the source.

        Raises:
            DataError: a damaged archive, no scene graph, or two of one film.
        """
        found: dict[str, str] = {}
        for member in self._listed():
            name = member.rpartition("/")[2]
            if name.startswith(".") or not name.endswith(SUFFIX):
                continue  # Archives made on a Mac leave ``._NAME`` behind.
            other = found.setdefault(name.removesuffix(SUFFIX), member)
            if other != member:
                raise DataError(
                    f"{self.path}: both {other} and {member} are there; keep one"
                )
        if not found:
            raise DataError(f"{self.path}: no scene graph; *{SUFFIX} are looked for")
        return found

    def read(self, job: Job) -> Graph | Refused:
        """Reads one scene graph."""
        try:
            return parse(json.loads(self._bytes(job.member)), job)
        except _DAMAGE as error:
            return Refused(code="graph", reason=f"scene graph {job.member}: {error}")

    def _listed(self) -> list[str]:
        if self.path.is_dir():
            nested = self.path / self.path.name
            folders = [f for f in (self.path, nested) if f.is_dir()]
            files = (p for f in folders for p in f.glob(f"*{SUFFIX}"))
            return sorted(p.relative_to(self.path).as_posix() for p in files)
        try:
            return sorted(_archive(self.path, _stamp(self.path)).namelist())
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self.path}: no sound archive ({error}); download it again"
            ) from None

    def _bytes(self, member: str) -> bytes:
        if self.path.is_dir():
            return (self.path / member).read_bytes()
        return _archive(self.path, _stamp(self.path)).read(member)


@functools.lru_cache(maxsize=1)
def _archive(path: pathlib.Path, stamp: tuple[int, int]) -> zipfile.ZipFile:
    """Opened once by each process: its list of files is long."""
    del stamp  # Another file under the same name is opened anew.
    return zipfile.ZipFile(path)


def _stamp(path: pathlib.Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def parse(content: Any, job: Job) -> Graph:
    """What a scene graph says.

    Args:
        content: decoded JSON.
        job: the film it should be of.

    Raises:
        ValueError: it is no scene graph, or that of another film.
    """
    objects, attributes = (_entries(content, key) for key in ("objects", "attributes"))
    if content.get("image_id") != job.id:
        raise ValueError(f"image_id is {content.get('image_id')!r}")
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    boxes, repeated = _boxes(objects, job, counts)
    xyxy = np.zeros((len(REGIONS29), 4), np.float32)
    for name, box in boxes.items():
        if name in REGIONS:
            xyxy[REGIONS[name]] = box
        else:
            counts["boxes_elsewhere", name] += 1
    said, film = _findings(attributes, counts)
    bare = sum(REGIONS29[region] not in boxes for region, _ in said)
    counts["statements", "of_regions_without_box"] += bare
    sex = content.get("gender")
    return Graph(
        viewpoint=str(content.get("viewpoint")),
        sex=sex if sex in ("M", "F") else "",
        boxes=len(boxes),
        repeated=tuple(repeated),
        xyxy=xyxy,
        said=np.array(sorted(said), np.int16).reshape(-1, 2),
        film=np.array(sorted(film), np.int16),
        counts=dict(+counts),
    )


def _entries(content: Any, key: str) -> list[Any]:
    entries = content.get(key) if isinstance(content, dict) else None
    if isinstance(entries, list):
        return entries
    raise ValueError(f"it has no list {key!r}")


def _boxes(
    objects: list[Any], job: Job, counts: collections.Counter
) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    found: dict[str, tuple[float, ...]] = {}
    repeated: list[str] = []
    for entry in objects:
        box, reason = _box(entry, job)
        name = None if box is None else entry["bbox_name"]
        if name in found:
            reason, other = "duplicated", found[name]
            repeated += [name] if name not in repeated else []
            box = (*map(min, other[:2], box[:2]), *map(max, other[2:], box[2:]))
        if name is not None:
            found[name] = box
        counts["boxes", reason] += 1
    return found, repeated


def _box(entry: Any, job: Job) -> tuple[tuple[float, ...] | None, str]:
    """The part of a box that lies on the film, or None, and what became of it."""
    keys = (*CORNERS, "width", "height")
    known = isinstance(entry, dict) and isinstance(entry.get("bbox_name"), str)
    numbers = [entry.get(key) for key in keys] if known else [None]
    if not all(_is_number(number) for number in numbers):
        return None, "malformed"
    *corners, width, height = numbers
    if width < 0 or height < 0:
        return None, "negative"
    if width == 0 or height == 0:
        return None, "empty"
    x1, x2 = (min(max(x, 0), job.width) for x in corners[::2])
    y1, y2 = (min(max(y, 0), job.height) for y in corners[1::2])
    if x2 <= x1 or y2 <= y1:
        return None, "outside"
    clipped = (x1, y1, x2, y2) != tuple(corners)
    return (x1, y1, x2, y2), "clipped" if clipped else "whole"


def _is_number(value: Any) -> bool:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and abs(value) < _FAR  # Not of NaN.


def _findings(
    attributes: list[Any], counts: collections.Counter
) -> tuple[set[tuple[int, int]], set[int]]:
    said: set[tuple[int, int]] = set()
    film: set[int] = set()
    for name, text in _statements(attributes):
        finding = _finding(text, counts)
        if finding is None:
            continue
        film.add(finding)
        if name in REGIONS:
            said.add((REGIONS[name], finding))
        else:
            counts["statements_elsewhere", name] += 1
    return said, film


def _statements(attributes: list[Any]) -> Iterator[tuple[str, Any]]:
    """Name of a place and what one sentence says of it, as written."""
    for entry in attributes:
        known = isinstance(entry, dict) and isinstance(entry.get("attributes"), list)
        for sentence in entry["attributes"] if known else [None]:
            texts = sentence if isinstance(sentence, list) else [sentence]
            for text in texts:
                yield str(entry.get("bbox_name")) if known else "", text


def _finding(text: Any, counts: collections.Counter) -> int | None:
    """The finding that a statement affirms, or None; counts what became of it."""
    category, relation, name = [*str(text).split("|"), "", ""][:3]
    if str(text).count("|") != 2 or relation not in ("yes", "no"):
        counts["statements", "malformed"] += 1
    elif category not in CATEGORIES:
        counts["statements", "of_other_categories"] += 1
    elif relation == "no":
        counts["statements", "denied"] += 1
    elif (category, name) not in FINDINGS:
        counts["statements", "of_unknown_findings"] += 1
        counts["unknown_findings", f"{category}|{name}"] += 1
    else:
        counts["statements", "affirmed"] += 1
        return FINDINGS[category, name]
    return None
