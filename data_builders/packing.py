"""How every builder of this package turns films into a dataset that ``cxr_jax`` reads.

A builder is a TFDS builder in the place TFDS expects it, and derives from ``Packed``::

    data_builders/NAME/__init__.py
    data_builders/NAME/NAME_dataset_builder.py      class Builder(packing.Packed)

It says what a record holds (``layout``) and yields ``Film`` after ``Film`` in record
order (``films``). TFDS packs them into a fixed number of ArrayRecord shards; ``Packed``
writes the sidecars beside them before TFDS gives the folder its final name, so that a
dataset is there whole or not at all. Users and ``cxr_jax.main`` build through
``data_builders.build``, which holds a lock per dataset, packs in a hidden folder of the
data directory, syncs it to disk and renames it.

A finished dataset, ``DATA/NAME/CONFIG/VERSION/``:

- ``NAME-films.array_record-*``: one TFDS split in generation order, ``disable_shuffling``.
  TFDS reserves the split name ``all`` for "every split": the split is called ``films``,
  and ``as_data_source("all")`` reads it.
- ``records.csv`` (``cxr_jax.data.records``), ``manifest.json`` (``cxr_jax.data.manifest``),
  and ``readers.csv`` where films carry readers: ``id,reader``, then 0/1 per class.

Record features and how they are stored. Dense arrays are ``Tensor(encoding="bytes")``:
a proto's list of integers takes four times as long to read. Shards are not compressed.
Real films of 256 px, one core: 5,800 records/s so, 3,950 compressed (a sixth smaller),
1,150 as lists of integers. After ``as_data_source`` decodes them:

- ``image`` uint8 ``[H, W, 1]``; ``labels`` float32 ``[C]`` in {0, 1, NaN};
- ``id``, ``patient``, ``study``: ``bytes``, UTF-8;
- ``boxes``: ``{"xyxy": float32 [n, 4], "label": int32 [n]}``, n ≥ 0, arrays (not lists);
- with ``truth``: float32 ``[C]``; with ``severity``: float32 ``[C]``;
- with ``regions``: ``{"xyxy": float32 [29, 4], "presence": uint8 [29],
  "labels": uint8 [29, 53]}``.

The arrays share memory with the record and are read-only: copy before writing to them.
"""

import abc
import csv
import dataclasses
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from cxr_jax.data import manifest as manifests
from cxr_jax.data import records as tables
from cxr_jax.errors import DataError
from cxr_jax.labels import IMAGENOME_FINDINGS, REGIONS29
from data_builders.film import Film, Layout, RegionLabels
from data_builders.options import Options

__all__ = ["Film", "Layout", "Packed", "RegionLabels", "example_of", "features_of"]

READERS = "readers.csv"


def features_of(layout: Layout) -> tfds.features.FeaturesDict:
    """The TFDS features of a layout; see the top of this module for what is stored."""
    classes = (len(layout.classes),)
    features: dict[str, Any] = {
        "image": _dense((layout.size, layout.size, 1), np.uint8),
        "id": tfds.features.Text(),
        "patient": tfds.features.Text(),
        "study": tfds.features.Text(),
        "labels": _dense(classes, np.float32),
        "boxes": {
            "xyxy": _dense((None, 4), np.float32),
            "label": _dense((None,), np.int32),
        },
    }
    if layout.truth:
        features["truth"] = _dense(classes, np.float32)
    if layout.severity:
        features["severity"] = _dense(classes, np.float32)
    if layout.regions:
        regions, findings = len(REGIONS29), len(IMAGENOME_FINDINGS)
        features["regions"] = {
            "xyxy": _dense((regions, 4), np.float32),
            "presence": _dense((regions,), np.uint8),
            "labels": _dense((regions, findings), np.uint8),
        }
    return tfds.features.FeaturesDict(features)


def _dense(shape: tuple[int | None, ...], dtype: type) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")


class Packed(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder that leaves a dataset as ``cxr_jax`` reads it.

    A subclass has ``VERSION``, ``BUILDER_CONFIGS``, ``layout`` and ``films``, and may
    have ``notes`` (free fields of the manifest) and ``more_sidecars``, both asked for
    after the last film.
    """

    def __init__(self, *, options: Options | None = None, **kwargs: Any):
        self.options = options or Options()
        self._written: list[Film] = []
        super().__init__(**kwargs)

    @abc.abstractmethod
    def layout(self) -> Layout:
        """What the records of ``self.builder_config`` hold."""

    @abc.abstractmethod
    def films(self) -> Iterable[Film]:
        """Every film, in record order; the same order and content on every call."""

    def notes(self) -> Mapping[str, Any]:
        """Free fields of the manifest: sources, counts of refused films, ..."""
        return {}

    def more_sidecars(self) -> Mapping[str, str]:
        """Name → text of further files beside the shards; after the last film."""
        return {}

    def describe(self) -> Mapping[str, str]:
        """Arguments of ``tfds.core.DatasetInfo``: description, citation, homepage."""
        return {}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=features_of(self.layout()),
            disable_shuffling=True,
            **self.describe(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        return {manifests.SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        layout = self.layout()
        self._written = []
        seen = set()
        for index, film in enumerate(self.films()):
            if film.id in seen:
                raise DataError(f"{self.name}: two films have the id {film.id!r}")
            seen.add(film.id)
            # Pixels go to the shard; what the sidecars need is small and is kept.
            blank = np.zeros((0, 0), np.uint8)
            self._written.append(dataclasses.replace(film, image=blank, regions=None))
            yield index, example_of(film, layout)
        count, shards = len(self._written), self.options.num_shards or 1
        if count < 1:
            raise DataError(f"{self.name}: no film to store; at least 1 is needed")
        if shards > count:
            raise DataError(
                f"num_shards {shards}: there are {count} films; at most one shard per"
                " film is allowed"
            )

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _Writer(self.info.file_format)

    def _download_and_prepare(self, **kwargs: Any) -> None:
        # TFDS's own hook for subclasses. `data_dir` is a temporary folder here, which
        # TFDS renames afterwards: the sidecars appear together with the shards.
        super()._download_and_prepare(**kwargs)
        self._write_sidecars(os.fspath(self.data_dir))

    def _write_sidecars(self, folder: str) -> None:
        layout = self.layout()
        text = tables.format_records(_records_of(self._written, layout.classes))
        sidecars = {tables.NAME: text}
        if any(film.readers for film in self._written):
            sidecars[READERS] = _readers_text(self._written, layout.classes)
        sidecars.update(self.more_sidecars())
        for name, text in sidecars.items():
            manifests.write_atomically(os.path.join(folder, name), text)
        split = self.info.splits[manifests.SPLIT]
        files = [os.fspath(path) for path in split.filepaths]
        manifest = manifests.Manifest(
            dataset=self.name,
            config=self.builder_config.name,
            version=str(self.version),
            records=len(self._written),
            image_size=layout.size,
            classes=layout.classes,
            shards=tuple(
                manifests.Shard(records=count, **_passport(folder, file))
                for file, count in zip(files, split.shard_lengths, strict=True)
            ),
            sidecars=tuple(
                manifests.Sidecar(**_passport(folder, name)) for name in sidecars
            ),
            extra=dict(self.notes()),
        )
        manifests.write_manifest(manifest, folder)
        manifests.check_sizes(folder)


class _Writer(tfds.core.ExampleWriter):
    """Writes the same records as the same bytes, and for fast reading."""

    def write(
        self, path: str | os.PathLike, examples: Iterable[tuple[Any, bytes]]
    ) -> None:
        # Uncompressed: films shrink by a sixth only, and are read 1.4 times as fast.
        writer = array_record_module.ArrayRecordWriter(
            os.fspath(path), "group_size:1,uncompressed"
        )
        for _, serialized in examples:
            # A proto's map is written in an order that differs from process to process.
            record = tf_example_pb2.Example.FromString(serialized)
            writer.write(record.SerializeToString(deterministic=True))
        writer.close()


def _passport(folder: str, file: str) -> dict[str, Any]:
    path = os.path.join(folder, os.path.basename(file))
    return {
        "file": os.path.basename(file),
        "bytes": os.path.getsize(path),
        "sha256": manifests.sha256_of(path),
    }


def example_of(film: Film, layout: Layout) -> dict[str, Any]:
    """A film as TFDS encodes it: fixed dtypes, shapes checked by TFDS."""
    size = layout.size
    example = {
        "image": np.ascontiguousarray(film.image, np.uint8).reshape(size, size, 1),
        "id": film.id,
        "patient": film.patient,
        "study": film.study,
        "labels": np.asarray(film.labels, np.float32),
        "boxes": {
            "xyxy": np.asarray(film.boxes, np.float32).reshape(-1, 4),
            "label": np.asarray(film.box_label, np.int32).reshape(-1),
        },
    }
    if layout.truth:
        example["truth"] = np.asarray(film.truth, np.float32)
    if layout.severity:
        example["severity"] = np.asarray(film.severity, np.float32)
    if layout.regions:
        example["regions"] = {
            "xyxy": np.asarray(film.regions.xyxy, np.float32),
            "presence": np.asarray(film.regions.presence, np.uint8),
            "labels": np.asarray(film.regions.labels, np.uint8),
        }
    return example


def _records_of(films: list[Film], classes: tuple[str, ...]) -> tables.Records:
    def words(name: str) -> np.ndarray:
        return np.array([getattr(film, name) for film in films], np.str_)

    def numbers(name: str) -> np.ndarray:
        values = [getattr(film, name) for film in films]
        return np.array([np.nan if v is None else v for v in values], np.float32)

    schemes = tuple(films[0].splits)
    return tables.Records(
        classes=classes,
        **{name: words(name) for name in ("id", "patient", "study", "sex", "view")},
        follow_up=numbers("follow_up"),
        age=numbers("age"),
        labels=np.stack([np.asarray(film.labels, np.float32) for film in films]),
        splits={s: np.array([f.splits[s] for f in films], np.str_) for s in schemes},
    )


def _readers_text(films: list[Film], classes: tuple[str, ...]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "reader", *classes])
    for film in films:
        for reader, calls in film.readers.items():
            writer.writerow([film.id, reader, *(int(call) for call in calls)])
    return out.getvalue()
