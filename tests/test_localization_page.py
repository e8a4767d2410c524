"""The page says what the block says, and nothing where there is no block."""

import dataclasses
import re

from cxr_jax.pages import localization
from cxr_jax.pages.evidence import Evidence


def value(number):
    return {"value": number, "low": number - 0.05, "high": number + 0.05}


def class_block(found, chance, *, ahead, flag=None, lacking=()):
    others = {k: v for k, v in chance.items() if k not in lacking}
    measure = value(found) | {
        "baselines": {k: value(v) for k, v in others.items()},
        "differences": {k: value(found - v) for k, v in others.items()},
    }
    return {
        "films": 1234,
        "boxes": 1300,
        "positive_patients": 777,
        "flag": flag,
        "discarded": 3 if flag else 0,
        "reason": None,
        "pointing": measure,
        "iou": measure,
        "energy": measure,
        "ahead_of_all": ahead,
    }


CHANCE = {"area": 0.11, "location": 0.22, "randomised": 0.33}
EMPTY = {"value": None, "low": None, "high": None, "baselines": {}, "differences": {}}
BLOCK = {
    "share": 0.4,
    "n": 9000,
    "films": 2000,
    "resampling_unit": "patient",
    "resamples": 1000,
    "ahead_of_all": {"classes": ["Mass"], "of": ["Mass", "Nodule", "Effusion"]},
    "per_class": {
        "Mass": class_block(0.71, CHANCE, ahead=True),
        "Nodule": class_block(
            0.44, CHANCE, ahead=False, flag="fewer than <20>", lacking=("location",)
        ),
        "Effusion": class_block(0.5, CHANCE, ahead=False)
        | {k: EMPTY for k in ("pointing", "iou", "energy")},
    },
}


def evidence(result, maps=None):
    return Evidence(
        config={"task": {"maps": maps} if maps else {}},
        passport={},
        lines=(),
        results={"test": result},
        curves={},
        samples=None,
    )


def test_without_the_block_there_is_no_section():
    assert localization.section(evidence({"metrics": {}})) == ""


def test_every_figure_stands_beside_its_chance():
    page = localization.section(evidence({"localization": BLOCK}))
    cells = re.findall(r"<tr><td>(.*?)</td></tr>", page)
    rows = [re.split(r"</td><td[^>]*>", row) for row in cells]
    mass = [row for row in rows if row[0] == "Mass"]
    accuracy, difference, extent = mass
    assert accuracy[1:7] == [
        *("1,234", "777", "0.710 [0.660, 0.760]", "0.110", "0.220", "0.330")
    ]
    assert difference[1] == "0.600 [0.550, 0.650]" and difference[-1] == "yes"
    assert difference[3] == "0.380 [0.330, 0.430]"
    assert extent[1] == "0.710 [0.660, 0.760]" and extent[2] == "0.220"
    assert "1 of 3 boxed classes (Mass)" in page
    assert "2,000 of 9,000 films" in page
    assert "class activation map" in page and "40% of the maximum" in page


def test_what_is_weak_or_unknown_is_said():
    page = localization.section(evidence({"localization": BLOCK}, "grad_cam"))
    assert "fewer than &lt;20&gt;; 3 resamples without a box discarded" in page
    assert "unknown" in page
    assert "No film has a box of: Effusion." in page
    assert "Grad-CAM" in page
    none = BLOCK | {"per_class": {"Effusion": BLOCK["per_class"]["Effusion"]}}
    page = localization.section(evidence({"localization": none}))
    assert "<table>" not in page and "No film has a box of: Effusion." in page


def test_without_intervals_nothing_is_called_ahead():
    plain = {"ahead_of_all": {"classes": None, "of": ["Mass"]}, "resamples": 0}
    mass = BLOCK["per_class"]["Mass"] | {"ahead_of_all": None}
    block = BLOCK | plain | {"per_class": {"Mass": mass}}
    page = localization.section(evidence({"localization": block}))
    assert "There is no interval to say which classes point better" in page
    assert "Better means" not in page and " 0 of" not in page and "brackets" not in page
    assert "<td>unknown</td></tr>" in page


def test_a_page_is_the_same_twice():
    one = evidence({"localization": BLOCK})
    assert localization.section(one) == localization.section(dataclasses.replace(one))
