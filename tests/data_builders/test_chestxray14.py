"""ChestX-ray14 from a folder: every layout and oddity of the release, and real films."""

import csv
import gzip

import numpy as np
import pytest
from PIL import Image

from cxr_jax.data import labelled, parts, splits
from cxr_jax.data import manifest as manifests
from cxr_jax.data import records as tables
from cxr_jax.errors import DataError
from cxr_jax.labels import NIH14
from data_builders import build

NAMES = [f"{1 + k // 2:08d}_{k % 2:03d}.png" for k in range(20)]


def test_a_flat_release_is_built_to_the_last_pixel(release, tmp_path):
    folder = release.make(tmp_path / "data")
    rows = release.records(folder)
    assert [row["id"].decode() for row in rows] == NAMES
    for k, (row, name) in enumerate(zip(rows, NAMES, strict=True)):
        np.testing.assert_array_equal(row["image"][..., 0], release.pixels(name))
        positive = {n for n, v in zip(NIH14, row["labels"], strict=True) if v}
        edema = NIH14.index("Edema")
        assert positive == (set() if k % 14 == edema else {NIH14[k % 14], "Edema"})
        assert row["patient"].decode() == name[:8] and row["study"] == b""
    boxes = rows[3]["boxes"]
    np.testing.assert_array_equal(
        boxes["xyxy"], [[0.25, 0.5, 0.375, 0.5625], [0, 0, 1, 1]]
    )
    assert [NIH14[k] for k in boxes["label"]] == ["Infiltration", "Mass"]
    assert sum(len(row["boxes"]["label"]) for row in rows) == 3
    records = tables.read_records(folder)
    assert records.age.tolist()[1:4] == [41, 42, 43]
    assert records.view[0] == "AP" and records.sex[1] == "F"
    assert manifests.read_manifest(folder).extra["left_out"] == {}
    assert not (folder / "quarantine.csv").exists()


def test_splits_come_with_the_records(release, tmp_path):
    records = tables.read_records(release.make(tmp_path / "data"))
    assert records.splits["patient_disjoint"].tolist() == list(release.parts.values())
    assert set(records.splits["official"]) == {"train_val", "test"}
    for scheme in splits.SCHEMES[:2]:
        got = splits.split_records(records, scheme, dataset="d", version="1")
        assert got.passport["patient_overlap"] == 0
        assert got.passport["parts"]["test"]["images"] == 6


def test_films_with_boxes_are_listed_where_there_is_a_box_table(release, tmp_path):
    folder = release.make(tmp_path / "data")
    records = tables.read_records(folder)
    boxed = [len(row["boxes"]["label"]) > 0 for row in release.records(folder)]
    assert sum(boxed) == 2
    assert records.splits["cxr8"].tolist() == ["test" if b else "" for b in boxed]
    about = {"dataset": "d", "version": "1"}
    got = splits.split_records(records, "cxr8_halves", **about)
    assert sorted([*got.parts["val"], *got.parts["test"]]) == [3, 9]
    source = labelled.read_source("chestxray14", manual_dir=str(release.root))
    same = splits.split_records(source.records, "cxr8_halves", **about)
    assert same.passport == got.passport
    part = parts.take_part(source, "cxr8_halves/test")
    assert part.index.tolist() == got.parts["test"].tolist()
    assert parts.take_part(source, "cxr8/test").index.tolist() == [3, 9]

    (release.root / "BBox_List_2017.csv").unlink()
    without = tables.read_records(release.make(tmp_path / "again"))
    assert set(without.splits) == {"official", "patient_disjoint"}
    with pytest.raises(DataError, match="no lists for the split 'cxr8'"):
        splits.split_records(without, "cxr8_halves", **about)


def twelve(release):
    for k, name in enumerate(NAMES):
        target = release.root / f"images_{1 + k % 12:03d}" / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (release.root / "images" / name).rename(target)
    (release.root / "images").rmdir()


def beside(release):
    for name in NAMES:
        (release.root / "images" / name).rename(release.root / name)
    (release.root / "images").rmdir()


def elsewhere(release):
    """Gzipped tables in sub-folders, and what archives leave behind."""
    for folder, pattern in [("labels", "*.csv"), ("splits", "*.txt")]:
        (release.root / folder).mkdir()
        for path in release.root.glob(pattern):
            target = release.root / folder / (path.name + ".gz")
            target.write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    (release.root / "images" / f"._{NAMES[0]}").write_bytes(b"\0\5\26\7")


def table_of_2017(release):
    lines = (release.root / "Data_Entry_2017_v2020.csv").read_text().splitlines()
    lines[0] += ","
    (release.root / "Data_Entry_2017.csv").write_text("\n".join(lines))
    (release.root / "Data_Entry_2017_v2020.csv").unlink()


@pytest.mark.parametrize("change", [twelve, beside, elsewhere, table_of_2017])
def test_every_layout_gives_the_same_shards(release, tmp_path, change):
    expected = release.digests(release.make(tmp_path / "one"))
    change(release)
    assert release.digests(release.make(tmp_path / "two")) == expected


def test_color_modes_of_gray_films_give_the_same_pixels(release, tmp_path):
    path = release.root / "images"
    for k, mode in enumerate(["RGB", "RGBA", "LA", "P"]):
        gray = Image.fromarray(release.pixels(NAMES[k]))
        gray.convert(mode).save(path / NAMES[k])
    release.put(f"images/{NAMES[4]}", release.pixels(NAMES[4]).astype(np.uint16) * 257)
    for name, image in release.images(release.make(tmp_path / "data")).items():
        np.testing.assert_array_equal(image, release.pixels(name))


def test_large_films_are_averaged_over_areas(release, tmp_path):
    big = release.pixels(NAMES[0], side=256)
    release.put(f"images/{NAMES[0]}", big)
    wide = np.repeat(release.pixels(NAMES[1]), 2, axis=1)  # Twice as wide as high.
    release.put(f"images/{NAMES[1]}", wide)
    folder = release.make(tmp_path / "data")
    got = release.images(folder)
    blocks = big.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(got[NAMES[0]], blocks, atol=0.5 + 1e-3)
    np.testing.assert_array_equal(got[NAMES[1]], release.pixels(NAMES[1]))
    assert manifests.read_manifest(folder).extra["not_square"] == 1


def test_impossible_ages_are_unknown(release, tmp_path):
    ages = {NAMES[0]: 414, NAMES[1]: "058Y"}
    release.write_table(ages)
    folder = release.make(tmp_path / "data")
    age = tables.read_records(folder).age
    assert np.isnan(age[0]) and age[1] == 58
    assert manifests.read_manifest(folder).extra["ages_unknown"] == 1


def test_other_films_in_another_folder_are_chosen_by_name(release, tmp_path):
    for name in NAMES:
        release.put(f"small/{name}", 255 - release.pixels(name))
    got = release.images(release.make(tmp_path / "data", images="small"))
    np.testing.assert_array_equal(got[NAMES[0]], 255 - release.pixels(NAMES[0]))
    with pytest.raises(DataError, match="images 'none': no such folder"):
        release.make(tmp_path / "again", images="none")


def test_real_films_of_64_pixels(real_dir, tmp_path, images_of):
    """1,000 real films, labels checked against a second reading of the table."""
    nih = real_dir / "nih"
    folder = build(
        "chestxray14/64px",
        data_dir=tmp_path,
        manual_dir=str(nih),
        images="images_64px",
        allow_missing=True,
        num_shards=4,
    )
    manifest = manifests.verify_digests(folder)
    assert manifest.records == 1_000
    assert manifest.extra["left_out"] == {"absent": 111_120}
    records = tables.read_records(folder)
    with gzip.open(nih / "labels" / "Data_Entry_2017_v2020.csv.gz", "rt") as file:
        rows = {row[0]: row for row in csv.reader(file)}
    for k in range(0, 1_000, 7):
        row = rows[records.id[k]]
        positive = {n for n, v in zip(NIH14, records.labels[k], strict=True) if v}
        assert positive == set(row[1].split("|")) - {"No Finding"}
        assert records.patient[k] == row[0][:8] and records.age[k] == int(row[4])
        assert (records.sex[k], records.view[k]) == (row[5], row[6])
    stored = images_of(folder)
    for name in records.id[::50]:
        with Image.open(nih / "images_64px" / name) as image:
            np.testing.assert_array_equal(stored[name], np.asarray(image)[..., 0])
    got = splits.split_records(records, "random_patient", dataset="d", version="1")
    assert got.passport["patient_overlap"] == 0
    assert sum(part["images"] for part in got.passport["parts"].values()) == 1_000


def test_real_originals(real_dir, tmp_path, images_of):
    """200 films of 1024 pixels, three of them RGBA, six boxes; all in the test list."""
    nih = real_dir / "nih"
    folder = build(
        "chestxray14/64px",
        data_dir=tmp_path,
        manual_dir=str(nih),
        allow_missing=True,
        workers=2,
    )
    manifest = manifests.check_sizes(folder)
    assert manifest.records == 200 and manifest.extra["boxes"] == 6
    records = tables.read_records(folder)
    assert set(records.splits["patient_disjoint"]) == {"test"}
    stored = images_of(folder)
    for name in records.id[::40]:
        with Image.open(nih / "images" / name) as image:
            blocks = np.asarray(image.convert("L")).reshape(64, 16, 64, 16)
        expected = blocks.mean(axis=(1, 3))
        np.testing.assert_allclose(stored[name], expected, atol=0.5 + 1e-3)
    with pytest.raises(DataError, match="no films in train and val"):
        splits.split_records(records, "patient_disjoint", dataset="d", version="1")
