"""A film read from a run: the run's own numbers, calibrated by hand, refused by name."""

import ast
import csv
import dataclasses
import functools
import io
import json
import math
import pathlib
import shutil
import subprocess
import sys

import jax
import matplotlib
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import cxr_jax
from cxr_jax import export, loading, predict_files
from cxr_jax.data import box_files, source
from cxr_jax.errors import CheckpointError, ConfigError, InputRejected
from cxr_jax.metrics.scaling import Platt
from cxr_jax.models import densenet, exporting, gray, layouts, state
from cxr_jax.models.passport import Passport
from cxr_jax.tasks import classify
from data_builders import reduction

ROOT = pathlib.Path(__file__).parents[1]
RESEARCH = "Research use only. Not for diagnostic use."


@pytest.fixture(scope="module")
def run(finished):
    """The workdir of a finished run of the toy."""
    return finished


@pytest.fixture(scope="module")
def reader(run):
    return cxr_jax.load(run)


@pytest.fixture(scope="module")
def films(toy):
    """Id → stored film, uint8 [16, 16]."""
    dataset = source.open_dataset("toy/16px", data_dir=toy[1])
    images = source.Reader(dataset, source.Fields()).read(np.arange(100))["image"]
    return dict(zip(dataset.records.id.tolist(), np.array(images[..., 0]), strict=True))


@pytest.fixture(scope="module")
def written(run):
    """Id → raw probabilities, as the run's evaluation wrote them."""
    with open(run / "evaluation" / "test" / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])[3:]
    return {row["id"]: np.array([float(row[n]) for n in names]) for row in rows}


def png(pixels, mode=None):
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, "PNG")
    return out.getvalue()


def size(path):
    return path.stat().st_size


def scaled(run, tmp_path, frozen):
    """A copy of the run in which something else was frozen."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "evaluation" / "val" / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"frozen": frozen}))
    return copy


def platt(**known):
    nothing = {"slope": None, "intercept": None, "prevalence": 0.5}
    counts = {"n": 100, "positives": 50, "positive_patients": 30}
    return dataclasses.asdict(Platt(**(nothing | counts | known)))


FROZEN = {
    "operating_points": {
        "bright": {"youden": {"threshold": 0.5}},
        "left": {"youden": {"threshold": 0.999999}},
        "rare": {"youden": {"threshold": None}},
    },
    "platt": {
        "bright": platt(slope=1.3, intercept=-0.7, prevalence=0.4),
        "left": platt(slope=0.8, intercept=2.0, prevalence=0.2),
        "rare": platt(reason="score, uncalibrated: fewer than 20 positive patients"),
    },
}


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    code = (
        "import cxr_jax, sys; heavy = {'jax', 'numpy', 'matplotlib', 'cv2'};"
        "assert not heavy & set(sys.modules); assert 'load' in dir(cxr_jax);"
        "assert callable(cxr_jax.load); assert 'jax' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT)
    assert done.returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        cxr_jax.lod  # noqa: B018


def test_raw_probabilities_are_those_of_the_run(reader, films, written, tmp_path):
    assert len(written) == 20
    arrays = [films[name] / 255 for name in written]
    for name in written:
        (tmp_path / name).write_bytes(png(films[name]))
    files = [str(tmp_path / name) for name in written]
    for given in (arrays, files, [p.read_bytes() for p in map(pathlib.Path, files)]):
        found = reader.predict(given)
        raw = np.stack([finding.raw for finding in found])
        np.testing.assert_allclose(raw, np.stack(list(written.values())), atol=1e-6)
    assert found[0].classes == ("bright", "left", "rare")
    assert [f.name for f in reader.predict(files)] == list(written)


def test_logits_maps_and_probabilities_agree(reader, films):
    finding = reader.predict(films["000.png"] / 255)
    np.testing.assert_allclose(
        finding.raw, 1 / (1 + np.exp(-finding.logits)), rtol=1e-5
    )
    # Of a linear head on the mean, map and logit differ by the bias alone.
    other = reader.predict(films["001.png"] / 255)
    gaps = [f.logits - f.maps.mean(axis=(0, 1)) for f in (finding, other)]
    np.testing.assert_allclose(*gaps, atol=1e-5)
    assert finding.std is None and finding.boxes is None
    assert reader.predict(films["000.png"] / 255, maps=False).maps is None


def test_views_are_averaged_where_the_evaluation_averaged_them(
    run, reader, films, tmp_path
):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["eval"]["tta"] = {"name": "cxr_jax.tta.Flip", "average": "", "size": 0}
    (copy / "config.json").write_text(json.dumps(config))
    film = films["000.png"] / 255
    both = reader.predict([film, film[:, ::-1]])
    mean = (both[0].raw + both[1].raw) / 2
    np.testing.assert_allclose(cxr_jax.load(copy).predict(film).raw, mean, rtol=1e-5)
    assert np.abs(both[0].raw - both[1].raw).max() > 1e-3


def test_one_or_seven_films_of_any_size_compile_once(run, films):
    reader = cxr_jax.load(run)
    compiled = []

    def listen(event, duration, **_):
        del duration
        if event == "/jax/core/compile/jaxpr_trace_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        reader.predict(films["000.png"] / 255)
        assert compiled
        compiled.clear()
        some = [films[f"{k:03d}.png"] / 255 for k in range(7)]
        reader.predict(some)
        reader.predict(np.linspace(0, 1, 40 * 50).reshape(40, 50), maps=False)
        reader.predict([])
        assert compiled == []
        assert reader._forward._cache_size() == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_film_is_read_alike_alone_and_among_others(reader, films):
    some = [films[f"{k:03d}.png"] / 255 for k in range(7)]
    alone = reader.predict(some[5])
    among = reader.predict(some)[5]
    np.testing.assert_allclose(alone.logits, among.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1024, 1024), (1000, 771), (16, 17), (600, 2000)])
def test_a_large_film_is_reduced_as_the_builder_does(reader, tmp_path, shape):
    rng = np.random.default_rng(0)
    pixels = (rng.random(shape) * 60 + np.linspace(0, 190, shape[1])).astype(np.uint8)
    path = tmp_path / "film.png"
    path.write_bytes(png(pixels))
    cache = reduction.open_cache(tmp_path, dataset="toy", size=16)
    stored = cache.load(cache.reduce(str(path)).key)
    for given in (path, path.read_bytes(), pixels.astype(np.float32) / np.float32(255)):
        finding = reader.predict(given)
        np.testing.assert_array_equal(finding.film, stored)
        assert finding.shape == shape


def test_calibration_by_hand(run, films, tmp_path):
    reader = cxr_jax.load(scaled(run, tmp_path, FROZEN))
    finding = reader.predict(films["000.png"] / 255)
    z = finding.logits.astype(np.float64)

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    expected = [sigmoid(1.3 * z[0] - 0.7), sigmoid(0.8 * z[1] + 2.0), sigmoid(z[2])]
    np.testing.assert_allclose(finding.probs, expected, rtol=1e-5)
    assert finding.calibrated.tolist() == [True, True, False]
    # Thresholds act on raw outputs, and are shown on the scale of what is shown.
    readings = ["above" if finding.raw[0] >= 0.5 else "below", "below", "no"]
    assert finding.readings == tuple(f"{word} threshold" for word in readings)
    shown = [sigmoid(-0.7), sigmoid(0.8 * math.log(0.999999 / 0.000001) + 2.0)]
    np.testing.assert_allclose(finding.shown_thresholds[:2], shown, rtol=1e-6)
    assert np.isnan(finding.shown_thresholds[2])
    text = str(finding.table())
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert f"{expected[0]:.4f} " in lines["bright"] and "0.4000" in lines["bright"]
    assert "score, uncalibrated" in lines["rare"]
    assert "Uncalibrated (rare): fewer than 20 positive patients." in text
    assert text.endswith(RESEARCH) and "normal" in text
    page = finding.table()._repr_html_()
    assert RESEARCH in page and page.count("<tr>") == 4
    assert json.loads(json.dumps(finding.to_dict()))["note"] == RESEARCH


def test_prevalence_of_another_site(run, films, tmp_path):
    reader = cxr_jax.load(scaled(run, tmp_path, FROZEN))
    film = films["000.png"] / 255
    natural = reader.predict(film)
    there = reader.predict(film, prevalence={"bright": 0.02})
    p = natural.probs[0]
    odds = p / (1 - p) * (0.02 / 0.98) / (0.4 / 0.6)
    np.testing.assert_allclose(there.probs[0], odds / (1 + odds), rtol=1e-9)
    assert there.probs[1:].tolist() == natural.probs[1:].tolist()
    assert there.readings == natural.readings
    assert "0.0200 (asked for)" in str(there.table())
    for wrong, words in (
        (0.02, "give a number for each by name"),
        ({"dark": 0.02}, "no class 'dark'"),
        ({"bright": 1.0}, "share between 0 and 1"),
        ({"rare": 0.02}, "score, uncalibrated"),
    ):
        with pytest.raises(ConfigError, match=words):
            reader.predict(film, prevalence=wrong)


@pytest.mark.parametrize(
    "fault",
    ["absent", "other weights", "other views", "other passes", "nothing frozen"],
)
def test_calibration_of_other_weights_is_not_used(run, films, tmp_path, fault):
    copy = scaled(run, tmp_path, FROZEN if fault != "nothing frozen" else {})
    path = copy / "evaluation" / "val" / "result.json"
    words = "froze no calibration"
    if fault == "absent":
        path.unlink()
        words = "was not evaluated"
    if fault == "other weights":
        result = json.loads(path.read_text()) | {"weights_sha256": "ab" * 32}
        path.write_text(json.dumps(result))
        words = "other weights"
    if fault == "other views":
        result = json.loads(path.read_text())
        result["settings"]["tta"] = {"name": "cxr_jax.tta.TenCrop", "size": 14}
        path.write_text(json.dumps(result))
        words = "averaged other views"
    if fault == "other passes":
        result = json.loads(path.read_text())
        result["settings"]["mc"] = {"samples": 20, "probs": "mean"}
        path.write_text(json.dumps(result))
        words = "averaged other passes"
    finding = cxr_jax.load(copy).predict(films["000.png"] / 255)
    assert not finding.calibrated.any() and np.isnan(finding.thresholds).all()
    np.testing.assert_array_equal(finding.probs, finding.raw)
    assert f"Uncalibrated (all classes): {words}" in str(finding).replace(
        "its evaluation ", ""
    ).replace("the run ", "").replace("evaluation/val belongs to ", "").replace(
        "evaluation/val ", ""
    )


def test_a_finding_says_which_films_the_model_knows(reader, films):
    finding = reader.predict(films["000.png"] / 255)
    assert "on toy/16px: nothing is known" in str(finding)
    assert finding.to_dict()["trained_on"] == "toy/16px"
    first, *_ = finding.plot().axes
    assert "trained on toy/16px" in first.get_title()


def test_spread_over_dropout_masks(reader, films):
    film = films["000.png"] / 255
    plain, drawn = reader.predict(film), reader.predict(film, samples=30)
    assert (drawn.std > 0).all() and (drawn.std < 0.5).all()
    assert (drawn.information > 0).all() and plain.information is None
    np.testing.assert_allclose(drawn.raw, plain.raw, rtol=1e-6)
    assert "low spread does not mean correct" in str(drawn.table())
    assert "low spread" not in str(plain.table()) and not plain.flagged.any()
    # The masks are the seed's, whatever is read beside a film.
    many = reader.predict([films["001.png"] / 255, film, film], samples=30)
    for finding in many[1:]:
        np.testing.assert_allclose(finding.std, drawn.std, rtol=1e-5)
    other = reader.predict(film, samples=30, seed=1)
    assert (np.abs(other.std - drawn.std) > 1e-6).all()


def test_findings_above_the_largest_spread_allowed_are_flagged(reader, films):
    film = films["000.png"] / 255
    std = reader.predict(film, samples=30).std
    bar = float(np.sort(std)[-2])
    found = reader.predict(film, samples=30, max_std=bar)
    assert found.max_std == bar and reader.predict(film).max_std == 0.1
    assert found.flagged.tolist() == (std > bar).tolist() and found.flagged.sum() == 1
    told = [found.to_dict()["findings"][c]["flagged"] for c in found.classes]
    table = found.table()
    cells = ["(flagged)" in row[-1] for row in table.rows]
    assert cells == told == found.flagged.tolist()
    # Beside the score that it is of, and nowhere near a calibrated probability.
    assert table.columns[-1] == "score ± spread"
    shown = [row[-1].removesuffix(" (flagged)") for row in table.rows]
    pairs = zip(found.raw, found.std, strict=True)
    assert shown == [f"{score:.4f} ± {spread:.4f}" for score, spread in pairs]
    assert not any("±" in cell for row in table.rows for cell in row[:-1])
    assert found.to_dict()["std_of"] == "raw"
    assert f"Flagged: spread above {bar:g}." in str(found)
    for wrong in ({"max_std": -0.1}, {"max_std": float("nan")}):
        with pytest.raises(ConfigError, match="a number from 0 on"):
            reader.predict(film, **wrong)
    for wrong in (-1, 1, 2.5, "x"):
        with pytest.raises(ConfigError, match="give 0, or 2 and more passes"):
            reader.predict(film, samples=wrong)


def test_a_network_without_dropout_has_no_spread_to_give(run, films, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "config.json"
    config = json.loads(path.read_text())
    config["task"]["head"]["dropout"] = 0.0
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="samples=5: this network has no dropout"):
        cxr_jax.load(copy).predict(films["000.png"] / 255, samples=5)


def test_spreads_are_written_beside_the_predictions(reader, films, tmp_path):
    for name in ("000.png", "001.png"):
        (tmp_path / name).write_bytes(png(films[name]))
    paths = [tmp_path / name for name in ("000.png", "001.png")]
    out = tmp_path / "out"
    options = {"samples": 30, "max_std": 0.01}
    assert predict_files.predict_files(reader, paths, out, **options) == 0
    with open(out / "uncertainty.csv") as file:
        rows = list(csv.reader(file))
    names = ("bright", "left", "rare")
    kinds = [f"{name}@{kind}" for kind in ("std", "information") for name in names]
    assert rows[0] == ["id", *kinds]
    alone = reader.predict(films["001.png"] / 255, samples=30)
    np.testing.assert_allclose(np.float64(rows[2][1:4]), alone.std, rtol=1e-5)
    np.testing.assert_allclose(np.float64(rows[2][4:]), alone.information, rtol=1e-3)
    lines = [json.loads(s) for s in (out / "findings.jsonl").read_text().splitlines()]
    flags = sum(line["findings"][c]["flagged"] for line in lines for c in names)
    text = (out / "predictions.txt").read_text()
    assert "low spread does not mean correct" in text
    assert f"{flags} findings are flagged: their spread is above 0.01" in text
    # Read again without passes, the file of before does not stay.
    assert predict_files.predict_files(reader, paths, out) == 0
    assert not (out / "uncertainty.csv").exists()


@pytest.fixture
def four_blocks(monkeypatch):
    """DenseNet-121, as far as names go; one layer a block."""
    small = functools.partial(densenet.DenseNet, (1, 1, 1, 1), growth=4, stem_width=8)
    monkeypatch.setattr(densenet, "densenet121", small)
    twin = functools.partial(gray.GrayDenseNet, *small.args, **small.keywords)
    monkeypatch.setattr(gray, "densenet121", twin)
    monkeypatch.setitem(layouts.DEPTHS, (1, 1, 1, 1), "densenet121")


@pytest.mark.parametrize("home", ["densenet", "gray"])
def test_a_file_of_weights_is_read_as_its_passport_says(four_blocks, tmp_path, home):
    channels = 3 if home == "densenet" else 1
    task = classify.Classify(
        model={"name": f"cxr_jax.models.{home}.densenet121"},
        head={"name": "cxr_jax.models.heads.PoolThenClassify"},
        terms=(loading.UNUSED,),
        classes=("Mass", "Hernia"),
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.3, 0.25)[:channels],
        channels=channels,
    )
    model = nnx.jit(task.create)(jax.random.key(3))
    if home == "gray":
        model.backbone.stem.border[...] += 0.1
    params, rest = state.ModelDef.of(task.create).split(model)
    passport = Passport(
        architecture="densenet121",
        source="a test",
        licence="Apache-2.0",
        mean=task.mean,
        std=task.std,
        channels=channels,
        size=64,
        classes=task.classes,
    )
    path = tmp_path / "weights.safetensors"
    exporting.export(path, jax.device_get(params), jax.device_get(rest), passport)
    reader = cxr_jax.load(path)
    film = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    finding = reader.predict(png(film))
    # Normalised by hand, in float64; the network is that of the weights.
    x = (film[None, ..., None] / 255 - np.float64(task.mean)) / np.float64(task.std)
    view = nnx.view(model, use_running_average=True, raise_if_not_found=False)
    logits = nnx.jit(lambda m, x: m(x))(view, np.float32(x))
    np.testing.assert_allclose(finding.logits, logits[0], rtol=1e-4, atol=1e-5)
    assert reader.size == 64 and finding.classes == ("Mass", "Hernia")
    assert not finding.calibrated.any()
    assert "weights alone carry no calibration" in str(finding)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outputs": "softmax"}, "needs sigmoid and names"),
        ({"architecture": "densenet(6, 8)"}, "load the run that made it"),
        ({"classes": ()}, "needs sigmoid and names"),
    ],
)
def test_weights_that_do_not_say_enough(tmp_path, change, words):
    known = {"mean": (0.5,), "std": (0.25,), "channels": 1, "size": 64}
    known |= {"architecture": "densenet121", "source": "a test", "licence": "MIT"}
    passport = Passport(**(known | {"classes": ("Mass",)} | change))
    arrays = {"head/linear/bias": np.zeros(1, np.float32)}
    path = tmp_path / "weights.safetensors"
    exporting.export(path, arrays, {}, passport)
    with pytest.raises(ConfigError, match=words):
        cxr_jax.load(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError):
        cxr_jax.load(path)


def bad_films():
    gray = np.full((20, 20), 0.5)
    colour = np.zeros((20, 20, 3), np.uint8)
    colour[..., 0] = 200
    whole = png(np.arange(400, dtype=np.uint8).reshape(20, 20))
    return {
        "missing": "nowhere.png",
        "empty": b"",
        "format": b"GIF89a" + bytes(200),
        "truncated": whole[: len(whole) // 2],
        "colour": png(colour),
        "dicom": bytes(128) + b"DICM" + bytes(20),
        "size": np.zeros((15, 15)),
        "shape": np.zeros((20, 20, 3)),
        "type": np.zeros((20, 20), np.uint8),
        "range": gray * 255,
    } | {"nan": np.where(gray > 0, np.nan, gray)}


@pytest.mark.parametrize("code", bad_films())
def test_a_film_is_refused_by_name(reader, films, code):
    bad = bad_films()[code]
    name = {str: "nowhere.png", bytes: "bytes"}.get(type(bad), "array")
    with pytest.raises(InputRejected, match=rf"{name}: ") as alone:
        reader.predict(bad)
    assert alone.value.code == {"nan": "range"}.get(code, code)
    good = films["000.png"] / 255
    with pytest.raises(InputRejected, match=f"film 2 of 3, {name}: "):
        reader.predict([good, bad, good])
    found = reader.predict([good, bad, good], on_error="collect")
    assert isinstance(found[1], InputRejected)
    np.testing.assert_array_equal(found[0].raw, found[2].raw)


def test_a_run_that_cannot_be_read(run, tmp_path):
    with pytest.raises(ConfigError, match="nothing does not exist; give the workdir"):
        cxr_jax.load(tmp_path / "nothing")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="empty: give the workdir of a run"):
        cxr_jax.load(empty)
    shutil.copy(run / "config.json", empty)
    with pytest.raises(ConfigError, match="train first"):
        cxr_jax.load(empty)
    assert sorted(p.name for p in empty.iterdir()) == ["config.json"]


def test_damaged_best_weights_are_read_where_they_lie_twice(
    run, reader, films, tmp_path, flip_bit, committed
):
    copy = tmp_path / "damaged"
    shutil.copytree(run, copy)
    (best,) = (copy / "checkpoints" / "best").glob("[0-9]*")
    older, same = committed(copy)
    assert same.name == best.name != older.name
    flip_bit(max(filter(pathlib.Path.is_file, best.rglob("*")), key=size))
    before = sorted(str(p) for p in copy.rglob("*"))
    again, film = cxr_jax.load(copy), films["000.png"] / 255
    assert again.about == reader.about | {"source": again.about["source"]}
    np.testing.assert_array_equal(again.predict(film).raw, reader.predict(film).raw)
    # The older step is sound, and another model.
    flip_bit(max(filter(pathlib.Path.is_file, same.rglob("*")), key=size))
    with pytest.raises(
        CheckpointError, match=r"none of the checkpoints \[28\].*, and latest has no"
    ):
        cxr_jax.load(copy)
    assert sorted(str(p) for p in copy.rglob("*")) == before


def test_reading_leaves_a_run_alone(run, films, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    # A save that is under way must not be tidied up.
    (copy / "checkpoints" / "best" / "99.orbax-checkpoint-tmp").mkdir()
    before = sorted((str(p), p.stat().st_mtime_ns) for p in copy.rglob("*"))
    cxr_jax.load(copy).predict(films["000.png"] / 255)
    assert sorted((str(p), p.stat().st_mtime_ns) for p in copy.rglob("*")) == before


def test_a_damaged_newest_step_is_passed_over_and_left_where_it_is(
    run, films, tmp_path, flip_bit
):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    best = copy / "checkpoints" / "best"
    (sound,) = (int(path.name) for path in best.iterdir() if path.name.isdigit())
    newest = best / str(sound + 1)
    shutil.copytree(best / str(sound), newest)
    flip_bit(max(filter(pathlib.Path.is_file, newest.rglob("*")), key=size))
    reader = cxr_jax.load(copy)
    assert reader.about["step"] == sound
    assert newest.is_dir() and not (best.parent / "damaged").exists()
    assert reader.predict(films["000.png"] / 255).name == "array"


def test_the_size_of_films_is_that_of_the_run(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for kept in copy.rglob("samples.npz"):
        kept.unlink()
    path = copy / "split.json"
    passport = json.loads(path.read_text())
    passport.pop("image_size", None)
    path.write_text(json.dumps(passport))
    with pytest.raises(ConfigError, match="does not say the size"):
        cxr_jax.load(copy)
    path.write_text(json.dumps(passport | {"image_size": 16}))
    assert cxr_jax.load(copy).size == 16


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("shape", [(128, 64), (64, 128), (40, 20)])
def test_a_film_is_made_square_as_the_builder_made_it(run, tmp_path, fit, shape):
    """What split.json says of the dataset holds for films from elsewhere, and exports."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "split.json"
    passport = json.loads(path.read_text())
    passport |= {"image_size": 32, "fit": fit, "enlarge": True}
    path.write_text(json.dumps(passport))
    film = np.random.default_rng(0).integers(1, 256, shape).astype(np.uint8)
    (tmp_path / "film.png").write_bytes(png(film))
    cache = reduction.open_cache(
        tmp_path, dataset="toy", size=32, fit=fit, enlarge=True
    )
    want = cache.load(cache.reduce(str(tmp_path / "film.png")).key)
    file = export.export_run(copy, tmp_path / "weights.safetensors")
    for reader in (cxr_jax.load(copy), cxr_jax.load(file)):
        assert (reader.fit, reader.enlarge) == (fit, True)
        finding = reader.predict(tmp_path / "film.png")
        np.testing.assert_array_equal(finding.film, want)
        assert finding.shape == shape and finding.padded == (fit != "stretch")
    black = (want == 0).all(axis=0) | (want == 0).all(axis=1)
    assert black.sum() == (16 if fit == "pad" else 0)


def test_films_are_stretched_where_a_run_does_not_say(run, reader, tmp_path):
    passport = json.loads((run / "split.json").read_text())
    assert "fit" not in passport  # the toy's films are square
    assert (reader.fit, reader.enlarge) == ("stretch", False)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "split.json").write_text(json.dumps(passport | {"image_size": 32}))
    with pytest.raises(InputRejected, match="never enlarged"):
        cxr_jax.load(copy).predict(np.zeros((64, 20), np.float32))
    (copy / "split.json").write_text(json.dumps(passport | {"fit": "squeeze"}))
    with pytest.raises(
        ConfigError, match="says fit='squeeze'.* allowed are pad, stretch"
    ):
        cxr_jax.load(copy)


def test_a_padded_film_is_drawn_as_the_square_that_it_is(reader, films):
    finding = reader.predict(films["000.png"] / 255)
    tall = dataclasses.replace(finding, shape=(200, 100))
    whole = dataclasses.replace(tall, padded=True)
    sizes = [one.plot().get_size_inches() for one in (finding, tall, whole)]
    np.testing.assert_array_equal(sizes[0], sizes[2])
    assert sizes[1][0] < sizes[0][0]


def test_a_plot_colours_what_speaks_for_a_class_alone(reader, films):
    finding = reader.predict(films["000.png"] / 255)
    heat = np.full((4, 4), -3.0, np.float32)
    heat[0, 0] = 2.0
    planted = dataclasses.replace(
        finding,
        maps=np.stack([heat, heat / 4, -np.abs(heat)], axis=-1),
        boxes=[("left", 0.9, (0.1, 0.2, 0.5, 0.6))],
        shape=(200, 100),
    )
    figure = planted.plot(["bright", "left", "rare"])
    film, *panels = figure.axes[:4]
    images = [np.asarray(axes.images[0].get_array()) for axes in panels]
    plain = np.asarray(film.images[0].get_array())[..., None].astype(int)
    side = len(plain)
    # One scale: the second map, a quarter as high, is a half as opaque.
    moved = [np.abs(image - plain).max() for image in images]
    assert moved[0] > moved[1] > 0 == moved[2]
    assert (images[0][side // 2 :] == plain[side // 2 :]).all()
    share = 0.5 / 2.0
    color = np.array(matplotlib.colormaps["inferno"](share)[:3]) * 255
    opacity = 0.65 * math.sqrt(share)
    mixed = plain[0, 0] * (1 - opacity) + color * opacity
    np.testing.assert_allclose(images[1][0, 0], mixed, atol=0.51)
    assert panels[-1].child_axes[0].get_ylim() == (0, 2)
    assert [len(axes.patches) for axes in panels] == [0, 1, 0]
    box = panels[1].patches[0].get_bbox()
    np.testing.assert_allclose(
        (box.x0, box.y0, box.x1, box.y1),
        np.array([0.1, 0.2, 0.5, 0.6]) * side - 0.5,
        atol=1e-9,
    )
    assert film.get_aspect() == 2.0
    assert RESEARCH in figure.get_supxlabel()
    picture = Image.open(io.BytesIO(figure._repr_png_()))
    assert picture.text["Description"] == RESEARCH
    with pytest.raises(ConfigError, match="give some of bright, left, rare"):
        planted.plot(["brigth"])
    with pytest.raises(ConfigError, match="maps=True"):
        dataclasses.replace(planted, maps=None, boxes=None).plot()
    boxed = dataclasses.replace(planted, maps=None).plot("left")
    assert len(boxed.axes) == 2 and len(boxed.axes[1].patches) == 1
    assert len(planted.plot("rare").axes) == 2


def test_files_to_findings(run, films, written, tmp_path, capsys):
    reader = cxr_jax.load(scaled(run, tmp_path, FROZEN))
    folder = tmp_path / "films"
    (folder / "more").mkdir(parents=True)
    for name in written:
        (folder / "more" / name).write_bytes(png(films[name]))
    (folder / "notes.txt").write_text("not a film")
    out = tmp_path / "out"
    assert predict_files.predict_files(reader, [folder], out) == 0
    assert not (out / "overlays").exists()
    with open(out / "scores.csv") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "patient", "study", "bright", "left", "rare"]
    for name, _, _, *values in rows[1:]:
        np.testing.assert_allclose(np.float64(values), written[name], atol=1e-6)
    with open(out / "predictions.csv") as file:
        probs = np.float64([row[3:] for row in list(csv.reader(file))[1:]])
    lines = [json.loads(s) for s in (out / "findings.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(written) == [r[0] for r in rows[1:]]
    for line, row in zip(lines, probs, strict=True):
        assert line["note"] == RESEARCH
        found = [line["findings"][c]["probability"] for c in reader.classes]
        np.testing.assert_allclose(found, row, rtol=1e-8)
    text = (out / "predictions.txt").read_text()
    assert text.startswith(RESEARCH)
    assert "trained on: toy/16px" in text
    assert "bright: calibrated probability at a prevalence of 0.4" in text
    assert "rare: score, uncalibrated: fewer than 20" in text
    said = capsys.readouterr().err
    assert "20 of 20 films read, 0 rejected, 1 other files ignored" in said


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_boxes_are_written_relative_to_the_whole_film(
    reader, tmp_path, monkeypatch, fit
):
    """A drawn rectangle, found in the square that the network sees, is where it was drawn."""
    drawn = np.zeros((64, 32), np.uint8)
    drawn[24:40, 8:24] = 255
    (tmp_path / "a.png").write_bytes(png(drawn))
    plain = reader.stream

    def finds(*args, **options):
        for found in plain(*args, **options):
            y, x = (np.flatnonzero((found.film > 128).any(axis)) for axis in (1, 0))
            box = np.array([x[0], y[0], x[-1] + 1, y[-1] + 1]) / len(found.film)
            boxes = [("left", 0.75, tuple(box)), ("rare", 0.5, (0, 0, 1, 1))]
            yield dataclasses.replace(found, boxes=boxes)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(reader, "fit", fit)
        patch.setattr(reader, "stream", finds)
        assert predict_files.predict_files(reader, [tmp_path / "a.png"], out) == 0
    table = box_files.read_boxes(out / "boxes.csv", classes=("left", "rare"))
    assert table.id.tolist() == ["a.png"] * 2 and table.score.tolist() == [0.75, 0.5]
    np.testing.assert_allclose(table.xyxy[0], [0.25, 0.375, 0.75, 0.625])
    middle = [0, 0.25, 1, 0.75] if fit == "crop" else [0, 0, 1, 1]
    np.testing.assert_allclose(table.xyxy[1], middle)
    told = (out / "predictions.txt").read_text()
    assert "boxes.csv: corners in [0, 1], relative to the whole film" in told
    assert "A map shows" not in told
    # Of an earlier reading.
    predict_files.predict_files(reader, [tmp_path / "a.png"], out)
    assert not (out / "boxes.csv").exists()


def test_overlays_are_written_for_films_of_any_name(reader, films, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(png(films["000.png"]))
    paths = [tmp_path / folder / "x.png" for folder in ("a", "b")]
    out = tmp_path / "out"
    assert predict_files.predict_files(reader, paths, out, overlays=True) == 0
    drawn = sorted((out / "overlays").iterdir())
    assert [path.name.endswith(f"{k}__x.png.png") for path, k in zip(drawn, "ab")]
    assert Image.open(drawn[1]).text["Description"] == RESEARCH


def test_refused_files_are_named_counted_and_kept_in_place(reader, films, tmp_path):
    names = [f"{k:03d}.png" for k in range(11)]
    bad = {0, 3, 4, 9, 10}
    for k, name in enumerate(names):
        data = png(films[name])
        (tmp_path / name).write_bytes(data[: len(data) // 2] if k in bad else data)
    paths = [tmp_path / name for name in names]
    out = tmp_path / "out"
    assert predict_files.predict_files(reader, paths, out) == 1
    lines = [json.loads(s) for s in (out / "findings.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == names
    assert {k for k, line in enumerate(lines) if "rejected" in line} == bad
    assert lines[3]["rejected"]["code"] == "truncated"
    alone = reader.predict(films["005.png"] / 255)
    raw = [lines[5]["findings"][c]["raw"] for c in reader.classes]
    np.testing.assert_allclose(raw, alone.raw, rtol=1e-5)
    assert (out / "scores.csv").read_text().count("\n") == 1 + 6
    assert predict_files.predict_files(reader, [paths[0]], out) == 1


@pytest.mark.parametrize("asked", [{"samples": 1}, {"prevalence": {"none": 0.1}}])
def test_what_is_refused_leaves_no_folder(reader, films, tmp_path, asked):
    (tmp_path / "x.png").write_bytes(png(films["000.png"]))
    out = tmp_path / "out"
    with pytest.raises(ConfigError):
        predict_files.predict_files(
            reader, [tmp_path / "x.png"], out, overlays=True, **asked
        )
    assert not out.exists()


def test_inputs_and_prevalences_of_a_command_line(tmp_path):
    with pytest.raises(ConfigError, match="no films; give files"):
        predict_files.find_films([])
    with pytest.raises(ConfigError, match="among its 0 files"):
        predict_files.find_films([tmp_path])
    found = predict_files.find_films(["a/x.png", "b/x.png", "a/x.png"])
    assert found.ids == ("a/x.png", "b/x.png")
    parse = predict_files.parse_prevalence
    assert parse("0.0128") == 0.0128
    assert parse("Mass=0.05,Hernia=0.002") == {"Mass": 0.05, "Hernia": 0.002}
    for wrong in ("Mass=much", "Mass=0.1,Mass=0.2", "0.1,0.2", ""):
        with pytest.raises(ConfigError, match="--prevalence="):
            parse(wrong)


def test_the_notebook_runs_from_top_to_bottom(run, toy, monkeypatch, tmp_path):
    notebook = json.loads((ROOT / "notebooks" / "inference.ipynb").read_text())
    assert notebook["nbformat"] == 4
    monkeypatch.setenv("RUN", str(scaled(run, tmp_path, FROZEN)))
    monkeypatch.setenv("DATA_DIR", toy[1])
    names, shown = {"__name__": "__main__"}, []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [] and cell["execution_count"] is None
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), names)  # noqa: S102
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            shown.append(value)
    kinds = [type(value).__name__ for value in shown]
    assert kinds.count("Plot") == 2 and kinds.count("Table") == 2, kinds
    assert all(
        RESEARCH in table._repr_html_() for table in shown if hasattr(table, "rows")
    )
    assert shown[0] is names["reader"]
    assert "truncated" in str(shown)


def test_thresholds_of_studies_are_none_of_films():
    frozen = {"operating_points": {"All": {"youden": {"threshold": 0.4}}}}
    scales = loading._scales(frozen, ("Abnormality",), missing="")
    assert not scales.platt
    assert scales.missing == "it was frozen on studies (All), not on single films"
    own = {"operating_points": {"Abnormality": {"youden": {"threshold": 0.4}}}}
    scales = loading._scales(own, ("Abnormality",), missing="why")
    assert scales.thresholds == {"Abnormality": 0.4} and scales.missing == "why"
