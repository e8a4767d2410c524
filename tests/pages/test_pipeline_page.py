"""The way of a study through the model, in its own figures."""

import base64
import re

import numpy as np
import pytest

from cxr_jax.pages.pipeline import pipeline
from cxr_jax.samples import Samples


def samples(*, cases=("a", "a", "b", "b", "b"), views=(3, 3, 3, 3, 3)):
    count = len(cases)
    return Samples(
        films=np.full((count, 8, 8), 90, np.uint8),
        maps=np.zeros((count, 2, 2), np.float32),
        classes=np.array(["Hand"] * count),
        kinds=np.array(["k"] * count),
        ids=np.array([f"{name}/{k}" for k, name in enumerate(cases)]),
        probs=np.array([0.9, 0.8, 0.2, 0.4, 0.75][:count], np.float32),
        ranks=np.arange(count),
        boxes=np.empty((count, 0, 4), np.float32),
        cases=np.array(cases),
        views=np.array(views),
    )


def words(section):
    """The page and the texts of its drawing, which SVG holds as comments."""
    (uri,) = re.findall(r"base64,([A-Za-z0-9+/=]+)", section)
    drawn = base64.b64decode(uri).decode()
    return section, " ".join(re.findall(r"<!-- (.*?) -->", drawn, re.DOTALL))


def test_the_first_study_that_is_shown_whole_is_taken_with_its_mean():
    page, drawn = words(pipeline(samples(), network="DenseNet", threshold=0.5))
    assert "How a study is read: b." in page and "called above 0.5" in page
    for word in ("0.200", "0.400", "0.750", "mean 0.450", "below the threshold"):
        assert word in drawn
    assert "0.900" not in drawn  # Study a has a third view that is not here.


@pytest.mark.parametrize(
    ("threshold", "word"), [(0.4, "abnormal"), (None, "mean 0.450")]
)
def test_the_call_is_that_of_the_threshold(threshold, word):
    page, drawn = words(pipeline(samples(), network="DenseNet", threshold=threshold))
    assert word in drawn and ("called" in page) == (threshold is not None)
    assert ("abnormal" in drawn) == (threshold is not None)


def test_a_study_that_stands_for_two_classes_is_drawn_once():
    twice = samples(cases=("b", "b", "b", "b"), views=(2, 2, 2, 2))
    twice = Samples(**(vars(twice) | {"ids": np.array(["b/0", "b/1", "b/0", "b/1"])}))
    _, drawn = words(pipeline(twice, network="DenseNet", threshold=0.5))
    assert "mean 0.850" in drawn


@pytest.mark.parametrize(
    "given",
    [
        samples(cases=("a", "b"), views=(1, 1)),
        Samples(**(vars(samples()) | {"cases": None, "views": None})),
    ],
)
def test_without_a_study_of_several_views_nothing_is_drawn(given):
    assert pipeline(given, network="DenseNet", threshold=0.5) == ""
