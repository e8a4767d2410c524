"""The page words uncertainty as it must be, and its figures and numbers are ours."""

import html
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from cxr_jax import passes
from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.uncertainty import Uncertainty
from cxr_jax.pages import figures as shared
from cxr_jax.pages import uncertainty as page
from cxr_jax.pages import uncertainty_figures as figures
from cxr_jax.pages.evidence import Evidence
from cxr_jax.predictions import Predictions

CLASSES = ("Mass", "Pleural_Thickening", "Hernia")


def make_table(films=300, *, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(films, 3)) - 1
    probs = 1 / (1 + np.exp(-logits))
    labels = (rng.random((films, 3)) < probs).astype(np.float32)
    labels[:, 2] = 0
    std = 0.3 * probs * (1 - probs) * (0.5 + rng.random((films, 3)))
    return Predictions(
        classes=CLASSES,
        ids=np.asarray([f"<b>{k}" for k in range(films)]),
        patients=np.asarray([f"p{k // 2}" for k in range(films)]),
        studies=np.asarray([""] * films),
        index=np.arange(films),
        probs=probs.astype(np.float32),
        logits=logits.astype(np.float32),
        labels=labels,
        std=std.astype(np.float32),
        information=(std**2).astype(np.float32),
    )


def make_passes(table, *, drawn=100):
    choices = passes.choose(table)
    rng = np.random.default_rng(1)
    rows = [choice.row for choice in choices]
    columns = [choice.column for choice in choices]
    centre = table.probs[rows, columns][:, None]
    noise = rng.normal(size=(len(rows), drawn)) * table.std[rows, columns][:, None]
    return passes.Passes(
        probs=np.clip(centre + noise, 0, 1).astype(np.float32),
        ids=table.ids[rows],
        classes=np.asarray([CLASSES[c] for c in columns]),
        kinds=np.asarray([choice.kind for choice in choices]),
        labels=table.labels[rows, columns],
    )


def evidence(block, shown=None):
    result = {"dataset": "d", "split": "test"}
    return Evidence(
        config={"eval": {"mc": {"samples": 100, "probs": "mean"}}},
        passport={},
        lines=[],
        results={"test": result | ({"uncertainty": block} if block else {})},
        curves={},
        samples=None,
        passes=shown,
    )


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module")
def block(table):
    return plain(Uncertainty(threshold=0.05, resamples=50)(table))["uncertainty"]


def rows_of(section):
    rows = re.findall(r"<tr[^>]*>(<td.*?)</tr>", section)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    return [[html.unescape(cell) for cell in row] for row in cells]


def test_without_the_block_there_is_no_section():
    assert page.section(evidence(None)) == ""


def test_the_wording_and_the_numbers_are_those_of_the_block(table, block):
    section = page.section(evidence(block, make_passes(table)))
    text = html.unescape(re.sub(r"<[^>]*>", " ", section))
    assert "spread over dropout masks; low spread does not mean correct" in text
    assert "over 100 passes" in text and "above 0.05" in text
    flagged = (table.std > 0.05).any(axis=1).sum()
    assert f"{flagged:,} of 300 films" in text
    assert "confidence" not in text and "reliable" not in text
    found = {row[0]: row for row in rows_of(section)[:3]}
    mass = block["per_class"]["Mass"]
    assert found["Mass"][1] == f"{mass['mean_std']:.4f}"
    assert found["Mass"][-2] == f"{mass['flagged']['brier']:.4f}"
    assert found["Mass"][5] == f"{100 * mass['flagged']['prevalence']:.1f}%"
    assert set(found) == {"Mass", "Pleural Thickening", "Hernia"}
    areas = [row for row in rows_of(section) if row[0] == "Mean of the list"]
    mean = block["mean"]
    for row, risk in zip(areas, ("brier", "log_loss"), strict=True):
        assert row[1] == f"{1000 * mean['area'][risk]['std']:.2f}"
        assert row[5] == f"{1000 * mean['area'][risk]['oracle']:.2f}"
        gap = mean["differences"][risk][0]
        assert (gap["of"], gap["minus"]) == ("std", "max_probability")
        want = f"{1000 * gap['value']:+.2f}".replace("-", "−")
        assert row[6].startswith(want + " [")
        assert row[-1] == gap["verdict"]
    assert "Left out: Hernia (undefined: no positive film)" in text
    assert "<b>" not in section.replace("&lt;b&gt;", "")
    assert section.count("<img") == 4


def test_a_part_without_defined_classes_still_says_who_is_flagged():
    table = make_table()
    table.labels[:] = 0
    block = plain(Uncertainty(threshold=0.05)(table))["uncertainty"]
    section = page.section(evidence(block))
    assert "Flagged" in section and "<img" not in section


def test_findings_are_chosen_by_rule_and_one_is_wrong_though_sure(table):
    chosen = {choice.kind: choice for choice in passes.choose(table)}
    assert set(chosen) == {passes.WIDEST, passes.MIDDLE, passes.SURE}
    widest, sure = chosen[passes.WIDEST], chosen[passes.SURE]
    assert table.std[widest.row, widest.column] == table.std.max()
    wrong = (table.probs >= 0.5) != (table.labels == 1)
    assert wrong[sure.row, sure.column]
    assert table.std[sure.row, sure.column] == table.std[wrong].min()
    table.labels[:, :] = np.round(table.probs)
    assert passes.SURE not in {choice.kind for choice in passes.choose(table)}
    table.labels[:] = np.nan
    assert passes.choose(table) == []


def test_the_last_bit_of_a_place_changes_no_byte_of_a_figure():
    # A layout's solver leaves it to chance (the order of addresses).
    def at(left):
        def draw():
            figure = Figure()
            figure.add_axes((left, 0.1, 0.3, 0.8)).axhspan(0, 1)
            return figure

        return shared.svg(draw)

    assert at(0.6) == at(np.nextafter(0.6, 1)) != at(0.7)


def test_histograms_are_kept_and_drawn_alike(tmp_path):
    shown = make_passes(make_table())
    passes.write(tmp_path, shown)
    again = passes.read(tmp_path)
    for name, array in vars(shown).items():
        np.testing.assert_array_equal(getattr(again, name), array)
    svg = figures.histograms(shown)
    assert svg == figures.histograms(again)
    assert svg.count(b'<g id="axes_') == 6
    passes.write(tmp_path, None)
    assert passes.read(tmp_path) is None and list(tmp_path.iterdir()) == []


def test_a_figure_is_laid_out_and_drawn_once(monkeypatch):
    """Where axes stand is known before: matplotlib would draw all of it to find out."""
    drawn, draw = [], Figure.draw

    def count(self, renderer):
        drawn.append(self)
        return draw(self, renderer)

    monkeypatch.setattr(Figure, "draw", count)
    places = []

    def make():
        figure = Figure(layout="constrained")
        places.append(figure.subplots(1, 2)[1])
        places[0].set_ylabel("far to the left of its axes")
        return figure

    shared.svg(make)
    width = places[0].get_position().width
    assert len(drawn) == 1 and width != Figure().subplots(1, 2)[1].get_position().width
