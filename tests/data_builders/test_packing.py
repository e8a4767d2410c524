"""Packing: what goes in comes out, sidecars agree with shards, all or nothing."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from etils import epath

import data_builders
from cxr_jax.data import manifest as manifests
from cxr_jax.data import records as tables
from cxr_jax.errors import DataError
from data_builders import install, packing

CLASSES = ("Mass", "Hernia", "Edema")


def film(index: int, size: int = 8) -> packing.Film:
    rng = np.random.default_rng(index)
    boxes = rng.uniform(size=(index % 3, 4)).astype(np.float32)
    return packing.Film(
        id=f"film-{index:03d}",
        image=rng.integers(0, 256, (size, size), dtype=np.uint8),
        labels=[1, 0, np.nan] if index % 2 else [0, 0, 1],
        patient=f"p{index // 2}",
        follow_up=index % 2,
        age=None if index == 3 else 40 + index,
        sex="MF"[index % 2],
        view="" if index == 5 else "PA",
        boxes=boxes,
        box_label=np.arange(len(boxes)),
        splits={"official": "test" if index >= 5 else "train"},
        truth=np.array([1, 1, 0]),
        severity=np.array([0.5, 0.25, 0]),
        regions=packing.RegionLabels(
            xyxy=rng.uniform(size=(29, 4)),
            presence=rng.integers(0, 2, 29),
            labels=rng.integers(0, 2, (29, 53)),
        ),
        readers={"a": [1, 0, 1], "b": [0, 0, 0]} if index >= 5 else {},
    )


class Builder(packing.Packed, skip_registration=True):
    """Seven films, or what a test puts here."""

    name = "fabricated"
    pkg_dir_path = pathlib.Path(__file__).parent
    VERSION = tfds.core.Version("1.2.3")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="tiny"),)
    source = tuple(film(k) for k in range(7))

    def layout(self):
        return packing.Layout(
            size=8, classes=CLASSES, truth=True, severity=True, regions=True
        )

    def films(self):
        for item in self.source:
            if isinstance(item, Exception):
                raise item
            yield item

    def notes(self):
        return {"why": "test"}


@pytest.fixture
def builder(monkeypatch):
    """Installs the fabricated builder under the name that ``build`` looks up."""
    monkeypatch.setattr(install, "find", lambda name: (Builder, "tiny"))
    return Builder


def test_every_field_comes_back_and_order_is_kept(builder, tmp_path):
    folder = install.build("fabricated", data_dir=tmp_path, num_shards=3)
    assert folder == tmp_path / "fabricated" / "tiny" / "1.2.3"
    source = tfds.builder_from_directory(str(folder)).as_data_source("all")
    assert len(source) == 7
    for k, expected in enumerate(Builder.source):
        got = source[k]
        assert got["id"].decode() == expected.id
        assert got["patient"].decode() == expected.patient
        np.testing.assert_array_equal(got["image"][..., 0], expected.image)
        assert got["image"].dtype == np.uint8 and got["labels"].dtype == np.float32
        np.testing.assert_array_equal(got["labels"], expected.labels)
        np.testing.assert_array_equal(got["boxes"]["xyxy"], expected.boxes)
        assert got["boxes"]["xyxy"].shape == (k % 3, 4)
        assert got["boxes"]["label"].dtype == np.int32
        np.testing.assert_array_equal(got["boxes"]["label"], np.arange(k % 3))
        np.testing.assert_array_equal(got["truth"], expected.truth)
        np.testing.assert_array_equal(got["severity"], expected.severity)
        regions = expected.regions
        np.testing.assert_array_equal(
            got["regions"]["xyxy"], regions.xyxy.astype(np.float32)
        )
        np.testing.assert_array_equal(got["regions"]["presence"], regions.presence)
        np.testing.assert_array_equal(got["regions"]["labels"], regions.labels)


def test_sidecars_agree_with_the_shards(builder, tmp_path):
    folder = install.build("fabricated", data_dir=tmp_path, num_shards=3)
    manifest = manifests.verify_digests(folder)
    assert (manifest.name, manifest.version) == ("fabricated/tiny", "1.2.3")
    assert manifest.records == 7 and manifest.classes == CLASSES
    assert [s.records for s in manifest.shards] == [2, 3, 2]
    assert manifest.extra == {"why": "test"}
    records = tables.read_records(folder)
    assert list(records.id) == [f.id for f in Builder.source]
    assert records.age.tolist()[:3] == [40, 41, 42] and np.isnan(records.age[3])
    assert records.sex.tolist() == list("MFMFMFM") and records.view[5] == ""
    np.testing.assert_array_equal(records.labels, [f.labels for f in Builder.source])
    assert records.splits["official"].tolist() == ["train"] * 5 + ["test"] * 2
    assert (folder / "readers.csv").read_text().splitlines() == [
        "id,reader,Mass,Hernia,Edema",
        "film-005,a,1,0,1",
        "film-005,b,0,0,0",
        "film-006,a,1,0,1",
        "film-006,b,0,0,0",
    ]


def test_same_films_give_the_same_bytes_and_a_second_build_is_a_no_op(
    builder, tmp_path
):
    first = install.build("fabricated", data_dir=tmp_path / "a", num_shards=2)
    second = install.build("fabricated", data_dir=tmp_path / "b", num_shards=2)
    assert manifests.read_manifest(first) == manifests.read_manifest(second)
    written = (first / "manifest.json").stat().st_mtime_ns
    assert install.build("fabricated", data_dir=tmp_path / "a") == first
    assert (first / "manifest.json").stat().st_mtime_ns == written
    assert list((tmp_path / "a" / ".building").iterdir()) == [
        tmp_path / "a" / ".building" / "fabricated-tiny.lock"
    ]


@pytest.mark.parametrize(
    "source, words",
    [
        ([], "at least 1"),
        ([film(0), film(0)], "two films have the id 'film-000'"),
        ([film(0), DataError("no such film")], "no such film"),
    ],
)
def test_nothing_is_installed_when_films_fail(
    builder, tmp_path, monkeypatch, source, words
):
    monkeypatch.setattr(Builder, "source", source)
    with pytest.raises(DataError, match=words):
        install.build("fabricated", data_dir=tmp_path)
    assert not list(tmp_path.rglob("dataset_info.json"))
    with pytest.raises(DataError, match="not prepared"):
        manifests.locate("fabricated/tiny", data_dir=tmp_path)


def test_more_shards_than_films_is_refused(builder, tmp_path):
    with pytest.raises(DataError, match="num_shards"):
        install.build("fabricated", data_dir=tmp_path, num_shards=8)


def test_wrong_shapes_are_refused(builder, tmp_path, monkeypatch):
    wrong = dataclasses.replace(film(0), labels=[0, 1])
    monkeypatch.setattr(Builder, "source", [wrong])
    with pytest.raises(Exception, match="(?i)shape"):
        install.build("fabricated", data_dir=tmp_path)


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_empty(path):
    path.write_bytes(b"")


def damage_remove(path):
    path.unlink()


def damage_zeros(path):  # Same size: opens as 0 records without an error.
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize(
    "damage", [damage_truncate, damage_empty, damage_remove, damage_zeros]
)
@pytest.mark.parametrize("file", ["shard", "records.csv"])
def test_damage_is_seen_on_opening(builder, tmp_path, damage, file):
    folder = install.build("fabricated", data_dir=tmp_path, num_shards=2)
    name = manifests.read_manifest(folder).shards[1].file if file == "shard" else file
    damage(folder / name)
    if damage is damage_zeros and file != "shard":
        manifests.check_sizes(folder)  # Only a digest can tell.
        with pytest.raises(DataError, match="SHA-256"):
            manifests.verify_digests(folder)
        return
    with pytest.raises(DataError, match=name):
        manifests.check_sizes(folder)


def test_a_single_flipped_bit_is_seen_by_verify(builder, tmp_path):
    folder = install.build("fabricated", data_dir=tmp_path, num_shards=2)
    shard = folder / manifests.read_manifest(folder).shards[0].file
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 4
    shard.write_bytes(data)
    with pytest.raises(DataError, match=shard.name):
        manifests.verify_digests(folder)


def test_a_truncated_shard_opens_as_empty_without_the_manifest(builder, tmp_path):
    """Why the manifest exists: the format itself says nothing."""
    folder = install.build("fabricated", data_dir=tmp_path, num_shards=1)
    shard = folder / manifests.read_manifest(folder).shards[0].file
    damage_zeros(shard)
    reader = array_record_module.ArrayRecordReader(str(shard))
    assert reader.num_records() == 0


@pytest.mark.parametrize(
    "text, words",
    [("{", "JSON"), ('{"schema": 99}', "schema 99"), ('{"schema": 1}', "damaged")],
)
def test_a_bad_manifest_is_one_line(tmp_path, text, words):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=words) as error:
        manifests.read_manifest(tmp_path)
    assert "\n" not in str(error.value)


def test_locate_takes_the_newest_finished_version(tmp_path):
    for version, finished in [("1.2.0", True), ("1.10.0", True), ("2.0.0", False)]:
        folder = tmp_path / "d" / "c" / version
        folder.mkdir(parents=True)
        if finished:
            (folder / "manifest.json").write_text("{}")
    assert manifests.locate("d/c", data_dir=tmp_path).name == "1.10.0"
    assert manifests.locate("d/c/1.2.0", data_dir=tmp_path).name == "1.2.0"
    with pytest.raises(DataError, match="python -m data_builders x/y"):
        manifests.locate("x/y", data_dir=tmp_path)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "header"),
        ("id,patient\n", "header"),
        (",".join(tables.COLUMNS) + "\na,b\n", "line 2"),
        (",".join(tables.COLUMNS) + "\na,p,,x,,M,PA\n", "line 2.*follow_up.*'x'"),
        (",".join(tables.COLUMNS) + "\na,p,,1,,X,PA\n", "line 2.*sex.*'X'"),
        (",".join(tables.COLUMNS) + ",split_s\na,p,,1,,M,PA,dev\n", "split_s.*'dev'"),
    ],
)
def test_bad_records_name_the_line(tmp_path, text, words):
    (tmp_path / "records.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        tables.read_records(tmp_path)


def test_manifest_is_plain_json(builder, tmp_path):
    folder = install.build("fabricated", data_dir=tmp_path, num_shards=1)
    fields = json.loads((folder / "manifest.json").read_text())
    assert set(fields) >= {"schema", "dataset", "version", "records", "image_size"}
    assert set(fields["shards"][0]) == {"file", "records", "bytes", "sha256"}


REMOTE = "gs://bucket/films"


def test_a_folder_of_datasets_is_local_or_remote(monkeypatch):
    kind = type(epath.Path(REMOTE))
    monkeypatch.setattr(kind, "exists", lambda path: False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    home = pathlib.Path.home()
    assert manifests.default_data_dir() == str(home / "tensorflow_datasets")
    assert manifests.default_data_dir("~/x") == str(home / "x")
    monkeypatch.setenv("TFDS_DATA_DIR", REMOTE)
    assert manifests.default_data_dir() == REMOTE
    with pytest.raises(DataError, match="build it on a local disk, then copy"):
        data_builders.build("phantom_chest/tiny", data_dir=REMOTE)

    def missing(path):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(kind, "exists", missing)
    with pytest.raises(
        DataError, match=r"--data_dir=gs://bucket/films .*install gcsfs"
    ):
        manifests.default_data_dir()
