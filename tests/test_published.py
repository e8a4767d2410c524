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


def evidence(
    columns,
    *,
    dataset="chestxray14/224px/1.0.0",
    sha=SHA,
    scheme="listed",
    name="a",
    plus=0.0,
    ceilings=None,
    parts=("test",),
    notes=(),
    mean=("Mass", "Hernia"),
):
    def value(v):
        v += plus
        return {"value": v, "low": v - 0.01, "high": v + 0.01}

    auroc = {
        "per_class": {
            "Mass": value(0.87) | {"positives": 40},
            "Hernia": value(0.9) | {"positives": 7},
        },
        "mean": value(0.885) | {"classes": [*mean]},
    }
    main = {"dataset": dataset, "split_sha256": sha, "n": 100, "notes": [*notes]}
    metrics = {"auroc": auroc} | ({"auroc@truth": auroc} if ceilings else {})
    main |= {"metrics": metrics}
    return Evidence(
        config={"report": {"published": columns, "ceilings": ceilings}},
        passport={"scheme": scheme},
        lines=(),
        results={part: main | {"split": part} for part in parts},
        curves={},
        samples=None,
        name=name,
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
        "Ours: a\nchestxray14/224px/1.0.0\nlisted, test\n100 films",
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
    heads = [head.split("\n")[2] for head in table["Class"][1:3]]
    assert heads == ["listed, test", "drawn, test"]
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
    assert table["Fibrosis"][1:] == ["–", "0.70"]
    assert table["Hernia"][2] == "–" and table["Mean of the list"][2] == "–"


def test_phantoms_share_no_table_with_published_figures():
    run = evidence([column(**SAME)], dataset="phantom_chest/tiny/1.1.0")
    text = published.section(run)
    assert "not comparable" in text and "0.87" not in text
    assert cells(text)["Class"] == ["Class", "Paper\ntheir own"]
    shown = cells(published.section(run, evidence(())))
    assert "phantom" not in str(shown) and "listed, test" in shown["Class"][1]


PHANTOM = {
    "dataset": "phantom_chest/tiny/1.1.0",
    "ceilings": {"Mass": 0.99, "Hernia": 0.98},
}
LEAKING = {
    "scheme": "image_level",
    "sha": "cd" * 32,
    "name": "b",
    "plus": 0.05,
    "notes": ["Leakage into test: 90 of 100 films."],
}


def test_phantom_runs_stand_beside_each_other_and_the_leak_is_named():
    runs = evidence([column(**SAME)], **PHANTOM), evidence((), **PHANTOM, **LEAKING)
    page = published.section(*runs)
    table = cells(page)
    assert [head.split("\n")[0] for head in table["Class"]] == [
        "Class",
        "Ours: a",
        "Ours: b",
        "Ceiling",
    ]
    assert table["Class"][2].split("\n")[1:3] == [
        "phantom_chest/tiny/1.1.0",
        "image_level, test",
    ]
    assert table["Mass"][1:] == [
        "0.870 [0.860, 0.880]",
        "0.920 [0.910, 0.930]",
        "0.990",
    ]
    for words in (
        "image_level divides films, not patients, and leaks",
        "Leakage into test: 90 of 100 films.",
        "not subtracted",
    ):
        assert words in page and words in " ".join(published.text(*runs).split())
    assert "Paper" not in published.text(*runs)  # real figures, real films
    assert "Paper" in cells(page, 2)["Class"][1] and len(cells(page, 2)["Class"]) == 2


PLUS = {"b": 0.05, "c": -0.01, "d": 0.0500001}


def test_runs_on_the_same_films_are_subtracted_and_on_others_not():
    main = evidence((), **PHANTOM)
    page = published.section(main, evidence((), **PHANTOM, name="b", plus=0.05))
    assert cells(page)["Class"][3] == "Difference\nb\nto a\nlisted, test"
    assert cells(page)["Mass"][3] == "+0.0500"
    assert "--compare" in page and "image_level" not in page
    for other in (
        {"sha": "cd" * 32},
        {"dataset": "phantom_chest/small/1.1.0"},
    ):
        page = published.section(main, evidence((), **PHANTOM | {"name": "b"} | other))
        assert "Difference" not in page and "not subtracted" in page


def test_several_runs_stand_alone_with_the_best_in_bold_and_differences_apart():
    main = evidence((), **PHANTOM)
    others = [evidence((), **PHANTOM | {"name": n}, plus=p) for n, p in PLUS.items()]
    page = published.section(main, *others)
    heads = [head.partition("\n")[0] for head in cells(page)["Class"]]
    assert heads == ["Class", "Ours: a", "Ours: b", "Ours: c", "Ours: d", "Ceiling"]
    table = re.findall(r"<table>.*?</table>", page, re.DOTALL)[0]
    best = re.findall(r'<td class="best">(.*?)</td>', table)
    # Equal to the three digits that are shown; the mean's row is the last.
    both = {"Mass": "0.920 [0.910, 0.930]", "Hernia": "0.950 [0.940, 0.960]"}
    mean = "0.935 [0.925, 0.945]"
    assert best == [cell for cell in (*both.values(), mean) for _ in "bd"]
    # What all columns share stands once, above them.
    assert not any("phantom_chest" in head for head in cells(page)["Class"])
    assert "Ours: phantom_chest/tiny/1.1.0, listed, test, 100 films. Bold: the" in page
    apart = cells(page, 1)
    assert [head.split("\n")[1:3] for head in apart["Class"][1:]] == [
        ["b", "to a"],
        ["c", "to a"],
        ["d", "to a"],
    ]
    assert apart["Mass"][1:3] == ["+0.0500", "−0.0100"]
    assert page.index("Differences of these runs") < page.index("+0.0500")
    assert "Bold" not in published.text(main, *others)


def test_only_figures_of_the_same_films_compete():
    runs = [
        evidence((), **PHANTOM),
        evidence((), **PHANTOM | {"name": "b"}, plus=-0.02),
        evidence((), **PHANTOM | {"name": "c", "sha": "cd" * 32}, plus=0.05),
    ]
    table = re.findall(r"<table>.*?</table>", published.section(*runs), re.DOTALL)[0]
    assert re.findall(r'class="best">0\.(\d+)', table) == ["870", "900", "885"]
    alone = published.section(runs[0], runs[2])
    assert 'class="best"' not in alone and "Bold" not in alone


def test_a_further_part_has_a_column_under_its_own_scheme():
    parts = ("test", "val", "official/test")
    run = evidence([column(**SAME | {"split_sha256": "cd" * 32})], parts=parts)
    table = cells(published.section(run))
    heads = [head.split("\n")[2] for head in table["Class"][1:3]]
    assert heads == ["listed, test", "official, test"]
    assert "Difference" not in "".join(table["Class"])  # of a run to itself


def test_means_are_of_one_list_or_marked():
    runs = evidence((), **PHANTOM), evidence((), **PHANTOM, name="b", mean=["Mass"])
    page = published.section(*runs)
    row = cells(page)["Mean of the list"]
    assert row[1] == "0.885 [0.875, 0.895]" and row[2] == "0.885\u00a0‡"
    assert "‡ Mean over the classes of the first column" in page


def test_phantom_runs_beside_a_real_one_keep_to_their_own_table():
    runs = evidence([column(**SAME)]), evidence((), **PHANTOM, name="b")
    page = published.section(*runs)
    with_paper = [
        str(cells(page, k))
        for k in range(page.count("<table>"))
        if "Paper" in str(cells(page, k))
    ]
    assert with_paper and not any("phantom" in table for table in with_paper)
    assert "phantom_chest/tiny/1.1.0" in str(cells(page, 2))
    real, computed = published.text(*runs).split("\n\n")[1:]
    assert "Paper" in real and "phantom" not in real
    assert "phantom" in computed and "Paper" not in computed


def test_the_plain_table_lines_up():
    lines = published.text(evidence([column(missing="its films")])).splitlines()
    assert lines[0] == "AUROC. Research use only. Not for diagnostic use."
    rule = next(line for line in lines if line.startswith("---"))
    row = next(line for line in lines if line.startswith("Mass"))
    assert len(row) == len(rule)
    assert row.split() == ["Mass", "0.870", "[0.860,", "0.880]", "0.8618"]
    assert "Paper: † its films" in lines
    phantom = published.text(evidence([column()], **PHANTOM))
    (row,) = [line for line in phantom.splitlines() if line.startswith("Mass")]
    assert row.split()[-1] == "0.990" and "Ceiling" in phantom


def test_without_published_figures_there_is_no_section():
    assert published.section(evidence(())) == ""
