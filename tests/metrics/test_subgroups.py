"""Bands, axes, groups and contrasts: who is where, and nobody twice."""

import numpy as np
import pytest

from cxr_jax.metrics import subgroups


def columns(films=400, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.integers(10, 95, films).astype(np.float32)
    age[:20] = np.nan
    return {
        "sex": rng.choice(["M", "F", ""], films, p=[0.5, 0.45, 0.05]),
        "age": age,
        "view": rng.choice(["PA", "AP"], films),
    }


def test_bands_by_hand():
    age = np.array([0, 17, 17.9, 18, 39, 40, 59, 60, 79, 80, 120, 121, 412, -1, np.nan])
    assert subgroups.age_bands(age).tolist() == (
        ["0-17"] * 3
        + ["18-39"] * 2
        + ["40-59"] * 2
        + ["60-79"] * 2
        + ["80+"] * 2
        + ["unknown"] * 4
    )


def test_levels_of_an_axis_divide_the_films():
    axes = subgroups.make_axes(**columns())
    groups = subgroups.make_groups(axes)
    for names in (("sex",), ("age",), ("sex", "age"), ("sex", "age", "view")):
        some = [g.member for g in groups if tuple(g.levels) == names]
        np.testing.assert_array_equal(np.sum(some, axis=0), 1)
    assert groups[0].name == "all" and groups[0].member.all()
    assert len({g.name for g in groups}) == len(groups)
    assert {a.name: a.reference for a in axes} == {
        "sex": "M",
        "age": "40-59",
        "view": "PA",
    }
    assert axes[0].levels == ("F", "M", "unknown")
    assert axes[1].levels[-1] == "unknown" and axes[1].levels[0] == "0-17"


def test_contrasts_are_against_the_reference_overall_and_within_each_view():
    axes = subgroups.make_axes(**columns())
    groups = subgroups.make_groups(axes)
    found = subgroups.make_contrasts(axes, groups)
    names = [c.name for c in found]
    assert len(set(names)) == len(names)
    assert not any("unknown" in name for name in names)
    for view in ("", ", view=AP", ", view=PA"):
        assert f"sex: F - M{view}" in names and f"age: 80+ - 40-59{view}" in names
    assert "view: AP - PA" in names
    assert not any(name.startswith("view") and "view=" in name for name in names)
    one = found[names.index("sex: F - M, view=AP")]
    assert groups[one.group].name == "sex=F, view=AP"
    assert groups[one.against].name == "sex=M, view=AP"


def test_what_is_not_known_makes_no_axis():
    given = columns() | {"sex": np.array([""] * 400), "view": None}
    axes = subgroups.make_axes(**given)
    assert [a.name for a in axes] == ["age"]
    assert subgroups.make_axes(age=np.full(3, np.nan)) == []


def test_a_missing_reference_makes_no_contrast():
    axes = subgroups.make_axes(sex=np.array(["F", "F", ""]), view=np.array(["AP"] * 3))
    assert subgroups.make_contrasts(axes, subgroups.make_groups(axes)) == []


@pytest.mark.parametrize("crossed", [1, 2, 3])
def test_further_axes_meet_the_view_alone(crossed):
    rng = np.random.default_rng(1)
    tube = rng.choice(["yes", "no", "no"], 400)
    axes = subgroups.make_axes(**columns(), more={"chest_tube": tube})
    groups = subgroups.make_groups(axes, crossed=crossed)
    with_tube = {tuple(g.levels) for g in groups if "chest_tube" in g.levels}
    alone = {("chest_tube",)}
    assert with_tube == (alone if crossed == 1 else alone | {("view", "chest_tube")})
    assert next(a.reference for a in axes if a.further) == "no"
