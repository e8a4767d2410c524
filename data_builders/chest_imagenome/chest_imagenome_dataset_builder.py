"""Chest ImaGenome v1.0.0 on MIMIC-CXR-JPG: 29 regions with boxes and findings per film.

A record is a frontal film. Its labels are the 53 findings of ADPD's released list, of the
whole film and of each region; both were mined from reports, by rules. Films become squares
as there: the shortest side is reduced to the size by averaging areas, and the middle is
kept. Boxes follow; a region of which nothing is left is absent.

``SIZEpx`` is what ADPD was trained on: without the patients of the gold set
(``images_to_avoid.csv``), without MS-CXR in training and validation, without films of which
a region has two boxes. ``SIZEpx_with_ms_cxr`` keeps MS-CXR, ``SIZEpx_with_gold`` the
patients of the gold set. ``SIZEpx_all`` keeps all of these; the smallest box around several
stands for them.

The parts of the split ``released`` are those of MIMIC-CXR-JPG, of ``imagenome`` those of
Chest ImaGenome's lists, where they are there.

Deviation: the square is cut before it is reduced, not afterwards, so that its margins are
whole pixels of the film and boxes follow exactly.

Reference: Wu et al., "Chest ImaGenome Dataset for Clinical Reasoning", NeurIPS Datasets and
Benchmarks 2021; Johnson et al., "MIMIC-CXR-JPG", 2019; Müller et al., "Anatomy-Driven
Pathology Detection on Chest X-rays", MICCAI 2023.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cxr_jax.data import manifest as manifests
from cxr_jax.data.image import middle_square
from cxr_jax.errors import DataError
from cxr_jax.labels import IMAGENOME_FINDINGS
from cxr_jax.progress import track
from data_builders import packing, quarantine, reduction
from data_builders.chest_imagenome import graphs
from data_builders.chest_imagenome.release import (
    GOLD,
    MS_CXR,
    RELEASED,
    REPEATED,
    TO_AVOID,
    Entry,
    read_release,
    reason_in_graph,
)
from data_builders.workers import ordered_map

ABSENT, SHAPE = "absent", "shape"
FIT = "crop"
# Films that ADPD was trained on.
TRAINED_ON = 234_307
# Variant → what it leaves out.
VARIANTS = {
    "": (GOLD, TO_AVOID, MS_CXR, REPEATED),
    "_with_ms_cxr": (GOLD, TO_AVOID, REPEATED),
    "_with_gold": (MS_CXR, REPEATED),
    "_all": (),
}


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """One size of the films, and which of them.

    Attributes:
        size: height and width, in pixels.
        without: what is left out.
    """

    size: int
    without: tuple[str, ...] = VARIANTS[""]


def _configs() -> Iterator[Config]:
    for variant, without in VARIANTS.items():
        for size in (256, 224, 512, 64, 128, 320):
            words = f"without {', '.join(without)}" if without else "all films"
            yield Config(
                name=f"{size}px{variant}",
                size=size,
                without=without,
                description=f"films of {size} x {size}, {words}",
            )


class Builder(packing.Packed):
    """The real releases, as they lie on disk."""

    VERSION = tfds.core.Version("1.0.0")
    DEFAULT_BUILDER_CONFIG_NAME = "256px"
    BUILDER_CONFIGS = tuple(_configs())

    def layout(self) -> packing.Layout:
        """Records with labels of films and of regions."""
        return packing.Layout(
            size=self.builder_config.size, classes=IMAGENOME_FINDINGS, regions=True
        )

    def describe(self) -> Mapping[str, str]:
        """Texts of the dataset's page."""
        return {
            "description": __doc__,
            "homepage": "https://physionet.org/content/chest-imagenome/1.0.0/",
            "citation": CITATION,
        }

    def films(self) -> Iterator[packing.Film]:
        """Every film that can be used, in the order of the metadata."""
        options, config = self.options, self.builder_config
        self.release = read_release(
            options.manual_dir, images=options.images, without=config.without
        )
        name = f"{self.name}-{config.name}.{quarantine.NAME}"
        self.left_out = quarantine.Quarantine(
            path=self._root() / name, refused=dict(self.release.refused)
        )
        self._read_graphs()
        missed = self._absent()
        self.left_out.foretell(missed)
        cache = reduction.open_cache(
            self._root() / ".films", dataset=self.name, size=config.size, fit=FIT
        )
        self._reduce(cache)
        self.left_out.admit(
            self.graphs,
            self.reduced,
            max_fraction=options.max_bad_fraction,
            absent=missed,
        )
        self.left_out.tell()
        used = self._used()
        self.boxes = collections.Counter()
        self.parts = {scheme: collections.Counter() for scheme in self.release.lists}
        for entry in track(used, total=len(used), what="films packed"):
            yield self._film(entry, cache)
        self.left_out.forget()
        print(
            f"reduced films are kept in {cache.folder}; it may be deleted",
            file=sys.stderr,
        )

    def _read_graphs(self) -> None:
        """Reads the scene graphs of the films that the tables let in."""
        release, options = self.release, self.options
        source = graphs.Source(path=release.places.graphs)
        jobs = [
            graphs.Job(
                id=e.id,
                member=release.graphs[e.id],
                height=e.height,
                width=e.width,
            )
            for e in release.entries.values()
        ]
        read = ordered_map(source.read, jobs, workers=options.workers, chunk=32)
        self.graphs: dict[str, graphs.Graph | reduction.Refused] = {}
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        for job, graph in zip(
            jobs, track(read, total=len(jobs), what="scene graphs read"), strict=True
        ):
            if isinstance(graph, graphs.Graph):
                self.counts.update(graph.counts)
                graph = dataclasses.replace(graph, counts={})
                if why := reason_in_graph(graph, self.builder_config.without):
                    self.left_out.refused[job.id] = why
            else:
                self.left_out.refused[job.id] = graph
            self.graphs[job.id] = graph
        print(_said_of_graphs(self._counted()), file=sys.stderr)

    def _absent(self) -> list[str]:
        """Leaves out films that the disk lacks; names them where they must be there."""
        root, wanted = self.release.places.films, self._used()
        absent = [e for e in wanted if not (root / e.file).is_file()]
        if not wanted:
            self.left_out.admit(self.graphs, max_fraction=self.options.max_bad_fraction)
            raise DataError(
                f"manual_dir {self.options.manual_dir}: none of its"
                f" {self.release.films} films can be used"
                f" ({quarantine.said(self.left_out.refused)}); complete the releases"
            )
        if len(absent) == len(wanted):
            raise DataError(
                f"manual_dir {self.options.manual_dir}: none of its {len(absent)} films is"
                f" there, such as {root / absent[0].file}; put the folder files beside"
                " the tables, or name it with --images"
            )
        for entry in absent:
            self.left_out.refused[entry.id] = reduction.Refused(
                code=ABSENT, reason=f"no file {entry.file}"
            )
        return [] if self.options.allow_missing else [entry.id for entry in absent]

    def _reduce(self, cache: reduction.Cache) -> None:
        entries, root = self.release.entries, self.release.places.films
        sources = {entry.id: root / entry.file for entry in self._used()}
        self.reduced = reduction.reduce_all(
            sources, cache, workers=self.options.workers
        )
        for name, made in self.reduced.items():
            self.reduced[name] = _of_the_shape(made, entries[name])

    def _used(self) -> list[Entry]:
        entries = self.release.entries.values()
        return [entry for entry in entries if entry.id not in self.left_out]

    def _root(self) -> pathlib.Path:
        # While TFDS packs, `data_dir` is root/NAME/CONFIG/incomplete.
        return pathlib.Path(self.options.data_dir or self.data_path.parents[2])

    def _film(self, entry: Entry, cache: reduction.Cache) -> packing.Film:
        image = cache.load(self.reduced[entry.id].key)
        if image is None:  # Damaged since: made again.
            cache.reduce(str(self.release.places.films / entry.file))
            image = cache.load(self.reduced[entry.id].key)
        if image is None:
            raise DataError(f"film {entry.file} changed during the build; build again")
        graph = self.graphs[entry.id]
        regions = _regions(graph, (entry.height, entry.width))
        on_film = int((graph.xyxy[:, 2] > graph.xyxy[:, 0]).sum())
        kept = int(regions.presence.sum())
        self.boxes.update(of_regions=kept, cut_away=on_film - kept)
        for scheme, counts in self.parts.items():
            counts[entry.parts[scheme] or "none"] += 1
        return packing.Film(
            id=entry.id,
            image=image,
            labels=graph.film_labels(),
            patient=entry.patient,
            study=entry.study,
            sex=graph.sex,
            view=entry.view,
            splits=entry.parts,
            regions=regions,
        )

    def more_sidecars(self) -> Mapping[str, str]:
        """What was left out, if anything."""
        return {quarantine.NAME: self.left_out.text()} if self.left_out.refused else {}

    def notes(self) -> Mapping[str, Any]:
        """Counts by reason, of films, boxes and statements; sources."""
        release, used = self.release, self._used()
        found = release.places
        kept = [self.reduced[entry.id] for entry in used]
        sources = "\n".join(
            f"{e.id} {r.key}" for e, r in zip(used, kept, strict=True)
        ).encode()
        tables = [*found.tables.values(), *found.lists.values(), *found.gold]
        tables += [path for path in (found.avoid, found.ms_cxr) if path]
        train = self.parts[RELEASED]["train"]
        return {
            "tables_sha256": {
                os.path.relpath(path, found.root): manifests.sha256_of(path)
                for path in tables
            },
            "scene_graphs_from": found.graphs.name,
            "without": list(self.builder_config.without),
            "films_in_table": release.films,
            "films_in_gold": release.gold,
            "films_in_ms_cxr": release.ms_cxr,
            "films_in_lists": release.lists,
            "films_by_part": {s: dict(counts) for s, counts in self.parts.items()},
            "train_as_published": train == TRAINED_ON,
            "left_out": self.left_out.counts(),
            "scene_graphs": self._counted(),
            "boxes_of_regions": dict(self.boxes),
            "fit": FIT,
            "not_square": sum(r.height != r.width for r in kept),
            "reduction_version": reduction.VERSION,
            "sources_sha256": hashlib.sha256(sources).hexdigest(),
        }

    def _counted(self) -> dict[str, Any]:
        """What was met in the scene graphs that were read, by group and reason."""
        counted: dict[str, Any] = {"read": len(self.graphs)}
        for group in (*graphs.BY_REASON, *graphs.BY_NAME):
            of = {r: n for (g, r), n in self.counts.items() if g == group}
            counted[group] = dict(sorted(of.items()))
        return counted


def _of_the_shape(
    made: reduction.Reduced | reduction.Refused, entry: Entry
) -> reduction.Reduced | reduction.Refused:
    """Boxes are in pixels of the table's film: one of another shape is another film."""
    known = isinstance(made, reduction.Refused)
    if known or (made.height, made.width) == (entry.height, entry.width):
        return made
    return reduction.Refused(
        code=SHAPE,
        reason=f"{made.width} x {made.height} pixels, but the metadata has"
        f" {entry.width} x {entry.height}",
    )


def _regions(graph: graphs.Graph, shape: tuple[int, int]) -> packing.RegionLabels:
    """The regions in the square in the middle of the film."""
    top, left, side = middle_square(shape)
    moved = (graph.xyxy.astype(np.float64) - [left, top, left, top]) / side
    xyxy = np.clip(moved, 0, 1).astype(np.float32)
    known = graph.xyxy[:, 2] > graph.xyxy[:, 0]
    presence = known & (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1)
    return packing.RegionLabels(
        xyxy=np.where(presence[:, None], xyxy, 0),
        presence=presence.astype(np.uint8),
        labels=graph.region_labels(),
    )


def _said_of_graphs(counted: Mapping[str, Any]) -> str:
    reasons = (
        f"{group}: {', '.join(f'{n} {reason}' for reason, n in counted[group].items())}"
        for group in graphs.BY_REASON
    )
    names = (f"{sum(counted[group].values())} {group}" for group in graphs.BY_NAME)
    return (
        f"scene graphs: {counted['read']} read; {'; '.join(reasons)}; by name in"
        f" {manifests.NAME}: {', '.join(names)}"
    )


CITATION = """@inproceedings{wu2021chestimagenome,
  title={Chest ImaGenome Dataset for Clinical Reasoning},
  author={Wu, Joy T. and Agu, Nkechinyere N. and Lourentzou, Ismini and Sharma, Arjun and
          Paguio, Joseph A. and Yao, Jasper S. and Dee, Edward C. and Mitchell, William and
          Kashyap, Satyananda and Giovannini, Andrea and Celi, Leo A. and Moradi, Mehdi},
  booktitle={NeurIPS Datasets and Benchmarks}, year={2021}
}"""
