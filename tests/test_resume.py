"""Real processes, stopped and broken in every way we know, end where an unbroken run ends."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from cxr_jax.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parents[1]
LAST = 7 * 4  # 60 films in training, batches of 8, four epochs


def start(
    toy, workdir, moment="none", signal="SIGTERM", variant="", extra=(), before=()
):
    config, data_dir = toy
    command = [*before, sys.executable, "tests/faulty.py", moment, signal]
    command += [f"--config={config}:{variant}", f"--workdir={workdir}"]
    command += [f"--data_dir={data_dir}", *extra]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    env.pop("XLA_FLAGS", None)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done


def passport(workdir):
    """What two runs that are the same have in common, to the bit."""
    latest = Checkpoints(workdir / "checkpoints" / "latest", keep=2)
    lines = [
        json.loads(t) for t in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    for line in lines:
        line.pop("examples_per_second", None)
    return {
        "step": latest.steps()[-1],
        "state": latest.meta(latest.steps()[-1])["sha256"],
        "metrics": lines,
        "predictions": (workdir / "evaluation/test/predictions.csv").read_text(),
    }


@pytest.fixture(scope="session")
def unbroken(toy, tmp_path_factory):
    runs = {}

    def get(variant=""):
        if variant not in runs:
            workdir = tmp_path_factory.mktemp("unbroken")
            done = start(toy, workdir, variant=variant)
            assert done.returncode == 0, done.stderr
            runs[variant] = passport(workdir)
            assert runs[variant]["step"] == LAST
        return runs[variant]

    return get


@pytest.mark.parametrize(
    ("moment", "signal", "code"),
    [
        ("step:9", "SIGKILL", -9),
        ("save:2", "SIGKILL", -9),
        ("validate:2", "SIGKILL", -9),
        ("compile", "SIGTERM", 75),
        ("step:12", "SIGTERM", 75),
        ("step:14", "SIGINT", 75),
        ("validate:2", "SIGTERM", 75),
        ("evaluate", "SIGTERM", 75),
    ],
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    toy, tmp_path, unbroken, moment, signal, code
):
    stopped = start(toy, tmp_path, moment, signal)
    assert stopped.returncode == code, stopped.stderr
    assert "Traceback" not in stopped.stderr
    again = start(toy, tmp_path)
    assert again.returncode == 0, again.stderr
    assert passport(tmp_path) == unbroken()


def test_resume_is_exact_within_a_phase_and_across_the_switch(toy, tmp_path, unbroken):
    for moment in ("step:10", "validate:1", "step:6"):
        stopped = start(toy, tmp_path, moment, variant="two_phases")
        assert stopped.returncode == 75, stopped.stderr
    again = start(toy, tmp_path, variant="two_phases")
    assert again.returncode == 0, again.stderr
    assert passport(tmp_path) == unbroken("two_phases")


def test_a_damaged_newest_checkpoint_is_refused_and_the_one_before_taken(
    toy, tmp_path, unbroken
):
    assert start(toy, tmp_path, "step:16").returncode == 75
    steps = sorted(
        (tmp_path / "checkpoints/latest").glob("[0-9]*"), key=lambda p: int(p.name)
    )
    victim = max(
        (p for p in steps[-1].rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    victim.write_bytes(raw)
    again = start(toy, tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"latest/{steps[-1].name} refused" in again.stderr
    assert passport(tmp_path) == unbroken()


def test_a_full_disk_is_said_and_what_was_saved_is_kept(toy, tmp_path, unbroken):
    # No file above 20 blocks of 1024 bytes; what writes more gets EFBIG.
    limit = ["bash", "-c", 'ulimit -f 20; exec "$@"', "limit"]
    full = start(toy, tmp_path, before=limit)
    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr
    assert "could not be written" in full.stderr or "disk is full" in full.stderr
    again = start(toy, tmp_path)
    assert again.returncode == 0, again.stderr
    assert passport(tmp_path) == unbroken()


def test_a_small_tmpfs_fills_up(toy, tmp_path, unbroken):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        full = start(toy, folder)
        assert full.returncode == 1, full.stderr
        assert "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        again = start(toy, folder)
        assert again.returncode == 0, again.stderr
        assert passport(folder) == unbroken()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_finished_run_prints_its_result_again(toy, tmp_path):
    first, second = start(toy, tmp_path), start(toy, tmp_path)
    assert first.returncode == second.returncode == 0, second.stderr
    assert first.stdout == second.stdout
    assert "mean auroc" in first.stdout


def test_another_config_in_the_same_workdir_is_refused(toy, tmp_path):
    assert start(toy, tmp_path, "step:3").returncode == 75
    other = start(toy, tmp_path, extra=["--config.seed=1"])
    assert other.returncode == 2
    assert other.stderr.count("\n") == 1 and "seed: 0 → 1" in other.stderr
    free = start(toy, tmp_path, "step:1", extra=["--config.eval.resamples=10"])
    assert free.returncode == 75, free.stderr
