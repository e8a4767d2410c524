"""ROC curves: a panel per class of one run, a panel per run of several."""

import base64
import re

from cxr_jax.pages import curves
from cxr_jax.pages.evidence import Evidence

NAMES = ("Mass", "Pleural_Thickening")


def evidence(name, areas, *, dataset="chest/1", mean=0.75):
    per_class = {n: {"value": area} for n, area in zip(NAMES, areas, strict=True)}
    result = {
        "dataset": dataset,
        "split": "test",
        "metrics": {"auroc": {"per_class": per_class, "mean": {"value": mean}}},
        "calibration": {},
    }
    return Evidence(
        config={},
        passport={},
        lines=(),
        results={"test": result},
        curves={
            n: {"fpr": [0, 0.25, 1], "tpr": [0, 0.75, 1]}
            for n, area in zip(NAMES, areas, strict=True)
            if area is not None
        },
        samples=None,
        name=name,
    )


def drawings(section):
    uris = re.findall(r"base64,([A-Za-z0-9+/=]+)", section)
    texts = [base64.b64decode(uri).decode() for uri in uris]
    return texts, [re.findall(r"<!-- (.*?) -->", t, re.DOTALL) for t in texts]


def test_one_run_has_a_panel_per_class_alone():
    _, words = drawings(curves.section(evidence("a", (0.8, None))))
    assert len(words) == 1
    assert "0.800" in words[0] and "undefined" in words[0]


def test_several_runs_have_a_panel_each_with_all_areas():
    runs = evidence("a", (0.8, 0.7)), evidence("b", (0.9, None), mean=None)
    _, (_, panels) = drawings(curves.section(*runs))
    assert "(a) a" in panels and "(b) b" in panels
    assert "chest/1, test; mean 0.750" in panels and "chest/1, test; mean –" in panels
    labels = ["0.800  Mass", "0.700  Pleural Thickening", "0.900  Mass"]
    assert [word for word in panels if word in labels] == labels
    assert not any(word.startswith("–  ") for word in panels)


def test_a_class_has_the_same_line_in_every_panel():
    runs = evidence("a", (None, 0.7)), evidence("b", (0.9, 0.6))
    (_, drawn), _ = drawings(curves.section(*runs))
    second = curves._lines(NAMES)["Pleural_Thickening"]["color"]
    assert second == curves.HUES[1]
    # A curve and its place in the legend, in both panels.
    assert drawn.count(f"stroke: {second}") == 4


def test_fourteen_classes_have_fourteen_lines():
    lines = curves._lines([f"class {k}" for k in range(14)])
    assert len({(style["color"], style["ls"]) for style in lines.values()}) == 14


def test_computed_films_share_no_figure_with_real_ones():
    runs = [evidence(n, (0.8, 0.7), dataset="phantom_chest/tiny") for n in "xy"]
    _, words = drawings(curves.section(evidence("r", (0.8, 0.7)), *runs))
    assert len(words) == 2 and not any("(a) r" in some for some in words)
    assert "(a) x" in words[1] and "(b) y" in words[1]
