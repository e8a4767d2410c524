"""Published figures stand beside ours, and are subtracted from the same films only."""

import re
from html import unescape

import pytest

from cxr_jax.pages import published
from cxr_jax.pages.evidence import Evidence

VALUES = {"Mass": 0.8618, "Hernia": 0.9386}
SHA = "ab" * 32
SAME = {
    "dataset": "chestxray14",
    "split_sha256": SHA,
    "positives": {"Mass": 40, "Hernia": 7},
}


def evidence(columns, *, dataset="chestxray14/224px/1.0.0", sha=SHA, scheme="listed"):
    def value(v):
        return {"value": v, "low": v - 0.01, "high": v + 0.01}

    auroc = {
        "per_class": {
            "Mass": value(0.87) | {"positives": 40},
            "Hernia": value(0.9) | {"positives": 7},
        },
        "mean": value(0.885) | {"classes": ["Mass", "Hernia"]},
    }
    main = {"dataset": dataset, "split": "test", "split_sha256": sha}
    return Evidence(
        config={"report": {"published": columns}},
        passport={"scheme": scheme},
        lines=(),
        results={"test": main | {"metrics": {"auroc": auroc}}},
        curves={},
        samples=None,
    )


def cells(text, number=0):
    """Rows of a table of the page."""
    table = re.findall(r"<table>.*?</table>", text, re.DOTALL)[number]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return {row[0]: [unescape(cell) for cell in row] for row in found}


def column(**more):
    return {"name": "Paper", "split": "their own", "values": VALUES, **more}


def test_a_difference_is_taken_on_the_same_films_and_labels():
    table = cells(published.section(evidence([column(**SAME)])))
    assert table["Class"][1:] == [
        "Ours\nlisted, test",
        "Paper\ntheir own",
        "Difference\nto Paper",
    ]
    assert table["Mass"][1:] == ["0.870 [0.860, 0.880]", "0.8618", "+0.0082"]
    assert table["Hernia"][-1] == "−0.0386"
    assert table["Mean of the list"][-2:] == ["0.9002", "−0.0152"]


@pytest.mark.parametrize(
    "change",
    [
        {"split_sha256": "cd" * 32},
        {"dataset": "other"},
        {"positives": {"Mass": 41, "Hernia": 7}},
        {"positives": {}},
        {"split_sha256": None},
    ],
)
def test_no_difference_is_taken_otherwise(change):
    text = published.section(evidence([column(**SAME | change)]))
    assert not any("Difference" in head for head in cells(text)["Class"])
    assert "not subtracted" in text


def test_every_split_has_a_column_of_its_own():
    other = evidence((), sha="cd" * 32, scheme="drawn")
    table = cells(published.section(evidence([column(**SAME)]), other))
    assert table["Class"][1:3] == ["Ours\nlisted, test", "Ours\ndrawn, test"]
    assert sum("Difference" in head for head in table["Class"]) == 1


def test_what_nobody_can_measure_again_is_marked():
    whole = column(missing="the films, which were not published", source="a journal")
    row = column(name="Readers", missing={"Hernia": "the readers' labels"})
    text = published.section(evidence([whole, row]))
    table, basis = cells(text), cells(text, 1)
    assert table["Class"][2] == "Paper\u00a0†\ntheir own"
    assert table["Class"][3] == "Readers\ntheir own"
    assert table["Hernia"][2:] == ["0.9386", "0.9386\u00a0†"]
    assert table["Mass"][3] == "0.8618"
    assert basis["Paper"][3:] == ["† the films, which were not published", "a journal"]
    assert basis["Readers"][3] == "† Hernia: the readers' labels"


def test_a_class_that_one_side_lacks_is_a_dash():
    values = {"Mass": 0.8, "Fibrosis": 0.7}
    table = cells(published.section(evidence([column(values=values)])))
    assert table["Fibrosis"][1:] == ["–", "0.700"]
    assert table["Hernia"][2] == "–" and table["Mean of the list"][2] == "–"


def test_phantoms_share_no_table_with_published_figures():
    run = evidence([column(**SAME)], dataset="phantom_chest/tiny/1.1.0")
    text = published.section(run)
    assert "not comparable" in text and "0.870" not in text
    assert cells(text)["Class"] == ["Class", "Paper\ntheir own"]
    beside = published.section(run, evidence(()))
    assert "phantom" not in beside and cells(beside)["Class"][1] == "Ours\nlisted, test"


def test_without_published_figures_there_is_no_section():
    assert published.section(evidence(())) == ""
