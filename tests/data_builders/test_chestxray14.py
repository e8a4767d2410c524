"""ChestX-ray14 from a folder: every oddity of the release, every refusal, every kill."""

import csv
import gzip
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cxr_jax.data import manifest as manifests
from cxr_jax.data import records as tables
from cxr_jax.data import splits
from cxr_jax.errors import DataError
from cxr_jax.labels import NIH14
from data_builders import __main__ as command
from data_builders import build

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
NAMES = [f"{1 + k // 2:08d}_{k % 2:03d}.png" for k in range(20)]
PARTS = dict(zip(NAMES, ["train"] * 12 + ["val"] * 2 + ["test"] * 6, strict=True))


def pixels(name: str, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(int(name[:8]) * 10 + int(name[9:12]))
    return rng.integers(0, 256, (side, side), dtype=np.uint8)


def table(names=NAMES, *, ages=None) -> str:
    rows = [
        f"{name},{NIH14[k % 14]}|Edema,{name[9:12]},{int(name[:8])},"
        f"{(ages or {}).get(name, 40 + k)},{'MF'[k % 2]},{'PA' if k % 3 else 'AP'},"
        "2500,2048,0.168,0.168"
        if k % 14 != NIH14.index("Edema")
        else f"{name},No Finding,0,{int(name[:8])},40,M,PA,2500,2048,0.168,0.168"
        for k, name in enumerate(names)
    ]
    return "\n".join([HEADER, *rows]) + "\n"


def put(path: pathlib.Path, image: np.ndarray, **how) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **how)


@pytest.fixture
def release(tmp_path) -> pathlib.Path:
    """Twenty gray films of ten patients in ``images``, with table, boxes and lists."""
    root = tmp_path / "raw"
    for name in NAMES:
        put(root / "images" / name, pixels(name))
    (root / "Data_Entry_2017_v2020.csv").write_text(table())
    (root / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        f"{NAMES[3]},Infiltrate,256,512,128,64\n"
        f"{NAMES[3]},Mass,0,0,1024,1024\n"
        f"{NAMES[9]},Nodule,1,2,3,4\n"
    )
    for part in ("train", "val", "test"):
        listed = [name for name in NAMES if PARTS[name] == part]
        lines = [" ".join([name] + ["0"] * 14) for name in listed]
        (root / f"patient_disjoint_{part}.txt").write_text("\n".join(lines))
    test = [name for name in NAMES if PARTS[name] == "test"]
    (root / "test_list.txt").write_text("\n".join(test) + "\n")
    rest = [name for name in NAMES if PARTS[name] != "test"]
    (root / "train_val_list.txt").write_text("\n".join(rest) + "\n")
    return root


def make(raw, data_dir, config="64px", **options):
    return build(
        f"chestxray14/{config}",
        data_dir=data_dir,
        manual_dir=str(raw),
        **{"num_shards": 2, **options},
    )


def digests(folder) -> list[str]:
    return [shard.sha256 for shard in manifests.read_manifest(folder).shards]


def read(folder) -> list[dict]:
    source = tfds.builder_from_directory(str(folder)).as_data_source("all")
    return [source[k] for k in range(len(source))]


def images(folder) -> dict[str, np.ndarray]:
    return {r["id"].decode(): r["image"][..., 0] for r in read(folder)}


def quarantine(path) -> dict[str, str]:
    with open(path, newline="") as file:
        return {row["image"]: row["code"] for row in csv.DictReader(file)}


def run(capsys, *argv) -> tuple[int, str]:
    """Exit code and the last line on stderr; no traceback."""
    try:
        code = command.main([str(word) for word in argv])
    except SystemExit as left:
        code = left.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    return code, lines[-1] if lines else ""


def test_a_flat_release_is_built_to_the_last_pixel(release, tmp_path):
    folder = make(release, tmp_path / "data")
    rows = read(folder)
    assert [row["id"].decode() for row in rows] == NAMES
    for k, (row, name) in enumerate(zip(rows, NAMES, strict=True)):
        np.testing.assert_array_equal(row["image"][..., 0], pixels(name))
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
    records = tables.read_records(make(release, tmp_path / "data"))
    assert records.splits["patient_disjoint"].tolist() == list(PARTS.values())
    assert set(records.splits["official"]) == {"train_val", "test"}
    for scheme in splits.SCHEMES[:2]:
        got = splits.split_records(records, scheme, dataset="d", version="1")
        assert got.passport["patient_overlap"] == 0
        assert got.passport["parts"]["test"]["images"] == 6


def twelve(root):
    for k, name in enumerate(NAMES):
        target = root / f"images_{1 + k % 12:03d}" / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).rename(target)
    (root / "images").rmdir()


def beside(root):
    for name in NAMES:
        (root / "images" / name).rename(root / name)
    (root / "images").rmdir()


def elsewhere(root):
    """Gzipped tables in sub-folders, and what archives leave behind."""
    for folder, pattern in [("labels", "*.csv"), ("splits", "*.txt")]:
        (root / folder).mkdir()
        for path in root.glob(pattern):
            target = root / folder / (path.name + ".gz")
            target.write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    (root / "images" / f"._{NAMES[0]}").write_bytes(b"\0\5\26\7")


def table_of_2017(root):
    lines = (root / "Data_Entry_2017_v2020.csv").read_text().splitlines()
    lines[0] += ","
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines))
    (root / "Data_Entry_2017_v2020.csv").unlink()


@pytest.mark.parametrize("change", [twelve, beside, elsewhere, table_of_2017])
def test_every_layout_gives_the_same_shards(release, tmp_path, change):
    expected = digests(make(release, tmp_path / "one"))
    change(release)
    assert digests(make(release, tmp_path / "two")) == expected


def test_color_modes_of_gray_films_give_the_same_pixels(release, tmp_path):
    path = release / "images"
    for k, mode in enumerate(["RGB", "RGBA", "LA", "P"]):
        gray = Image.fromarray(pixels(NAMES[k]))
        gray.convert(mode).save(path / NAMES[k])
    put(path / NAMES[4], pixels(NAMES[4]).astype(np.uint16) * 257)
    for name, image in images(make(release, tmp_path / "data")).items():
        np.testing.assert_array_equal(image, pixels(name))


def test_large_films_are_averaged_over_areas(release, tmp_path):
    big = pixels(NAMES[0], side=256)
    put(release / "images" / NAMES[0], big)
    wide = np.repeat(pixels(NAMES[1]), 2, axis=1)  # Twice as wide as high.
    put(release / "images" / NAMES[1], wide)
    folder = make(release, tmp_path / "data")
    got = images(folder)
    blocks = big.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(got[NAMES[0]], blocks, atol=0.5 + 1e-3)
    np.testing.assert_array_equal(got[NAMES[1]], pixels(NAMES[1]))
    assert manifests.read_manifest(folder).extra["not_square"] == 1


def test_impossible_ages_are_unknown(release, tmp_path):
    ages = {NAMES[0]: 414, NAMES[1]: "058Y"}
    (release / "Data_Entry_2017_v2020.csv").write_text(table(ages=ages))
    folder = make(release, tmp_path / "data")
    age = tables.read_records(folder).age
    assert np.isnan(age[0]) and age[1] == 58
    assert manifests.read_manifest(folder).extra["ages_unknown"] == 1


def spoil(root) -> dict[str, str]:
    """Six films that nobody should learn from, and the code each must get."""
    folder = root / "images"
    whole = (folder / NAMES[0]).read_bytes()
    (folder / NAMES[0]).write_bytes(whole[: len(whole) // 2])
    cmyk = io.BytesIO()
    Image.fromarray(pixels(NAMES[1])).convert("CMYK").save(cmyk, "JPEG")
    (folder / NAMES[1]).write_bytes(cmyk.getvalue())
    colour = np.stack([pixels(NAMES[2]), pixels(NAMES[3]), pixels(NAMES[4])], -1)
    put(folder / NAMES[2], colour)
    clear = np.stack([pixels(NAMES[3])] * 4, -1)
    put(folder / NAMES[3], clear)
    (folder / NAMES[4]).write_bytes(b"")
    (folder / NAMES[5]).write_text("<html>404</html>")
    codes = ["truncated", "cmyk", "colour", "transparent", "empty", "format"]
    return dict(zip(NAMES, codes, strict=False))


def test_bad_films_are_listed_and_the_build_refused(release, tmp_path, capsys):
    codes = spoil(release)
    data = tmp_path / "data"
    where = f"--manual_dir={release}", f"--data_dir={data}", "--workers=1"
    code, line = run(capsys, "chestxray14/64px", *where)
    assert code == 2
    for words in ("6 films", "1 truncated", NAMES[0], "--max_bad_fraction=0.3"):
        assert words in line
    listed = data / "chestxray14-64px.quarantine.csv"
    assert str(listed) in line and quarantine(listed) == codes
    assert not list(data.rglob("manifest.json"))
    code, _ = run(capsys, "chestxray14/64px", *where, "--max_bad_fraction=0.29")
    assert code == 2
    code, line = run(capsys, "chestxray14/64px", *where, "--max_bad_fraction=0.3")
    assert code == 0, line
    folder = data / "chestxray14" / "64px" / "1.0.0"
    assert quarantine(folder / "quarantine.csv") == codes
    assert manifests.verify_digests(folder).records == 14
    left_out = manifests.read_manifest(folder).extra["left_out"]
    assert left_out == dict.fromkeys(codes.values(), 1)
    assert list(tables.read_records(folder).id) == NAMES[6:]
    assert not listed.exists()


def test_absent_and_unlisted_films(release, tmp_path, capsys):
    (release / "images" / NAMES[7]).unlink()
    put(release / "images" / "stranger.png", pixels(NAMES[7]))
    data = tmp_path / "data"
    where = f"--manual_dir={release}", f"--data_dir={data}", "--workers=1"
    code, line = run(capsys, "chestxray14/64px", *where)
    assert code == 2 and "1 absent" in line and "--allow_missing" in line
    assert not list(data.rglob("manifest.json"))
    code, _ = run(capsys, "chestxray14/64px", *where, "--allow_missing")
    assert code == 0
    folder = data / "chestxray14" / "64px" / "1.0.0"
    assert quarantine(folder / "quarantine.csv") == {
        NAMES[7]: "absent",
        "stranger.png": "unlisted",
    }
    assert NAMES[7] not in tables.read_records(folder).id


def empty(root):
    shutil.rmtree(root)
    root.mkdir()


def wrong_table(root):
    (root / "Data_Entry_2017_v2020.csv").write_text("Path,Sex,Age\na,b,c\n")


def no_table(root):
    (root / "Data_Entry_2017_v2020.csv").unlink()


def no_films(root):
    shutil.rmtree(root / "images")


def other_films(root):
    no_films(root)
    put(root / "images" / "other.png", pixels(NAMES[0]))


def film_twice(root):
    put(root / "images_002" / "images" / NAMES[0], pixels(NAMES[0]))


def half_the_lists(root):
    (root / "test_list.txt").unlink()


def list_of_strangers(root):
    (root / "test_list.txt").write_text("00099999_000.png\n")


def lists_that_share_a_patient(root):
    lines = (root / "test_list.txt").read_text().splitlines()
    (root / "test_list.txt").write_text("\n".join(lines[1:]))
    with open(root / "train_val_list.txt", "a") as file:
        file.write(lines[0] + "\n")


def small_films(root):
    for name in NAMES:
        put(root / "images" / name, pixels(name, side=32))


@pytest.mark.parametrize(
    "change, words",
    [
        (empty, "empty; put Data_Entry_2017_v2020.csv"),
        (wrong_table, "line 1: the header is 'Path,Sex,Age'"),
        (no_table, "no label table"),
        (no_films, "no film; PNG files"),
        (other_films, "20 films cannot be used (20 absent)"),
        (film_twice, f"film {NAMES[0]} is both in"),
        (half_the_lists, "test_list.txt is missing"),
        (list_of_strangers, "00099999_000.png is not in the label table"),
        (lists_that_share_a_patient, "must not share a patient"),
        (small_films, "32 x 32 pixels; at least 64"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_bad_input_is_one_line_and_code_2(release, tmp_path, capsys, change, words):
    change(release)
    data = tmp_path / "data"
    where = f"--manual_dir={release}", f"--data_dir={data}", "--workers=1"
    code, line = run(capsys, "chestxray14/64px", *where)
    assert code == 2 and words in line, line
    assert not list(data.rglob("dataset_info.json"))


@pytest.mark.parametrize(
    "argv, words",
    [
        (["x"], "dataset 'x' is unknown; allowed: chestxray14"),
        (["chestxray14/65px"], "no config '65px'; allowed: 256px, 64px"),
        (["chestxray14/64px"], "--manual_dir"),
        (["chestxray14/64px", "--num_shards=0"], "a whole number from 1"),
        (["chestxray14/64px", "--max_bad_fraction=2"], "a number from 0 to 1"),
        (["chestxray14/64px", "--maximal"], "unrecognized arguments: --maximal"),
        (["chestxray14/64px", "--verify"], "is not prepared"),
        ([], "NAME"),
    ],
)
def test_bad_commands_are_one_line_and_code_2(tmp_path, capsys, argv, words):
    code, line = run(capsys, *argv, f"--data_dir={tmp_path}")
    assert code == 2 and words in line, line


def test_more_shards_than_films_and_an_unwritable_folder(release, tmp_path, capsys):
    where = f"--manual_dir={release}", "--workers=1"
    argv = "chestxray14/64px", *where, f"--data_dir={tmp_path}", "--num_shards=21"
    code, line = run(capsys, *argv)
    assert code == 2 and "num_shards 21: there are 20 films" in line
    (tmp_path / "file").write_text("")
    code, line = run(
        capsys, "chestxray14/64px", *where, f"--data_dir={tmp_path / 'file' / 'x'}"
    )
    assert code == 2 and "--data_dir" in line and "Not a directory" in line


def test_other_films_in_another_folder_are_chosen_by_name(release, tmp_path):
    for name in NAMES:
        put(release / "small" / name, 255 - pixels(name))
    got = images(make(release, tmp_path / "data", images="small"))
    np.testing.assert_array_equal(got[NAMES[0]], 255 - pixels(NAMES[0]))
    with pytest.raises(DataError, match="images 'none': no such folder"):
        make(release, tmp_path / "again", images="none")


def test_any_number_of_workers_gives_the_same_shards(release, tmp_path):
    expected = digests(make(release, tmp_path / "w0", workers=0))
    for workers in (1, 2):  # In processes of their own, where hashes differ.
        data = tmp_path / f"w{workers}"
        process = start(release, data, f"--workers={workers}", "--num_shards=2")
        _, err = process.communicate()
        assert process.returncode == 0, err
        assert digests(data / "chestxray14" / "64px" / "1.0.0") == expected


def test_a_second_run_says_so_and_verify_finds_damage(release, tmp_path, capsys):
    data = tmp_path / "data"
    argv = ["chestxray14/64px", f"--manual_dir={release}", f"--data_dir={data}"]
    argv.append("--workers=1")
    assert command.main(argv) == 0
    assert "20 films" in capsys.readouterr().out
    assert command.main(argv) == 0
    assert "is there already: 20 films" in capsys.readouterr().out
    assert command.main([*argv, "--verify"]) == 0
    assert "sound" in capsys.readouterr().out
    folder = data / "chestxray14" / "64px" / "1.0.0"
    shard = folder / manifests.read_manifest(folder).shards[0].file
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    code, line = run(capsys, *argv, "--verify")
    assert code == 2 and shard.name in line and "SHA-256" in line


def test_a_damaged_cache_is_mended(release, tmp_path):
    data = tmp_path / "data"
    expected = digests(make(release, data))
    films = sorted((data / ".films").rglob("*.gray"))
    films[0].write_bytes(films[0].read_bytes()[:-9])
    content = bytearray(films[1].read_bytes())
    content[7] ^= 1
    films[1].write_bytes(content)
    films[2].unlink()
    (index,) = (data / ".films").rglob("*.jsonl")
    index.write_text(index.read_text()[:-20])  # Torn by a kill.
    shutil.rmtree(data / "chestxray14")
    assert digests(make(release, data)) == expected
    assert all(json.loads(line) for line in index.read_text().splitlines())


def start(release, data, *more) -> subprocess.Popen:
    argv = ["chestxray14/64px", f"--manual_dir={release}", f"--data_dir={data}", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "data_builders", *argv],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def cached(data) -> dict[str, tuple[int, int]]:
    files = {}
    for path in (data / ".films").rglob("*.gray"):
        status = path.stat()
        files[path.name] = status.st_ino, status.st_mtime_ns
    return files


def children(pid: int) -> list[int]:
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def gone(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1]
    except FileNotFoundError:
        return True
    return state.split()[0] == "Z"


def wait_until(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


@pytest.fixture
def slow_release(release):
    """Films large enough that a build can be caught in the act."""
    for name in NAMES:
        put(release / "images" / name, pixels(name, side=1024), compress_level=1)
    return release


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_killed_builds_go_on_and_end_in_the_same_shards(slow_release, tmp_path):
    """Kill -9 twice while films are reduced; nothing is done twice."""
    expected = digests(make(slow_release, tmp_path / "calm", workers=2))
    data = tmp_path / "data"
    for films in (2, 9):
        process = start(slow_release, data, "--workers=2", "--num_shards=2")
        wait_until(lambda enough=films: len(cached(data)) >= enough)
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not list((data / "chestxray14").rglob("*"))
        wait_until(lambda left=workers: all(map(gone, left)))
    before = cached(data)
    assert 9 <= len(before) < len(NAMES)
    process = start(slow_release, data, "--workers=2", "--num_shards=2")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert digests(data / "chestxray14" / "64px" / "1.0.0") == expected
    after = cached(data)
    assert len(after) == len(NAMES) and before.items() <= after.items()
    assert [p.suffix for p in (data / ".building").iterdir()] == [".lock"]


def test_a_third_run_reads_no_film(release, tmp_path):
    """The index alone: the sources' bytes are not even looked at."""
    data = tmp_path / "data"
    expected = digests(make(release, data))
    shutil.rmtree(data / "chestxray14")
    for name in NAMES:  # Spoiled without a trace in size or time of change.
        path = release / "images" / name
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests(make(release, data)) == expected


def test_a_changed_film_is_reduced_again(release, tmp_path):
    data = tmp_path / "data"
    make(release, data)
    shutil.rmtree(data / "chestxray14")
    put(release / "images" / NAMES[0], 255 - pixels(NAMES[0]))
    got = images(make(release, data))
    np.testing.assert_array_equal(got[NAMES[0]], 255 - pixels(NAMES[0]))


def test_two_builds_at_once_make_one_dataset(release, tmp_path):
    data = tmp_path / "data"
    both = [start(release, data, "--workers=1") for _ in range(2)]
    ends = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    manifests.verify_digests(data / "chestxray14" / "64px" / "1.0.0")


@pytest.mark.parametrize("limit", [2_000, 30_000])
def test_a_full_disk_is_one_line(release, tmp_path, limit):
    """No file may grow beyond the limit: the cache fails, then the shards."""
    data = tmp_path / "data"
    code = (
        "import resource, sys; from data_builders import __main__ as m;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    argv = ["chestxray14/64px", f"--manual_dir={release}", f"--data_dir={data}"]
    argv.append("--workers=1")
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "File too large" in done.stderr
    assert not list(data.rglob("manifest.json"))
    make(release, data)  # With room again, the same folder serves.


def test_real_films_of_64_pixels(real_dir, tmp_path):
    """1,000 real films, labels checked against a second reading of the table."""
    nih = real_dir / "nih"
    folder = make(nih, tmp_path, images="images_64px", allow_missing=True)
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
    stored = images(folder)
    for name in records.id[::50]:
        with Image.open(nih / "images_64px" / name) as image:
            np.testing.assert_array_equal(stored[name], np.asarray(image)[..., 0])
    got = splits.split_records(records, "random_patient", dataset="d", version="1")
    assert got.passport["patient_overlap"] == 0
    assert sum(part["images"] for part in got.passport["parts"].values()) == 1_000


def test_real_originals(real_dir, tmp_path):
    """200 films of 1024 pixels, three of them RGBA, six boxes; all in the test list."""
    nih = real_dir / "nih"
    folder = make(nih, tmp_path, allow_missing=True, workers=2)
    manifest = manifests.check_sizes(folder)
    assert manifest.records == 200 and manifest.extra["boxes"] == 6
    records = tables.read_records(folder)
    assert set(records.splits["patient_disjoint"]) == {"test"}
    stored = images(folder)
    for name in records.id[::40]:
        with Image.open(nih / "images" / name) as image:
            blocks = np.asarray(image.convert("L")).reshape(64, 16, 64, 16)
        expected = blocks.mean(axis=(1, 3))
        np.testing.assert_allclose(stored[name], expected, atol=0.5 + 1e-3)
    with pytest.raises(DataError, match="no films in train and val"):
        splits.split_records(records, "patient_disjoint", dataset="d", version="1")
