"""A strict session: warnings are errors, rank promotion raises, compilations are cached."""

import gc
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("KERAS_BACKEND", "jax")
# What the compiler is told holds for child processes too; how many devices, each says.
os.environ["XLA_FLAGS"] = " ".join(
    flag
    for flag in os.environ.get("XLA_FLAGS", "").split()
    if "device_count" not in flag
)

import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(ROOT / ".cache" / "jax")
# Child processes of the tests share the cache through the environment.
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", CACHE)
# However small a program: many processes ask for the same ones.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# Tracing makes many small objects and no cycles that matter: looking for them every 700
# objects is a twentieth of a session.
gc.set_threshold(50_000, 50, 1_000)


# Files that take longest, longest first: a file goes to one worker whole, and whoever meets
# one of these last would keep the other worker waiting.
HEAVY = [
    "test_configs",
    "test_trainings",
    "test_chaos",
    "test_resume",
    "test_fusion",
    "test_sampled",
    "test_step",
    "test_train",
    "test_topology",
    "test_predict",
    "test_by_study",
    "test_score",
]


def pytest_collection_modifyitems(items):
    """Heavy files first; else the order stays."""
    place = {name: number for number, name in enumerate(HEAVY)}
    items.sort(key=lambda item: place.get(item.path.stem, len(HEAVY)))


@pytest.fixture(scope="session")
def as_users_run() -> dict[str, str]:
    """Environment of processes that must do what users' do: the compiler does all it can."""
    told = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    return {name: value for name, value in os.environ.items() if name not in told}


@pytest.fixture(scope="session")
def real_dir() -> pathlib.Path:
    """Folder of real films, tables and predictions; they are never part of the project."""
    folder = ROOT.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder.name} is not beside the project")
    return folder


TOY = '''
"""A one-block network on 16-pixel films of noise: compiles in seconds."""
from configs import common


def get_config():
    c = common.base()
    c.name = "toy"
    c.data.dataset = "toy/16px"
    c.task.name = "cxr_jax.tasks.classify.Classify"
    c.task.model = {"name": "cxr_jax.models.densenet.densenet_tiny"}
    c.task.head = {"name": "cxr_jax.models.heads.PoolThenClassify", "dropout": 0.2}
    c.task.classes = ("bright", "left", "rare")
    c.task.channels = 1
    c.task.mean, c.task.std = (0.5,), (0.25,)
    c.task.terms = ({
        "name": "bce",
        "fn": {"name": "cxr_jax.losses.bce"},
        "reduce": {"classes": "sum", "batch": "mean"},
    },)
    c.augment.flip = 0.5
    c.augment.rotation = 5.0
    c.train.batch_size = 8
    c.train.log_every = 5
    c.checkpoint.every_steps = 5
    c.eval.batch_size = 8
    c.eval.resamples = 20
    c.phases = (common.phase(epochs=4.0),)
    return c


def two_phases(c):
    first = common.phase(epochs=2.0, freeze=("backbone/*",))
    second = common.phase(epochs=2.0, optimizer_at_switch="carry")
    c.phases = (first, second)


def double(c):
    wide = {"dtype": "float64", "param_dtype": "float64"}
    c.task.model = {**c.task.model, **wide}
    c.task.head = {**c.task.head, **wide, "dropout": 0.0}


VARIANTS = {"two_phases": two_phases, "double": double}
'''


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A prepared dataset of 100 small films, and a config for it.

    Returns:
        ``(config path, data_dir)``.
    """
    import numpy as np
    import tensorflow_datasets as tfds

    from data_builders import packing

    class Builder(packing.Packed, skip_registration=True):
        name = "toy"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="16px"),)

        def layout(self):
            return packing.Layout(size=16, classes=("bright", "left", "rare"))

        def films(self):
            rng = np.random.default_rng(0)
            for k in range(100):
                bright, left = rng.integers(0, 2, 2)
                image = rng.integers(0, 100, (16, 16)) + 80 * bright
                image[:, :8] += 60 * left
                part = ("train", "train", "train", "val", "test")[k // 2 % 5]
                yield packing.Film(
                    id=f"{k:03d}.png",
                    image=image.astype(np.uint8),
                    labels=np.array([bright, left, k % 20 == 0]),
                    patient=f"p{k // 2}",
                    splits={"patient_disjoint": part},
                )

    root = tmp_path_factory.mktemp("toy")
    Builder(data_dir=root / "data", config="16px").download_and_prepare(
        file_format="array_record"
    )
    (root / "configs").mkdir()
    (root / "configs" / "toy.py").write_text(TOY)
    return str(root / "configs" / "toy.py"), str(root / "data")


class Faulty:
    """Real processes of ``cxr_jax.main`` on the toy, through ``tests/faulty.py``."""

    def __init__(self, config: str, data_dir: str, env: Mapping[str, str]):
        self.config, self.data_dir, self.env = config, data_dir, env

    def start(
        self,
        workdir,
        moment: str = "none",
        signal: str = "SIGTERM",
        *,
        variant: str = "",
        before: tuple[str, ...] = (),
    ) -> subprocess.Popen:
        """A process that is struck by a signal at a moment; ``before`` goes ahead of it."""
        command = [*before, sys.executable, str(ROOT / "tests" / "faulty.py")]
        command += [moment, signal, f"--config={self.config}:{variant}"]
        command += [f"--workdir={workdir}", f"--data_dir={self.data_dir}"]
        env = {**self.env, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, workdir, *args, **kwargs) -> subprocess.CompletedProcess:
        """The same, waited for."""
        with self.start(workdir, *args, **kwargs) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="session")
def faulty(toy, as_users_run) -> Faulty:
    """Starts processes and breaks them."""
    return Faulty(*toy, as_users_run)


@pytest.fixture(scope="session")
def finished(toy, tmp_path_factory) -> pathlib.Path:
    """The workdir of a finished run of the toy; to be read, not written.

    Compiled as the session is, whose readers are compared with it. The workers of a session share one: who comes second waits.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made, claim = shared / "finished", shared / "finished.claimed"
    try:
        claim.mkdir()
    except FileExistsError:
        for _ in range(3_000):
            if made.is_dir():
                return made
            time.sleep(0.1)
        pytest.fail("another worker was to train the toy, and did not")
    done = Faulty(*toy, os.environ).run(shared / "finished.begun")
    assert done.returncode == 0, done.stderr
    return (shared / "finished.begun").rename(made)


@pytest.fixture(scope="session")
def passport():
    """From a finished workdir to what two runs that are the same have in common."""
    from cxr_jax.checkpoint import Checkpoints

    def read(workdir):
        latest = Checkpoints(workdir / "checkpoints" / "latest", keep=2)
        text = (workdir / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        # A stop ends the averaging of a training line early: those differ in number,
        # not in what was computed, which the state's digest tells.
        lines = [line for line in lines if line["split"] == "val"]
        return {
            "step": latest.steps()[-1],
            "state": latest.meta(latest.steps()[-1])["sha256"],
            "metrics": lines,
            "predictions": (workdir / "evaluation/test/predictions.csv").read_text(),
        }

    return read


@pytest.fixture(scope="session")
def unbroken(faulty, passport, tmp_path_factory):
    """From a variant of the toy to the passport of a run that nothing happened to."""
    runs = {}

    def get(variant: str = ""):
        if variant not in runs:
            workdir = tmp_path_factory.mktemp("unbroken")
            done = faulty.run(workdir, variant=variant)
            assert done.returncode == 0, done.stderr
            runs[variant] = passport(workdir)
        return runs[variant]

    return get


@pytest.fixture(scope="session")
def flip_bit():
    """Flips one bit of a file; by default in its middle."""

    def flip(path: pathlib.Path, place: float = 0.5, bit: int = 4) -> None:
        raw = bytearray(path.read_bytes())
        raw[int(place * (len(raw) - 1))] ^= 1 << bit
        path.write_bytes(raw)

    return flip


@pytest.fixture(scope="session")
def committed():
    """The folders of the steps in a workdir's ``latest``, oldest first."""

    def steps(workdir) -> list[pathlib.Path]:
        folders = (pathlib.Path(workdir) / "checkpoints" / "latest").glob("*")
        whole = [path for path in folders if path.name.isdigit()]
        return sorted(whole, key=lambda path: int(path.name))

    return steps
