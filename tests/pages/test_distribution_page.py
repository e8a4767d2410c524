"""Films per label: counted once, shown by part."""

import base64
import html
import re
import types

import numpy as np

from cxr_jax.division import Division
from cxr_jax.pages import distribution
from cxr_jax.pages.evidence import Evidence

NAN = np.nan
LABELS = [
    [1, 1, 0],
    [0, 0, 0],
    [1, 0, NAN],
    [NAN, NAN, NAN],  # unknown: neither a finding nor none
    [0, NAN, 0],
    [0, 0, 1],
    [1, 1, 1],
]
PARTS = {"train": [0, 1, 2, 3], "val": [4], "test": [5]}
COUNTED = {
    "classes": ["Mass", "Pleural_Thickening", "Hernia"],
    "films": {"dataset": 7, "train": 4, "val": 1, "test": 1},
    "none": {"dataset": 2, "train": 1, "val": 1, "test": 0},
    "positives": {
        "dataset": {"Mass": 3, "Pleural_Thickening": 2, "Hernia": 2},
        "train": {"Mass": 2, "Pleural_Thickening": 1, "Hernia": 0},
        "val": {"Mass": 0, "Pleural_Thickening": 0, "Hernia": 0},
        "test": {"Mass": 0, "Pleural_Thickening": 0, "Hernia": 1},
    },
}


class Records(types.SimpleNamespace):
    def __len__(self):
        return len(self.labels)


def counted():
    records = Records(
        classes=tuple(COUNTED["classes"]), labels=np.array(LABELS, np.float32)
    )
    parts = {name: np.array(index) for name, index in PARTS.items()}
    return Division(
        config=None,
        dataset=types.SimpleNamespace(records=records),
        split=types.SimpleNamespace(parts=parts),
        order=None,
    ).label_counts()


def evidence(labels):
    return Evidence(
        config={},
        passport={},
        lines=(),
        results={},
        curves={},
        samples=None,
        labels=labels,
    )


def rows(section):
    found = re.findall(r"<tr.*?</tr>", section, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in found]
    return [[html.unescape(cell) for cell in row] for row in cells]


def drawn(section):
    (uri,) = re.findall(r"base64,([A-Za-z0-9+/=]+)", section)
    text = base64.b64decode(uri).decode()
    return [w.strip() for w in re.findall(r"<!-- (.*?) -->", text, re.DOTALL)]


def test_labels_are_counted_by_hand():
    assert counted() == COUNTED


def test_the_most_frequent_come_first_and_no_finding_last():
    section = distribution.section(evidence(COUNTED))
    assert rows(section) == [
        ["Label", "Whole\ndataset", "Training", "Validation", "Test"],
        ["Mass", "3 (42.9%)", "2 (50.0%)", "0 (0.0%)", "0 (0.0%)"],
        ["Pleural Thickening", "2 (28.6%)", "1 (25.0%)", "0 (0.0%)", "0 (0.0%)"],
        ["Hernia", "2 (28.6%)", "0 (0.0%)", "0 (0.0%)", "1 (100.0%)"],
        ["No finding", "2 (28.6%)", "1 (25.0%)", "1 (100.0%)", "0 (0.0%)"],
        ["All films", "7", "4", "1", "1"],
    ]
    assert "in the 6 films of this run (of 7 of the dataset)" in section


def test_bars_end_at_the_films_of_all_parts():
    words = drawn(distribution.section(evidence(COUNTED)))
    names = ["Mass", "Pleural Thickening", "Hernia", "No finding"]
    assert [w for w in words if w in names] == names
    places = [words.index(name) for name in names]
    assert places == sorted(places)
    assert [w for w in words if w in ("training", "validation", "test")] == [
        "training",
        "validation",
        "test",
    ]


def test_numbers_beside_bars_are_sums_over_parts_not_of_the_dataset():
    films = {"train": 1001, "val": 102, "test": 214}
    positives = {"Mass": 1001, "Pleural_Thickening": 0, "Hernia": 7}
    labels = COUNTED | {
        "films": {"dataset": 5555} | films,
        "none": {"dataset": 5555} | films,
        "positives": dict.fromkeys(COUNTED["positives"], positives),
    }
    words = drawn(distribution.section(evidence(labels)))
    assert [w for w in words if w in ("3,003", "21", "0", "1,317")][-4:] == [
        "3,003",
        "21",
        "0",
        "1,317",
    ]


def test_a_part_without_films_and_one_class():
    labels = {
        "classes": ["Pneumonia"],
        "films": {"dataset": 5, "train": 3, "val": 2, "test": 0},
        "none": {"dataset": 4, "train": 2, "val": 2, "test": 0},
        "positives": {
            "dataset": {"Pneumonia": 1},
            "train": {"Pneumonia": 1},
            "val": {"Pneumonia": 0},
            "test": {"Pneumonia": 0},
        },
    }
    section = distribution.section(evidence(labels))
    assert rows(section)[0][2:] == ["Training", "Validation"]
    assert "test" not in drawn(section)
    assert "films of this run, by part" in section  # all films of the dataset are used


def test_an_old_workdir_has_none():
    assert distribution.section(evidence({})) == ""
