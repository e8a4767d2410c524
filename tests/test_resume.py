"""Real processes, stopped and broken in every way we know, end where an unbroken run ends.

Each process takes seconds to start, so that several faults share one run; in
``test_chaos.py`` they come at random.
"""

import subprocess

import pytest

LAST = 7 * 4  # 60 films in training, batches of 8, four epochs


def finish(faulty, workdir, **how):
    done = faulty.run(workdir, **how)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.long
def test_kills_and_a_flipped_bit(
    faulty, tmp_path, unbroken, passport, committed, flip_bit
):
    """Between two saves, while one is written, in a validation; then the disk errs."""
    for moment in ("step:9", "save:2", "validate:2"):
        killed = faulty.run(tmp_path, moment, "SIGKILL")
        assert killed.returncode == -9, killed.stderr
    steps = committed(tmp_path)
    assert len(steps) == 2
    files = (path for path in steps[-1].rglob("*") if path.is_file())
    flip_bit(max(files, key=lambda path: path.stat().st_size))
    done = finish(faulty, tmp_path)
    assert f"latest/{steps[-1].name} refused" in done.stderr
    assert (tmp_path / "checkpoints/damaged" / f"latest-{steps[-1].name}").is_dir()
    assert passport(tmp_path) == unbroken()
    assert unbroken()["step"] == LAST


@pytest.mark.long
def test_signals_in_every_stage_and_a_damaged_index(
    faulty, tmp_path, unbroken, passport, committed, flip_bit
):
    """Each process goes on where the last one stopped, or a step before."""
    stages = [
        ("step:4", "SIGTERM"),
        ("step:5", "SIGINT"),
        ("validate:2", "SIGTERM"),
        ("evaluate", "SIGTERM"),
    ]
    stopped = faulty.run(tmp_path, "compile", "SIGTERM")
    assert stopped.returncode == 75, stopped.stderr
    assert stopped.stderr.splitlines()[-1] == "SIGTERM: nothing to save, stopping"
    assert not committed(tmp_path)
    for moment, signal in stages:
        stopped = faulty.run(tmp_path, moment, signal)
        assert stopped.returncode == 75, stopped.stderr
        assert "Traceback" not in stopped.stderr
        assert f"{signal}: " in stopped.stderr
    # Every array of that step fails to open; one line says so.
    flip_bit(committed(tmp_path)[-1] / "state" / "manifest.ocdbt")
    first = finish(faulty, tmp_path)
    assert f"latest/{LAST} refused" in first.stderr
    assert passport(tmp_path) == unbroken()
    assert "mean auroc" in first.stdout
    # A finished run prints its result again.
    assert finish(faulty, tmp_path).stdout == first.stdout


def test_resume_is_exact_at_the_switch_and_within_a_phase(
    faulty, tmp_path, unbroken, passport
):
    # The second validation ends the first phase; six steps lead into the second.
    for moment in ("validate:2", "step:6"):
        stopped = faulty.run(tmp_path, moment, variant="two_phases")
        assert stopped.returncode == 75, stopped.stderr
    finish(faulty, tmp_path, variant="two_phases")
    assert passport(tmp_path) == unbroken("two_phases")


@pytest.mark.long
def test_a_full_disk_is_said_and_what_was_saved_is_kept(
    faulty, tmp_path, unbroken, passport
):
    # No file above 20 blocks of 1024 bytes; what writes more gets EFBIG.
    limit = ("bash", "-c", 'ulimit -f 20; exec "$@"', "limit")
    full = faulty.run(tmp_path, before=limit)
    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr
    assert "could not be written" in full.stderr or "disk is full" in full.stderr
    finish(faulty, tmp_path)
    assert passport(tmp_path) == unbroken()


@pytest.mark.long
def test_a_small_tmpfs_fills_up(faulty, tmp_path, unbroken, passport):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        full = faulty.run(folder)
        assert full.returncode == 1, full.stderr
        assert "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        finish(faulty, folder)
        assert passport(folder) == unbroken()
    finally:
        subprocess.run(["umount", str(folder)], check=True)
