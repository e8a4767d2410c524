"""The table of a stratified split says what its passport says, and no more."""

import html
import re

import numpy as np

from cxr_jax.data import balance, splits
from cxr_jax.data.records import Records
from cxr_jax.pages import balance as page


def passport():
    """Of 20 patients with two films each; half have one mass, none a hernia."""
    count = 40
    nothing, words = np.full(count, np.nan, np.float32), np.array([""] * count)
    labels = np.zeros((count, 2), np.float32)
    labels[:20:2, 0] = 1
    records = Records(
        classes=("Big_<Mass>", "Hernia"),
        id=np.array([f"{k:02d}.png" for k in range(count)]),
        patient=np.array([f"p{k // 2:02d}" for k in range(count)]),
        study=words,
        follow_up=nothing,
        age=nothing,
        sex=words,
        view=words,
        labels=labels,
    )
    how = {"dataset": "d", "version": "1", "fractions": (0.6, 0.1, 0.3)}
    return splits.split_records(records, "stratified", **how).passport


def rows_of(table):
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(cell) for cell in row] for row in cells]


def test_a_line_per_label_in_films_and_patients():
    table = page.table(passport())
    head, mass, hernia, none, every = rows_of(table)
    parts = ["train\n60.0%", "val\n10.0%", "test\n30.0%"]
    assert head == ["Label", "Films", *parts, "Patients", *parts]
    ten = ["10", "60.0% (6)", "10.0% (1)", "30.0% (3)"]
    twenty = ["20", "60.0% (12)", "10.0% (2)", "30.0% (6)"]
    assert mass == ["Big <Mass>", *ten, *ten]
    assert hernia == ["Hernia", *["0", "– (0)", "– (0)", "– (0)"] * 2]
    assert none[0] == balance.NONE and none[5:] == twenty
    films = ["40", "60.0% (24)", "10.0% (4)", "30.0% (12)"]
    assert every == ["All", *films, *twenty]
    assert "away from its aim by 0.0% for films and 0.0% for patients" in table


def test_the_deviation_is_that_of_the_passport():
    told = passport()
    told["balance"]["films"]["deviation"] = 0.0123
    told["balance"]["patients"]["deviation"] = 0.0044
    assert "by 1.2% for films and 0.4% for patients" in page.table(told)


def test_other_schemes_have_no_such_table():
    assert page.table({}) == "" == page.table({"scheme": "official", "parts": {}})
