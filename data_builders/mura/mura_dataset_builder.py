"""MURA v1.1: 40,005 released films of the upper extremity, 14,656 studies, one label.

A record is a film; the label is that of its study, given by a radiologist when the study
was read. The hidden test set is nobody's: the released valid list is the test part of the
split ``official``, and the val part of ``released``.

Films become squares. ``SIZEpx``: stretched, as the paper scales them to 224 x 224.
``SIZEpx_padded``: the aspect ratio is kept, the longer side fills the square, and the film
lies in its middle on black. Reduction averages areas. Many films are narrow (a released
one has 512 x 108 pixels), so that a side that is shorter than in the square is enlarged
linearly; the manifest counts the films (``enlarged``).

Deviation: elsewhere in this package films are never enlarged. Here they must be, or the
paper's own scaling would refuse forearms and fingers.

Reference: Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in
Musculoskeletal Radiographs", 2017.
"""

import dataclasses
import hashlib
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cxr_jax.data import groups
from cxr_jax.data import manifest as manifests
from cxr_jax.errors import DataError
from cxr_jax.labels import MURA
from cxr_jax.progress import track
from data_builders import packing, quarantine, reduction
from data_builders.mura import counts
from data_builders.mura.release import Entry, Release, read_release

ABSENT = "absent"
# Some films are smaller than the network's input.
ENLARGE = True
# Scheme → released part → part. The released valid list is the only one that can test.
SPLITS = {
    "official": {"train": "train_val", "valid": "test"},
    "released": {"train": "train", "valid": "val"},
}


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """One size and shape of the films.

    Attributes:
        size: height and width, in pixels.
        fit: ``stretch`` fills the square, ``pad`` keeps the aspect ratio.
    """

    size: int
    fit: reduction.Fit = "stretch"


def _configs() -> Iterator[Config]:
    for size in (224, 320, 64):
        words = f"films of {size} x {size}"
        yield Config(name=f"{size}px", size=size, description=f"{words}, stretched")
        yield Config(
            name=f"{size}px_padded",
            size=size,
            fit="pad",
            description=f"{words}, aspect ratio kept",
        )


class Builder(packing.Packed):
    """The real release, as it lies on disk."""

    VERSION = tfds.core.Version("1.0.0")
    DEFAULT_BUILDER_CONFIG_NAME = "224px"
    BUILDER_CONFIGS = tuple(_configs())

    def layout(self) -> packing.Layout:
        """Records with one label."""
        return packing.Layout(size=self.builder_config.size, classes=MURA)

    def describe(self) -> Mapping[str, str]:
        """Texts of the dataset's page."""
        return {
            "description": __doc__,
            "homepage": "https://stanfordmlgroup.github.io/competitions/mura/",
            "citation": CITATION,
        }

    def films(self) -> Iterator[packing.Film]:
        """Every film on disk that a table lists, in the order of the tables."""
        options, config = self.options, self.builder_config
        if options.images is not None:
            raise DataError(
                f"images {options.images!r}: mura takes none, its tables say where each"
                " film lies; leave --images out"
            )
        self.release = read_release(options.manual_dir)
        self.left_out = self._without_absent()
        missed = [] if options.allow_missing else [*self.left_out.refused]
        self.left_out.foretell(missed)
        cache = reduction.open_cache(
            self._root() / ".films",
            dataset=self.name,
            size=config.size,
            fit=config.fit,
            enlarge=ENLARGE,
        )
        self.reduced = reduction.reduce_all(
            self._sources(), cache, workers=options.workers
        )
        self.left_out.admit(
            self.reduced, max_fraction=options.max_bad_fraction, absent=missed
        )
        self.left_out.tell()
        used = self._used()
        for entry in track(used, total=len(used), what="films packed"):
            yield self._film(entry, cache)
        self.left_out.forget()
        print(
            f"reduced films are kept in {cache.folder}; it may be deleted",
            file=sys.stderr,
        )

    def _without_absent(self) -> quarantine.Quarantine:
        """The films that the tables list and the disk lacks."""
        name = f"{self.name}-{self.builder_config.name}.{quarantine.NAME}"
        out = quarantine.Quarantine(path=self._root() / name)
        for entry in self.release.entries.values():
            if not (self.release.root / entry.file).is_file():
                out.refused[entry.id] = reduction.Refused(
                    code=ABSENT, reason=f"no file {entry.file}"
                )
        if len(out.refused) == len(self.release.entries):
            raise DataError(
                f"manual_dir {self.options.manual_dir}: none of its"
                f" {len(out.refused)} films is there, such as"
                f" {self.release.root / entry.file}; unpack the films beside the tables"
            )
        return out

    def _sources(self) -> dict[str, pathlib.Path]:
        return {
            entry.id: self.release.root / entry.file
            for entry in self.release.entries.values()
            if entry.id not in self.left_out
        }

    def _used(self) -> list[Entry]:
        entries = self.release.entries.values()
        return [entry for entry in entries if entry.id not in self.left_out]

    def _root(self) -> pathlib.Path:
        # While TFDS packs, `data_dir` is root/NAME/CONFIG/incomplete.
        return pathlib.Path(self.options.data_dir or self.data_path.parents[2])

    def _film(self, entry: Entry, cache: reduction.Cache) -> packing.Film:
        image = cache.load(self.reduced[entry.id].key)
        if image is None:  # Damaged since: made again.
            cache.reduce(str(self.release.root / entry.file))
            image = cache.load(self.reduced[entry.id].key)
        if image is None:
            raise DataError(f"film {entry.file} changed during the build; build again")
        return packing.Film(
            id=entry.id,
            image=image,
            labels=np.array([entry.study.abnormal], np.float32),
            patient=entry.study.patient,
            study=entry.study.name,
            splits={name: parts[entry.study.part] for name, parts in SPLITS.items()},
        )

    def more_sidecars(self) -> Mapping[str, str]:
        """``groups.csv``: the body part of every film; what was left out, if any."""
        used = self._used()
        columns = {"body_part": [entry.study.body_part for entry in used]}
        text = groups.format_groups([entry.id for entry in used], columns)
        lists = {quarantine.NAME: self.left_out.text()} if self.left_out.refused else {}
        return {groups.NAME: text, **lists}

    def notes(self) -> Mapping[str, Any]:
        """Counts by body part, of the dataset and of the tables; sources."""
        release, used = self.release, self._used()
        kept = [self.reduced[entry.id] for entry in used]
        sources = "\n".join(
            f"{e.id} {r.key}" for e, r in zip(used, kept, strict=True)
        ).encode()
        size, fit = self.builder_config.size, self.builder_config.fit
        return {
            "release_version": counts.VERSION,
            "tables_sha256": {
                name: manifests.sha256_of(path) for name, path in release.tables.items()
            },
            "tables_with_header": sorted(release.headers),
            "counts": _counted(used),
            "counts_in_tables": _counted(release.entries.values()),
            "tables_as_published": _as_published(release),
            "left_out": self.left_out.counts(),
            "studies_without_films": len(release.studies) - len(_studies(used)),
            "fit": fit,
            "enlarge": ENLARGE,
            "not_square": sum(r.height != r.width for r in kept),
            "enlarged": sum(
                reduction.is_enlarged((r.height, r.width), size, fit=fit) for r in kept
            ),
            "reduction_version": reduction.VERSION,
            "sources_sha256": hashlib.sha256(sources).hexdigest(),
        }


def _counted(entries: Iterable[Entry]) -> dict[str, dict[str, dict[str, int]]]:
    found = counts.release_counts(entries)
    return {
        part: {name: dataclasses.asdict(count) for name, count in by_type.items()}
        for part, by_type in found.items()
    }


def _as_published(release: Release) -> bool:
    entries = release.entries.values()
    return (
        counts.release_counts(entries) == counts.EXPECTED
        and counts.release_totals(entries) == counts.EXPECTED_TOTALS
    )


def _studies(entries: list[Entry]) -> set[str]:
    return {entry.study.name for entry in entries}


CITATION = """@article{rajpurkar2017mura,
  title={MURA: Large Dataset for Abnormality Detection in Musculoskeletal Radiographs},
  author={Rajpurkar, Pranav and Irvin, Jeremy and Bagul, Aarti and Ding, Daisy and
          Duan, Tony and Mehta, Hershel and Yang, Brandon and Zhu, Kaylie and
          Laird, Dillon and Ball, Robyn L. and Langlotz, Curtis and Shpanskaya, Katie and
          Lungren, Matthew P. and Ng, Andrew Y.},
  journal={arXiv:1712.06957}, year={2017}
}"""
