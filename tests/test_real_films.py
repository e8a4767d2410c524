"""A thousand real films, from the release's own files to the page: nothing is faked here.

All of them lie in the test part of the public lists, so patients are drawn by seed.
The builders' own tests (``data_builders/test_chestxray14.py``) also read the originals.
"""

import csv
import gzip
import html.parser
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics

from cxr_jax.labels import NIH14
from data_builders import build

ROOT = pathlib.Path(__file__).parents[1]
PARTS = ("train", "val", "test")
# The recipe of CheXNet with a network of one block; three epochs, intervals of 50 draws.
OVERRIDES = {
    "data.dataset": "chestxray14/64px",
    "data.scheme": "random_patient",
    "task.model.name": "cxr_jax.models.densenet.densenet_tiny",
    "phases.0.epochs": 3,
    "eval.splits": PARTS,
    "eval.resamples": 50,
    "eval.samples": 4,
}


pytestmark = pytest.mark.long  # a whole run, of a minute and more


@pytest.fixture(scope="module")
def run(real_dir, tmp_path_factory):
    """The workdir of a finished run, and what it printed."""
    root = tmp_path_factory.mktemp("real")
    build(
        "chestxray14/64px",
        data_dir=root / "data",
        manual_dir=str(real_dir / "nih"),
        images="images_64px",
        allow_missing=True,
        num_shards=4,
    )
    command = [sys.executable, "-m", "cxr_jax.main", "--config=configs/chexnet.py"]
    command += [f"--workdir={root / 'run'}", f"--data_dir={root / 'data'}"]
    command += [f"--config.{key}={value}" for key, value in OVERRIDES.items()]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return root / "run", done.stdout


@pytest.fixture(scope="module")
def labels(real_dir):
    """Film → its findings, read from the release's table without the project."""
    table = real_dir / "nih" / "labels" / "Data_Entry_2017_v2020.csv.gz"
    with gzip.open(table, "rt") as file:
        rows = csv.DictReader(file)
        return {r["Image Index"]: set(r["Finding Labels"].split("|")) for r in rows}


def read(workdir, part):
    """``result.json``, film names and probabilities of a part."""
    folder = workdir / "evaluation" / part
    result = json.loads((folder / "result.json").read_text())
    with open(folder / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    probs = np.array([[float(row[name]) for name in NIH14] for row in rows])
    return result, [row["id"] for row in rows], probs


def test_no_patient_is_in_two_parts_and_no_film_is_lost(run):
    workdir, _ = run
    names = {part: read(workdir, part)[1] for part in PARTS}
    assert len(set().union(*names.values())) == sum(map(len, names.values())) == 1_000
    patients = [{name[:8] for name in films} for films in names.values()]
    assert len(set().union(*patients)) == sum(map(len, patients))
    passport = json.loads((workdir / "split.json").read_text())
    assert passport["scheme"] == "random_patient" and passport["patient_overlap"] == 0
    for part, films in names.items():
        assert passport["parts"][part]["images"] == len(films)


def test_the_training_learns_at_least_how_frequent_findings_are(run, labels):
    """The best constant answer costs the entropy of the labels; a start, 14 ln 2."""
    workdir, _ = run
    lines = list(map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()))
    losses = [x["loss"] for x in lines if x["split"] == "train"]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    _, names, probs = read(workdir, "train")
    given = np.array([[f in labels[name] for f in NIH14] for name in names])
    p = given.mean(axis=0)
    entropy = -np.sum(p * np.log(p) + (1 - p) * np.log1p(-p))
    best = -np.sum(np.where(given, np.log(probs), np.log1p(-probs)), axis=1).mean()
    assert best < 1.1 * entropy < 0.5 * 14 * math.log(2)


@pytest.mark.parametrize("part", PARTS)
def test_every_figure_follows_from_predictions_and_the_table(run, labels, part):
    """AUROC and AP per class as scikit-learn gives them; one label only is no figure."""
    workdir, _ = run
    result, names, probs = read(workdir, part)
    assert result["n"] == len(names)
    defined = {"auroc": [], "average_precision": []}
    ours = {
        "auroc": metrics.roc_auc_score,
        "average_precision": metrics.average_precision_score,
    }
    for c, finding in enumerate(NIH14):
        given = np.array([finding in labels[name] for name in names])
        for metric, formula in ours.items():
            block = result["metrics"][metric]["per_class"][finding]
            assert block["n"] == len(names) and block["positives"] == given.sum()
            assert block["resampling_unit"] == "patient"
            if given.any() and not given.all():
                expected = formula(given, probs[:, c])
                assert block["value"] == pytest.approx(expected, abs=1e-6)
                assert block["reason"] is None
                assert block["low"] <= block["high"]
                defined[metric].append(expected)
            else:
                assert block["value"] is block["low"] is block["high"] is None
                assert block["reason"].startswith("undefined")
    for metric, values in defined.items():
        mean = result["metrics"][metric]["mean"]
        assert mean["value"] == pytest.approx(np.mean(values), abs=1e-6)
        assert len(mean["classes"]) == len(values) == 14 - len(mean["left_out"])


def test_some_class_has_one_label_only(run):
    """Else the test above has not seen what it is for."""
    workdir, _ = run
    left = [read(workdir, p)[0]["metrics"]["auroc"]["mean"]["left_out"] for p in PARTS]
    assert any(left)


class Page(html.parser.HTMLParser):
    """Every address on a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "iframe", "link"), tag
        self.addresses += [v for k, v in attrs if k in ("src", "href", "data")]

    def handle_data(self, data):
        self.text += data


def test_the_report_stands_alone(run):
    workdir, printed = run
    path = workdir / "report" / "index.html"
    assert printed.splitlines()[-1] == f"report: {path}"
    page = Page(path.read_text())
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    for words in ("CheXNet v1", "CheXNet v3", "random_patient", "Sample films"):
        assert words in page.text
    mean = read(workdir, "test")[0]["metrics"]["auroc"]["mean"]["value"]
    assert f"test: mean auroc {mean:.4f}" in printed and f"{mean:.3f}" in page.text
