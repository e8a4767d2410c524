"""A run that trains on films of one dataset and is judged by films of another."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cxr_jax import best, main
from cxr_jax.labels import CXR8, IMAGENOME_FINDINGS, REGIONS29
from data_builders import packing

pytestmark = pytest.mark.long  # a whole run, from data to report

CONFIG = '''
"""Regions of 20-pixel films train; boxes of 16-pixel films judge."""
from configs import adpd, common


def get_config():
    c = adpd.get_config()
    c.name = "judged"
    c.pretrained["from"] = ""
    c.data.dataset, c.data.scheme = "regional/20px", "released"
    c.data.evaluation.dataset, c.data.evaluation.scheme = "boxed/16px", "cxr8_halves"
    c.task.model = {"name": "cxr_jax.models.densenet.densenet_tiny"}
    # What costs is compiling: no attention, and films as they are.
    c.task.head.update({"width": 8, "heads": 2, "layers": 0})
    c.augment = common.base().augment
    c.task.present_above = -10.0
    c.task.found_above = 0.01
    c.task.size = c.augment.size = 16
    c.task.channels, c.task.mean, c.task.std = 1, (0.5,), (0.25,)
    c.train.batch_size = c.eval.batch_size = 4
    c.eval.resamples = 20
    c.phases = (common.phase(epochs=2.0),)
    return c


def by_loss(c):
    c.checkpoint.metric = "loss"


VARIANTS = {"by_loss": by_loss}
'''
LOW, HIGH = np.array([0.1, 0.2]), np.array([0.6, 0.7])


class Regional(packing.Packed, skip_registration=True):
    """12 films whose regions are known; none of them has a box or is of a test part."""

    name = "regional"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="20px"),)

    def layout(self):
        return packing.Layout(size=20, classes=IMAGENOME_FINDINGS, regions=True)

    def films(self):
        rng = np.random.default_rng(0)
        for k in range(12):
            findings = rng.integers(0, 2, (len(REGIONS29), len(IMAGENOME_FINDINGS)))
            findings[:, 5:] = 0  # the report draws a film of each that there is
            yield packing.Film(
                id=f"r{k}",
                image=rng.integers(0, 256, (20, 20)).astype(np.uint8),
                labels=findings.max(axis=0).astype(np.float32),
                patient=f"p{k}",
                regions=packing.RegionLabels(
                    xyxy=np.tile(np.r_[LOW, HIGH], (29, 1)).astype(np.float32),
                    presence=np.ones(29, np.uint8),
                    labels=findings.astype(np.uint8),
                ),
                splits={"released": "train" if k < 9 else "val"},
            )


class Boxed(packing.Packed, skip_registration=True):
    """8 films with a box each, of patients of their own; none is there to train."""

    name = "boxed"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="16px"),)

    def layout(self):
        return packing.Layout(size=16, classes=CXR8)

    def films(self):
        rng = np.random.default_rng(1)
        for k in range(8):
            yield packing.Film(
                id=f"b{k}",
                image=rng.integers(0, 256, (16, 16)).astype(np.uint8),
                labels=np.eye(8, dtype=np.float32)[k % 2],
                patient=f"q{k}",
                boxes=np.r_[LOW, HIGH][None].astype(np.float32),
                box_label=np.array([k % 2]),
                splits={"cxr8": "test"},
            )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both datasets, and the config, of which no film trains and judges."""
    root = tmp_path_factory.mktemp("judging")
    for builder in (Regional, Boxed):
        made = builder(data_dir=root / "data", config=builder.BUILDER_CONFIGS[0])
        made.download_and_prepare(file_format="array_record")
    (root / "judged.py").write_text(CONFIG)
    return root


def run(made, workdir, variant=""):
    return main.main(
        [
            f"--config={made / 'judged.py'}{variant}",
            f"--workdir={workdir}",
            f"--data_dir={made / 'data'}",
        ]
    )


@pytest.fixture(scope="module")
def judged(made):
    """The workdir of a run from data to report."""
    assert run(made, made / "run") == 0
    return made / "run"


def test_the_other_films_judge(judged):
    result = json.loads((judged / "evaluation/test/result.json").read_text())
    assert result["dataset"].startswith("boxed/16px") and result["n"] == 4
    assert result["detection"]["reference"]["Atelectasis"] == 2
    assert {m.partition("@")[0] for m in result["metrics"]} >= {"map", "ap", "auroc"}


def test_their_parts_stand_beside_those_that_train(judged):
    split = json.loads((judged / "split.json").read_text())
    assert split["dataset"] == "regional/20px" and split["image_size"] == 20
    assert split["parts"]["train"]["images"] == 9
    other = split["evaluation"]
    assert (other["dataset"], other["scheme"]) == ("boxed/16px", "cxr8_halves")
    assert {k: other["parts"][k]["images"] for k in ("train", "val", "test")} == {
        "train": 0,
        "val": 4,
        "test": 4,
    }


def test_no_loss_is_made_up_where_none_can_be_taken(judged):
    lines = [json.loads(x) for x in (judged / "metrics.jsonl").read_text().splitlines()]
    validations = [line for line in lines if line["split"] == "val"]
    assert len(validations) == 2
    assert all(line["loss"] is None for line in validations)
    assert all(np.isfinite(line["map"]) for line in validations)
    assert all(np.isfinite(x["loss"]) for x in lines if x["split"] == "train")


def test_a_loss_that_cannot_be_taken_chooses_no_checkpoint(made, tmp_path, capsys):
    assert run(made, tmp_path / "run", ":by_loss") == 2
    said = capsys.readouterr().err
    assert "checkpoint.metric='loss'" in said and "map" in said
    assert not (tmp_path / "run").exists()


def test_films_are_read_as_those_that_judged(judged):
    found = best.read(judged)
    assert found.size == 16 and found.frozen["usual_boxes"]["Atelectasis"]


def test_the_report_names_both(judged):
    page = (judged / "report/index.html").read_text()
    assert "regional/20px" in page and "boxed/16px" in page
    head = page[: page.index('class="banner"')]
    assert "boxed/16px" in head and "split cxr8_halves" in head
    judging, training = page.split("Films that train: regional/20px")
    judging = judging.split("Films that validate and judge: boxed/16px")[1]
    split = json.loads((judged / "split.json").read_text())
    for passport, shown, parts in (
        (split["evaluation"], judging, ("val", "test")),
        (split, training, ("train", "val")),
    ):
        assert f"Scheme {passport['scheme']}, seed {passport['seed']}" in shown
        for part in parts:
            assert passport["parts"][part]["sha256"] in shown
