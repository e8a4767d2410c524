"""A prepared dataset on disk: opened with checks, read by record number.

Reading needs no code of the builder. Only what is asked for is decoded: pixels, and
boxes or truth where a task wants them; labels come from ``records.csv``.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

from cxr_jax.data import manifest as manifests
from cxr_jax.data.records import Records, read_records
from cxr_jax.errors import DataError
from cxr_jax.labels import IMAGENOME_FINDINGS, REGIONS29
from cxr_jax.types import Boxes, Regions


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A dataset that passed the checks of opening.

    Attributes:
        directory: the version directory.
        manifest: what the builder wrote about it.
        records: the table, row k describing record k.
        features: what a record holds, as TFDS describes it.
        source: record number → serialized record.
    """

    directory: epath.Path
    manifest: manifests.Manifest
    records: Records
    features: tfds.features.FeaturesDict
    source: Any

    def __len__(self) -> int:
        return self.manifest.records


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fields:
    """What a task wants of each film beyond pixels, ids and labels.

    Attributes:
        classes: label columns by name, in the order wanted; all of them where None.
        max_boxes: rows that boxes are padded to; None reads no boxes. Boxes of classes
            that are not wanted are left out, and ``label`` counts in ``classes``.
        truth: read the true labels.
        learn_truth: give them for the labels too.
        regions: read the anatomical regions.
        region_names: which of them, by name, in the order wanted; all where None.
        findings: columns of their labels, likewise.
        group: int32 ``[N]``, one category per record of the dataset, or None.
    """

    classes: Sequence[str] | None = None
    max_boxes: int | None = None
    truth: bool = False
    learn_truth: bool = False
    regions: bool = False
    region_names: Sequence[str] | None = None
    findings: Sequence[str] | None = None
    group: np.ndarray | None = None


PIXELS_AND_LABELS = Fields()
# Records that are held at once where many are read for a few bytes of each.
CHUNK = 256


def open_dataset(name: str, *, data_dir: epath.PathLike | None = None) -> Dataset:
    """Opens a prepared dataset after checking it against its manifest.

    Counts, byte sizes, and the first and last record against the table are checked
    (milliseconds); digests are checked by the builder's ``--verify``.

    Args:
        name: ``NAME/CONFIG`` or ``NAME/CONFIG/VERSION`` with ``data_dir``, else the
            version directory itself.
        data_dir: where the builder wrote, local or remote.

    Returns:
        The dataset.

    Raises:
        DataError: it is not prepared (the message names the builder command and the
            ``phantom`` variant), incomplete, or its files contradict each other.
    """
    directory = epath.Path(name)
    if data_dir is not None:
        directory = manifests.locate(name, data_dir=data_dir)
    manifest = manifests.check_sizes(directory)
    records = read_records(directory)
    builder = tfds.builder_from_directory(directory)
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    dataset = Dataset(
        directory=directory,
        manifest=manifest,
        records=records,
        features=builder.info.features,
        source=builder.as_data_source("all", deserialize_method=raw).data_source,
    )
    _check_table(dataset)
    return dataset


class Reader:
    """Record numbers → arrays, for one choice of fields.

    Args:
        dataset: from ``open_dataset``.
        fields: what is wanted.

    Raises:
        DataError: the dataset lacks something wanted; the message lists what it has.
    """

    def __init__(self, dataset: Dataset, fields: Fields):
        self.dataset, self.fields = dataset, fields
        known = dataset.records.classes
        self.classes = tuple(known if fields.classes is None else fields.classes)
        if missing := dataset.records.missing(self.classes):
            raise DataError(
                f"{dataset.manifest.name} has no class {', '.join(missing)};"
                f" it has {', '.join(known)}"
            )
        self._labels = dataset.records.pick(self.classes)
        # Class of the dataset → class of the task, -1 where the task has no such class.
        self._class_map = np.full(len(known), -1, np.int32)
        for place, name in enumerate(self.classes):
            if name in known:
                self._class_map[known.index(name)] = place
        wanted = {
            "image": True,
            "boxes": fields.max_boxes is not None,
            "truth": fields.truth or fields.learn_truth,
            "regions": fields.regions,
        }
        self._regions = _places(fields.region_names, REGIONS29)
        self._findings = _places(fields.findings, IMAGENOME_FINDINGS)
        self._decoder = Decoder(dataset, [name for name in wanted if wanted[name]])
        self._in_place = _in_place(dataset)

    def read(self, index: np.ndarray) -> dict[str, Any]:
        """Reads some records.

        Args:
            index: int ``[B]``, record numbers.

        Returns:
            Fields of ``types.Batch``: image, labels, and truth, boxes, regions, group
            where wanted.

        Raises:
            DataError: a record is damaged or has more boxes than fit.
        """
        found = _fetch(self.dataset, index, in_place=self._in_place)
        examples = [self._decoder(record) for record in found]
        fields = {
            "image": np.stack([example["image"] for example in examples]),
            "labels": self._labels[index],
        }
        if self.fields.truth or self.fields.learn_truth:
            truth = np.stack([example["truth"] for example in examples])
            fields["truth"] = self.dataset.records.pick(self.classes, truth)
        if self.fields.learn_truth:
            fields["labels"] = fields["truth"]
        if self.fields.max_boxes is not None:
            fields["boxes"] = self._boxes(index, examples)
        if self.fields.regions:
            fields["regions"] = _regions(examples, self._regions, self._findings)
        if self.fields.group is not None:
            fields["group"] = np.asarray(self.fields.group[index], np.int32)
        return fields

    def _boxes(self, index: np.ndarray, examples: Sequence[dict[str, Any]]) -> Boxes:
        size = self.fields.max_boxes
        xyxy = np.zeros((len(examples), size, 4), np.float32)
        label = np.zeros((len(examples), size), np.int32)
        mask = np.zeros((len(examples), size), bool)
        for row, example in enumerate(examples):
            corners = example["boxes/xyxy"]
            named = self._class_map[example["boxes/label"]]
            corners, named = corners[named >= 0], named[named >= 0]
            if len(named) > size:
                raise DataError(
                    f"record {index[row]} ({self.dataset.records.id[index[row]]}) has"
                    f" {len(named)} boxes, but max_boxes={size}: give at least"
                    f" {len(named)}"
                )
            xyxy[row, : len(named)] = corners
            label[row, : len(named)] = named
            mask[row, : len(named)] = True
        return Boxes(xyxy=xyxy, label=label, mask=mask)


class Decoder:
    """Serialized record → arrays, some features only.

    The same as ``features.deserialize_example_np`` of TFDS, faster because every array
    lies in the record as plain bytes (six times at 64 px, 1.7 times at 256 px, where
    copying bytes dominates). The arrays share memory and are read-only.

    Args:
        dataset: from ``open_dataset``.
        names: features wanted; ``boxes`` stands for ``boxes/xyxy`` and ``boxes/label``.

    Raises:
        DataError: the records lack a feature, or hold it in another encoding.
    """

    def __init__(self, dataset: Dataset, names: Sequence[str]):
        have = dataset.features
        if missing := [name for name in names if name not in have]:
            raise DataError(
                f"the records of {dataset.manifest.name} hold no {', '.join(missing)};"
                f" they hold {', '.join(sorted(have))}"
            )
        self._leaves = {}
        for path, leaf in _leaves({name: have[name] for name in names}):
            if not _is_plain_bytes(leaf):
                raise DataError(
                    f"the records of {dataset.manifest.name} hold {path} in an encoding"
                    " that is not read; build the dataset again"
                )
            info = leaf.get_tensor_info()
            shape = tuple(-1 if side is None else side for side in info.shape)
            self._leaves[path] = np.dtype(info.np_dtype), shape

    def __call__(self, record: bytes) -> dict[str, np.ndarray]:
        """Feature → array; a part of a feature is ``name/part``."""
        stored = tf_example_pb2.Example.FromString(record).features.feature
        return {
            path: np.frombuffer(stored[path].bytes_list.value[0], dtype).reshape(shape)
            for path, (dtype, shape) in self._leaves.items()
        }


def decode_all(
    dataset: Dataset, index: np.ndarray, names: Sequence[str]
) -> Iterator[dict[str, np.ndarray]]:
    """Some features of some records, one after another; nothing else is decoded.

    Args:
        dataset: from ``open_dataset``.
        index: int ``[n]``, record numbers.
        names: as ``Decoder`` takes them.

    Raises:
        DataError: the records lack a feature, or one is damaged.
    """
    decode, in_place = Decoder(dataset, names), _in_place(dataset)
    for start in range(0, len(index), CHUNK):
        some = index[start : start + CHUNK]
        yield from map(decode, _fetch(dataset, some, in_place=in_place))


def _in_place(dataset: Dataset) -> bool:
    """Whether the shards are on a local disk."""
    return "://" not in str(dataset.directory)


def _fetch(dataset: Dataset, index: np.ndarray, *, in_place: bool) -> Sequence[bytes]:
    keys = [int(k) for k in index]
    source = dataset.source
    try:
        # The bulk read starts a thread per shard: right for a remote store, but on
        # a local disk it takes two to four times as long as one read after another.
        if in_place:
            return [source[k] for k in keys]
        return source.__getitems__(keys)
    except (IndexError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{dataset.directory}: a record of {min(keys)}..{max(keys)} cannot"
            f" be read ({error}); check with `python -m data_builders"
            f" {dataset.manifest.name} --verify` and build again"
        ) from error


def _leaves(features: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(features, (dict, tfds.features.FeaturesDict)):
        yield path, features
        return
    for name, feature in features.items():
        yield from _leaves(feature, f"{path}/{name}" if path else name)


def _is_plain_bytes(leaf: Any) -> bool:
    tensor = type(leaf) is tfds.features.Tensor
    return tensor and leaf.to_json_content().encoding == "bytes"


def _regions(
    examples: Sequence[dict[str, np.ndarray]], rows: np.ndarray, columns: np.ndarray
) -> Regions:
    """Those that are wanted: rows are regions, columns findings."""

    def stack(name: str) -> np.ndarray:
        return np.stack([example[f"regions/{name}"] for example in examples])[:, rows]

    return Regions(
        xyxy=stack("xyxy"),
        presence=stack("presence") > 0,
        probs=stack("labels")[..., columns].astype(np.float32),
    )


def _places(wanted: Sequence[str] | None, known: tuple[str, ...]) -> np.ndarray:
    """Where the wanted names stand among those that every dataset with regions has."""
    wanted = known if wanted is None else tuple(wanted)
    if unknown := [name for name in wanted if name not in known]:
        raise DataError(
            f"no region is called, or labelled with, {', '.join(unknown)}: name some of"
            f" {', '.join(known)} in task.regions and task.findings"
        )
    return np.array([known.index(name) for name in wanted], int)


def _check_table(dataset: Dataset) -> None:
    """The table is a file of its own: it must be of the same build as the records."""
    records, manifest = dataset.records, dataset.manifest
    counts = len(records), len(dataset.source), manifest.records
    if len(set(counts)) > 1 or records.classes != manifest.classes:
        raise DataError(
            f"{dataset.directory}: records.csv, shards and manifest.json disagree:"
            f" {counts[0]}, {counts[1]}, {counts[2]} records, {len(records.classes)} and"
            f" {len(manifest.classes)} classes; delete the directory and build it again"
        )
    for k in (0, len(dataset) - 1):
        stored = tf_example_pb2.Example.FromString(dataset.source[k]).features.feature
        found = stored["id"].bytes_list.value[0].decode()
        if found != records.id[k]:
            raise DataError(
                f"{dataset.directory}: record {k} is {found!r}, but records.csv says"
                f" {str(records.id[k])!r}; delete the directory and build it again"
            )
