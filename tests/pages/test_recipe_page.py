"""Hyper-parameters as the config has them, beside published ones."""

import html
import json
import re

import pytest

from configs import common
from cxr_jax import config as configs
from cxr_jax.pages import recipe
from cxr_jax.pages.evidence import Evidence

PHASE = {
    "epochs": 10.0,
    "freeze": ["backbone/*"],
    "optimizer": {"name": "cxr_jax.optim.adam"},
    "schedule": {"name": "cxr_jax.optim.constant"},
    "learning_rate": 1e-3,
    "stop_after": 5,
}
CONFIG = {
    "seed": 0,
    "phases": [PHASE, PHASE | {"epochs": 15.0, "freeze": [], "learning_rate": 1e-5}],
    "pretrained": {"from": "keras/weights"},
    "checkpoint": {"metric": "auroc", "mode": "max"},
    "train": {"batch_size": 32},
    "task": {
        "model": {"name": "cxr_jax.models.fusion.AttentionFusion", "width": 256},
        "head": {"name": "cxr_jax.models.heads.PoolThenClassify", "dropout": 0.5},
        "terms": [
            {
                "name": "focal",
                "fn": {"name": "cxr_jax.losses.focal", "alpha": 0.25, "gamma": 2.0},
            }
        ],
    },
    "augment": {
        "name": "cxr_jax.data.augment.Augment",
        "flip": 0.5,
        "rotation": 36.0,
        "shear": 0.0,
        "zoom": [0.9, 1.1],
        "crop": [1.0, 1.0],
        "brightness": 0.1,
        "size": 0,
    },
    "eval": {"mc": {"samples": 100, "probs": "mean"}},
}


def evidence(config, *, name="a", model=None):
    return Evidence(
        config=config,
        passport={},
        lines=(),
        results={},
        curves={},
        samples=None,
        name=name,
        model=model or {},
    )


def cells(section):
    rows = re.findall(r"<tr.*?</tr>", section, re.DOTALL)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return {row[0]: [html.unescape(cell) for cell in row[1:]] for row in found}


def test_every_hyper_parameter_is_that_of_the_config():
    table = cells(recipe.section(evidence(CONFIG, model={"input": [224, 224, 3]})))
    assert {name: row[0] for name, row in table.items()} == {
        "": "a",
        "Network": "AttentionFusion",
        "Input": "224 × 224 × 3",
        "Initial weights": "keras/weights",
        "Optimizer": "adam",
        "Metrics": "auroc, highest on validation",
        "Epochs": "25 (10 + 15)",
        "Learning rate, phase 1": "0.001",
        "Learning rate, phase 2": "1e-5",
        "Schedule": "constant",
        "Frozen": "phase 1: backbone/*; phase 2: nothing",
        "Early stopping": "after 5 validations without improvement",
        "Batch size": "32",
        "Loss": "focal",
        "Loss, alpha": "0.25",
        "Loss, gamma": "2",
        "Dropout": "0.5",
        "Augmentation": (
            "mirrored in 50%, rotation ±36°, zoom 0.9 to 1.1, brightness ±0.1"
        ),
        "Monte-Carlo passes": "100",
        "Seed": "0",
    }


def test_half_precision_is_told():
    task = CONFIG["task"]
    for dtype, rows in (("bfloat16", ["bfloat16"]), ("float32", None)):
        given = task | {"model": task["model"] | {"dtype": dtype}}
        table = cells(recipe.section(evidence(CONFIG | {"task": given})))
        assert table.get("Activations") == rows


def test_what_is_published_stands_beside_ours_or_in_a_row_of_its_own():
    published = [["Epochs", "25"], ["Minimum learning rate", "1e-5"]]
    table = cells(
        recipe.section(
            evidence(CONFIG | {"report": {"published_hyperparameters": published}})
        )
    )
    assert table[""] == ["a", "Published"]
    assert table["Epochs"] == ["25 (10 + 15)", "25"]
    assert table["Minimum learning rate"] == ["–", "1e-5"]
    assert table["Loss, gamma"] == ["2", "–"]


def test_runs_have_a_column_each_and_rows_of_any():
    bce = {"name": "bce", "fn": {"name": "cxr_jax.losses.bce"}}
    small = CONFIG | {
        "phases": [PHASE | {"freeze": [], "stop_after": 0}],
        "task": {
            "model": {"name": "cxr_jax.models.simple_cnn.SimpleCNN"},
            "terms": [bce],
        },
        "augment": {},
        "pretrained": {},
        "eval": {"mc": {"samples": 0}},
    }
    table = cells(recipe.section(evidence(small), evidence(CONFIG, name="<b>")))
    assert table[""] == ["a", "<b>"]
    assert table["Loss"] == ["bce", "focal"] and table["Loss, alpha"] == ["–", "0.25"]
    assert table["Learning rate"] == ["0.001", "–"]
    assert table["Epochs"] == ["10", "25 (10 + 15)"]
    assert table["Monte-Carlo passes"] == ["–", "100"]
    assert table["Augmentation"][0] == "none" and table["Early stopping"][0] == "none"
    assert table["Initial weights"][0] == "random"


def test_each_backbone_may_start_from_a_file_of_its_own():
    parts = {"dense": {"from": "keras/d"}, "efficient": {"from": "keras/e"}}
    config = CONFIG | {"pretrained": {"from": "", "parts": parts}}
    table = cells(recipe.section(evidence(config)))
    assert table["Initial weights"] == ["dense: keras/d, efficient: keras/e"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"safe_crop": 0.2}, "crop that cuts at most 20% off a box"),
        ({"safe_crop": 0.0}, "crop that cuts at most 0% off a box"),
        ({"flip": 0.5}, "mirrored in 50%"),
        ({"stretch": [0.95, 1.0]}, "width and height stretched 0.95 to 1"),
        ({"rotation": 2.0}, "rotation ±2°"),
        ({"shear": 5.0}, "shear ±5°"),
        ({"zoom": [0.9, 1.1]}, "zoom 0.9 to 1.1"),
        ({"translate": 0.02}, "shift ±2%"),
        ({"crop": [0.08, 1.0]}, "crop 8% to 100% of the area"),
        ({"gain": [0.8, 1.2]}, "gain 0.8 to 1.2"),
        ({"brightness": 0.1}, "brightness ±0.1"),
        ({"contrast": [0.8, 1.2]}, "contrast 0.8 to 1.2"),
        ({"blur": 1.0}, "blur 0 to 1 px"),
        (
            {"blur": 1.0, "blur_from": 0.1, "blur_share": 0.5},
            "blur 0.1 to 1 px in 50%",
        ),
    ],
)
def test_every_augmentation_is_told_and_none_that_does_nothing(given, said):
    defaults = configs.plain(common.base().augment)
    as_saved = json.loads(json.dumps(defaults | given))
    table = cells(recipe.section(evidence(CONFIG | {"augment": as_saved})))
    assert table["Augmentation"] == [said]
    table = cells(recipe.section(evidence(CONFIG | {"augment": defaults})))
    assert table["Augmentation"] == ["none"]


def test_several_losses_and_an_optimizer_that_changes():
    terms = [
        {"name": "one", "fn": {"name": "cxr_jax.losses.bce"}},
        {
            "name": "two",
            "fn": {"name": "cxr_jax.losses.weighted_bce", "w_pos": "counted"},
            "weight": 0.01,
        },
        {
            "name": "three",
            "fn": {"name": "cxr_jax.losses.bce"},
            "weight": {"name": "optax.linear_schedule", "end_value": 2.0},
        },
    ]
    sgd = {"name": "cxr_jax.optim.sgd", "momentum": 0.9}
    phases = [PHASE, PHASE | {"optimizer": sgd}]
    table = cells(
        recipe.section(evidence({"phases": phases, "task": {"terms": terms}}))
    )
    assert table["Loss: two"] == ["weighted_bce"]
    assert table["Loss: two, w_pos"] == ["counted"]
    weights = {name: row for name, row in table.items() if name.endswith(", weight")}
    assert weights == {
        "Loss: two, weight": ["0.01"],
        "Loss: three, weight": ["linear_schedule (end_value 2)"],
    }
    assert table["Optimizer"] == ["phase 1: adam; phase 2: sgd (momentum 0.9)"]


def test_a_scored_file_has_none():
    assert recipe.section(evidence({})) == ""
    assert recipe.section(evidence({}), evidence(CONFIG)) == ""
