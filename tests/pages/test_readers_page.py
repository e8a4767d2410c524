"""The section of the reader study says what was found, and the bias by name."""

import html
import json
import re

import numpy as np
import pytest

from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.readers import Readers
from cxr_jax.metrics import estimates
from cxr_jax.pages import readers as page
from cxr_jax.pages.evidence import Evidence
from cxr_jax.predictions import Predictions

CLASSES = ("Pleural_Thickening", "Pneumonia", "Hernia")
NAMES = ("<ann>", "bob", "cid", "dan")


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    rng = np.random.default_rng(0)
    truth = (rng.random((80, 3)) < [0.4, 0.4, 0.1]).astype(np.float32)
    ids = np.array([f"{k}.png" for k in range(80)])
    right = rng.random((80, 4, 3)) < 0.8
    calls = np.where(right, truth[:, None], 1 - truth[:, None]).astype(int)
    lines = [
        ",".join([ids[k], name, *map(str, calls[k, r])])
        for k in range(80)
        for r, name in enumerate(NAMES)
    ]
    path = tmp_path_factory.mktemp("readers") / "their calls.csv"
    path.write_text("\n".join(["id,reader," + ",".join(CLASSES), *lines]))
    predictions = Predictions(
        classes=CLASSES,
        ids=ids,
        patients=ids,
        studies=np.array([""] * 80),
        index=np.arange(80),
        probs=((rng.random((80, 3)) + truth) / 2).astype(np.float32),
        labels=truth,
        truth=truth,
    )
    point = {"threshold": 0.5, "reason": None}
    none = {"threshold": None, "reason": "unattainable"}
    points = {name: {"f1": point} for name in CLASSES} | {"Hernia": {"f1": none}}
    evaluator = Readers(file=str(path), resamples=30, draws=30)
    found = plain(evaluator(predictions, {"operating_points": points}))
    return json.loads(json.dumps(found, allow_nan=False))["readers"]


def rendered(block):
    result = {"dataset": "phantom", "readers": block} if block else {"dataset": "x"}
    evidence = Evidence(
        config={},
        passport={},
        lines=[],
        results={"test": result},
        curves={},
        samples=None,
    )
    return page.section(evidence)


def text_of(section):
    return html.unescape(re.sub(r"<[^>]*>", " ", section))


def test_no_block_no_section_and_no_readers_a_reason():
    assert rendered(None) == ""
    nothing = {"reason": "no film was read", "films": 0, "protocols": {}}
    assert "No reader study: no film was read." in rendered(nothing)


def test_the_section_names_the_bias_and_all_that_must_be_said(block):
    section = rendered(block)
    text = " ".join(text_of(section).split())
    for words in (
        "biased truth",
        ".60 at a prevalence of 5% and of .43 at 1.28%",
        "a positive needs a strict majority",
        "at least 3 voters",
        "lies under a concave ROC even when each reader is on it",
        "30 resamples, resampling unit: patient",
        "operating point 'f1', frozen on the validation part",
        "Hernia: no calls of the model (unattainable)",
        "Fleiss' κ",
        "Cohen's κ",
        "For readers like them",
        "80 films of 80 patients, each read by 4 readers (<ann>, bob, cid, dan)",
    ):
        assert words in text, words
    assert "<ann>" not in section and "Pleural Thickening" in text
    assert "comparable" not in text and "None" not in text and "nan" not in text
    assert section.count("<figure>") == 3  # one class in full, all classes twice


def test_figures_in_tables_are_those_of_the_block(block):
    section = text_of(rendered(block))
    for name in ("majority", "each_other", "truth"):
        found = block["protocols"][name]["per_class"]["Pleural_Thickening"]["f1"]
        for kind in ("average", "model"):
            assert f"{found[kind]['value']:.3f} [{found[kind]['low']:.3f}" in section
        gap = found["difference"]
        assert f"{gap['value']:+.3f} [{gap['low']:+.3f}".replace("-", "−") in section
    each = block["protocols"]["truth"]["per_class"]["Pneumonia"]["kappa"]["readers"]
    assert all(f"{each[name]['value']:.3f}" in section for name in NAMES)
    assert f"{block['fleiss']['Hernia']['value']:.3f}" in section
    measured = block["bias"]["Pneumonia"]["specificity"]["expected"]
    assert f"{measured:.3f}" in section


@pytest.mark.parametrize("kept", ["majority", "each_other", "truth"])
def test_every_protocol_stands_alone(block, kept):
    one = block | {"protocols": {kept: block["protocols"][kept]}, "bias": {}}
    section = rendered(one)
    assert section.count("<h3>") == 3
    assert ("biased truth" in section) == (kept == "majority")
    assert section.count("<figure>") == (0 if kept == "each_other" else 2)


def test_the_same_block_draws_the_same_bytes(block):
    assert rendered(block) == rendered(block)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.005, 0.084, "model higher (interval +0.005 to +0.084)"),
        (-0.2, -0.1, "model lower (interval −0.200 to −0.100)"),
        (-0.04, 0.02, "no difference detected (interval −0.040 to +0.020)"),
        (0.0, 0.02, "no difference detected (interval +0.000 to +0.020)"),
        (None, None, "no interval, no verdict"),
    ],
)
def test_verdicts_follow_the_interval(low, high, words):
    assert estimates.verdict(low, high) == words


def test_non_inferiority_needs_a_margin_named_beforehand():
    named = estimates.verdict(-0.04, 0.02, margin=0.05)
    assert named.startswith("no difference detected") and "margin of 0.05" in named
    assert "not inferior" not in estimates.verdict(-0.06, 0.02, margin=0.05)
    assert "not inferior" in estimates.verdict(-0.03, -0.01, margin=0.05)
