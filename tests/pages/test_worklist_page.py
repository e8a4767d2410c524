"""The worklist never calls a study what nobody knows it is, and its figures are ours."""

import html
import re

import numpy as np
import pytest

from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.triage import Triage
from cxr_jax.pages import worklist as page
from cxr_jax.pages.evidence import Evidence
from cxr_jax.predictions import RESEARCH_USE, Predictions

POINT = "sensitivity@0.95"


def made(count=60, *, threshold=0.3, seed=0, member=True, ties=False):
    """The block ``triage`` of made-up studies whose names are markup."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.4).astype(np.float32)
    scores = (rng.random(count) + 0.3 * labels) / 1.3
    if ties:
        scores = scores.round(1)
    kind = np.arange(count) % 2
    both = np.column_stack([kind == 0, kind == 1, np.ones(count, bool)])
    table = Predictions(
        classes=("Elbow_Joint", "Hand", "All"),
        ids=np.array([f"<b>study{k:04d}" for k in range(count)]),
        patients=np.array([f"p{k}" for k in range(count)]),
        studies=np.array([f"s{k}" for k in range(count)]),
        index=np.arange(count),
        probs=np.repeat(scores[:, None], 3, axis=1),
        labels=np.repeat(labels[:, None], 3, axis=1),
        member=both if member else None,
    )
    reason = None if threshold is not None else "unattainable"
    points = {"All": {POINT: {"threshold": threshold, "reason": reason}}}
    return plain(Triage(point=POINT)(table, {"operating_points": points}))["triage"]


def rendered(block, **more):
    result = {"dataset": "phantom", "split": "test"} | more
    evidence = Evidence(
        config={},
        passport={},
        lines=[],
        results={"test": result | ({"triage": block} if block else {})},
        curves={},
        samples=None,
    )
    return page.section(evidence)


def text_of(section):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", section)).split())


def rows_of(section):
    """Rows of the list, seen and folded, as their cells."""
    rows = re.findall(r"<tr><td>[\d,]+</td>.*?</tr>", section)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    return [[html.unescape(cell) for cell in row] for row in cells]


def test_no_block_no_section():
    assert rendered(None) == ""


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 2.0, None])
def test_what_is_below_is_never_called_normal(threshold):
    """The one sentence with the word says that it is not that."""
    text = text_of(rendered(made(threshold=threshold)))
    drafted = threshold in (0.3, 0.6, 2.0)
    assert (page.BELOW in text) == drafted and ("DRAFT" in text) == drafted
    assert not re.search(r"\bnormal", text.replace(page.BELOW, ""), re.IGNORECASE)
    for word in ("healthy", "negative", "unremarkable", "no finding", "None", "nan"):
        assert word not in text, word


def test_figures_are_those_of_the_block():
    block = made()
    text, missed, rank = text_of(rendered(block)), block["missed"], block["rank"]
    assert missed["count"] and missed["below"] > missed["count"]
    ruled_out = missed["below"] - missed["count"]
    assert block["ruled_out"] == pytest.approx(ruled_out / block["negatives"])
    share, among = block["ruled_out"], missed["count"] / missed["below"]
    chance, best = f"{rank['chance']:.1f}", f"{rank['best']:.1f}"
    for words in (
        f"below threshold {100 * share:.1f}% {ruled_out} of {block['negatives']}",
        f"(missed) {missed['count']} of {block['positives']} abnormal ones",
        f"{100 * among:.1f}% at most {100 * missed['upper']:.1f}%",
        f"{rank['mean']:.1f} by chance {chance}, in a perfect list {best}",
        f"operating point '{POINT}', frozen on the validation part",
        f"a score of at least {block['threshold']:.4f}",
        "one-sided 95%",
        f"By the labels {block['positives']} are abnormal and {block['negatives']} are",
        RESEARCH_USE,
    ):
        assert words in text, words
    assert "IN-SAMPLE" not in text
    chosen = text_of(rendered(block, operating_points={"in_sample": True}))
    assert "IN-SAMPLE" in chosen


def test_every_row_is_the_entry_of_its_position():
    block = made(260)
    block["list"][3]["label"] = None
    section = rendered(block)
    rows = rows_of(section)
    assert [row[0] for row in rows] == [f"{k}" for k in range(1, 201)]
    sides = {True: "above threshold", False: "below threshold"}
    words = {1: "reported: abnormal", 0: "reported: not abnormal", None: "no label"}
    for row, entry in zip(rows, block["list"], strict=False):
        assert row[1] == entry["id"] and row[2] == entry["category"].replace("_", " ")
        assert row[3] == f"{entry['score']:.4f}"
        assert row[4:] == [sides[entry["above"]], words[entry["label"]]]
    seen, _, folded = section.partition("<details>")
    assert len(rows_of(seen)) == 25 and "Positions 26 to 200" in folded
    assert "The first 200 of 260; all are in result.json." in section


@pytest.mark.parametrize(("count", "folded"), [(25, 0), (26, 1), (200, 1)])
def test_a_short_list_is_whole(count, folded):
    section = rendered(made(count))
    assert len(rows_of(section)) == count and "result.json" not in section
    assert section.count("<summary>Positions") == folded


def test_names_cannot_become_markup():
    section = rendered(made())
    assert "<b>" not in section and "&lt;b&gt;study0001" in section


def test_a_draft_for_every_study_below_and_none_above():
    block = made()
    section = rendered(block)
    text = html.unescape(section)
    drafts = re.findall(r"DRAFT, not reviewed\..*?diagnostic use\.", text, re.DOTALL)
    below = [entry for entry in block["list"] if not entry["above"]]
    assert len(drafts) == len(below) > 2
    for found, entry in zip(drafts, below, strict=True):
        kind = entry["category"].replace("_", " ")
        assert f"Study: {entry['id']}\nType: {kind}\n" in found
        assert f"Score: {entry['score']:.4f}" in found and page.BELOW in found
        assert found.endswith(RESEARCH_USE) and "reported" not in found
    # The first stands open, the others are folded.
    assert "DRAFT" in section.rpartition("<details>")[0]
    assert f"The next {len(below) - 1} of {len(below)} drafts" in section


def test_many_drafts_are_counted():
    section = rendered(made(900, threshold=0.99))
    assert section.count("DRAFT") == page.MOST
    assert re.search(r"The next 199 of 8\d\d drafts", section)


def test_without_a_threshold_the_list_is_only_ordered():
    section = rendered(made(threshold=None))
    text = text_of(section)
    assert "not cut, for want of a threshold: unattainable." in text
    assert "Mean rank" in text and "no threshold" in text
    assert "missed" not in text and "below threshold" not in text


def test_nothing_below_and_nothing_abnormal():
    text = text_of(rendered(made(threshold=0.0)))
    assert "No labelled study is below it." in text and "none is below" in text
    block = made()
    for entry in block["list"]:
        entry["label"] = 0
    none = {"count": 0, "below": 20, "upper": 0.139}
    rank = {"mean": None, "chance": 30.5, "best": None}
    block |= {"positives": 0, "negatives": 60, "missed": none, "rank": rank}
    text = text_of(rendered(block))
    assert "0 of them are abnormal" in text and "at most 13.9%" in text
    assert "Mean rank" not in text and "quarter" not in text


def test_a_type_that_is_unknown_is_a_dash():
    section = rendered(made(member=False))
    assert {row[2] for row in rows_of(section)} == {"–"} and "Type: " not in section


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_area_below_the_curve_is_the_mean_rank(seed, ties):
    """``1 - (mean rank - 1/2) / n``, by hand for whole lists."""
    block = made(seed=seed, ties=ties)
    read, found = page.found_by(block["list"])
    assert (read[0], found[0]) == (0, 0) and (read[-1], found[-1]) == (1, 1)
    assert (np.diff(read) > 0).all() and (np.diff(found) >= 0).all()
    area = np.trapezoid(found, read)
    assert area == pytest.approx(1 - (block["rank"]["mean"] - 0.5) / block["n"])


def test_a_perfect_list_and_one_score_for_all():
    perfect = [{"score": 1 - k / 10, "label": int(k < 4)} for k in range(10)]
    read, found = page.found_by(perfect)
    assert np.interp([0.2, 0.4, 1], read, found) == pytest.approx([0.5, 1, 1])
    same = [{"score": 0.5, "label": k % 2} for k in range(10)]
    read, found = page.found_by(same)
    assert read.tolist() == [0, 1] and found.tolist() == [0, 1]


def test_the_caption_reads_the_curve():
    entries = [
        {"id": f"s{k}", "category": "", "score": 1 - k / 8, "above": k < 4}
        | {"label": int(k in (0, 2, 3, 6))}
        for k in range(8)
    ]
    block = made() | {"list": entries, "n": 8, "positives": 4, "negatives": 4}
    text = text_of(rendered(block))
    assert "the first quarter of the list finds 25.0% of the abnormal" in text
    assert "by chance 25.0%, in a perfect list 50.0%." in text


def test_the_same_block_draws_the_same_bytes():
    assert rendered(made()) == rendered(made())
    assert rendered(made()).count("data:image/svg+xml") == 1
