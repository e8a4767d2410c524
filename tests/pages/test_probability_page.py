"""The section says where thresholds come from, and shows what the block holds."""

import html
import json
import re

import numpy as np
import pytest
from scipy.special import expit, logit

from cxr_jax import evaluate, report
from cxr_jax.evaluators.classification import Classification
from cxr_jax.evaluators.probabilities import Probabilities
from cxr_jax.pages import probabilities
from cxr_jax.pages.evidence import Evidence
from cxr_jax.predictions import Predictions

CLASSES = ("Mass", "Pleural_Thickening", "Hernia")
RATE = np.array([0.2, 0.1, 0.01])


def make_table(seed, films=600):
    rng = np.random.default_rng(seed)
    labels = (rng.random((films, 3)) < RATE).astype(np.float32)
    labels[0] = 1
    z = 2 * (rng.normal(size=labels.shape) + 2 * labels) - 2 + logit(RATE)
    z[:, 2] = 0  # no threshold can do anything here
    return Predictions(
        classes=CLASSES,
        ids=np.array([f"{seed}_{k}" for k in range(films)]),
        patients=np.array([f"{seed}_{k // 2}" for k in range(films)]),
        studies=np.array([""] * films),
        index=np.arange(films),
        probs=expit(z + 1).astype(np.float32),
        labels=labels,
    )


@pytest.fixture(scope="module")
def results():
    evaluators = (Classification(), Probabilities(resamples=50))
    tables = {"test": make_table(1), "val": make_table(0)}
    frozen = evaluate.freeze(evaluators, tables["val"])
    return {
        part: json.loads(
            json.dumps(
                evaluate.evaluate_table(
                    table,
                    dataset="some/1.0.0",
                    split=part,
                    split_sha256="ab",
                    checkpoint_step=1,
                    weights_sha256="9f3c" * 16,
                    evaluators=evaluators,
                    frozen=frozen,
                ),
                allow_nan=False,
            )
        )
        for part, table in tables.items()
    }


def evidence(result):
    return Evidence(
        config={},
        passport={},
        lines=(),
        results={result["split"]: result},
        curves={},
        samples=None,
    )


def page(result):
    return probabilities.section(evidence(result))


def text_of(page):
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


def test_the_section_names_weights_and_part(results):
    text = text_of(page(results["test"]))
    assert "600 films of the validation part with the weights 9f3c9f3c9f3c9f3c" in text
    assert "reported on the test part" in text and "IN-SAMPLE" not in text
    assert "IN-SAMPLE" in text_of(page(results["val"]))
    assert "score, uncalibrated: fewer than 20 positive patients" in text
    assert "unattainable" in text and "nan" not in text.lower()
    assert page(results["test"]).count("data:image/svg+xml") == 3


def test_the_head_of_a_report_points_to_it_and_it_is_drawn_once(results, monkeypatch):
    drawn = []
    known = evidence(results["test"])
    body = probabilities.section(known)
    monkeypatch.setattr(probabilities, "section", lambda e: drawn.append(e) or body)
    page = report.render(known)
    assert page.count(body) == 1
    text = " ".join(text_of(page).split())
    assert "what they mean as probabilities is a section of its own, below." in text
    assert len(drawn) == 1


def test_the_table_shows_the_block(results):
    result = results["test"]
    text = text_of(page(result))
    point = result["operating_points"]["per_class"]["Mass"]["youden"]
    found = point["sensitivity"]
    cell = f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    assert cell in text and f"{point['threshold']:.4g}" in text
    assert f"{point['fp']:,}" in text


def test_the_same_numbers_give_the_same_page(results):
    assert page(results["test"]) == page(results["test"])


def test_nothing_known_gives_nothing(results):
    bare = {k: v for k, v in results["test"].items() if k != "operating_points"}
    bare["calibration"] = {}
    assert page(bare) == ""
    blocks = Probabilities()(make_table(3), {})
    alone = results["test"] | evaluate.plain(blocks)
    assert "nothing was frozen" in text_of(page(alone))
