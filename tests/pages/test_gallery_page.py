"""Failures are named as such, against thresholds that were frozen elsewhere."""

import html
import re

import numpy as np
import pytest

from cxr_jax.pages.gallery import gallery
from cxr_jax.samples import Samples

NAMES = ("Mass", "Hernia", "Pleural_Thickening")
SCORES = [[0.9, 0.2, 0.8], [0.1, 0.6, 0.0], [0.7, 0.1, 0.1], [0.2, 0.3, 0.4]]
LABELS = [[1, 0, 1], [1, 0, 0], [0, 0, np.nan], [0, 1, 0]]
SHOWN = ("Mass", "Mass", "Mass", "Hernia")
KINDS = ("highest-scored positive", "lowest-scored positive", "highest-scored negative")


def point(threshold):
    return {"f1": {"threshold": threshold}, "youden": {"threshold": 0.0}}


POINTS = {
    "per_class": {
        "Mass": point(0.5),
        "Hernia": point(0.3),
        "Pleural_Thickening": point(0.75),
    }
}


def samples(**more):
    count = len(SHOWN)
    scores = np.array(SCORES, np.float32)
    columns = [NAMES.index(name) for name in SHOWN]
    made = {
        "films": np.full((count, 8, 8), 90, np.uint8),
        "maps": np.ones((count, 2, 2), np.float32),
        "classes": np.array(SHOWN),
        "kinds": np.array([*KINDS, KINDS[1]]),
        "ids": np.array([f"<b>{k}" for k in range(count)]),
        "probs": scores[np.arange(count), columns],
        "ranks": np.arange(1, count + 1),
        "boxes": np.empty((count, 0, 4), np.float32),
        "names": np.array(NAMES),
        "scores": scores,
        "labels": np.array(LABELS, np.float32),
    }
    return Samples(**(made | more))


def captions(page):
    """Verdict, whether it is of a failure, and the lines below, of each film."""
    found = []
    for text in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL):
        head = re.match(r'<strong class="(\w+)">(.*?)</strong>\n', text)
        lines = html.unescape(text[head.end() if head else 0 :]).split("\n")
        kind = (head[2], head[1] == "failure") if head else None
        found.append((kind, lines))
    return found


def test_every_film_has_its_verdict():
    found = captions(gallery(samples(), films=100, points=POINTS))
    assert [kind for kind, _ in found] == [
        ("Found", False),
        ("Missed", True),
        ("False alarm", True),
        ("Found", False),  # at the threshold itself
    ]


def test_a_negative_below_the_threshold_is_no_failure():
    high = POINTS["per_class"] | {"Mass": point(0.95)}
    found = captions(gallery(samples(), films=100, points={"per_class": high}))
    assert [kind for kind, _ in found[:3]] == [
        ("Missed", True),
        ("Missed", True),
        ("Not called, rightly", False),
    ]


def test_all_that_is_called_and_all_that_is_labelled_stands_below():
    found = captions(gallery(samples(), films=100, points=POINTS))
    assert found[0][1] == [
        "highest-scored positive: <b>0; score 0.900, rank 1 of 100",
        "Called: Mass 0.90, Pleural Thickening 0.80",
        "Labelled: Mass, Pleural Thickening",
    ]
    assert found[1][1][1:] == ["Called: Hernia 0.60", "Labelled: Mass"]
    assert found[2][1][2] == "Labelled: no finding"


def test_the_true_state_decides_where_it_is_known():
    truths = np.array([[0, 0, 1], [1, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    page = gallery(samples(truths=truths), films=100, points=POINTS)
    found = captions(page)
    assert [kind for kind, _ in found][:3] == [
        ("False alarm", True),
        ("Missed", True),
        ("Found", False),
    ]
    assert found[0][1][-1] == "True state: Pleural Thickening"
    assert not any("True state" in line for line in found[1][1])  # as labelled
    assert "The true state decides" in page


def test_spreads_stand_behind_scores_where_dropout_was_sampled():
    spreads = np.full((4, 3), 0.034, np.float32)
    page = gallery(samples(spreads=spreads), films=100, points=POINTS)
    line = captions(page)[0][1][1]
    assert line == "Called: Mass 0.90 ± 0.03, Pleural Thickening 0.80 ± 0.03"
    assert "dropout" in page and "dropout" not in gallery(
        samples(), films=9, points=POINTS
    )


def test_a_class_without_a_threshold_is_neither_called_nor_judged():
    some = POINTS["per_class"] | {"Mass": point(None)}
    found = captions(gallery(samples(), films=100, points={"per_class": some}))
    assert found[0][0] is None and found[3][0] == ("Found", False)
    assert found[0][1][1] == "Called: Pleural Thickening 0.80"
    assert found[2][1][1] == "Called: nothing"


@pytest.mark.parametrize("points", [None, {}, {"reason": "nothing was frozen"}])
def test_without_thresholds_nobody_is_judged(points):
    page = gallery(samples(), films=100, points=points)
    assert all(kind is None and len(lines) == 1 for kind, lines in captions(page))
    assert "frozen" not in page


def test_old_samples_and_studies_are_shown_as_before():
    bare = samples(names=None, scores=None, labels=None)
    page = gallery(bare, films=100, points=POINTS)
    assert all(kind is None and len(lines) == 1 for kind, lines in captions(page))
