"""Recall of the rarest classes: which they are, and what a cell says."""

import html
import re

from cxr_jax.pages import rare
from cxr_jax.pages.evidence import Evidence

# In the order of the dataset; positives in training.
TRAIN = {"A": 90, "B": 10, "C_c": 3, "D": 70, "E": 5, "F": 40, "G": 60}


def rate(value, half=0.1):
    low = high = None
    if value is not None and half:
        low, high = value - half, value + half
    return {"value": value, "low": low, "high": high}


def block(sensitivity, specificity=0.8, threshold=0.3, positives=20):
    return {
        "threshold": threshold,
        "positives": positives,
        "sensitivity": rate(sensitivity),
        "specificity": rate(specificity),
    }


def evidence(per_class, *, name="a", train=TRAIN, dataset="chest/1", **more):
    result = {"dataset": dataset, "split": "test"}
    result["operating_points"] = {"per_class": per_class, "in_sample": False} | more
    return Evidence(
        config={},
        passport={"scheme": "stratified"},
        lines=(),
        results={"test": result},
        curves={},
        samples=None,
        name=name,
        labels={"positives": {"train": train}} if train else {},
    )


def points(value=0.5, classes=TRAIN):
    return {
        name: {"youden": block(value, positives=10 + k), "f1": block(value / 2, 0.95)}
        for k, name in enumerate(classes)
    }


def tables(section):
    found = []
    for table in re.findall(r"<table>.*?</table>", section, re.DOTALL):
        rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r, re.DOTALL) for r in rows]
        found.append([[html.unescape(cell) for cell in row] for row in cells])
    return found


def test_the_five_rarest_in_training_from_the_rarest_on():
    youden, f1 = tables(rare.section(evidence(points())))
    assert [row[0] for row in youden[1:]] == ["C c", "E", "B", "F", "G"]
    assert youden[0] == [
        "Class",
        "Positive\nin training",
        "Positive\nhere",
        "a\nstratified, test",
    ]
    assert youden[1] == ["C c", "3", "12", "0.50 [0.40, 0.60] at 0.80"]
    assert f1[1] == ["C c", "3", "20", "0.25 [0.15, 0.35] at 0.95"]


def test_runs_stand_beside_each_other_with_what_each_lacks():
    other = points(0.75)
    other["E"]["youden"] = block(None, threshold=None)
    other["B"]["youden"] = block(None)
    del other["F"]
    page = rare.section(evidence(points()), evidence(other, name="<b>"))
    youden, _ = tables(page)
    assert youden[0][3:] == ["a\nstratified, test", "<b>\nstratified, test"]
    assert {row[0]: row[-1] for row in youden[1:]} == {
        "C c": "0.75 [0.65, 0.85] at 0.80",
        "E": "unattainable",
        "B": "undefined",
        "F": "–",
        "G": "0.75 [0.65, 0.85] at 0.80",
    }


def test_the_true_state_decides_where_it_is_known():
    both = evidence(points(0.5), **{"per_class@truth": points(0.9)})
    page = rare.section(both)
    assert tables(page)[0][1][-1].startswith("0.90") and "the true state" in page
    assert "Against the labels" in rare.section(evidence(points()))


def test_without_counts_of_training_those_of_the_part_decide():
    section = rare.section(evidence(points(), train=None))
    youden, _ = tables(section)
    assert [row[0] for row in youden[1:]] == ["A", "B", "C c", "D", "E"]
    assert "by positive films here" in section and len(youden[0]) == 3


def test_few_classes_of_one_run_say_nothing_new():
    few = {"A": points()["A"]}
    assert rare.section(evidence(few)) == ""
    assert tables(rare.section(evidence(few), evidence(few, name="b")))[0][1][0] == "A"


def test_computed_films_share_no_table_with_real_ones():
    runs = [evidence(points(), name=n, dataset="phantom_chest/tiny") for n in "xy"]
    found = tables(rare.section(evidence(points()), *runs))
    assert [len(table[0]) for table in found] == [4, 4, 5, 5]


def test_what_is_judged_where_it_was_chosen_says_so():
    page = rare.section(evidence(points(), in_sample=True))
    assert tables(page)[0][0][-1].endswith("IN-SAMPLE")


def test_without_thresholds_there_is_no_section():
    bare = evidence({})
    assert rare.section(bare) == ""
    bare.results["test"].pop("operating_points")
    assert rare.section(bare) == ""
