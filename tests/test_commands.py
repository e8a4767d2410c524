"""Commands as users type them: what is wrong is one line and code 2, what is right is exact.

Builder commands with bad films, tables and folders: ``data_builders/test_refusals.py``.
"""

import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cxr_jax import config as configs
from cxr_jax import main
from cxr_jax import run as runs
from cxr_jax.checkpoint import sha256
from cxr_jax.data import pipeline
from cxr_jax.data.records import read_records
from cxr_jax.errors import ConfigError
from cxr_jax.preemption import Stopper

ROOT = pathlib.Path(__file__).parents[1]
CHEXNET = str(ROOT / "configs" / "chexnet.py")


PREDICT = ("--mode=predict", "--workdir=r", "--inputs=f", "--output=o")


@pytest.fixture
def command(monkeypatch, capsys):
    """``main`` in this process, which keeps its signals, hooks and variables."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    monkeypatch.setattr(Stopper, "install", lambda self: None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

    def run(*argv):
        code = main.main([str(word) for word in argv])
        written = capsys.readouterr()
        return code, written.out, written.err

    yield run
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_jax_hears_of_its_cache_before_a_config_is_read(command, monkeypatch):
    """Some configs import JAX, which reads these variables but once."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    heard = []

    def load(*_):
        heard.append(os.environ.get("JAX_COMPILATION_CACHE_DIR", ""))
        raise ConfigError("seen")

    monkeypatch.setattr(configs, "load", load)
    refused(command(f"--config={CHEXNET}"), "seen")
    assert heard[0].endswith(".cache/cxr_jax/compiled")


def refused(result, words):
    code, out, err = result
    assert code == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert words in err, err
    assert out == ""


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: --config"),
        (["--config=nowhere.py"], "no config file 'nowhere.py'"),
        ([f"--config={CHEXNET}:fantom"], "did you mean phantom?"),
        ([f"--config={CHEXNET}", "--mode=trian"], "choose from"),
        ([f"--config={CHEXNET}", "--wrkdir=x"], "unrecognized arguments: --wrkdir=x"),
        ([f"--config={CHEXNET}", "train"], "unrecognized arguments: train"),
        (
            [f"--config={CHEXNET}", "--samples=9"],
            "--samples and --max_std are of --mode=predict",
        ),
        (
            [
                "--mode=predict",
                "--workdir=r",
                "--inputs=f",
                "--output=o",
                "--samples=x",
            ],
            "--samples: invalid int value: 'x'",
        ),
        ([*PREDICT, "--samples=-1"], "--samples=-1: give 0 or more"),
        ([*PREDICT, "--config.eval.mc.samples=9"], "reads what the workdir says"),
        (
            ["--mode=export", "--workdir=r", "--output=o", f"--config={CHEXNET}"],
            "leave",
        ),
    ],
)
def test_a_wrong_command_line(command, argv, words):
    refused(command(*argv), words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.batch_sise=8", "did you mean train.batch_size?"),
        ("train.batch_size=many", "expected int, got str"),
        ("train.batch_size", "write --config.KEY=VALUE"),
        ("train.batch_size=0", "must be at least 1"),
        ("train.accumulate=3", "not divisible by train.accumulate=3"),
        ("phases.1.epochs=1", "entries 0 to 0"),
        ("task.name=cxr_jax.tasks.clasify.Classify", "no module"),
        ("task.name=cxr_jax.tasks.classify.Clasify", "did you mean Classify"),
        ("task.model.name=cxr_jax.models.densenet.densenet", "did you mean"),
        ("task.head.dropout=half", "expected float"),
        ("task.terms.0.fn.name=cxr_jax.losses.bse", "did you mean bce"),
        ("phases.0.optimizer.name=cxr_jax.optim.adan", "did you mean adam"),
        ("phases.0.schedule.name=cxr_jax.optim.cosinus", "no 'cosinus'"),
        ("phases.0.freeze=('trunk/*',)", "freeze='trunk/*' matches no parameter"),
        (
            "eval.evaluators.0.name=cxr_jax.evaluators.classification.Detect",
            "no 'Detect'",
        ),
        ("eval.splits=('tset',)", "eval.splits"),
        ("eval.splits=()", "eval.splits"),
        ("eval.mean_classes=('brigth',)", "eval.mean_classes names brigth"),
        ("eval.resamples=-1", "eval.resamples=-1"),
        ("eval.samples=-1", "eval.samples=-1"),
        ("eval.mc.samples=-1", "eval.mc.samples=-1: must be at least 0"),
        ("eval.mc.samples=2.5", "expected int, got float"),
        ("eval.mc.probs=median", "eval.mc.probs='median': mean or plain"),
        ("eval.batch_size=0", "eval.batch_size=0"),
        ("checkpoint.metric=aurocc", "checkpoint.metric"),
        ("data.threads=-1", "data.threads=-1"),
        ("data.scheme=by_patient", "allowed: official, patient_disjoint"),
        ("data.scheme=official", "no lists for the split 'official'"),
        ("data.fractions=(0.5,0.1)", "three numbers above 0"),
        ("data.dataset=toy/17px", "toy/17px is not prepared"),
        ("task.classes=('bright','dark')", "no class dark"),
        ("augment.name=cxr_jax.data.augment.Augmentation", "no 'Augmentation'"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_is_written(
    command, toy, tmp_path, override, words
):
    config, data_dir = toy
    workdir = tmp_path / "run"
    argv = [f"--config={config}", f"--workdir={workdir}", f"--data_dir={data_dir}"]
    refused(command(*argv, f"--config.{override}"), words)
    assert not workdir.exists()


def test_data_that_is_not_prepared_names_both_ways_out(command, tmp_path):
    result = command(
        f"--config={CHEXNET}", f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}"
    )
    refused(result, "python -m data_builders chestxray14/224px --manual_dir=RAW")
    refused(result, "variant 'phantom'")


def test_a_split_without_films(command, toy, tmp_path):
    """The lists of a dataset put no film into ``val``."""
    config, data_dir = toy
    shutil.copytree(data_dir, tmp_path / "data")
    table = next((tmp_path / "data").rglob("records.csv"))
    rows = table.read_text().splitlines()
    table.write_text("\n".join(r.removesuffix("val") for r in rows) + "\n")
    manifest = table.with_name("manifest.json")
    content = json.loads(manifest.read_text())
    for sidecar in content["sidecars"]:
        sidecar["bytes"] = table.with_name(sidecar["file"]).stat().st_size
    manifest.write_text(json.dumps(content))
    result = command(
        f"--config={config}",
        f"--data_dir={tmp_path / 'data'}",
        f"--workdir={tmp_path / 'run'}",
    )
    refused(result, "has no films in val (train 60, val 0, test 20, of 100)")


def test_a_workdir_that_cannot_be_written(command, toy, tmp_path):
    config, data_dir = toy
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "run", "/proc/run"):
        argv = [f"--config={config}", f"--data_dir={data_dir}", f"--workdir={folder}"]
        refused(command(*argv), f"--workdir={folder} cannot be written")


def test_a_workdir_with_nothing_to_evaluate_or_report(command, toy, tmp_path):
    config, data_dir = toy
    argv = [f"--config={config}", f"--data_dir={data_dir}", f"--workdir={tmp_path}"]
    refused(command(*argv, "--mode=evaluate"), "holds no best checkpoint; train first")
    refused(command(*argv, "--mode=report"), "run --mode=evaluate first")


def test_nothing_is_built_for_a_workdir_that_is_not_there(command, tmp_path):
    argv = [f"--config={CHEXNET}:phantom", f"--workdir={tmp_path / 'mistyped'}"]
    argv += [f"--data_dir={tmp_path / 'data'}", "--mode=evaluate"]
    refused(command(*argv), "mistyped does not exist; give the folder of a run")
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_may_be_mended_in_the_same_workdir(command, toy, tmp_path):
    config, data_dir = toy
    argv = [f"--config={config}", f"--data_dir={data_dir}", f"--workdir={tmp_path}"]
    refused(command(*argv, "--config.task.channels=3"), "task.mean has 1 numbers")
    refused(command(*argv, "--mode=evaluate"), "holds no best checkpoint; train first")


def test_another_config_in_the_workdir_of_a_run_is_refused(command, toy, tmp_path):
    config, data_dir = toy
    argv = [f"--config={config}", f"--data_dir={data_dir}", f"--workdir={tmp_path}"]
    argv.append("--mode=evaluate")
    nothing = "holds no best checkpoint"
    (tmp_path / "checkpoints" / "latest" / "5").mkdir(parents=True)
    refused(command(*argv), nothing)
    refused(command(*argv, "--config.seed=1"), "another config: seed: 0 → 1; use")
    other = "--config.data.scheme=random_patient"
    refused(command(*argv, other), "data.scheme: 'patient_disjoint' → 'random_patient'")
    # What touches no state may change.
    refused(command(*argv, "--config.eval.resamples=10"), nothing)


def test_a_loss_that_is_not_finite_names_its_films_and_loses_nothing(
    command, toy, tmp_path, monkeypatch, committed, finished
):
    """One film has a label without bounds; mended, the run ends as if it never had."""
    config, data_dir = toy
    argv = [f"--config={config}", f"--data_dir={data_dir}", f"--workdir={tmp_path}"]
    (table,) = pathlib.Path(data_dir).rglob("records.csv")
    ids = read_records(table.parent).id
    # The toy's own rule, and the order as its docstring gives it: nothing of the run.
    train = [k for k, name in enumerate(ids) if int(name[:3]) // 2 % 5 in (0, 1, 2)]
    drawn = np.random.Philox(np.random.SeedSequence((0, 0))).random_raw(len(train))
    batches = np.array(train)[np.argsort(drawn, kind="stable")][:56].reshape(-1, 8)
    victim, read = batches[3][4], pipeline.Reader.read

    def poisoned(self, index):
        found = read(self, index)
        found["labels"][np.asarray(index) == victim] = np.inf
        return found

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Reader, "read", poisoned)
        code, _, err = command(*argv)
    assert code == 1, err
    films = ", ".join(ids[k] for k in batches[3])
    assert err.splitlines()[-1] == (
        "error: loss or gradient is not finite at step 3; films of that step:"
        f" {films}; the state before it is saved"
    )
    assert [path.name for path in committed(tmp_path)] == ["3"]
    # A profile changes nothing either.
    asked = configs.load(config, ["train.profile_steps=(4, 6)"])
    again = {"path": str(tmp_path), "data_dir": data_dir, "stopper": Stopper()}
    state = runs.train(runs.open_run(asked, **again))
    whole = json.loads((committed(finished)[-1] / "meta" / "metadata").read_text())
    assert (int(state.step), sha256(state)) == (28, whole["sha256"])
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 0
    assert not (finished / "profile").exists()


def test_damaged_best_weights_end_no_evaluation_while_latest_has_them(
    command, toy, tmp_path, finished, flip_bit, committed
):
    config, data_dir = toy
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    argv = [f"--config={config}", f"--data_dir={data_dir}", f"--workdir={run}"]
    argv += ["--mode=evaluate", "--config.eval.resamples=0"]
    (best,) = (run / "checkpoints" / "best").glob("[0-9]*")
    predictions = run / "evaluation" / "test" / "predictions.csv"
    was = predictions.read_text()
    # Both hold one step. Other figures are asked for, so that weights are needed.
    for folder, code in ((best, 0), (committed(run)[-1], 1)):
        files = (path for path in folder.rglob("*") if path.is_file())
        flip_bit(max(files, key=lambda path: path.stat().st_size))
        predictions.write_text("")
        found, _, err = command(*argv, f"--config.eval.samples={code}")
        assert found == code, err
        assert f"best/{best.name} refused" in err and "Traceback" not in err
        assert predictions.read_text() == ("" if code else was)
    assert err.splitlines()[-1].startswith("error: none of the checkpoints [28] in ")
    assert "and latest has no sound one of them" in err
    assert "start again in a new workdir" in err
    assert best.is_dir() and not (run / "checkpoints" / "damaged").exists()


def start(*argv, **variables):
    """The same as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "cxr_jax.main", *argv],
        cwd=ROOT,
        env=os.environ | variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_process_says_the_same(toy, tmp_path):
    config, data_dir = toy
    argv = [f"--config={config}", f"--data_dir={data_dir}", f"--workdir={tmp_path}"]
    three = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    refused(start(*argv, **three), "train.batch_size=8 cannot be split over 3 devices")


# Few films, made by one process, and no file may grow beyond 2,000 bytes.
FULL_DISK = """
import dataclasses, resource, sys
import data_builders
from cxr_jax import main
from data_builders.phantom_chest import phantom_chest_dataset_builder as phantom

few = dataclasses.replace(phantom.TINY, films=20)
config = phantom.PhantomConfig(name="tiny", description="few", cohort=few)
phantom.Builder.BUILDER_CONFIGS = [config]
data_builders.cores = lambda: 0
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
sys.exit(main.main(sys.argv[1:]))
"""


def test_a_full_disk_while_the_phantom_is_built(tmp_path):
    data = tmp_path / "data"
    argv = f"--config={CHEXNET}:phantom", f"--data_dir={data}", f"--workdir={data}/run"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    for words in ("error: the disk is full", str(data), "free space and run again"):
        assert words in line
    assert not list(data.rglob("manifest.json"))


def test_ctrl_c_while_the_phantom_is_built_is_one_line(tmp_path):
    """It reaches the workers, too: while they start, and while they compute."""
    for seconds in (0.5, 3):
        data = tmp_path / f"{seconds}"
        argv = (
            f"--config={CHEXNET}:phantom",
            f"--data_dir={data}",
            f"--workdir={data}/r",
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "cxr_jax.main", *argv],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while not list(data.rglob("incomplete*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(
            timeout=60
        )  # Ends when the workers have left, too.
        assert process.returncode == 75, err
        assert err == "SIGINT: nothing to save, stopping\n"


def test_the_summary_counts_every_parameter(command):
    code, out, err = command(f"--config={CHEXNET}", "--mode=summary")
    assert code == 0 and err == ""
    # The backbone as published, and a classifier of 14 classes on its 1,024 features.
    count = 6_953_856 + 1024 * 14 + 14
    assert f"parameters: {count:,}" in out.splitlines()
    assert "trainable in phase 1: " + f"{count:,}" in out.splitlines()
    parts, listed = out.split("\n\n")
    (total,) = (line for line in parts.splitlines() if line.startswith("total"))
    assert total.split()[1:] == [f"{n:,}" for n in (count, 83_648, count)]
    assert "7 × 7 × 1024" in parts and "films of 224 pixels" in parts
    listed = [line.split() for line in listed.splitlines() if ": " not in line]
    statistics = sum(int(x[-1].replace(",", "")) for x in listed) - count
    assert f"batch statistics: {statistics:,}" in out.splitlines() or not statistics


LAUNCH = ["bash", str(ROOT / "launch" / "local.sh")]


def launch(*argv, logs):
    return subprocess.run(
        [*LAUNCH, *argv],
        env=os.environ | {"CXR_LOG_DIR": str(logs)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["2"],
        ["2", "--"],
        ["0", "true"],
        ["00", "true"],
        ["two", "true"],
        ["-1", "x"],
    ],
)
def test_the_launcher_refuses_wrong_usage(tmp_path, argv):
    done = launch(*argv, logs=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ((0, 0), 0),
        ((75, 75), 75),
        ((75, 0), 75),
        ((0, 75), 75),
        ((3, 75), 3),
        ((75, 4), 4),
        ((5, 6), 5),
        ((0, 1, 75), 1),
    ],
)
def test_the_launcher_ends_as_its_processes_do(tmp_path, codes, status):
    code = (
        "import os, sys; e = os.environ; i = int(e['CXR_PROCESS_ID']);"
        "print(i, e['CXR_NUM_PROCESSES'], e['CXR_COORDINATOR'], flush=True);"
        f"sys.exit({codes}[i])"
    )
    done = launch(str(len(codes)), "--", sys.executable, "-c", code, logs=tmp_path)
    assert done.returncode == status, done.stderr
    said = [done.stdout]
    said += [(tmp_path / f"process-{i}.log").read_text() for i in range(1, len(codes))]
    words = [line.split() for line in said]
    assert [w[:2] for w in words] == [
        [str(i), str(len(codes))] for i in range(len(codes))
    ]
    assert len({w[2] for w in words}) == 1 and words[0][2].startswith("127.0.0.1:")


LATE = """
import os, signal, sys
from cxr_jax import main

class Late:
    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGTERM):
        kill(me, number)

late = Late()  # goes when the interpreter clears its modules
main.command(sys.argv[1:])
"""


def test_a_signal_to_a_process_that_is_done_changes_nothing():
    argv = [f"--config={CHEXNET}:phantom", "--mode=summary"]
    done = subprocess.run(
        [sys.executable, "-c", LATE, *argv],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # Twice the widths of its norms: 32, 224 + 256, 96, 528 + 384, 144.
    assert "batch statistics: 3,328" in done.stdout
