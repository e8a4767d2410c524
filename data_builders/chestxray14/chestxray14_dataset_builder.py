"""ChestX-ray14: 112,120 frontal films of 30,805 patients, 14 labels, 984 boxes.

Reference: Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks",
CVPR 2017. The labels were mined from reports: they are not disease.
"""

import dataclasses
import hashlib
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cxr_jax.data import manifest as manifests
from cxr_jax.errors import DataError
from cxr_jax.labels import NIH14
from cxr_jax.progress import track
from data_builders import packing, quarantine, reduction
from data_builders.chestxray14.release import Release, read_release

ABSENT, UNLISTED = "absent", "unlisted"


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """One size of the films, in pixels."""

    size: int


class Builder(packing.Packed):
    """The real release, as it lies on disk."""

    VERSION = tfds.core.Version("1.0.0")
    DEFAULT_BUILDER_CONFIG_NAME = "256px"
    BUILDER_CONFIGS = tuple(
        Config(name=f"{size}px", size=size, description=f"films of {size} x {size}")
        for size in (256, 64, 128, 224, 320, 512, 1024)
    )

    def layout(self) -> packing.Layout:
        return packing.Layout(size=self.builder_config.size, classes=NIH14)

    def describe(self) -> Mapping[str, str]:
        return {
            "description": __doc__,
            "homepage": "https://nihcc.app.box.com/v/ChestXray-NIHCC",
            "citation": CITATION,
        }

    def films(self) -> Iterator[packing.Film]:
        options = self.options
        self.release = read_release(options.manual_dir, images=options.images)
        name = f"{self.name}-{self.builder_config.name}.{quarantine.NAME}"
        self.left_out = quarantine.Quarantine(
            path=self._root() / name, refused=_absent_or_unlisted(self.release)
        )
        absent = [n for n, r in self.left_out.refused.items() if r.code == ABSENT]
        missed = [] if options.allow_missing else absent
        sources = {
            name: self.release.films[name]
            for name in self.release.entries
            if name in self.release.films
        }
        if not sources:
            self.left_out.admit(max_fraction=0, absent=missed)
            raise DataError(
                f"manual_dir {options.manual_dir}: none of its"
                f" {len(self.release.films)} films is in {self.release.table.name};"
                " films and table must be of one release"
            )
        self.left_out.foretell(missed)
        size = self.builder_config.size
        cache = reduction.open_cache(
            self._root() / ".films", dataset=self.name, size=size
        )
        self.reduced = reduction.reduce_all(sources, cache, workers=options.workers)
        self.left_out.admit(
            self.reduced, max_fraction=options.max_bad_fraction, absent=missed
        )
        self.left_out.tell()
        usable = [n for n in self.reduced if n not in self.left_out]
        for name in track(usable, total=len(usable), what="films packed"):
            yield self._film(name, cache)
        self.left_out.forget()
        print(
            f"reduced films are kept in {cache.folder}; it may be deleted",
            file=sys.stderr,
        )

    def _root(self) -> pathlib.Path:
        # While TFDS packs, `data_dir` is root/NAME/CONFIG/incomplete.
        return pathlib.Path(self.options.data_dir or self.data_path.parents[2])

    def _film(self, name: str, cache: reduction.Cache) -> packing.Film:
        image = cache.load(self.reduced[name].key)
        if image is None:  # Damaged since: made again.
            cache.reduce(str(self.release.films[name]))
            image = cache.load(self.reduced[name].key)
        if image is None:
            raise DataError(f"film {name} changed during the build; build again")
        entry = self.release.entries[name]
        boxes = self.release.boxes.get(name, [])
        return packing.Film(
            id=name,
            image=image,
            labels=entry.labels,
            patient=entry.patient,
            follow_up=entry.follow_up,
            age=entry.age,
            sex=entry.sex,
            view=entry.view,
            boxes=np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4),
            box_label=np.array([NIH14.index(box.label) for box in boxes], np.int32),
            splits={
                scheme: parts.get(name, "")
                for scheme, parts in self.release.parts.items()
            },
        )

    def more_sidecars(self) -> Mapping[str, str]:
        return {quarantine.NAME: self.left_out.text()} if self.left_out.refused else {}

    def notes(self) -> Mapping[str, Any]:
        release = self.release
        used = [n for n in self.reduced if n not in self.left_out]
        kept = [self.reduced[n] for n in used]
        sources = "\n".join(
            f"{n} {r.key}" for n, r in zip(used, kept, strict=True)
        ).encode()
        return {
            "label_table": release.table.name,
            "label_table_sha256": manifests.sha256_of(release.table),
            "box_table": release.box_table.name if release.box_table else None,
            "split_lists": sorted(release.parts),
            "films_in_table": len(release.entries),
            "films_on_disk": len(release.films),
            "left_out": self.left_out.counts(),
            "not_square": sum(r.height != r.width for r in kept),
            "ages_unknown": sum(release.entries[n].age is None for n in used),
            "boxes": sum(len(release.boxes.get(n, ())) for n in used),
            "reduction_version": reduction.VERSION,
            "sources_sha256": hashlib.sha256(sources).hexdigest(),
        }


def _absent_or_unlisted(release: Release) -> dict[str, reduction.Refused]:
    absent = reduction.Refused(code=ABSENT, reason="no file of that name")
    unlisted = reduction.Refused(code=UNLISTED, reason="not in the label table")
    refused = {n: absent for n in release.entries if n not in release.films}
    refused.update({n: unlisted for n in release.films if n not in release.entries})
    return refused


CITATION = """@inproceedings{wang2017chestxray8,
  title={ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
         Weakly-Supervised Classification and Localization of Common Thorax Diseases},
  author={Wang, Xiaosong and Peng, Yifan and Lu, Le and Lu, Zhiyong and
          Bagheri, Mohammadhadi and Summers, Ronald M.},
  booktitle={CVPR}, pages={3462--3471}, year={2017}
}"""
