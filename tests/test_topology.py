"""The same run on other devices and processes: same films, same numbers."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cxr_jax.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parents[1]


TOLD = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")


def environment(**more):
    """As users run, and as a test says of its devices."""
    env = {k: v for k, v in os.environ.items() if k not in TOLD}
    return env | {"PYTHONPATH": str(ROOT)} | more


def steps(toy, tmp_path, devices, count, variant=""):
    config, data_dir = toy
    command = [sys.executable, "tests/some_steps.py", str(devices), str(count)]
    command += [f"{config}:{variant}", data_dir, str(tmp_path / f"{devices}{variant}")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
def test_one_and_four_devices_see_the_same_films_and_start_alike(toy, tmp_path):
    one, four = (steps(toy, tmp_path, devices, 2) for devices in (1, 4))
    assert one["order"] == four["order"]
    np.testing.assert_allclose(one["losses"][0], four["losses"][0], rtol=1e-5)


@pytest.mark.long
def test_in_float64_twenty_steps_agree_to_1e_8(toy, tmp_path):
    one, four = (steps(toy, tmp_path, devices, 20, "double") for devices in (1, 4))
    np.testing.assert_allclose(one["losses"], four["losses"], rtol=1e-8)
    for name, value in one["weights"].items():
        np.testing.assert_allclose(value, four["weights"][name], rtol=1e-8, atol=1e-10)


def boxes(*counts, before=(), **more):
    """What ``some_boxes.py`` prints, a mapping per number of devices."""
    done = subprocess.run(
        [*before, sys.executable, "tests/some_boxes.py", *map(str, counts)],
        cwd=ROOT,
        env=environment(**more),
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return tables(done.stdout)


def tables(text):
    """Lines of JSON: those of libraries stand between them."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def read_by_one_process():
    """Boxes of maps, made on one device and on four."""
    return boxes(1, 4, XLA_FLAGS="--xla_force_host_platform_device_count=4")


@pytest.mark.long
def test_boxes_of_maps_are_those_of_one_device(read_by_one_process):
    one, four = read_by_one_process
    assert np.sum(one["mask"]) > 9 and not np.array(one["mask"])[:, 2].any()
    assert one["finished"] == four["finished"] == [4, 4, 1]  # films, without padding
    for name in ("index", "mask", "label", "xyxy", "labels"):
        assert one[name] == four[name], name
    for name in ("score", "probs", "loss"):
        np.testing.assert_allclose(one[name], four[name], rtol=1e-5)


@pytest.mark.long
def test_maps_never_cross_processes(read_by_one_process, tmp_path):
    """Each process makes boxes of the films that it read; all have the whole table."""
    alone = read_by_one_process[1]
    (first,) = boxes(
        4,
        before=("bash", "launch/local.sh", "2"),
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
        CXR_LOG_DIR=str(tmp_path),
    )
    (second,) = tables((tmp_path / "process-1.log").read_text())
    assert first["finished"] == [2, 2, 1] and second["finished"] == [2, 2, 0]
    for found in (first, second):
        assert "maps" not in found["gathered"] and "boxes/xyxy" in found["gathered"]
        for name in ("index", "labels", "mask", "label", "xyxy", "score", "probs"):
            assert found[name] == alone[name], name
        np.testing.assert_allclose(found["loss"], alone["loss"], rtol=1e-6)


def main_command(toy, workdir):
    config, data_dir = toy
    return [
        *(sys.executable, "-m", "cxr_jax.main", f"--config={config}"),
        *(f"--workdir={workdir}", f"--data_dir={data_dir}"),
    ]


def passport(workdir):
    latest = Checkpoints(workdir / "checkpoints" / "latest", keep=2)
    lines = [
        json.loads(t) for t in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    lines = [line for line in lines if line["split"] == "val"]
    return {
        "state": latest.meta(latest.steps()[-1])["sha256"],
        "metrics": lines,
        "predictions": (workdir / "evaluation/test/predictions.csv").read_text(),
    }


@pytest.fixture(scope="module")
def two_devices(toy, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("devices")
    env = environment(XLA_FLAGS="--xla_force_host_platform_device_count=2")
    done = subprocess.run(
        main_command(toy, workdir),
        cwd=ROOT,
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return passport(workdir)


def last_step(workdir, split):
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(t) for t in text.splitlines() if t.endswith("}")]
    return max([0, *(line["step"] for line in lines if line["split"] == split)])


def strike(command, env, workdir, logs, split):
    """Starts two processes; SIGTERM to the second, once a new line is in the log."""
    before = last_step(workdir, split)
    launcher = subprocess.Popen(
        command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while last_step(workdir, split) <= before:
        assert time.monotonic() < deadline and launcher.poll() is None
        time.sleep(0.01)
    os.kill(int((logs / "process-1.pid").read_text()), signal.SIGTERM)
    _, errors = launcher.communicate(timeout=200)
    assert launcher.returncode == 75, errors + (logs / "process-1.log").read_text()


@pytest.mark.long
def test_two_processes_stopped_by_one_signal_end_as_one_process_does(
    toy, tmp_path, two_devices
):
    """SIGTERM to one of two: both save the same step; resumed, all is bit-identical.

    Once behind a validation, and once in a run that was resumed itself: the polls by
    which the processes agree have then no step's number.
    """
    workdir, logs = tmp_path / "run", tmp_path / "logs"
    command = ["bash", "launch/local.sh", "2", *main_command(toy, workdir)]
    env = environment(CXR_LOG_DIR=str(logs))
    for split in ("val", "train"):
        strike(command, env, workdir, logs, split)
    saved = Checkpoints(workdir / "checkpoints" / "latest", keep=2).steps()
    assert saved and saved[-1] < 28

    again = subprocess.run(
        command, cwd=ROOT, env=env, check=False, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert passport(workdir) == two_devices
