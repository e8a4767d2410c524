"""Laws of order, slices and padding, on a dataset of a few films packed as builders do."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from cxr_jax import sharding
from cxr_jax.data import pipeline, source
from cxr_jax.data.pipeline import Fields, Layout
from cxr_jax.errors import ConfigError, DataError
from cxr_jax.labels import IMAGENOME_FINDINGS, REGIONS29
from data_builders import packing

CLASSES = ("a", "b", "c")
COUNT = 23
SIZE = 16


def film(k: int) -> packing.Film:
    """Film k: every pixel says which film it is, k % 4 boxes."""
    n = k % 4
    return packing.Film(
        id=f"film{k:03d}",
        patient=f"p{k // 2}",
        image=np.full((SIZE, SIZE), k, np.uint8),
        labels=np.array([k % 2, np.nan if k == 5 else 0, k % 3 == 0], np.float32),
        boxes=np.linspace(0, 1, 4 * n).reshape(n, 4),
        box_label=np.arange(n) % 3,
        truth=np.array([1, 0, k % 2], np.float32),
        regions=packing.RegionLabels(
            xyxy=np.full((29, 4), k / 100),
            presence=np.arange(29) % 2,
            labels=(np.arange(29)[:, None] + np.arange(53) + k) % 2,
        ),
    )


class Tiny(packing.Packed, skip_registration=True):
    """A builder like the real ones, of films that say their number."""

    name = "tiny_films"
    VERSION = packing.tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (packing.tfds.core.BuilderConfig(name="16px"),)

    def layout(self):
        return packing.Layout(size=SIZE, classes=CLASSES, truth=True, regions=True)

    def films(self):
        return map(film, range(COUNT))


def build(data_dir):
    builder = Tiny(data_dir=data_dir, config="16px")
    config = packing.tfds.download.DownloadConfig(num_shards=3, try_download_gcs=False)
    builder.download_and_prepare(download_config=config, file_format="array_record")
    return data_dir


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return build(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="session")
def dataset(data_dir):
    return pipeline.open_dataset("tiny_films/16px", data_dir=data_dir)


def take(batches, count):
    return list(itertools.islice(batches, count))


def stream(dataset, indices, steps, **kwargs):
    kwargs = {"batch_size": 8, "seed": 7} | kwargs
    return take(pipeline.train_batches(dataset, indices, **kwargs), steps)


def record_numbers(batches):
    return np.concatenate([batch.index for batch in batches])


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Order


def test_every_epoch_holds_every_film_once(dataset):
    indices = np.arange(2, COUNT)
    n = len(indices)
    numbers = record_numbers(stream(dataset, indices, 3 * n, batch_size=8))
    epochs = numbers[: 8 * n].reshape(8, n)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), indices)
    assert len({epoch.tobytes() for epoch in epochs}) == 8  # all in different orders
    assert not (epochs == indices).all(axis=1).any()  # and none in the given one


def test_positions_count_up_and_pixels_belong_to_their_record(dataset):
    batches = stream(dataset, np.arange(COUNT), 5)
    position = np.concatenate([batch.position for batch in batches])
    np.testing.assert_array_equal(position, np.arange(40))
    for batch in batches:
        assert batch.mask.all()
        np.testing.assert_array_equal(batch.image[:, 3, 4, 0], batch.index)
        expected = np.stack([film(k).labels for k in batch.index])
        np.testing.assert_array_equal(batch.labels, expected)


def test_shapes_and_dtypes(dataset):
    (batch,) = stream(dataset, np.arange(COUNT), 1)
    described = {
        f.name: (getattr(batch, f.name).shape, str(getattr(batch, f.name).dtype))
        for f in dataclasses.fields(batch)
        if getattr(batch, f.name) is not None
    }
    assert described == {
        "image": ((8, SIZE, SIZE, 1), "uint8"),
        "labels": ((8, 3), "float32"),
        "mask": ((8,), "bool"),
        "position": ((8,), "uint32"),
        "index": ((8,), "int32"),
    }


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_read_what_one_reads(dataset, processes):
    whole = stream(dataset, np.arange(COUNT), 7)
    parts = [
        stream(dataset, np.arange(COUNT), 7, layout=Layout(p, processes))
        for p in range(processes)
    ]
    for step, batch in enumerate(whole):
        slices = [part[step] for part in parts]
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *slices)
        assert_same(joined, batch)


@pytest.mark.parametrize("start", [1, 2, 3, 9])
def test_starting_at_a_step_equals_continuing(dataset, start):
    whole = stream(dataset, np.arange(COUNT), 12)
    later = stream(dataset, np.arange(COUNT), 12 - start, start_step=start)
    for a, b in zip(whole[start:], later, strict=True):
        assert_same(a, b)


def test_batches_may_be_larger_than_the_split(dataset):
    (batch,) = stream(dataset, np.array([4, 9, 11]), 1, batch_size=8)
    np.testing.assert_array_equal(np.sort(batch.index[:3]), [4, 9, 11])
    np.testing.assert_array_equal(np.sort(batch.index[3:6]), [4, 9, 11])
    assert len(np.unique(batch.index[6:])) == 2


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_do_not_change_the_stream(dataset, threads):
    for a, b in zip(
        stream(dataset, np.arange(COUNT), 6),
        stream(dataset, np.arange(COUNT), 6, threads=threads, ahead=3),
        strict=True,
    ):
        assert_same(a, b)


def test_seeds_differ(dataset):
    a = record_numbers(stream(dataset, np.arange(COUNT), 2))
    b = record_numbers(stream(dataset, np.arange(COUNT), 2, seed=8))
    assert (a != b).any()


def test_record_numbers_of_a_step_are_known_without_reading(dataset):
    indices = np.arange(3, COUNT)
    for step, batch in enumerate(stream(dataset, indices, 6)):
        numbers = pipeline.train_records(indices, batch_size=8, seed=7, step=step)
        np.testing.assert_array_equal(numbers, batch.index)


def test_epoch_orders_are_uniform():
    """χ² of which film stands first in 4,000 epochs of 8 films: mean 7, sd 3.7."""
    first = [pipeline.Shuffled(length=8, seed=1).epoch(e)[0] for e in range(4000)]
    observed = np.bincount(first, minlength=8)
    assert (((observed - 500) ** 2) / 500).sum() < 24.3  # p = 0.001


def test_order_is_pinned():
    """Changing this changes every resumed run: Philox bits, worked out by hand."""
    bits = np.random.Philox(np.random.SeedSequence((3, 5))).random_raw(6)
    by_hand = sorted(range(6), key=lambda k: int(bits[k]))
    assert list(pipeline.Shuffled(length=6, seed=3).epoch(5)) == by_hand


def test_another_order_takes_the_place_of_the_shuffle(dataset):
    @dataclasses.dataclass(frozen=True)
    class Twice:
        """Film 0 twice as often as the others."""

        length: int = 4

        def epoch(self, number):
            return np.roll([0, 0, 1, 2], number)

    (batch,) = stream(dataset, np.array([10, 11, 12]), 1, order=Twice())
    np.testing.assert_array_equal(batch.index, [10, 10, 11, 12, 12, 10, 10, 11])


# Evaluation


@pytest.mark.parametrize("batch_size", [4, 8, 12, 24, 48])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_covers_every_film_once(dataset, batch_size, processes):
    indices = np.random.default_rng(0).permutation(COUNT)[:21]
    parts = [
        list(
            pipeline.eval_batches(
                dataset, indices, batch_size=batch_size, layout=Layout(p, processes)
            )
        )
        for p in range(processes)
    ]
    steps = pipeline.eval_steps(21, batch_size=batch_size)
    assert {len(part) for part in parts} == {steps}
    rows = [part[step] for step in range(steps) for part in parts]
    assert {batch.image.shape[0] for batch in rows} == {batch_size // processes}
    mask = np.concatenate([batch.mask for batch in rows])
    np.testing.assert_array_equal(mask, np.arange(steps * batch_size) < 21)
    np.testing.assert_array_equal(record_numbers(rows)[mask], indices)


def test_padding_cannot_be_taken_for_a_film(dataset):
    fields = Fields(max_boxes=3, truth=True, regions=True)
    *_, last = pipeline.eval_batches(dataset, np.arange(5), batch_size=4, fields=fields)
    np.testing.assert_array_equal(last.mask, [True, False, False, False])
    np.testing.assert_array_equal(last.index, [4, -1, -1, -1])
    np.testing.assert_array_equal(last.position, [4, 5, 6, 7])
    assert np.isnan(last.labels[1:]).all() and np.isnan(last.truth[1:]).all()
    assert not last.image[1:].any() and not last.boxes.mask[1:].any()
    assert last.image[0].all() and not last.regions.presence[1:].any()
    assert np.isfinite(last.labels[0]).all()


# What is read


def test_classes_are_selected_and_reordered(dataset):
    fields = Fields(classes=("c", "a"), max_boxes=3, truth=True)
    (batch,) = stream(dataset, np.arange(COUNT), 1, fields=fields)
    for row, k in enumerate(batch.index):
        original = film(k)
        np.testing.assert_array_equal(batch.labels[row], original.labels[[2, 0]])
        np.testing.assert_array_equal(batch.truth[row], original.truth[[2, 0]])
        kept = original.box_label != 1  # "b" is not wanted
        np.testing.assert_allclose(
            batch.boxes.xyxy[row, : kept.sum()], original.boxes[kept], rtol=1e-6
        )
        renamed = np.where(original.box_label[kept] == 2, 0, 1)
        np.testing.assert_array_equal(batch.boxes.label[row, : kept.sum()], renamed)
        np.testing.assert_array_equal(batch.boxes.mask[row], np.arange(3) < kept.sum())


def test_regions_and_groups_are_read_when_asked(dataset):
    fields = Fields(regions=True, group=np.arange(COUNT) % 3)
    (batch,) = stream(dataset, np.arange(COUNT), 1, fields=fields)
    np.testing.assert_array_equal(batch.group, batch.index % 3)
    assert batch.group.dtype == np.int32 and batch.boxes is None and batch.truth is None
    assert batch.regions.xyxy.shape == (8, 29, 4)
    assert batch.regions.presence.dtype == bool
    places = np.arange(29)[:, None] + np.arange(53)
    expected = (places + batch.index[:, None, None]) % 2
    np.testing.assert_array_equal(batch.regions.probs, expected.astype(np.float32))
    np.testing.assert_allclose(batch.regions.xyxy[:, 0, 0], batch.index / 100, 1e-6)


def test_regions_and_their_findings_are_taken_by_name(dataset):
    names = {"region_names": REGIONS29[:4:-3], "findings": IMAGENOME_FINDINGS[7:2:-2]}
    reader, whole = (
        source.Reader(dataset, Fields(regions=True, **given)) for given in (names, {})
    )
    ours, every = (r.read(np.arange(4))["regions"] for r in (reader, whole))
    rows = [REGIONS29.index(name) for name in names["region_names"]]
    columns = [IMAGENOME_FINDINGS.index(name) for name in names["findings"]]
    np.testing.assert_array_equal(ours.presence, every.presence[:, rows])
    np.testing.assert_array_equal(ours.xyxy, every.xyxy[:, rows])
    np.testing.assert_array_equal(ours.probs, every.probs[:, rows][..., columns])
    assert ours.presence.any() and not ours.presence.all()
    with pytest.raises(DataError, match=r"ghost.*atelectasis"):
        source.Reader(dataset, Fields(regions=True, findings=("ghost",)))


def test_decoding_is_that_of_tfds(dataset):
    """Every feature of every record, as TFDS itself decodes it."""
    builder = packing.tfds.builder_from_directory(dataset.directory)
    names = ("image", "labels", "boxes", "truth", "regions")
    decode = source.Decoder(dataset, names)
    for k, theirs in enumerate(builder.as_data_source("all")):
        ours = decode(dataset.source[k])
        for name in names:
            parts = theirs[name]
            parts = parts if isinstance(parts, dict) else {"": parts}
            for part, expected in parts.items():
                got = ours[f"{name}/{part}" if part else name]
                np.testing.assert_array_equal(got, expected)
                assert got.dtype == expected.dtype and got.shape == expected.shape


def test_reading_by_bulk_gives_the_same(dataset):
    reader = source.Reader(dataset, Fields(max_boxes=3))
    index = np.array([20, 3, 3, 11])
    near = reader.read(index)
    reader._in_place = False
    assert_same(near, reader.read(index))


def test_devices_receive_the_same_batches(dataset):
    mesh = sharding.make_mesh(jax.devices()[:1])
    host = list(pipeline.eval_batches(dataset, np.arange(9), batch_size=2))
    placed = list(pipeline.device_batches(iter(host), mesh, ahead=2))
    assert len(placed) == len(host) == 5
    for a, b in zip(host, placed, strict=True):
        assert_same(a, b)
        assert b.image.sharding == sharding.batch_sharding(mesh)


# Refusals


def test_too_many_boxes_are_refused_by_count(dataset):
    fields = Fields(max_boxes=2)
    with pytest.raises(DataError, match=r"film003.* 3 boxes.*max_boxes=2.*least 3"):
        list(
            pipeline.eval_batches(
                dataset, np.arange(COUNT), batch_size=8, fields=fields
            )
        )


@pytest.mark.parametrize("call", ["train", "evaluate"])
def test_no_films_are_refused_at_once(dataset, call):
    with pytest.raises(DataError, match="0 films"):
        if call == "train":
            pipeline.train_batches(dataset, [], batch_size=4, seed=0)
        else:
            pipeline.eval_batches(dataset, [], batch_size=4)


def test_wishes_the_dataset_cannot_meet_are_refused_at_once(dataset):
    with pytest.raises(DataError, match="no class d.*it has a, b, c"):
        pipeline.eval_batches(
            dataset, [0], batch_size=1, fields=Fields(classes=("a", "d"))
        )
    poor = dataclasses.replace(dataset, features={"image": dataset.features["image"]})
    with pytest.raises(DataError, match="hold no truth; they hold image"):
        pipeline.eval_batches(poor, [0], batch_size=1, fields=Fields(truth=True))
    with pytest.raises(ConfigError, match="multiple of 4"):
        pipeline.eval_batches(dataset, [0], batch_size=6, layout=Layout(0, 4))


def test_unprepared_data_names_the_command_and_the_phantom(tmp_path):
    with pytest.raises(DataError, match=r"python -m data_builders.*phantom"):
        pipeline.open_dataset("chestxray14/256px", data_dir=tmp_path)


def test_a_truncated_shard_is_refused_at_opening(tmp_path):
    directory = build(tmp_path) / "tiny_films" / "16px" / "1.0.0"
    shard = sorted(directory.glob("*.array_record*"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DataError, match=shard.name):
        pipeline.open_dataset(str(directory))


def test_a_damaged_record_is_refused_when_read(tmp_path):
    directory = build(tmp_path) / "tiny_films" / "16px" / "1.0.0"
    dataset = pipeline.open_dataset(str(directory))
    shard = directory / dataset.manifest.shards[1].file
    content = bytearray(shard.read_bytes())
    content[400] ^= 1  # within the first records, behind the header of the file
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read.*--verify"):
        list(pipeline.eval_batches(dataset, np.arange(COUNT), batch_size=8))


def test_a_table_of_another_build_is_refused(tmp_path):
    directory = build(tmp_path) / "tiny_films" / "16px" / "1.0.0"
    table = directory / "records.csv"
    table.write_text(table.read_text().replace("film000", "film999"))
    with pytest.raises(DataError, match="'film000', but records.csv says 'film999'"):
        pipeline.open_dataset(str(directory))
