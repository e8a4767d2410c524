"""The pointing game and its chances: by hand, by law, and by plain loops."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax import boxes
from cxr_jax.metrics import bootstrap, localization

XYXY = np.array(
    [
        [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.2, 0.2, 0.4, 0.4]],
        [[0.1, 0.1, 0.2, 0.3], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]],
    ]
)
LABEL = np.array([[1, 1, 0], [2, 1, 0]])
MASK = np.array([[True, True, True], [True, False, False]])
CASES = localization.gather_cases(XYXY, LABEL, MASK)


def test_boxes_of_one_class_on_one_film_are_one_case():
    assert CASES.film.tolist() == [0, 0, 1]
    assert CASES.column.tolist() == [0, 1, 2]
    assert CASES.slot.tolist() == [2, 0, 0]
    assert [len(some) for some in CASES.boxes] == [1, 2, 1]
    np.testing.assert_allclose(CASES.area, [0.04, 0.5, 0.02])


def test_nothing_boxed_is_no_case():
    empty = localization.gather_cases(XYXY, LABEL, np.zeros_like(MASK))
    assert len(empty) == 0 and len(empty.area) == 0
    assert len(localization.pointing_hits(empty, np.empty((0, 2)))) == 0
    assert localization.mean_boxes(empty) == {}


@pytest.mark.parametrize(
    ("points", "hits"),
    [
        ([[0.3, 0.3], [0.3, 0.3], [0.15, 0.2]], [1, 1, 1]),
        ([[0.5, 0.3], [0.9, 0.9], [0.2, 0.3]], [0, 1, 1]),  # edges belong to the box
        ([[0.3, 0.5], [0.9, 0.1], [0.15, 0.31]], [0, 0, 0]),
        ([[np.nan, np.nan], [0.5, 0.5], [0.09, 0.2]], [0, 1, 0]),
    ],
)
def test_pointing_by_hand(points, hits):
    found = localization.pointing_hits(CASES, np.asarray(points))
    assert found.tolist() == hits


def test_iou_takes_the_best_box_and_agrees_with_the_jitted_one():
    rng = np.random.default_rng(0)
    low, size = rng.uniform(0, 0.6, (40, 4, 2)), rng.uniform(0.05, 0.4, (40, 4, 2))
    several = np.concatenate([low, low + size], axis=2)
    guess = several[:, 3] + rng.normal(0, 0.05, (40, 4))
    cases = localization.gather_cases(
        several[:, :3], np.zeros((40, 3), int), np.ones((40, 3), bool)
    )
    expected = boxes.pairwise_iou(guess[:, None], several[:, :3])[:, 0].max(axis=-1)
    np.testing.assert_allclose(localization.best_iou(cases, guess), expected, atol=1e-6)
    found = localization.best_iou(
        CASES, np.array([[np.nan] * 4, [0, 0, 0, 0], [0.1, 0.1, 0.2, 0.2]])
    )
    np.testing.assert_allclose(found, [0, 0, 0.5])


@given(
    st.lists(
        st.tuples(*[st.integers(0, 7), st.integers(0, 7)] * 2), min_size=1, max_size=5
    )
)
@settings(deadline=None, max_examples=60)
def test_area_of_a_union_counts_squares_once(corners):
    """On a board of 8 × 8 the union can be painted."""
    board = np.zeros((8, 8), bool)
    some = []
    for a, b, c, d in corners:
        x1, x2, y1, y2 = min(a, b), max(a, b) + 1, min(c, d), max(c, d) + 1
        board[y1:y2, x1:x2] = True
        some.append([x1 / 8, y1 / 8, x2 / 8, y2 / 8])
    area = localization.union_area(np.asarray(some))
    assert area == pytest.approx(board.mean())


def test_random_peaks_hit_with_the_share_of_the_area():
    rng = np.random.default_rng(0)
    films = 4000
    low = rng.uniform(0, 0.7, (films, 2, 2))
    xyxy = np.concatenate([low, low + rng.uniform(0.02, 0.3, low.shape)], axis=2)
    cases = localization.gather_cases(
        xyxy, np.zeros((films, 2), int), np.ones((films, 2), bool)
    )
    hits = localization.pointing_hits(cases, rng.random((films, 2)))
    spread = np.sqrt((cases.area * (1 - cases.area)).sum())
    assert abs(hits.sum() - cases.area.sum()) < 4 * spread
    assert cases.area.mean() > 0.03


def test_mean_boxes_run_over_boxes_of_the_class():
    means = localization.mean_boxes(CASES)
    np.testing.assert_allclose(means[1], [0.25, 0.25, 0.75, 0.75])
    np.testing.assert_allclose(means[2], [0.1, 0.1, 0.2, 0.3])


def resample(values, *, column, unit, classes, units, resamples, chunk=256):
    return localization.resample_means(
        jax.random.key(3),
        values,
        column=np.asarray(column),
        unit=np.asarray(unit),
        classes=classes,
        units=units,
        resamples=resamples,
        chunk=chunk,
    )


def test_resampled_means_equal_a_loop_over_drawn_patients():
    rng = np.random.default_rng(0)
    column, unit = rng.integers(0, 3, 50), rng.integers(0, 12, 50)
    column[column == 2], column[0], unit[0] = 1, 2, 5  # class 2: one case
    values = {"a": rng.random(50), "b": rng.integers(0, 2, 50).astype(float)}
    found = resample(
        values, column=column, unit=unit, classes=4, units=12, resamples=7, chunk=3
    )
    for r in range(7):
        key = jax.random.fold_in(jax.random.key(3), r)
        weights = np.asarray(bootstrap.draw_weights(key, 12))
        rows = np.repeat(np.arange(50), weights[unit].astype(int))
        for name, c in ((n, c) for n in values for c in range(4)):
            own = values[name][rows[column[rows] == c]]
            expected = own.mean() if len(own) else np.nan
            assert found[name][r, c] == pytest.approx(expected, nan_ok=True, rel=1e-5)
    assert np.isnan(found["a"][:, 3]).all()
    again = resample(values, column=column, unit=unit, classes=4, units=12, resamples=7)
    np.testing.assert_array_equal(again["a"], found["a"])


def test_patients_are_drawn_in_one_place_only(monkeypatch):
    """Whatever ``sums.resample_sums`` draws is what the means are of."""

    def third_twice(key, sums, *, resamples, chunk):
        return np.stack([2 * sums[2]] * resamples)

    monkeypatch.setattr(localization, "resample_sums", third_twice)
    found = resample(
        {"a": np.array([1.0, 2.0, 6.0])},
        column=[0, 1, 1],
        unit=[0, 2, 2],
        classes=2,
        units=3,
        resamples=2,
    )
    np.testing.assert_array_equal(found["a"], [[np.nan, 4.0]] * 2)


def test_intervals_are_those_of_the_textbook_and_patients_widen_them():
    rng = np.random.default_rng(0)
    share = (rng.random(200) < 0.3).astype(float)
    single = {"x": np.repeat(share, 4)}
    column = np.zeros(800, int)

    def width(unit, units):
        found = resample(
            single, column=column, unit=unit, classes=1, units=units, resamples=2000
        )
        interval = bootstrap.percentile_interval(found["x"][:, 0])
        return interval.high - interval.low

    own = np.sqrt(share.var() / 200)
    patient = width(np.repeat(np.arange(200), 4), 200)
    assert patient == pytest.approx(2 * 1.96 * own, rel=0.1)
    assert width(np.arange(800), 800) == pytest.approx(patient / 2, rel=0.1)
