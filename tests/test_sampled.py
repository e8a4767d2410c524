"""An evaluation with dropout: the same numbers on any devices, seeds that reproduce, refusals."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import cxr_jax
from cxr_jax import config as configs
from cxr_jax import export, passes, results, sampled, tta
from cxr_jax import run as runs
from cxr_jax.data import source
from cxr_jax.errors import ConfigError
from cxr_jax.models.state import ModelDef
from cxr_jax.preemption import Stopper
from cxr_jax.tasks.classify import Classify
from cxr_jax.types import Batch

ROOT = pathlib.Path(__file__).parents[1]
BCE = {
    "name": "bce",
    "fn": {"name": "cxr_jax.losses.bce"},
    "reduce": {"batch": "mean", "classes": "sum"},
}


def make_task(dropout=0.5, head="PoolThenClassify"):
    return Classify(
        model={"name": "cxr_jax.models.densenet.densenet_tiny"},
        head={"name": f"cxr_jax.models.heads.{head}", "dropout": dropout},
        maps="cam" if head == "PoolThenClassify" else "grad_cam",
        terms=(BCE,),
        classes=("a", "b"),
        mean=(0.5,),
        std=(0.25,),
        channels=1,
    )


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.fixture(scope="module")
def state(task):
    static = ModelDef.of(task.create)
    return static, *jax.jit(lambda k: static.init(task.create, k))(jax.random.key(0))


def films(rows=8, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        image=rng.integers(0, 256, (rows, 16, 16, 1)).astype(np.uint8),
        labels=np.zeros((rows, 2), np.float32),
        mask=np.ones(rows, bool),
        position=np.arange(rows, dtype=np.uint32),
        index=np.arange(rows, dtype=np.int32),
    )


def predict(task, state, batch, **how):
    static, params, rest = state
    read = jax.jit(lambda b: task.predict(static.merge(params, rest), b, **how))
    return jax.device_get(read(batch))


def draw(task, state, batch, *, seed, samples=30):
    static, params, rest = state
    how = {"key": jax.random.key(seed), "samples": samples}
    read = jax.jit(lambda b: task.passes(static.merge(params, rest), b, **how))
    return jax.device_get(read(batch))


def test_the_mean_over_passes_is_the_probability_or_the_plain_pass_stays_it(
    task, state
):
    batch = films()
    plain = predict(task, state, batch)
    key = jax.random.key(3)
    drawn = predict(task, state, batch, key=key, samples=40)
    each = draw(task, state, batch, seed=3, samples=40)
    each = 1 / (1 + np.exp(-np.float64(each)))
    np.testing.assert_allclose(drawn.probs, each.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(drawn.std, each.std(axis=0), rtol=1e-4)
    mean = np.float64(drawn.probs)
    np.testing.assert_allclose(drawn.logits, np.log(mean / (1 - mean)), atol=1e-5)
    # Without dropout: it would move them by tenths. Last bits are the compiler's.
    np.testing.assert_allclose(drawn.maps, plain.maps, rtol=0, atol=1e-5)

    wrap = sampled.wrap(task, {"samples": 40, "probs": "mean"}, seed=3)
    jax.tree.map(np.testing.assert_array_equal, predict(wrap, state, batch), drawn)
    wrap = sampled.wrap(task, {"samples": 40, "probs": "plain"}, seed=3)
    beside = predict(wrap, state, batch)
    np.testing.assert_allclose(beside.probs, plain.probs, rtol=1e-6)
    np.testing.assert_allclose(beside.logits, plain.logits, rtol=1e-6)
    np.testing.assert_allclose(beside.std, drawn.std, rtol=1e-6)
    np.testing.assert_allclose(beside.information, drawn.information, atol=1e-7)
    # A caller's own samples pass through.
    own = predict(wrap, state, batch, key=jax.random.key(8), samples=4)
    want = predict(task, state, batch, key=jax.random.key(8), samples=4)
    jax.tree.map(np.testing.assert_array_equal, own, want)


def test_a_film_gets_the_same_spread_beside_other_films(task, state):
    how = {"key": jax.random.key(0), "samples": 25}
    whole = predict(task, state, films(), **how)
    order = np.array([5, 2, 5, 0, 1])
    some = dataclasses.replace(films(5), image=films().image[order])
    found = predict(task, state, some, **how)
    for name in ("probs", "std", "information", "logits"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(whole, name)[order], rtol=1e-4, atol=1e-6
        )
    np.testing.assert_allclose(found.std[0], found.std[2], rtol=1e-5)


def test_the_backbone_is_read_once_whatever_is_asked(task, state):
    static, params, rest = state

    def convolutions(task, **how):
        read = jax.jit(lambda b: task.predict(static.merge(params, rest), b, **how))
        return read.lower(films()).compile().as_text().count(" convolution(")

    once = convolutions(task)
    assert once > 0
    for probs in ("mean", "plain"):
        wrap = sampled.Sampled(task=task, samples=30, probs=probs)
        assert convolutions(wrap) == once


def test_views_see_the_same_masks_and_average_their_spreads(task, state):
    batch = films()
    wrap = sampled.Sampled(task=task, samples=30, seed=2)
    found = predict(tta.Flip(task=wrap), state, batch)
    mirrored = dataclasses.replace(batch, image=batch.image[:, :, ::-1])
    views = [predict(wrap, state, view) for view in (batch, mirrored)]
    for name in ("probs", "std", "information"):
        mean = np.mean([np.float64(getattr(view, name)) for view in views], axis=0)
        np.testing.assert_allclose(getattr(found, name), mean, rtol=1e-4, atol=1e-7)
    mean = np.float64(found.probs)
    np.testing.assert_allclose(found.logits, np.log(mean / (1 - mean)), atol=1e-5)
    # Pass by pass the views are averaged first: the mean is the same.
    for average in ("probs", "logits"):
        each = draw(tta.Flip(task=task, average=average), state, batch, seed=2)
        assert each.shape == (30, 8, 2)
        probs = 1 / (1 + np.exp(-np.float64(each)))
        gap = np.abs(probs.mean(axis=0) - found.probs).max()
        assert gap < (1e-6 if average == "probs" else 0.05)
        assert (probs.std(axis=0) < found.std + 1e-6).all() or average == "logits"


@pytest.mark.parametrize("head", ["PoolThenClassify", "PoolHiddenClassify"])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_network_without_dropout_is_told_before_anything_is_computed(head, rate):
    task = make_task(dropout=rate, head=head)
    assert sampled.drops(task, ModelDef.of(task.create), 16, 16) == (rate > 0)
    wrap = sampled.Sampled(task=tta.Flip(task=task), samples=3)
    if rate:
        wrap.check(ModelDef.of(task.create), 16, 16)
    else:
        with pytest.raises(ConfigError, match=r"eval\.mc\.samples=3.*has no dropout"):
            wrap.check(ModelDef.of(task.create), 16, 16)


def test_impossible_settings_are_refused(task):
    assert sampled.wrap(task, {"samples": 0, "probs": "mean"}, seed=0) is task
    assert sampled.wrap(task, {}, seed=0) is task
    for spec, words in (
        ({"samples": -1, "probs": "mean"}, "eval.mc.samples=-1: must be at least 0"),
        ({"samples": 5, "probs": "most"}, "eval.mc.probs='most': give 'mean'"),
        ({"samples": 5, "passes": 3}, "eval.mc: .*passes"),
    ):
        with pytest.raises(ConfigError, match=words):
            sampled.wrap(task, spec, seed=0)


SPREAD = """
import sys
sys.path[:0] = ["tests"]
import jax, numpy as np
from cxr_jax import sampled, sharding
from test_sampled import films, make_task
from cxr_jax.models.state import ModelDef

assert jax.device_count() == 4
wrap = sampled.Sampled(task=make_task(), samples=50, seed=1)
static = ModelDef.of(wrap.create)
first = jax.jit(lambda k: static.init(wrap.create, k))(jax.random.key(0))
found = []
for count in (1, 4):
    mesh = sharding.make_mesh(jax.devices()[:count])
    arrays = jax.device_put(first, sharding.replicated(mesh))
    read = jax.jit(lambda arrays, b: wrap.predict(static.merge(*arrays), b))
    batch = sharding.to_global(films(), mesh)
    compiled = read.lower(arrays, batch).compile()
    prediction = compiled(arrays, batch)
    assert len(prediction.std.sharding.device_set) == count
    found.append(jax.device_get(prediction))
    # Nothing is gathered: each device reads its own films with all masks.
    text = compiled.as_text()
    assert "all-gather" not in text, text
one, four = found
for name in ("probs", "logits", "std", "information"):
    a, b = getattr(one, name), getattr(four, name)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)
assert (one.std > 1e-3).all()
print("agreed")
"""


def environment(**more):
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return {k: v for k, v in env.items() if k != "XLA_FLAGS"} | more


@pytest.mark.long
def test_four_devices_say_what_one_says():
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", SPREAD],
        cwd=ROOT,
        env=environment(XLA_FLAGS=flags),
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0 and "agreed" in done.stdout, done.stderr[-3000:]


UNCERTAINTY = {"name": "cxr_jax.evaluators.uncertainty.Uncertainty"}


@pytest.fixture(scope="module")
def opened(toy, tmp_path_factory):
    """From overrides to a run of the toy, trained once."""
    path, data_dir = toy
    few = ["phases.0.epochs=1.0", "eval.resamples=0", "eval.samples=0"]
    workdir = str(tmp_path_factory.mktemp("sampled") / "run")

    def get(*overrides, evaluators=()):
        config = configs.load(path, [*few, *overrides])
        with config.unlocked():
            config.eval.evaluators = (*config.eval.evaluators, *evaluators)
        return runs.open_run(config, path=workdir, data_dir=data_dir, stopper=Stopper())

    runs.train(get())
    return get


def read_csv(path):
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    values = {row[0]: [float(cell) for cell in row[1:]] for row in rows}
    return header, values


def test_an_evaluation_with_passes_replaces_one_without_and_stands(opened):
    run = opened()
    before = results.evaluate_run(run)
    folder = pathlib.Path(run.workdir) / "evaluation" / "test"
    plain = (folder / "predictions.csv").read_text()
    assert not (folder / "uncertainty.csv").exists()
    asked = opened("eval.mc.samples=30", evaluators=[UNCERTAINTY])
    first = results.evaluate_run(asked)
    assert first["test"]["settings"]["mc"] == {"samples": 30, "probs": "mean"}
    assert first["test"]["weights_sha256"] == before["test"]["weights_sha256"]
    # Thresholds were frozen on the same kind of probabilities as are judged by them.
    assert first["val"]["frozen"] != before["val"]["frozen"]
    assert "means over 30 passes with dropout" in " ".join(first["test"]["notes"])
    block = first["test"]["uncertainty"]
    assert block["n"] == 20 and block["threshold"] == 0.1
    header, values = read_csv(folder / "uncertainty.csv")
    names = ["bright", "left", "rare"]
    assert header == [
        "id",
        *(f"{n}@{k}" for k in ("std", "information") for n in names),
    ]
    table = np.array(list(values.values()))
    assert table.shape == (20, 6) and (table[:, :3] > 0).all() and (table >= 0).all()
    drawn = (folder / "predictions.csv").read_text()
    assert drawn != plain
    assert list(values) == [line.split(",")[0] for line in drawn.splitlines()[1:]]

    # The same again stands; the plain probabilities are another evaluation.
    written = (folder / "result.json").stat().st_mtime_ns
    results.evaluate_run(opened("eval.mc.samples=30", evaluators=[UNCERTAINTY]))
    assert (folder / "result.json").stat().st_mtime_ns == written
    kept = opened("eval.mc.samples=30", "eval.mc.probs=plain")
    found = results.evaluate_run(kept)
    assert found["test"]["settings"]["mc"]["probs"] == "plain"
    again = read_csv(folder / "uncertainty.csv")[1]
    np.testing.assert_allclose(list(again.values()), table, rtol=1e-5, atol=1e-7)
    unchanged = read_csv_of_predictions(plain)
    kept_probs = read_csv_of_predictions((folder / "predictions.csv").read_text())
    np.testing.assert_allclose(kept_probs, unchanged, rtol=1e-5)
    # Back to no passes: the file of another evaluation does not stay.
    results.evaluate_run(opened())
    assert not (folder / "uncertainty.csv").exists()
    assert not (folder / passes.FILE).exists()
    assert (folder / "predictions.csv").read_text() == plain


def read_csv_of_predictions(text):
    return [[float(cell) for cell in line.split(",")[3:]] for line in text.split()[1:]]


def test_chosen_findings_are_kept_pass_by_pass(opened):
    run = opened("eval.mc.samples=100")
    results.evaluate_run(run)
    folder = run.workdir / "evaluation" / "test"
    found = passes.read(folder)
    assert found.probs.shape[1] == 100 and found.kinds[0] == passes.WIDEST
    header, spread = read_csv(folder / "uncertainty.csv")
    _, probs = read_csv_of(folder / "predictions.csv")
    for k, name in enumerate(found.ids):
        column = header.index(f"{found.classes[k]}@std") - 1
        assert found.probs[k].std() == pytest.approx(spread[name][column], rel=1e-4)
        mean = probs[name][column]
        assert found.probs[k].mean() == pytest.approx(mean, rel=1e-5)
    widest = max(max(values[:3]) for values in spread.values())
    assert found.probs[0].std() == pytest.approx(widest, rel=1e-4)
    if passes.SURE in found.kinds:
        k = found.kinds.tolist().index(passes.SURE)
        assert (found.probs[k].mean() >= 0.5) != (found.labels[k] == 1)


def read_csv_of(path):
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    return header, {row[0]: [float(cell) for cell in row[3:]] for row in rows}


@pytest.mark.parametrize("probs", ["mean", "plain"])
def test_a_reader_of_the_run_and_of_its_export_says_what_was_evaluated(
    opened, probs, tmp_path
):
    run = opened("eval.mc.samples=30", f"eval.mc.probs={probs}")
    results.evaluate_run(run)
    folder = run.workdir / "evaluation" / "test"
    _, spread = read_csv(folder / "uncertainty.csv")
    _, written = read_csv_of(folder / "predictions.csv")
    index = run.division.split.parts["test"]
    images = source.Reader(run.dataset, source.Fields()).read(index)["image"]
    names = run.dataset.records.id[index]
    file = export.export_run(run.workdir, tmp_path / "toy.safetensors")
    for reader in (cxr_jax.load(run.workdir), cxr_jax.load(file)):
        found = reader.predict([np.asarray(x[..., 0]) / 255 for x in images])
        for name, finding in zip(names, found, strict=True):
            assert "other passes" not in " ".join(finding.reasons)
            np.testing.assert_allclose(finding.raw, written[name], rtol=1e-4)
            both = [*finding.std, *finding.information]
            np.testing.assert_allclose(both, spread[name], rtol=1e-3, atol=2e-7)


def test_passes_without_dropout_are_refused_before_training(toy, tmp_path):
    path, data_dir = toy
    for more, words in (
        (["eval.mc.samples=10", "task.head.dropout=0.0"], "has no dropout"),
        (["eval.mc.samples=-3"], "eval.mc.samples=-3: must be at least 0"),
        (["eval.mc.probs=median"], "eval.mc.probs='median': mean or plain"),
    ):
        with pytest.raises(ConfigError, match=words):
            runs.open_run(
                configs.load(path, more),
                path=str(tmp_path / "run"),
                data_dir=data_dir,
                stopper=Stopper(),
            )
    assert not (tmp_path / "run").exists()


def test_the_evaluator_is_refused_where_nothing_is_sampled(opened):
    with pytest.raises(ConfigError, match="Uncertainty needs std"):
        opened(evaluators=[UNCERTAINTY])


def test_training_validates_without_dropout(opened):
    """What picks the checkpoint is the plain pass, whatever the evaluation asks for."""
    run = opened("eval.mc.samples=30")
    reader = run.reader()
    state, _ = results._best(run)
    table, _ = reader(state.params, state.rest, run.part("val"))
    assert table.std is None and table.information is None
    table, _ = run.reader(augmented=True)(state.params, state.rest, run.part("val"))
    assert (table.std > 0).all() and table.std.shape == table.probs.shape


@pytest.mark.long
def test_two_processes_evaluate_as_one_with_two_devices(toy, tmp_path):
    path, data_dir = toy
    found = []
    for name, before, env in (
        ("two", ["bash", "launch/local.sh", "2"], {"CXR_LOG_DIR": str(tmp_path)}),
        ("one", [], {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}),
    ):
        command = [*before, sys.executable, "-m", "cxr_jax.main", f"--config={path}"]
        command += [f"--workdir={tmp_path / name}", f"--data_dir={data_dir}"]
        command += ["--config.eval.mc.samples=20", "--config.phases.0.epochs=1.0"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(**env),
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        folder = tmp_path / name / "evaluation" / "test"
        result = json.loads((folder / "result.json").read_text())
        assert result["environment"]["devices"] == 2
        files = ("uncertainty.csv", "predictions.csv")
        found.append([(folder / file).read_text() for file in files])
    assert found[0] == found[1]
