"""MURA from a folder: every layout and oddity of the release, refusals, exact counts."""

import csv
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cxr_jax.data import groups, splits
from cxr_jax.data import manifest as manifests
from cxr_jax.data import records as tables
from cxr_jax.errors import DataError
from cxr_jax.labels import BODY_PARTS
from data_builders import __main__ as command
from data_builders import build
from data_builders.mura import counts
from data_builders.mura.release import TYPES, read_release

SIZE = 64
# Folder of a study → height and width of its films. Patient 1 has two body parts, with a
# study of the same number in each, and two studies of one body part.
STUDIES = {
    "train/XR_SHOULDER/patient00003/study1_positive": [(128, 128), (150, 97)],
    "train/XR_ELBOW/patient00001/study1_positive": [(64, 64), (80, 200), (200, 40)],
    "train/XR_ELBOW/patient00001/study2_negative": [(96, 72)],
    "train/XR_WRIST/patient00001/study1_negative": [(64, 128), (128, 64)],
    "train/XR_WRIST/patient00002/study1_positive": [(101, 103)],
    "train/XR_FINGER/patient00004/study1_negative": [(120, 31), (20, 47)],
    "train/XR_FINGER/patient00004/study2_positive": [(66, 65)],
    "train/XR_FOREARM/patient00005/study1_positive": [(512, 108)],
    "train/XR_HAND/patient00005/study1_negative": [(90, 90), (90, 64)],
    "train/XR_HUMERUS/patient00006/study1_negative": [(77, 150)],
    "valid/XR_WRIST/patient11185/study1_positive": [(64, 64)] * 4,
    "valid/XR_WRIST/patient11186/study1_negative": [(70, 140)],
    "valid/XR_ELBOW/patient11185/study1_negative": [(140, 70), (33, 33)],
}
# By hand: studies negative, positive, films negative, positive.
TRAIN = {
    "Elbow": (1, 1, 1, 3),
    "Finger": (1, 1, 2, 1),
    "Forearm": (0, 1, 0, 1),
    "Hand": (1, 0, 2, 0),
    "Humerus": (1, 0, 1, 0),
    "Shoulder": (0, 1, 0, 2),
    "Wrist": (1, 1, 2, 1),
}
NOTHING = (0, 0, 0, 0)
VALID = dict.fromkeys(BODY_PARTS, NOTHING) | {
    "Elbow": (1, 0, 2, 0),
    "Wrist": (1, 1, 1, 4),
}


def name_of(file: str) -> str:
    """What a file of the release is called in the dataset."""
    _, *rest = file.split("/")
    return "/".join(rest).replace("_positive", "").replace("_negative", "")


class Mura:
    """Twenty-three films of eight patients, the second of every study stored as RGB."""

    def __init__(self, parent: pathlib.Path):
        self.root = parent / "MURA-v1.1"
        self.lines = {name: [] for name in ("images", "studies")}
        self.films = {
            f"{study}/image{k}.png": shape
            for study, shapes in STUDIES.items()
            for k, shape in enumerate(shapes, start=1)
        }
        for file, shape in self.films.items():
            path = self.root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(self.pixels(file, shape))
            image.convert("RGB" if "image2" in file else "L").save(path)
            # What archives made on a Mac leave behind.
            (path.parent / f"._{path.name}").write_bytes(b"\0\5\26\7")
        self.write_tables()

    @staticmethod
    def pixels(file: str, shape: tuple[int, int]) -> np.ndarray:
        rng = np.random.default_rng([*file.encode()])
        return rng.integers(0, 256, shape, dtype=np.uint8)

    def rows(self, table: str) -> list[str]:
        part, kind = table.removesuffix(".csv").split("_", 1)
        if kind == "image_paths":
            return [f"MURA-v1.1/{f}" for f in self.films if f.startswith(part)]
        return [
            f"MURA-v1.1/{s}/,{int(s.endswith('positive'))}"
            for s in STUDIES
            if s.startswith(part)
        ]

    def write_tables(self) -> None:
        for table in TABLES:
            (self.root / table).write_text("\n".join(self.rows(table)) + "\n")

    def make(self, data_dir, config: str = "64px", **options) -> pathlib.Path:
        options = {"num_shards": 2, "manual_dir": str(self.root), **options}
        return build(f"mura/{config}", data_dir=data_dir, **options)

    def run(self, capsys, data_dir, *more) -> tuple[int, str]:
        """Exit code of the command, and the last line on stderr; no traceback."""
        where = f"--manual_dir={self.root}", f"--data_dir={data_dir}", "--workers=0"
        code = command.main(["mura/64px", *where, *more])
        lines = capsys.readouterr().err.strip().splitlines()
        assert not any("Traceback" in line for line in lines)
        return code, lines[-1] if lines else ""

    def edit(self, table: str, change) -> None:
        path = self.root / table
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


TABLES = (
    "train_image_paths.csv",
    "train_labeled_studies.csv",
    "valid_image_paths.csv",
    "valid_labeled_studies.csv",
)


@pytest.fixture
def mura(tmp_path) -> Mura:
    return Mura(tmp_path / "raw")


def digests(folder) -> list[str]:
    return [shard.sha256 for shard in manifests.read_manifest(folder).shards]


def rows_of(folder) -> list[dict]:
    source = tfds.builder_from_directory(str(folder)).as_data_source("all")
    return [source[k] for k in range(len(source))]


def images_of(folder) -> dict[str, np.ndarray]:
    return {row["id"].decode(): row["image"][..., 0] for row in rows_of(folder)}


def counted(found) -> dict[str, tuple[int, ...]]:
    keys = ("studies_negative", "studies_positive", "films_negative", "films_positive")
    return {name: tuple(found[name][key] for key in keys) for name in found}


def resized(side: int, new: int) -> np.ndarray:
    """``[new, side]``: area averages where a side shrinks, else linear interpolation."""
    if new <= side:
        edges = np.arange(new + 1) * side / new
        low = np.maximum(edges[:-1, None], np.arange(side))
        high = np.minimum(edges[1:, None], np.arange(1, side + 1))
        return np.maximum(high - low, 0) * new / side
    centres = (np.arange(new) + 0.5) * side / new - 0.5
    columns = [np.interp(centres, np.arange(side), unit) for unit in np.eye(side)]
    return np.stack(columns, axis=1)


def stretched(film: np.ndarray) -> np.ndarray:
    rows, columns = (resized(side, SIZE) for side in film.shape)
    return rows @ film.astype(np.float64) @ columns.T


def padded(film: np.ndarray) -> np.ndarray:
    height, width = (round(n * SIZE / max(film.shape)) for n in film.shape)
    out = np.zeros((SIZE, SIZE))
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    small = resized(film.shape[0], height) @ film @ resized(film.shape[1], width).T
    out[top : top + height, left : left + width] = small
    return out


def test_the_release_is_built_to_the_last_pixel(mura, tmp_path):
    folder = mura.make(tmp_path / "data")
    rows = rows_of(folder)
    assert [row["id"].decode() for row in rows] == [*map(name_of, mura.films)]
    for row, (file, shape) in zip(rows, mura.films.items(), strict=True):
        film = mura.pixels(file, shape)
        np.testing.assert_allclose(
            row["image"][..., 0], stretched(film), atol=0.51, err_msg=file
        )
        np.testing.assert_array_equal(row["labels"], ["positive" in file])
        part, kind, patient, study, _ = file.split("/")
        assert row["patient"].decode() == patient
        assert row["study"].decode() == f"{kind}/{patient}/{study.split('_')[0]}"
        assert len(row["boxes"]["label"]) == 0 and part in ("train", "valid")
    square = "valid/XR_WRIST/patient11185/study1_positive/image2.png"
    np.testing.assert_array_equal(
        images_of(folder)[name_of(square)], mura.pixels(square, (64, 64))
    )


def test_tables_beside_the_shards(mura, tmp_path):
    folder = mura.make(tmp_path / "data")
    records = tables.read_records(folder)
    assert records.classes == ("Abnormality",)
    for text in (*records.id, *records.study):  # A name must not tell the label.
        assert "positive" not in text and "negative" not in text
        assert "train" not in text and "valid" not in text
    assert set(records.patient[records.study == "XR_WRIST/patient00001/study1"]) == {
        "patient00001"
    }
    assert len(set(records.study)) == len(STUDIES)
    assert len(set(records.patient)) == 8
    found = groups.read_groups(folder, records.id)
    assert found["body_part"].tolist() == [TYPES[i.split("/")[0]] for i in records.id]
    assert set(found["body_part"]) == set(BODY_PARTS) and "" not in found["body_part"]
    assert not (folder / "quarantine.csv").exists()
    assert not (folder / "readers.csv").exists()
    train = [file.startswith("train") for file in mura.films]
    official = np.where(train, "train_val", "test").tolist()
    assert records.splits["official"].tolist() == official
    released = np.where(train, "train", "val").tolist()
    assert records.splits["released"].tolist() == released
    drawn = splits.split_records(
        records, "official", dataset="d", version="1", fractions=(0.5, 0.5, 0)
    )
    assert drawn.passport["patient_overlap"] == 0
    assert drawn.passport["parts"]["test"]["images"] == 7


def test_the_manifest_counts_studies_and_films_by_body_part(mura, tmp_path):
    extra = manifests.verify_digests(mura.make(tmp_path / "data")).extra
    assert counted(extra["counts"]["train"]) == TRAIN
    assert counted(extra["counts"]["valid"]) == VALID
    assert extra["counts_in_tables"] == extra["counts"]
    assert extra["release_version"] == "1.1" and not extra["tables_as_published"]
    assert extra["left_out"] == {} and extra["studies_without_films"] == 0
    shapes = [*mura.films.values()]
    assert extra["fit"] == "stretch"
    assert extra["not_square"] == sum(h != w for h, w in shapes)
    assert extra["enlarged"] == sum(min(shape) < SIZE for shape in shapes) == 4


def test_padded_films_keep_their_proportions(mura, tmp_path):
    data = tmp_path / "data"
    plain = mura.make(data)  # Both from one folder of reduced films.
    folder = mura.make(data, "64px_padded")
    got, other = images_of(folder), images_of(plain)
    for file, shape in mura.films.items():
        film, name = mura.pixels(file, shape), name_of(file)
        np.testing.assert_allclose(got[name], padded(film), atol=0.51, err_msg=file)
        assert np.array_equal(got[name], other[name]) == (shape[0] == shape[1])
    tall = got["XR_FOREARM/patient00005/study1/image1.png"]  # 512 x 108 → 64 x 14.
    assert tall[:, 25:39].any(axis=0).all()
    assert not tall[:, :25].any() and not tall[:, 39:].any()
    extra = manifests.read_manifest(folder).extra
    assert extra["fit"] == "pad"
    assert extra["enlarged"] == sum(max(s) < SIZE for s in mura.films.values()) == 2
    assert len(list((data / ".films").iterdir())) == 2


def parent(mura):
    mura.root = mura.root.parent


def renamed(mura):
    mura.root = mura.root.rename(mura.root.parent / "bones")


def tables_above(mura):
    for table in TABLES:
        (mura.root / table).rename(mura.root.parent / table)
    mura.root = mura.root.parent


def with_headers(mura):
    for table in TABLES:
        header = "path" if "image" in table else "study,label"
        mura.edit(table, lambda lines, header=header: [header, *lines])


def of_pandas(mura):
    for table in TABLES:
        header = "0" if "image" in table else "0,1"
        mura.edit(table, lambda lines, header=header: [header, *lines])


def odd_bytes(mura):
    """A mark of byte order, carriage returns, blank lines at the end."""
    for table in TABLES:
        path = mura.root / table
        text = path.read_text().replace("\n", "\r\n") + "\r\n  \r\n\r\n"
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())


def odd_bytes_and_headers(mura):
    with_headers(mura)
    odd_bytes(mura)


def no_last_newline(mura):
    for table in TABLES:
        path = mura.root / table
        path.write_text(path.read_text().rstrip("\n"))


def strangers(mura):
    """Films and folders that no table lists."""
    study = mura.root / "train/XR_HAND/patient00099/study1_positive"
    study.mkdir(parents=True)
    (study / "image1.png").write_bytes(b"not a film")
    (mura.root / "test").mkdir()


LAYOUTS = [
    parent,
    renamed,
    tables_above,
    with_headers,
    of_pandas,
    odd_bytes,
    odd_bytes_and_headers,
    no_last_newline,
    strangers,
]


def test_every_layout_gives_the_same_shards(mura, tmp_path):
    data = tmp_path / "data"
    expected = digests(mura.make(data))
    shutil.rmtree(data / "mura")
    with_headers(mura)
    odd_bytes(mura)
    parent(mura)
    folder = mura.make(data)
    assert digests(folder) == expected
    headed = manifests.read_manifest(folder).extra["tables_with_header"]
    assert headed == sorted(TABLES)


@pytest.mark.parametrize("change", LAYOUTS)
def test_every_layout_is_read_alike(mura, change):
    before = read_release(str(mura.root))
    names = [(e.id, e.study.abnormal, e.file) for e in before.entries.values()]
    change(mura)
    after = read_release(str(mura.root))
    assert [(e.id, e.study.abnormal, e.file) for e in after.entries.values()] == names
    assert [*after.studies] == [*before.studies]
    assert all((after.root / e.file).is_file() for e in after.entries.values())
    assert counts.release_counts(after.entries.values()) == counts.release_counts(
        before.entries.values()
    )


def test_any_number_of_workers_gives_the_same_shards(mura, tmp_path):
    alone = mura.make(tmp_path / "one", "64px_padded", workers=0)
    several = mura.make(tmp_path / "two", "64px_padded", workers=2)
    assert digests(several) == digests(alone)
    name = "records.csv"
    assert (several / name).read_bytes() == (alone / name).read_bytes()


def test_films_are_not_reduced_twice(mura, tmp_path):
    data = tmp_path / "data"
    expected = digests(mura.make(data))
    shutil.rmtree(data / "mura")
    for path in (mura.root / "train").rglob("image*.png"):
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests(mura.make(data)) == expected


def quarantine(path) -> dict[str, str]:
    with open(path, newline="") as file:
        return {row["image"]: row["code"] for row in csv.DictReader(file)}


def test_absent_and_bad_films_are_listed_in_one_go(mura, tmp_path, capsys):
    gone = "train/XR_FOREARM/patient00005/study1_positive/image1.png"
    bad = "valid/XR_WRIST/patient11185/study1_positive/image3.png"
    (mura.root / gone).unlink()
    (mura.root / bad).write_bytes(b"")
    data = tmp_path / "data"
    code, line = mura.run(capsys, data)
    assert code == 2 and "2 films cannot be used (1 absent, 1 empty)" in line, line
    # One of the 22 that are there.
    assert "; --allow_missing --max_bad_fraction=0.0455 builds" in line
    listed = data / "mura-64px.quarantine.csv"
    assert quarantine(listed) == {name_of(gone): "absent", name_of(bad): "empty"}


def test_absent_films_are_refused_or_listed(mura, tmp_path, capsys):
    gone = [
        "train/XR_FOREARM/patient00005/study1_positive/image1.png",
        "valid/XR_WRIST/patient11185/study1_positive/image3.png",
    ]
    for file in gone:
        (mura.root / file).unlink()
    data = tmp_path / "data"
    code, line = mura.run(capsys, data)
    assert code == 2 and "2 films cannot be used (2 absent)" in line, line
    assert gone[0] in line and "--allow_missing" in line
    listed = data / "mura-64px.quarantine.csv"
    absent = dict.fromkeys(map(name_of, gone), "absent")
    assert quarantine(listed) == absent
    assert not list(data.rglob("manifest.json"))
    code, line = mura.run(capsys, data, "--allow_missing")
    assert code == 0, line
    folder = data / "mura" / "64px" / "1.0.0"
    assert quarantine(folder / "quarantine.csv") == absent
    assert not listed.exists()
    manifest = manifests.verify_digests(folder)
    extra = manifest.extra
    assert manifest.records == 21 and extra["left_out"] == {"absent": 2}
    assert extra["studies_without_films"] == 1
    assert counted(extra["counts"]["train"])["Forearm"] == NOTHING
    assert counted(extra["counts_in_tables"]["train"]) == TRAIN
    assert counted(extra["counts"]["valid"])["Wrist"] == (1, 1, 1, 3)
    ids = tables.read_records(folder).id
    assert not {*map(name_of, gone)} & {*ids}
    assert "" not in groups.read_groups(folder, ids)["body_part"]


def test_bad_films_are_refused_or_listed(mura, tmp_path, capsys):
    colour = "train/XR_HAND/patient00005/study1_negative/image2.png"
    noise = np.random.default_rng(0).integers(0, 256, (90, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(mura.root / colour)
    cut = "valid/XR_ELBOW/patient11185/study1_negative/image1.png"
    path = mura.root / cut
    path.write_bytes(path.read_bytes()[:-20])
    data = tmp_path / "data"
    code, line = mura.run(capsys, data)
    assert code == 2 and "2 films cannot be used" in line, line
    assert "1 colour" in line and "1 truncated" in line
    assert "--max_bad_fraction=0.087 " in line  # 2 of 23, rounded up.
    assert not list(data.rglob("manifest.json"))
    code, line = mura.run(capsys, data, "--max_bad_fraction=0.0869")
    assert code == 2, line
    code, line = mura.run(capsys, data, "--max_bad_fraction=0.087")
    assert code == 0, line
    folder = data / "mura" / "64px" / "1.0.0"
    assert manifests.read_manifest(folder).extra["left_out"] == {
        "colour": 1,
        "truncated": 1,
    }
    assert quarantine(folder / "quarantine.csv") == {
        name_of(colour): "colour",
        name_of(cut): "truncated",
    }


TRAIN_IMAGES, TRAIN_STUDIES, VALID_IMAGES, VALID_STUDIES = TABLES
# A folder of the release, a patient there, and a study of that patient.
V1 = "MURA-v1.1"
P1 = f"{V1}/train/XR_ELBOW/patient00001"
S1 = f"{P1}/study1_positive"
KNEE = f"{V1}/train/XR_KNEE/patient00001/study1_positive"
FORM = "XR_PART/patientN/studyK_{positive,negative}/"
# What is done to which line of which table (a line too many is added), and the words that
# the message must have beside table and line.
LINES = {
    "film without study": (TRAIN_IMAGES, 3, f"{P1}/image1.png", [f"{FORM}imageM.png"]),
    "no sign": (TRAIN_IMAGES, 1, f"{P1}/study1/image1.png", [FORM]),
    "version": (VALID_IMAGES, 2, S1.replace("1.1", "1.0") + "/image1.png", [FORM]),
    "backslashes": (TRAIN_IMAGES, 1, f"{S1}/image1.png".replace("/", "\\"), [FORM]),
    "a name alone": (TRAIN_IMAGES, 1, "image1.png", [FORM]),
    "format": (TRAIN_IMAGES, 4, f"{S1}/image2.jpg", [FORM]),
    "file of a Mac": (TRAIN_IMAGES, 4, f"{S1}/._image2.png", [FORM]),
    "upwards": (TRAIN_IMAGES, 4, f"{P1}/../study1_positive/image2.png", [FORM]),
    "digits": (TRAIN_IMAGES, 4, f"{S1}/image\u0662.png", [FORM]),
    "quote": (TRAIN_IMAGES, 4, f'"{S1}/image2.png', ["not a table"]),
    "film of valid": (
        TRAIN_IMAGES,
        17,
        f"{V1}/valid/XR_HAND/patient1/study1_positive/image1.png",
        ["'MURA-v1.1/valid/", "MURA-v1.1/train/XR_PART"],
    ),
    "study of train": (VALID_STUDIES, 4, f"{S1}/,1", [f"MURA-v1.1/valid/{FORM} is"]),
    "knee": (
        TRAIN_STUDIES,
        2,
        f"{KNEE}/,1",
        ["XR_KNEE is no body part", "XR_ELBOW, XR_FINGER"],
    ),
    "film of a knee": (
        TRAIN_IMAGES,
        2,
        f"{KNEE}/image1.png",
        ["XR_KNEE is no body part"],
    ),
    "small letters": (
        TRAIN_STUDIES,
        2,
        f"{S1}/,1".replace("ELBOW", "Elbow"),
        ["XR_Elbow is no"],
    ),
    "unlisted study": (
        TRAIN_IMAGES,
        17,
        f"{P1}/study3_negative/image1.png",
        [f"study3_negative/image1.png is not in {TRAIN_STUDIES}; add"],
    ),
    "twin of a study": (
        TRAIN_IMAGES,
        17,
        f"{P1}/study2_positive/image1.png",
        [f"{TRAIN_STUDIES}, which has train/XR_ELBOW/patient00001/study2_negative;"],
    ),
    "study twice": (
        TRAIN_STUDIES,
        11,
        f"{S1}/,1",
        ["is also in line 2, with the same label"],
    ),
    "study twice, no slash": (
        TRAIN_STUDIES,
        11,
        f"{S1},1",
        ["is also in line 2, with the same"],
    ),
    "study twice, labels": (
        TRAIN_STUDIES,
        11,
        f"{S1}/,0",
        ["is also in line 2, with another label"],
    ),
    "views of both labels": (
        TRAIN_STUDIES,
        11,
        f"{P1}/study1_negative/,0",
        [
            "XR_ELBOW/patient00001/study1_negative and train/XR_ELBOW/patient00001",
            " would be one study, XR_ELBOW/patient00001/study1, with views of both",
        ],
    ),
    "film twice": (TRAIN_IMAGES, 17, f"{S1}/image2.png", ["is also in line 4"]),
    "label and folder": (
        TRAIN_STUDIES,
        2,
        f"{S1}/,0",
        ["label 0 contradicts the folder train/XR_ELBOW/patient00001/study1_positive"],
    ),
    "label 2": (TRAIN_STUDIES, 2, f"{S1}/,2", ["label '2'; 0 or 1 is allowed"]),
    "label positive": (
        TRAIN_STUDIES,
        2,
        f"{S1}/,positive",
        ["label 'positive'; 0 or 1"],
    ),
    "empty label": (TRAIN_STUDIES, 2, f"{S1}/,", ["label ''; 0 or 1 is allowed"]),
    "no label": (TRAIN_STUDIES, 2, f"{S1}/", ["number of cells 1; 2 is"]),
    "film with label": (
        TRAIN_IMAGES,
        3,
        f"{S1}/image1.png,1",
        ["number of cells 2; 1 is"],
    ),
    "second header": (TRAIN_STUDIES, 2, "study,label", ["'study'", FORM]),
    "patient of train": (
        VALID_STUDIES,
        4,
        f"{V1}/valid/XR_HAND/patient00002/study1_negative/,0",
        [f"patient00002 is also in {TRAIN_STUDIES}, line 5"],
    ),
}


@pytest.mark.parametrize("headers", [False, True])
@pytest.mark.parametrize("case", LINES)
def test_a_bad_line_is_named(mura, case, headers):
    table, number, text, words = LINES[case]

    def change(lines):
        return [*lines[: number - 1], text, *lines[number:]]

    mura.edit(table, change)
    if headers:  # Every line moves by one.
        with_headers(mura)
        words = [word for word in words if " line " not in word]
    with pytest.raises(DataError) as error:
        read_release(str(mura.root))
    line = str(error.value)
    assert f"{mura.root / table}, line {number + headers}: " in line
    assert all(word in line for word in words), line
    assert "\n" not in line


def no_film_of_a_study(mura):
    mura.edit(TRAIN_IMAGES, lambda lines: lines[:5] + lines[6:])


def no_films(mura):
    shutil.rmtree(mura.root / "train")
    shutil.rmtree(mura.root / "valid")


def no_folder(mura):
    shutil.rmtree(mura.root)


def no_table(mura):
    (mura.root / VALID_STUDIES).unlink()


def header_alone(mura):
    (mura.root / VALID_IMAGES).write_text("path\n\n")


def not_text(mura):
    (mura.root / VALID_IMAGES).write_bytes(b"\xff\xfe\0M")


def bad_line(mura):
    mura.edit(TRAIN_STUDIES, lambda lines: [f"{S1}/,2", *lines])


@pytest.mark.parametrize(
    "change, words",
    [
        (
            no_film_of_a_study,
            f"{TRAIN_STUDIES}, line 3: study train/XR_ELBOW/patient00001",
        ),
        (no_films, "none of its 23 films is there, such as"),
        (no_folder, "MURA-v1.1: no such folder"),
        (no_table, f"{VALID_STUDIES} not found there, nor in MURA-v1.1"),
        (header_alone, f"{VALID_IMAGES}: lists nothing"),
        (not_text, f"{VALID_IMAGES}: damaged or not text"),
        (bad_line, f"{TRAIN_STUDIES}, line 1: label '2'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(mura, tmp_path, capsys, change, words):
    change(mura)
    data = tmp_path / "data"
    code, line = mura.run(capsys, data)
    assert code == 2 and words in line, line
    assert not list(data.rglob("dataset_info.json"))


@pytest.mark.parametrize("table", TABLES)
def test_all_four_tables_are_needed(mura, table):
    (mura.root / table).unlink()
    with pytest.raises(DataError, match=f"{table} not found there, nor in MURA-v1.1"):
        read_release(str(mura.root))


def test_options_that_make_no_sense_are_refused(mura, tmp_path, capsys):
    code, line = mura.run(capsys, tmp_path / "data", "--images=train")
    assert code == 2 and "leave --images out" in line
    assert command.main(["mura", f"--data_dir={tmp_path}", "--workers=0"]) == 2
    assert "--manual_dir" in capsys.readouterr().err
    assert command.main(["mura/65px", f"--data_dir={tmp_path}"]) == 2
    names = "224px, 224px_padded, 320px, 320px_padded, 64px, 64px_padded"
    assert names in capsys.readouterr().err


# The real release.


def assert_as_published(folder) -> None:
    entries = read_release(str(folder)).entries.values()
    assert counts.release_counts(entries) == counts.EXPECTED
    assert counts.release_totals(entries) == counts.EXPECTED_TOTALS


@pytest.fixture
def real_tables() -> pathlib.Path:
    """Folder of the release's four tables; they are never part of the project."""
    folder = os.environ.get("CXR_JAX_MURA")
    if not folder:
        pytest.skip("no real tables: CXR_JAX_MURA names no folder of MURA's CSV files")
    return pathlib.Path(folder)


def test_real_tables_hold_the_published_counts(real_tables):
    assert_as_published(real_tables)


def test_published_counts_add_up_to_the_published_totals():
    sums = {
        part: np.sum([list(vars(c).values()) for c in by_type.values()], axis=0)
        for part, by_type in counts.EXPECTED.items()
    }
    train, valid = sums["train"], sums["valid"]
    assert [*counts.EXPECTED["train"]] == [*counts.EXPECTED["valid"]] == [*BODY_PARTS]
    assert train[2:].tolist() == [21_935, 14_873] and sum(train[2:]) == 36_808
    assert valid[2:].tolist() == [1_667, 1_530] and sum(valid[2:]) == 3_197
    assert sum(train[:2]) == 13_457 and sum(valid[:2]) == 1_199
    for part, found in sums.items():
        totals = counts.EXPECTED_TOTALS[part]
        assert (totals.films, totals.studies) == (sum(found[2:]), sum(found[:2]))
    # With the 556 films, 207 studies and 206 patients of the hidden test set: 40,561
    # films, 14,863 studies, 12,173 patients.
    assert 36_808 + 3_197 + 556 == 40_561 and 13_457 + 1_199 + 207 == 14_863
    patients = [counts.EXPECTED_TOTALS[part].patients for part in ("train", "valid")]
    assert patients == [11_184, 783] and sum(patients) + 206 == 12_173


def fabricate(folder: pathlib.Path) -> None:
    """Tables as long as the real ones: the published counts, names made up."""
    first = {"train": 1, "valid": 11_185}
    for part, by_type in counts.EXPECTED.items():
        images, studies = [], []
        for name, found in by_type.items():
            for sign, label in (("negative", 0), ("positive", 1)):
                number = getattr(found, f"studies_{sign}")
                films = getattr(found, f"films_{sign}")
                for k in range(number):
                    # Studies beyond the number of patients go round them again.
                    who = (
                        first[part]
                        + len(studies) % counts.EXPECTED_TOTALS[part].patients
                    )
                    study = f"MURA-v1.1/{part}/XR_{name.upper()}/patient{who:05d}"
                    study += f"/study{1 + label}_{sign}/"
                    studies.append(f"{study},{label}")
                    views = films // number + (k < films % number)
                    images += [f"{study}image{1 + v}.png" for v in range(views)]
        (folder / f"{part}_image_paths.csv").write_text("\n".join(images))
        (folder / f"{part}_labeled_studies.csv").write_text("\n".join(studies))


def test_tables_of_full_length_hold_the_published_counts(tmp_path):
    fabricate(tmp_path)
    assert_as_published(tmp_path)
    path = tmp_path / VALID_IMAGES
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    with pytest.raises(AssertionError):
        assert_as_published(tmp_path)
