"""The network as a table and as a drawing, from its parts."""

import base64
import html
import re

import pytest

from cxr_jax.pages import diagram, network
from cxr_jax.pages.evidence import Evidence


def part(
    name, kind, inputs, shape, parameters=0, statistics=0, trainable=None, stages=()
):
    return {
        "name": name,
        "kind": kind,
        "inputs": inputs,
        "shape": shape,
        "parameters": parameters,
        "statistics": statistics,
        "trainable": trainable or [parameters, parameters],
        "stages": [*stages],
    }


STAGE = {
    "name": "backbone/a/stem",
    "kind": "Conv",
    "shape": [8, 8, 4],
    "parameters": 36,
    "statistics": 0,
    "trainable": [0, 36],
}
FUSION = {
    "input": [16, 16, 1],
    "parts": [
        part("backbone/a", "Dense", ["input"], [8, 8, 4], 1000, 50, [0, 1000], [STAGE]),
        part("backbone/b", "Efficient", ["input"], [4, 4, 6], 2000, 70, [0, 2000]),
        part("resizing", "", ["backbone/b"], [8, 8, 6]),
        part("joined", "", ["backbone/a", "resizing"], [8, 8, 10]),
        part("head/<b>", "Linear", ["joined"], [3], 33),
        part("further arrays", "", [], None, 1),
    ],
    "outputs": ["head/<b>"],
    "parameters": 3034,
    "statistics": 120,
    "trainable": [34, 3034],
}


def evidence(model, classes=("A", "B", "C")):
    return Evidence(
        config={"task": {"classes": classes}},
        passport={},
        lines=(),
        results={},
        curves={},
        samples=None,
        model=model,
    )


def cells(section, number):
    table = re.findall(r"<table>.*?</table>", section, re.DOTALL)[number]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return {row[0]: [html.unescape(cell) for cell in row[1:]] for row in found}


def drawn(section):
    (uri,) = re.findall(r"base64,([A-Za-z0-9+/=]+)", section)
    text = base64.b64decode(uri).decode()
    return re.findall(r"<!-- (.*?) -->", text, re.DOTALL)


def test_the_table_tells_parts_reads_shapes_and_counts():
    section = network.section(evidence(FUSION))
    table = cells(section, 0)
    assert table["Part"][-2:] == ["Trainable\nin phase 1", "Trainable\nin phase 2"]
    assert table["film"] == ["", "", "16 × 16 × 1", "", "", "", ""]
    row = ["Dense", "film", "8 × 8 × 4", "1,000", "50", "–", "1,000"]
    assert table["backbone/a"] == row
    assert table["joined"][1:4] == ["backbone/a, resizing", "8 × 8 × 10", "–"]
    assert table["further arrays"][2:4] == ["", "1"]
    assert table["Total"] == ["", "", "", "3,034", "120", "34", "3,034"]
    assert cells(section, 1)["stem"] == ["Conv", "8 × 8 × 4", "36", "–", "–", "36"]
    assert section.index("Stages of backbone/a") < section.index(">stem<")
    assert "3,154 numbers: 3,034 parameters and 120 that no gradient" in section
    assert "Trainable: 34 in phase 1, 3,034 in phase 2." in section
    assert "<b>" not in section


def test_the_drawing_has_every_part_and_the_shapes_between():
    section = network.section(evidence(FUSION))
    words = drawn(section)
    for word in ("film", "backbone/a", "Dense · 1,050 numbers", "resizing", "joined"):
        assert words.count(word) == 1, word
    # What two parts read is said once; what nothing reads has no box.
    assert words.count("16 × 16 × 1") == 1 and words.count("8 × 8 × 4") == 1
    assert "3 findings, a probability each" in words and "further arrays" not in words
    assert "Dashed: frozen in phase 1." in section


def test_one_phase_and_one_class():
    whole = [p | {"trainable": [p["parameters"]]} for p in FUSION["parts"]]
    model = FUSION | {"parts": whole, "trainable": [3034]}
    section = network.section(evidence(model, classes=("A",)))
    assert cells(section, 0)["Part"][-1] == "Trainable"
    assert "Trainable: 3,034." in section and "frozen" not in section
    assert "1 finding, a probability" in drawn(section)


def test_without_a_model_there_is_no_section():
    assert network.section(evidence({})) == ""


def test_branches_stand_side_by_side_and_arrows_pass_beside_boxes():
    inputs = {
        "film": [],
        "a": ["film"],
        "b": ["film"],
        "small": ["b"],
        "joined": ["a", "small"],
        "end": ["joined"],
    }
    places = diagram.arrange(inputs)
    assert places.at["film"] == (0, 0)
    assert places.at["a"] == (-0.5, 1) and places.at["b"] == (0.5, 1)
    # Beside "small" the arrow from "a" holds a place in its own column.
    assert places.at["small"] == (0.5, 2)
    (between,) = [way[1] for way in places.ways if len(way) == 3]
    assert places.at[between] == (-0.5, 2)
    assert places.at["joined"] == (0, 3) and places.at["end"] == (0, 4)
    assert (places.columns, places.rows) == (2, 5)


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a")])
def test_no_two_boxes_share_a_place(order):
    inputs = {"film": []} | {name: ["film"] for name in order}
    inputs |= {"x": ["a"], "y": ["c"], "sum": ["x", "y", "b", "film"]}
    places = diagram.arrange(inputs)
    assert len(set(places.at.values())) == len(places.at)


def test_the_same_model_gives_the_same_bytes():
    assert diagram.draw(FUSION, classes=3) == diagram.draw(FUSION, classes=3)
