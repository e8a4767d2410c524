"""A run and its export read films alike, and a file can ask for nothing but our parts."""

import copy
import dataclasses
import errno
import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax import nnx

import cxr_jax
from cxr_jax import best, export, loading, main, tta
from cxr_jax.checkpoint import sha256
from cxr_jax.errors import CheckpointError, ConfigError
from cxr_jax.metrics.scaling import Platt
from cxr_jax.models import densenet, exporting, heads, origin, state
from cxr_jax.models.passport import Passport
from cxr_jax.tasks.classify import Classify


def platt(**known):
    nothing = {"slope": None, "intercept": None, "prevalence": 0.5}
    counts = {"n": 100, "positives": 50, "positive_patients": 30}
    return dataclasses.asdict(Platt(**(nothing | counts | known)))


FROZEN = {
    "operating_points": {
        "bright": {"youden": {"threshold": 0.5, "reason": None}},
        "left": {"youden": {"threshold": 0.25, "reason": None}},
        "rare": {"youden": {"threshold": None, "reason": "no positives"}},
    },
    "platt": {
        "bright": platt(slope=1.3, intercept=-0.7, prevalence=0.4),
        "left": platt(slope=0.8, intercept=2.0, prevalence=0.2),
        "rare": platt(reason="score, uncalibrated: fewer than 20 positive patients"),
    },
    "chosen_on": {"n": 20, "ids_sha256": "ab" * 32},
}


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """The workdir of a finished run of the toy, in which ``FROZEN`` was frozen."""
    workdir = tmp_path_factory.mktemp("run") / "toy"
    shutil.copytree(finished, workdir)
    change(workdir / "evaluation" / "val" / "result.json", frozen=FROZEN)
    return workdir


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The file, and what lay in the run before and after it was written."""
    before = listing(run)
    path = tmp_path_factory.mktemp("out") / "more" / "toy.safetensors"
    assert export.export_run(run, path) == path
    assert listing(run) == before
    return path


@pytest.fixture(scope="module")
def films():
    rng = np.random.default_rng(0)
    return [rng.random((16, 16)) * scale for scale in (1, 0.5, 0.2, 0.8)]


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def listing(folder):
    return sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))


def metadata(path):
    with safetensors.safe_open(path, framework="np") as file:
        return file.metadata()


def rewritten(path, target, edit):
    """A copy whose ``run`` was edited inside, and without a JSON beside."""
    said = metadata(path)
    content = json.loads(said["run"])
    edit(content)
    said["run"] = json.dumps(content)
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), target, said)
    return target


def alike(one, other, films):
    for a, b in zip(one.predict(films), other.predict(films), strict=True):
        np.testing.assert_allclose(a.probs, b.probs, atol=1e-6)
        np.testing.assert_allclose(a.raw, b.raw, atol=1e-6)
        np.testing.assert_allclose(a.maps, b.maps, atol=1e-5)
        np.testing.assert_array_equal(a.thresholds, b.thresholds)
        np.testing.assert_array_equal(a.shown_thresholds, b.shown_thresholds)
        np.testing.assert_array_equal(a.calibrated, b.calibrated)
        assert (a.reasons, a.readings) == (b.reasons, b.readings)


def test_an_export_reads_films_as_its_run_does(run, exported, films, caplog):
    whole, file = cxr_jax.load(run), cxr_jax.load(exported)
    assert not caplog.records
    alike(whole, file, films)
    found = file.predict(films[0])
    assert found.calibrated.tolist() == [True, True, False]
    logit = float(found.logits[0])
    by_hand = 1 / (1 + np.exp(-(1.3 * logit - 0.7)))
    np.testing.assert_allclose(found.probs[0], by_hand, rtol=1e-5)
    assert found.thresholds[:2].tolist() == [0.5, 0.25]
    site = {"prevalence": {"bright": 0.02}}
    np.testing.assert_allclose(
        file.predict(films[0], **site).probs, whole.predict(films[0], **site).probs
    )
    # The head's dropout came along.
    spread = [reader.predict(films[0], samples=5).std for reader in (whole, file)]
    np.testing.assert_allclose(*spread, atol=1e-6)
    for key in ("trained on", "step", "weights_sha256"):
        assert file.about[key] == whole.about[key]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "cxr_jax.models.simple_cnn.SimpleCNN"}},
        {"head": {"name": "cxr_jax.models.heads.PoolHiddenClassify"}},
    ],
)
def test_a_network_without_a_place_in_the_layout_is_refused(
    run, tmp_path, monkeypatch, changes
):
    found = best.read(run)
    task = copy.copy(found.task)
    vars(task).update(changes)
    other = dataclasses.replace(found, task=task)
    monkeypatch.setattr(export.best, "read", lambda workdir: other)
    with pytest.raises(ConfigError, match="DenseNets under one linear layer"):
        export.export_run(run, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_stands_inside_stands_beside(run, exported):
    inside = metadata(exported)
    beside = json.loads(exporting.sidecar(exported).read_text())
    said = json.loads(inside["run"])
    assert beside.pop("run") == said
    passport = Passport.from_json(json.dumps(beside))
    assert passport == dataclasses.replace(
        Passport.from_json(inside["passport"]), sha256=passport.sha256
    )
    assert passport.classes == ("bright", "left", "rare") and passport.size == 16
    assert passport.architecture == "densenet(2)" and "Research use" in passport.notes
    assert said["frozen"] == FROZEN
    result = json.loads((run / "evaluation" / "val" / "result.json").read_text())
    assert said["weights_sha256"] == result["weights_sha256"]
    names = set(safetensors.numpy.load_file(exported))
    assert {"features.conv0.weight", "classifier.bias"} <= names
    assert str(run.parent) not in exported.read_bytes().decode(errors="replace")


def test_either_place_is_enough_and_two_must_agree(run, exported, films, tmp_path):
    path = tmp_path / "toy.safetensors"
    shutil.copy(exported, path)
    alike(cxr_jax.load(run), cxr_jax.load(path), films[:1])
    shutil.copy(exporting.sidecar(exported), exporting.sidecar(path))
    content = json.loads(exporting.sidecar(path).read_text())
    content["run"]["step"] += 1
    exporting.sidecar(path).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="differs from that in the file"):
        cxr_jax.load(path)
    # Another program kept the arrays, and no metadata.
    safetensors.numpy.save_file(safetensors.numpy.load_file(exported), path)
    content["sha256"] = ""
    exporting.sidecar(path).write_text(json.dumps(content))
    alike(cxr_jax.load(run), cxr_jax.load(path), films[:1])


@pytest.mark.parametrize("fault", ["absent", "other weights", "nothing frozen"])
def test_nothing_frozen_is_a_score(run, films, tmp_path, fault):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    result = copy / "evaluation" / "val" / "result.json"
    if fault == "absent":
        result.unlink()
    elif fault == "other weights":
        change(result, weights_sha256="ab" * 32)
    else:
        change(result, frozen={})
    path = export.export_run(copy, tmp_path / "toy.safetensors")
    assert json.loads(metadata(path)["run"])["frozen"] == {}
    reader = cxr_jax.load(path)
    alike(cxr_jax.load(copy), reader, films[:1])
    text = str(reader.predict(films[0]))
    assert "score, uncalibrated" in text and "Uncalibrated (all classes)" in text


def test_calibration_does_not_go_with_other_arrays(exported, films, tmp_path):
    arrays = safetensors.numpy.load_file(exported)
    arrays["classifier.bias"] = arrays["classifier.bias"] + 1
    path = tmp_path / "tuned.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata(exported))
    finding = cxr_jax.load(path).predict(films[0])
    assert not finding.calibrated.any() and np.isnan(finding.thresholds).all()
    assert "belongs to other weights" in finding.reasons[0]


def test_views_are_averaged_as_in_the_evaluation(run, films, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["eval"]["tta"] = {"name": "cxr_jax.tta.Flip", "average": "", "size": 0}
    (copy / "config.json").write_text(json.dumps(config))
    path = export.export_run(copy, tmp_path / "toy.safetensors")
    both = cxr_jax.load(copy), cxr_jax.load(path)
    alike(*both, films[:2])
    mirrored = both[1].predict(films[0][:, ::-1])
    np.testing.assert_allclose(both[1].predict(films[0]).raw, mirrored.raw, rtol=1e-5)


def narrowed():
    """The phantom variant's kind of network: fewer blocks, another stem, a crop."""
    return Classify(
        model={
            "name": "cxr_jax.models.densenet.DenseNet",
            "blocks": (2, 1),
            "growth": 4,
            "stem_width": 8,
            "stem_kernel": 5,
        },
        head={"name": "cxr_jax.models.heads.PoolThenClassify", "prior": 0.1},
        terms=(loading.UNUSED,),
        classes=("Mass", "Hernia"),
        mean=(0.5,),
        std=(0.25,),
        channels=1,
        size=24,
        maps="grad_cam",
    )


def test_a_narrowed_network_is_rebuilt(tmp_path, monkeypatch):
    task = narrowed()
    model = nnx.jit(task.create)(jax.random.key(3))
    params, rest = state.ModelDef.of(task.create).split(model)
    found = export.Best(
        config={
            "name": "chexnet",
            "variants": ("phantom",),
            "data": {"dataset": "phantom_chest/tiny"},
            "eval": {"tta": {"name": "", "size": 0, "average": "probs"}},
        },
        task=task,
        params=params,
        rest=rest,
        step=7,
        weights_sha256=sha256({"params": params, "rest": rest}),
        size=32,
        frozen={},
        missing="the run was not evaluated (--mode=evaluate)",
    )
    monkeypatch.setattr(export.best, "read", lambda source: found)
    path = export.export_run(tmp_path / "run", tmp_path / "small.safetensors")
    beside = json.loads(exporting.sidecar(path).read_text())
    assert beside["architecture"] == "densenet(2, 1)"
    assert beside["source"].endswith("step 7, of chexnet:phantom on phantom_chest/tiny")
    assert "middle 24 pixels" in beside["notes"]
    reader = cxr_jax.load(path)
    film = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    # Cropped and normalised by hand; the network is that of the weights.
    x = (film[None, 4:28, 4:28, None] / 255 - 0.5) / 0.25
    view = nnx.view(model, use_running_average=True, raise_if_not_found=False)
    logits = nnx.jit(lambda m, x: m(x))(view, np.float32(x))
    finding = reader.predict(film / 255)
    np.testing.assert_allclose(finding.logits, logits[0], rtol=1e-4, atol=1e-5)
    assert finding.unit == "Grad-CAM" and reader.size == 32


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c["network"]["model"].update(name="os.system"), "is no Module of"),
        (
            lambda c: c["network"]["model"].update(name="cxr_jax.config.load"),
            "is no Module of",
        ),
        (
            lambda c: c["network"]["model"].update(name="cxr_jax.models.hub.fetch"),
            "is no Module of",
        ),
        (
            lambda c: c["network"]["head"].update(name="cxr_jax.models.heads.nnx"),
            "is no Module of",
        ),
        (
            lambda c: c["network"]["model"].update(
                name="cxr_jax.models.densenet.functools.partial"
            ),
            "there is no module",
        ),
        (
            lambda c: c["network"]["model"].update(name="cxr_jax.models.x.../y"),
            "run: network=",
        ),
        (
            lambda c: c["network"]["model"].update(name="cxr_jax.models.nothing.Net"),
            "there is no module",
        ),
        (lambda c: c["network"]["model"].update(deep={"name": "x.y"}), "run: network="),
        (lambda c: c["network"]["model"].update(growth=10**9), "run: network="),
        (lambda c: c["network"]["model"].update(blocks="many"), "multiple values"),
        (lambda c: c["network"]["model"].update(growth="x"), "cannot be built"),
        (lambda c: c["network"].update(more=1), "run: network="),
        (
            lambda c: c.update(
                tta={"name": "cxr_jax.tta.wrap", "spec": "cxr_jax.config.load"}
            ),
            "is no Views of",
        ),
        (lambda c: c.update(tta={"name": "cxr_jax.tta.Views"}), "abstract"),
        (lambda c: c["frozen"]["platt"]["left"].update(slope="1"), "run: frozen="),
        (lambda c: c["frozen"]["platt"]["left"].update(prevalence=1), "run: frozen="),
        (lambda c: c["frozen"]["platt"]["left"].update(tilt=1.0), "cannot be read"),
        (lambda c: c["frozen"]["operating_points"]["left"].clear(), "cannot be read"),
        (lambda c: c["frozen"].update(code="print()"), "run: frozen="),
        (lambda c: c.update(step=-1), "run: step="),
        (lambda c: c.pop("step"), "its keys must be"),
        (
            lambda c: c.update(fit="squeeze"),
            "run: fit='squeeze', allowed is one of pad",
        ),
        (lambda c: c.update(mc={"samples": 9}), "run: mc={'samples': 9}, allowed"),
        (
            lambda c: c.update(mc={"samples": 10**9, "probs": "mean", "seed": 0}),
            "run: mc=.*allowed is samples, probs, seed, or nothing",
        ),
        (lambda c: c.update(enlarge=1), "run: enlarge=1, allowed is true or false"),
    ],
)
def test_a_file_asks_for_nothing_but_parts_of_ours(exported, tmp_path, edit, words):
    path = rewritten(exported, tmp_path / "wrong.safetensors", edit)
    with pytest.raises((CheckpointError, ConfigError), match=words):
        cxr_jax.load(path)


def test_a_file_of_before_films_were_padded_is_of_stretched_ones(exported, tmp_path):
    def earlier(content):
        del content["fit"], content["enlarge"], content["mc"]

    found = cxr_jax.load(rewritten(exported, tmp_path / "old.safetensors", earlier))
    assert (found.fit, found.enlarge) == ("stretch", False)


def test_parts_are_classes_of_their_own_kind():
    under = "cxr_jax.models."
    for name in ("densenet.DenseNet", "densenet.densenet121", "gray.densenet169"):
        origin.check_part({"name": under + name}, under=under, kind=nnx.Module)
    origin.check_part(
        {"name": "cxr_jax.tta.Flip"}, under="cxr_jax.tta.", kind=tta.Views
    )
    partial = functools.partial(heads.Classifier, None)
    densenet.not_ours = functools.partial(print, partial)
    try:
        with pytest.raises(CheckpointError, match="is no Module"):
            name = f"{under}densenet.not_ours"
            origin.check_part({"name": name}, under=under, kind=nnx.Module)
    finally:
        del densenet.not_ours


def test_a_command_of_a_user(run, films, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    before = listing(run)
    path = tmp_path / "toy.safetensors"

    def command(*argv):
        code = main.main(["--mode=export", *map(str, argv)])
        written = capsys.readouterr()
        return code, written.out, written.err

    code, out, err = command(f"--workdir={run}", f"--output={path}")
    assert (code, out) == (0, f"weights: {path}\n"), err
    alike(cxr_jax.load(run), cxr_jax.load(path), films[:1])
    for argv, words in (
        ([f"--workdir={run}"], "required: --output"),
        ([f"--workdir={run}", f"--output={tmp_path / 'toy.pt'}"], "name it so"),
        ([f"--workdir={run}", f"--output={run / 'x.safetensors'}"], "outside of it"),
        ([f"--workdir={run}", "--output=gs://a/x.safetensors"], "on this machine"),
        (
            [f"--workdir={run}", f"--output={path / 'x.safetensors'}"],
            "cannot be written",
        ),
        (
            [f"--workdir={path.parent / 'nothing'}", f"--output={path}"],
            "workdir of a run",
        ),
    ):
        code, out, err = command(*argv)
        assert (code, out) == (2, ""), err
        assert words in err and err.count("\n") == 1
    assert listing(run) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "toy.safetensors",
        "toy.safetensors.passport.json",
    ]


def test_a_network_that_others_would_read_wrongly_is_refused(
    run, tmp_path, monkeypatch
):
    for fault, words in (
        (
            {"model": {"name": "cxr_jax.models.densenet.tiny", "epsilon": 1e-3}},
            "which gives other numbers",
        ),
        ({}, "an export describes runs of"),
    ):
        task = narrowed() if fault else tta.Flip(task=narrowed())
        for name, value in fault.items():
            setattr(task, name, value)
        found = dataclasses.replace(export.best.read(run), task=task)
        with monkeypatch.context() as patch:
            patch.setattr(export.best, "read", lambda source, found=found: found)
            with pytest.raises(ConfigError, match=words):
                export.export_run(run, tmp_path / "toy.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_a_file(run, tmp_path, monkeypatch):
    def full(self, raw):
        self.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        export.export_run(run, tmp_path / "toy.safetensors")
    assert not list(tmp_path.iterdir())
