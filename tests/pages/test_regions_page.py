"""The section on regions: overlaps beside the usual place, and how presence is told."""

from cxr_jax.pages import regions
from cxr_jax.pages.evidence import Evidence


def figure(value, reason=None):
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {"value": value, "low": low, "high": high, "reason": reason}


def evidence(**left_out):
    """Two regions, the second without a usual place; less some figures."""
    one = {"iou": figure(0.8), "usual": figure(0.6), "difference": figure(0.2)}
    one |= {"found": figure(0.75), "falsely_found": figure(0.25)}
    other = one | {"usual": figure(None, "why"), "difference": figure(None, "why")}
    rows = {
        "lung": one | {"n": 30, "absent": 10},
        "spine": other | {"n": 5, "absent": 0},
    }
    for told in (one, *rows.values()):
        for name in left_out.get("without", ()):
            told.pop(name)
    block = {"n": 40, "resamples": 9}
    block |= {"resampling_unit": "patient", "mean": one, "per_region": rows}
    return Evidence(
        config={},
        passport={},
        lines=(),
        results={"test": {"regions": block}},
        curves={},
        samples=None,
    )


def test_presence_and_unknown_places_are_told():
    page = regions.section(evidence())
    assert "<th>Present\nand found</th><th>Absent\nbut found</th>" in page
    cells = "<td>0.750 [0.650, 0.850]</td><td>0.250 [0.150, 0.350]</td>"
    assert page.count(cells) == 3
    assert "It is unknown of spine, on no film of the validation part" in page
    assert "taken for there, so that its findings may have boxes" in page


def test_a_result_without_them_is_shown_as_it_is():
    page = regions.section(evidence(without=("found", "falsely_found", "usual")))
    assert "Absent" not in page and "probability" not in page and "unknown" not in page
    assert "0.800 [0.700, 0.900]" in page
