"""The sheet of training films names each label and what else is labelled."""

import base64
import re

import numpy as np

from cxr_jax.pages import training_films
from cxr_jax.pages.evidence import Evidence
from cxr_jax.sheet import NONE, Sheet


def evidence(sheet):
    return Evidence(
        config={},
        passport={},
        lines=(),
        results={},
        curves={},
        samples=None,
        sheet=sheet,
    )


def films(titles, labels):
    count = len(titles)
    return Sheet(
        films=np.arange(count * 64, dtype=np.uint8).reshape(count, 8, 8),
        titles=np.array(titles),
        labels=np.array(labels),
        ids=np.array([f"{k}.png" for k in range(count)]),
    )


def drawn(section):
    (uri,) = re.findall(r"base64,([A-Za-z0-9+/=]+)", section)
    text = base64.b64decode(uri).decode()
    return text, re.findall(r"<!-- (.*?) -->", text, re.DOTALL)


def test_every_film_is_drawn_with_its_label_and_the_others():
    titles = ["Mass", "Pleural_Thickening", *(f"Class_{k}" for k in range(5)), NONE]
    labels = ["Hernia\nMass", "Pleural_Thickening", *titles[2:7], ""]
    text, words = drawn(training_films.section(evidence(films(titles, labels))))
    assert text.count("<image") == 8
    for title in titles:
        assert words.count(title.replace("_", " ")) == 1
    assert words.count("Hernia") == 1  # what a film stands for is not said again


def test_many_labels_are_broken_into_lines():
    many = "\n".join(["Mass", *(f"Further_Finding_{k}" for k in range(4))])
    _, words = drawn(training_films.section(evidence(films(["Mass"], [many]))))
    lines = [word for word in words if word.startswith("Further")]
    assert (
        len(lines) >= 1
        and max(len(w) for line in lines for w in line.split("\n")) <= 30
    )
    assert sum(line.count("Further") for line in words) == 4


def test_one_class_makes_two_films_and_none_no_section():
    text, _ = drawn(training_films.section(evidence(films(["A", NONE], ["A", ""]))))
    assert text.count("<image") == 2
    assert training_films.section(evidence(None)) == ""
