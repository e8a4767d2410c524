"""Stage one of a build: killed, spoiled or raced, it ends in the same bytes."""

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

from cxr_jax.data import manifest as manifests

NAMES = [f"{1 + k // 2:08d}_{k % 2:03d}.png" for k in range(20)]


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
def slow_films(release):
    """Films large enough that a build can be caught in the act."""
    for name in NAMES:
        release.put(f"images/{name}", release.pixels(name, side=1024), compress_level=1)


def test_any_number_of_workers_gives_the_same_shards(release, tmp_path):
    expected = release.digests(release.make(tmp_path / "w0", workers=0))
    for workers in (1, 2):  # In processes of their own, where hashes differ.
        data = tmp_path / f"w{workers}"
        process = release.start(data, f"--workers={workers}")
        _, err = process.communicate()
        assert process.returncode == 0, err
        assert release.digests(release.folder(data)) == expected


def test_a_damaged_cache_is_mended(release, tmp_path):
    data = tmp_path / "data"
    expected = release.digests(release.make(data))
    films = sorted((data / ".films").rglob("*.gray"))
    films[0].write_bytes(films[0].read_bytes()[:-9])
    content = bytearray(films[1].read_bytes())
    content[7] ^= 1
    films[1].write_bytes(content)
    films[2].unlink()
    (index,) = (data / ".films").rglob("*.jsonl")
    index.write_text(index.read_text()[:-20])  # Torn by a kill.
    shutil.rmtree(data / "chestxray14")
    assert release.digests(release.make(data)) == expected
    assert all(json.loads(line) for line in index.read_text().splitlines())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.usefixtures("slow_films")
def test_killed_builds_go_on_and_end_in_the_same_shards(release, tmp_path):
    """Kill -9 twice while films are reduced; nothing is done twice."""
    expected = release.digests(release.make(tmp_path / "calm", workers=2))
    data = tmp_path / "data"
    for films in (2, 9):
        process = release.start(data, "--workers=2")
        wait_until(lambda enough=films: len(cached(data)) >= enough)
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)  # Ends when the workers have let go, too.
        assert process.returncode == -signal.SIGKILL
        assert not list((data / "chestxray14").rglob("*"))
        wait_until(lambda left=workers: all(map(gone, left)))
    before = cached(data)
    assert 9 <= len(before) < len(NAMES)
    process = release.start(data, "--workers=2")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert release.digests(release.folder(data)) == expected
    after = cached(data)
    assert len(after) == len(NAMES) and before.items() <= after.items()
    assert [p.suffix for p in (data / ".building").iterdir()] == [".lock"]


def ctrl_c(process):
    """A terminal sends it to all processes of the command."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.usefixtures("slow_films")
def test_a_stopped_build_says_so_in_one_line_and_goes_on(release, tmp_path):
    """While workers start, and while they read; they leave nothing and say nothing."""
    data = tmp_path / "data"
    moments = [
        (0, ctrl_c),
        (2, ctrl_c),
        (9, subprocess.Popen.terminate),
    ]
    for films, stop in moments:
        process = release.start(data, "--workers=2", start_new_session=True)
        # Python's tracker of semaphores is the first child.
        wait_until(lambda of=process.pid: len(children(of)) >= 3)
        wait_until(lambda enough=films: len(cached(data)) >= enough)
        workers = children(process.pid)
        stop(process)
        out, err = process.communicate(timeout=60)  # Ends when all have let go.
        assert process.returncode == 75, err
        assert (out, err) == ("", "stopped; run the same command again to go on\n")
        wait_until(lambda left=workers: all(map(gone, left)))
    assert 9 <= len(cached(data)) < len(NAMES)
    process = release.start(data, "--workers=2")
    _, err = process.communicate()
    assert process.returncode == 0, err
    calm = release.make(tmp_path / "calm", workers=0)
    assert release.digests(release.folder(data)) == release.digests(calm)


def test_a_third_run_reads_no_film(release, tmp_path):
    """The index alone: the sources' bytes are not even looked at."""
    data = tmp_path / "data"
    expected = release.digests(release.make(data))
    shutil.rmtree(data / "chestxray14")
    for name in NAMES:  # Spoiled without a trace in size or time of change.
        path = release.root / "images" / name
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert release.digests(release.make(data)) == expected


def test_a_changed_film_is_reduced_again(release, tmp_path):
    data = tmp_path / "data"
    release.make(data)
    shutil.rmtree(data / "chestxray14")
    release.put(f"images/{NAMES[0]}", 255 - release.pixels(NAMES[0]))
    got = release.images(release.make(data))
    np.testing.assert_array_equal(got[NAMES[0]], 255 - release.pixels(NAMES[0]))


def test_two_builds_at_once_make_one_dataset(release, tmp_path):
    data = tmp_path / "data"
    both = [release.start(data, "--workers=1") for _ in range(2)]
    ends = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    manifests.verify_digests(release.folder(data))
