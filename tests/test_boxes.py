"""Laws of boxes; IoU and GIoU against counting cells of a grid, moves against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax import boxes

GRID = 40


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


# Compiled whole: operation by operation takes longer.
pairwise_iou, pairwise_giou = map(jax.jit, (boxes.pairwise_iou, boxes.pairwise_giou))


def random_boxes(count, seed, grid=GRID):
    """Corners on a grid, so that areas can be counted in cells."""
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.integers(0, grid + 1, (2, count, 2)), axis=0)
    return np.concatenate([low, high], axis=1).astype(np.float32) / grid


def cells(box, grid=GRID):
    x1, y1, x2, y2 = np.rint(np.asarray(box) * grid).astype(int)
    filled = np.zeros((grid, grid), bool)
    filled[y1:y2, x1:x2] = True
    return filled


def test_iou_and_area_count_cells():
    a, b = random_boxes(12, 0), random_boxes(15, 1)
    ours = pairwise_iou(a, b)
    assert ours.shape == (12, 15)
    for i in range(12):
        assert boxes.area(a)[i] * GRID**2 == pytest.approx(cells(a[i]).sum(), abs=1e-3)
        for j in range(15):
            both = (cells(a[i]) & cells(b[j])).sum()
            either = (cells(a[i]) | cells(b[j])).sum()
            expected = both / either if either else 0.0
            assert ours[i, j] == pytest.approx(expected, abs=1e-6)


def test_giou_counts_cells():
    a, b = random_boxes(12, 2), random_boxes(12, 3)
    ours = pairwise_giou(a, b)
    for i in range(12):
        for j in range(12):
            both = (cells(a[i]) & cells(b[j])).sum()
            either = (cells(a[i]) | cells(b[j])).sum()
            low = np.minimum(a[i, :2], b[j, :2])
            high = np.maximum(a[i, 2:], b[j, 2:])
            hull = np.prod(high - low, dtype=np.float64) * GRID**2
            expected = both / max(either, 1) - (hull - either) / hull
            assert ours[i, j] == pytest.approx(expected, abs=1e-5)


def test_giou_by_hand():
    """Two unit squares (tenths) side by side, one apart: hull 3, union 2, overlap 0."""
    a, b = jnp.float32([0, 0, 0.1, 0.1]), jnp.float32([0.2, 0, 0.3, 0.1])
    assert boxes.giou(a, b) == pytest.approx(-1 / 3, abs=1e-6)
    assert boxes.giou(a, a) == pytest.approx(1.0, abs=1e-6)


def test_laws_of_iou():
    a, b = random_boxes(50, 4), random_boxes(50, 5)
    iou, giou = pairwise_iou(a, b), pairwise_giou(a, b)
    np.testing.assert_allclose(iou, pairwise_iou(b, a).T, atol=1e-7)
    assert (iou >= 0).all() and (iou <= 1).all()
    assert (giou >= -1).all() and (giou <= iou + 1e-6).all()
    diagonal = np.diag(pairwise_iou(a, a))
    np.testing.assert_allclose(diagonal, np.asarray(boxes.area(a)) > 0, atol=1e-6)


def test_pairs_broadcast_over_batches():
    a = random_boxes(6, 6).reshape(2, 3, 4)
    b = random_boxes(8, 7).reshape(2, 4, 4)
    ours = pairwise_iou(a, b)
    assert ours.shape == (2, 3, 4)
    for k in range(2):
        np.testing.assert_array_equal(ours[k], pairwise_iou(a[k], b[k]))


@pytest.mark.parametrize("measure", [boxes.iou, boxes.giou])
def test_gradients_stay_finite(measure):
    """Degenerate, equal and distant boxes: none may poison a training step."""
    a = jnp.float32([[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.4, 0.4], [0, 0, 0.1, 0.1]])
    b = jnp.float32([[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.4, 0.4], [0.9, 0.9, 1, 1]])
    slope = jax.jit(jax.value_and_grad(lambda x: measure(x, b).sum()))
    values, gradient = slope(a)
    assert jnp.isfinite(values) and jnp.isfinite(gradient).all()


def test_giou_pulls_distant_boxes_together():
    a, b = jnp.float32([0, 0, 0.1, 0.1]), jnp.float32([0.5, 0, 0.6, 0.1])
    gradient = jax.grad(boxes.giou)(a, b)
    assert gradient[2] > 0  # moving the right edge towards b raises it
    assert (jax.grad(boxes.iou)(a, b) == 0).all()  # which IoU cannot tell


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_conversions_are_inverse(numbers):
    box = np.float32(numbers)
    there = boxes.cxcywh_from_xyxy(box)
    np.testing.assert_allclose(boxes.xyxy_from_cxcywh(there), box, atol=3e-7)


def test_conversion_by_hand():
    converted = boxes.xyxy_from_cxcywh(jnp.float32([0.5, 0.25, 0.5, 0.25]))
    np.testing.assert_array_equal(converted, np.float32([0.25, 0.125, 0.75, 0.375]))


def test_clip_keeps_what_lies_inside():
    outside = jnp.float32([[-0.5, 0.25, 0.5, 2.0], [1.5, 0, 2, 1], [0.25, 0.5, 0.5, 1]])
    expected = np.float32([[0, 0.25, 0.5, 1], [1, 0, 1, 1], [0.25, 0.5, 0.5, 1]])
    np.testing.assert_array_equal(boxes.clip(outside), expected)
    share = boxes.visible_share(outside)
    np.testing.assert_allclose(share, [0.5 * 0.75 / 1.75, 0, 1], rtol=1e-6)
    assert boxes.visible_share(jnp.float32([0.5, 0.5, 0.5, 0.9])) == 0


MOVES = {
    "identity": ([[1, 0, 0], [0, 1, 0]], [0.25, 0.5, 0.5, 1.0]),
    "mirror": ([[-1, 0, 1], [0, 1, 0]], [0.5, 0.5, 0.75, 1.0]),
    "quarter turn": ([[0, 1, 0], [-1, 0, 1]], [0.5, 0.5, 1.0, 0.75]),
    "shift": ([[1, 0, 0.5], [0, 1, -0.25]], [0.75, 0.25, 1.0, 0.75]),
    "zoom": ([[2, 0, -0.5], [0, 2, -0.5]], [0.0, 0.5, 0.5, 1.5]),
}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("rows", [2, 3])
def test_exact_moves(name, rows):
    matrix, expected = MOVES[name]
    matrix = np.float32([*matrix, [0, 0, 1]])[:rows]
    moved = jax.jit(boxes.transform)(np.float32([[0.25, 0.5, 0.5, 1.0]]), matrix)
    np.testing.assert_array_equal(moved, np.float32([expected]))


def test_a_turned_box_is_enclosed_tightly():
    """Against corners turned one by one in float64."""
    rng = np.random.default_rng(8)
    matrix = rng.normal(size=(5, 2, 3))
    given_boxes = random_boxes(5 * 7, 9).reshape(5, 7, 4)
    moved = boxes.transform(given_boxes, matrix.astype(np.float32))
    for k in range(5):
        for n in range(7):
            x1, y1, x2, y2 = given_boxes[k, n].astype(np.float64)
            corners = np.array([[x1, y1, 1], [x2, y1, 1], [x1, y2, 1], [x2, y2, 1]])
            points = corners @ matrix[k].T
            tight = np.concatenate([points.min(axis=0), points.max(axis=0)])
            np.testing.assert_allclose(moved[k, n], tight, atol=2e-6)
