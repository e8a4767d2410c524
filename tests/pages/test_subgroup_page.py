"""The section shows groups and gaps, says what is suppressed, and how many were tested."""

import html
import json
import re

import numpy as np
import pytest

from cxr_jax import evaluate
from cxr_jax.evaluators.probabilities import Probabilities
from cxr_jax.evaluators.subgroups import Subgroups
from cxr_jax.pages import subgroups
from cxr_jax.pages.evidence import Evidence
from cxr_jax.predictions import Predictions

CLASSES = ("Mass", "Pleural_Thickening", "Hernia")


def make_table(seed, films=800):
    rng = np.random.default_rng(seed)
    labels = (rng.random((films, 3)) < (0.3, 0.2, 0.01)).astype(np.float32)
    sex = rng.choice(["M", "F"], films)
    z = rng.normal(size=labels.shape) + labels * (3 - 2.5 * (sex == "F")[:, None])
    return Predictions(
        classes=CLASSES,
        ids=np.array([f"{seed}_{k}" for k in range(films)]),
        patients=np.array([f"{seed}_{k // 2}" for k in range(films)]),
        studies=np.array([""] * films),
        index=np.arange(films),
        probs=(1 / (1 + np.exp(2 - z))).astype(np.float32),
        labels=labels,
        age=rng.integers(20, 80, films).astype(np.float32),
        sex=sex,
        view=rng.choice(["PA", "AP"], films),
    )


@pytest.fixture(scope="module")
def result():
    evaluators = (Probabilities(), Subgroups(resamples=60, crossed=2))
    frozen = evaluate.freeze(evaluators, make_table(0))
    found = evaluate.evaluate_table(
        make_table(1),
        dataset="some/1.0.0",
        split="test",
        split_sha256="ab",
        checkpoint_step=1,
        weights_sha256="cd",
        evaluators=evaluators,
        frozen=frozen,
    )
    return json.loads(json.dumps(found, allow_nan=False))


def section(result):
    evidence = Evidence(
        config={},
        passport={},
        lines=(),
        results={"test": result},
        curves={},
        samples=None,
    )
    return subgroups.section(evidence)


def text_of(page):
    return html.unescape(re.sub(r"<[^>]*>", " ", page)).replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_groups_and_gaps_are_shown(result):
    text = text_of(section(result))
    block = result["subgroups"]
    women = block["groups"]["sex=F"]
    tpr = women["per_class"]["Mass"]["tpr"]
    assert f"{tpr['value']:.2f} [{tpr['low']:.2f}, {tpr['high']:.2f}]" in text
    assert "sex F · view AP" in text and f"{women['films']:,}" in text
    assert "suppressed" in text and "fewer than 10 positive" in text
    assert f"Of {block['multiplicity']['mean']['gaps']:,} gaps of means" in text
    assert "sex: F − M" in text and "nan" not in text.lower()
    assert block["multiplicity"]["mean"]["beyond_chance"] >= 2
    assert section(result).count("data:image/svg+xml") == 1


def test_the_same_numbers_give_the_same_page(result):
    assert section(result) == section(result)


def test_nothing_known_gives_nothing(result):
    assert section({k: v for k, v in result.items() if k != "subgroups"}) == ""


def test_ranking_alone_is_shown_without_thresholds(result):
    alone = result | evaluate.plain(Subgroups(crossed=1)(make_table(2), {}))
    text = text_of(section(alone))
    assert "nothing was frozen" in text and "nan" not in text.lower()
