"""Boxes of maps from end to end: trained, judged, read again by the notebook's reader."""

import csv
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

import cxr_jax
from cxr_jax import main
from cxr_jax.labels import CXR8, NO_FINDING
from data_builders import packing

pytestmark = pytest.mark.long  # a whole run, from data to report

CONFIG = '''
"""Boxes of the maps of a network for 32-pixel films."""
from configs import common, detectors


def get_config():
    c = detectors.get_config()
    c.name, c.data.dataset, c.pretrained["from"] = "maps", "spots/32px", ""
    c.task.model = {"name": "cxr_jax.models.densenet.densenet_tiny"}
    c.task.channels, c.task.mean, c.task.std, c.task.side = 1, (0.5,), (0.25,), 32
    c.task.found_above = 0.1
    c.augment = common.base().augment  # what costs is compiling
    c.train.batch_size = c.eval.batch_size = 4
    c.eval.resamples = 20
    c.phases = (common.phase(epochs=1.0),)
    return c


VARIANTS = {}
'''


class Spots(packing.Packed, skip_registration=True):
    """Films with a bright spot that is a mass, or with none; half of them boxed."""

    name = "spots"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="32px"),)

    def layout(self):
        return packing.Layout(size=32, classes=CXR8)

    def films(self):
        rng = np.random.default_rng(0)
        for k in range(24):
            boxed, spot = k < 8, k % 2 == 0 or k < 8
            image = rng.integers(0, 60, (32, 32))
            x, y = rng.integers(4, 20, 2)
            image[y : y + 8, x : x + 8] += 150 * spot
            corners = np.array([[x, y, x + 8, y + 8]]) / 32
            yield packing.Film(
                id=f"{k:02d}.png",
                image=image.astype(np.uint8),
                labels=np.eye(8)[4] * spot,
                patient=f"p{k}",
                boxes=corners if boxed else np.zeros((0, 4)),
                box_label=np.full(int(boxed), 4),
                splits={"cxr8": "test" if boxed else ""},
            )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    root = tmp_path_factory.mktemp("maps")
    builder = Spots(data_dir=root / "data", config=Spots.BUILDER_CONFIGS[0])
    builder.download_and_prepare(file_format="array_record")
    (root / "maps.py").write_text(CONFIG)
    words = [f"--config={root / 'maps.py'}", f"--workdir={root / 'run'}"]
    assert main.main([*words, f"--data_dir={root / 'data'}"]) == 0
    return root / "run"


def test_boxes_are_judged_and_written(run):
    result = json.loads((run / "evaluation/test/result.json").read_text())
    assert result["detection"]["reference"]["Mass"] == 4
    with (run / "evaluation/test/boxes.csv").open() as file:
        rows = list(csv.DictReader(file))
    predicted = result["detection"]["predicted"]
    assert len(rows) == sum(predicted.values()) > 0
    assert {row["class"] for row in rows} == {k for k, n in predicted.items() if n}
    assert NO_FINDING not in predicted


def test_films_without_findings_are_counted_in_the_loss_and_in_the_figures(run):
    result = json.loads((run / "evaluation/val/result.json").read_text())
    assert result["metrics"]["auroc"]["per_class"][NO_FINDING]["positives"] == 0
    split = json.loads((run / "split.json").read_text())
    assert split["parts"]["train"]["images"] == 16


def test_a_film_that_is_read_alone_has_the_boxes_of_the_evaluation(run):
    with (run / "evaluation/test/boxes.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = rows[0]["id"]
    rng, films = np.random.default_rng(0), {}
    for k in range(24):  # as the builder draws them
        spot = k % 2 == 0 or k < 8
        image = rng.integers(0, 60, (32, 32))
        x, y = rng.integers(4, 20, 2)
        image[y : y + 8, x : x + 8] += 150 * spot
        films[f"{k:02d}.png"] = image
    finding = cxr_jax.load(run).predict(films[wanted] / 255)
    found = {(name, round(float(score), 4)) for name, score, _ in finding.boxes}
    assert found == {
        (r["class"], round(float(r["score"]), 4)) for r in rows if r["id"] == wanted
    }
