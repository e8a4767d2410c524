"""What a builder refuses: by name, in one line, with code 2, leaving nothing behind."""

import csv
import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cxr_jax.data import manifest as manifests
from cxr_jax.data import records as tables
from data_builders import __main__ as command

NAMES = [f"{1 + k // 2:08d}_{k % 2:03d}.png" for k in range(20)]


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


def spoil(release) -> dict[str, str]:
    """Six films that nobody should learn from, and the code each must get."""
    folder = release.root / "images"
    whole = (folder / NAMES[0]).read_bytes()
    (folder / NAMES[0]).write_bytes(whole[: len(whole) // 2])
    cmyk = io.BytesIO()
    Image.fromarray(release.pixels(NAMES[1])).convert("CMYK").save(cmyk, "JPEG")
    (folder / NAMES[1]).write_bytes(cmyk.getvalue())
    colour = np.stack(
        [release.pixels(NAMES[2]), release.pixels(NAMES[3]), release.pixels(NAMES[4])],
        -1,
    )
    release.put(f"images/{NAMES[2]}", colour)
    clear = np.stack([release.pixels(NAMES[3])] * 4, -1)
    release.put(f"images/{NAMES[3]}", clear)
    (folder / NAMES[4]).write_bytes(b"")
    (folder / NAMES[5]).write_text("<html>404</html>")
    codes = ["truncated", "cmyk", "colour", "transparent", "empty", "format"]
    return dict(zip(NAMES, codes, strict=False))


def test_bad_films_are_listed_and_the_build_refused(release, tmp_path, capsys):
    codes = spoil(release)
    data = tmp_path / "data"
    where = f"--manual_dir={release.root}", f"--data_dir={data}", "--workers=0"
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
    folder = release.folder(data)
    assert quarantine(folder / "quarantine.csv") == codes
    assert manifests.verify_digests(folder).records == 14
    left_out = manifests.read_manifest(folder).extra["left_out"]
    assert left_out == dict.fromkeys(codes.values(), 1)
    assert list(tables.read_records(folder).id) == NAMES[6:]
    assert not listed.exists()


def test_absent_and_unlisted_films(release, tmp_path, capsys):
    (release.root / "images" / NAMES[7]).unlink()
    release.put("images/stranger.png", release.pixels(NAMES[7]))
    data = tmp_path / "data"
    where = f"--manual_dir={release.root}", f"--data_dir={data}", "--workers=0"
    code, line = run(capsys, "chestxray14/64px", *where)
    assert code == 2 and "1 absent" in line and "--allow_missing" in line
    assert not list(data.rglob("manifest.json"))
    code, _ = run(capsys, "chestxray14/64px", *where, "--allow_missing")
    assert code == 0
    folder = release.folder(data)
    assert quarantine(folder / "quarantine.csv") == {
        NAMES[7]: "absent",
        "stranger.png": "unlisted",
    }
    assert NAMES[7] not in tables.read_records(folder).id


def test_absent_and_bad_films_are_listed_in_one_go(release, tmp_path, capsys):
    codes = spoil(release)
    (release.root / "images" / NAMES[7]).unlink()
    codes[NAMES[7]] = "absent"
    data = tmp_path / "data"
    where = f"--manual_dir={release.root}", f"--data_dir={data}", "--workers=0"
    code, line = run(capsys, "chestxray14/64px", *where)
    assert code == 2
    # 6 of the 19 that are there.
    remedy = "--allow_missing", "--max_bad_fraction=0.3158"
    for words in ("7 films", "1 absent", "1 truncated", " ".join(remedy)):
        assert words in line
    listed = data / "chestxray14-64px.quarantine.csv"
    assert quarantine(listed) == codes
    for one in remedy:
        code, _ = run(capsys, "chestxray14/64px", *where, one)
        assert code == 2 and quarantine(listed) == codes
    code, line = run(capsys, "chestxray14/64px", *where, *remedy)
    assert code == 0, line
    assert quarantine(release.folder(data) / "quarantine.csv") == codes


def empty(release):
    shutil.rmtree(release.root)
    release.root.mkdir()


def no_folder(release):
    shutil.rmtree(release.root)


def wrong_table(release):
    (release.root / "Data_Entry_2017_v2020.csv").write_text("Path,Sex,Age\na,b,c\n")


def no_table(release):
    (release.root / "Data_Entry_2017_v2020.csv").unlink()


def no_films(release):
    shutil.rmtree(release.root / "images")


def other_films(release):
    no_films(release)
    release.put("images/other.png", release.pixels(NAMES[0]))


def film_twice(release):
    release.put(f"images_002/images/{NAMES[0]}", release.pixels(NAMES[0]))


def half_the_lists(release):
    (release.root / "test_list.txt").unlink()


def list_of_strangers(release):
    (release.root / "test_list.txt").write_text("00099999_000.png\n")


def lists_that_share_a_patient(release):
    lines = (release.root / "test_list.txt").read_text().splitlines()
    (release.root / "test_list.txt").write_text("\n".join(lines[1:]))
    with open(release.root / "train_val_list.txt", "a") as file:
        file.write(lines[0] + "\n")


def small_films(release):
    for name in NAMES:
        release.put(f"images/{name}", release.pixels(name, side=32))


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
        (no_folder, "no such folder"),
    ],
)
def test_bad_input_is_one_line_and_code_2(release, tmp_path, capsys, change, words):
    change(release)
    data = tmp_path / "data"
    where = f"--manual_dir={release.root}", f"--data_dir={data}", "--workers=0"
    code, line = run(capsys, "chestxray14/64px", *where)
    assert code == 2 and words in line, line
    assert not list(data.rglob("dataset_info.json"))


@pytest.mark.parametrize(
    "argv, words",
    [
        (["x"], "dataset 'x' is unknown; allowed: chest_imagenome, chestxray14"),
        (["chestxray14/65px"], "no config '65px'; allowed: 256px, 64px"),
        (["chestxray14/64px"], "--manual_dir"),
        (["chestxray14/64px", "--num_shards=x"], "--num_shards"),
        (["chestxray14/64px", "--workers=-1"], "a whole number from 0"),
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
    where = f"--manual_dir={release.root}", "--workers=0"
    argv = "chestxray14/64px", *where, f"--data_dir={tmp_path}", "--num_shards=21"
    code, line = run(capsys, *argv)
    assert code == 2 and "num_shards 21: there are 20 films" in line
    (tmp_path / "file").write_text("")
    code, line = run(
        capsys, "chestxray14/64px", *where, f"--data_dir={tmp_path / 'file' / 'x'}"
    )
    assert code == 2 and "--data_dir" in line and "Not a directory" in line


@pytest.mark.parametrize("limit", [2_000, 30_000])
def test_a_full_disk_is_one_line(release, tmp_path, limit):
    """No file may grow beyond the limit: the cache fails, then the shards."""
    data = tmp_path / "data"
    code = (
        "import resource, sys; from data_builders import __main__ as m;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    argv = ["chestxray14/64px", f"--manual_dir={release.root}", f"--data_dir={data}"]
    argv.append("--workers=0")
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    for words in ("the disk is full", "File too large", str(data), "run again"):
        assert words in line
    assert not list(data.rglob("manifest.json"))
    release.make(data)  # With room again, the same folder serves.


def test_a_second_run_says_so_and_verify_finds_damage(release, tmp_path, capsys):
    data = tmp_path / "data"
    argv = ["chestxray14/64px", f"--manual_dir={release.root}", f"--data_dir={data}"]
    argv.append("--workers=0")
    assert command.main(argv) == 0
    assert "20 films" in capsys.readouterr().out
    assert command.main(argv) == 0
    assert "is there already: 20 films" in capsys.readouterr().out
    assert command.main([*argv, "--verify"]) == 0
    assert "sound" in capsys.readouterr().out
    folder = release.folder(data)
    shard = folder / manifests.read_manifest(folder).shards[0].file
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    code, line = run(capsys, *argv, "--verify")
    assert code == 2 and shard.name in line and "SHA-256" in line
