"""Boxes of maps: laws, a flood fill written out, torch's interpolation."""

import numpy as np
import pytest

from cxr_jax import heat_boxes
from cxr_jax.heat_boxes import Rule, best_boxes

LOW = (60 / 255, 180 / 255)


def boxes_of(maps, scores=None, probs=None, **rule):
    maps = np.asarray(maps, np.float32)
    scores = np.zeros(maps.shape) if scores is None else np.asarray(scores)
    probs = np.ones((len(maps), maps.shape[-1])) if probs is None else np.asarray(probs)
    return best_boxes(maps, scores, probs, rule=Rule(**rule))


def blobs(rows=3, cells=7, classes=4, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, cells, cells, classes))


def test_interpolation_keeps_a_flat_map_and_a_slope_between_centres():
    weights = heat_boxes.interpolation(7, 224)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    inner = slice(16, 208)  # between the first and the last centre
    place = (np.arange(224) + 0.5) / 32 - 0.5
    np.testing.assert_allclose((weights @ np.arange(7))[inner], place[inner], atol=1e-9)


def test_interpolation_is_that_of_torch():
    torch = pytest.importorskip("torch")
    maps = blobs(rows=2, classes=1)[..., 0]
    down = heat_boxes.interpolation(7, 50)
    theirs = torch.nn.functional.interpolate(
        torch.tensor(maps)[:, None], size=(50, 50), mode="bilinear", align_corners=False
    )
    ours = np.einsum("Yy,byx,Xx->bYX", down, maps, down)
    np.testing.assert_allclose(ours, theirs[:, 0].numpy(), atol=1e-9)


def flood(above):
    """Parts of True cells that touch by edges or corners, as lists of (y, x)."""
    left, parts = set(zip(*np.nonzero(above), strict=True)), []
    while left:
        waiting = [left.pop()]
        part = []
        while waiting:
            y, x = waiting.pop()
            part.append((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            waiting += near
        parts.append(part)
    return parts


@pytest.mark.parametrize("seed", range(5))
def test_the_best_part_is_that_of_a_flood_fill(seed):
    side, maps, scores = 28, blobs(seed=seed), blobs(seed=seed + 100)
    found = boxes_of(maps, scores, side=side)
    weights = heat_boxes.interpolation(7, side)
    for b, c in np.ndindex(*found.mask.shape):
        fine = weights @ maps[b, ..., c].astype(np.float32) @ weights.T
        worth = weights @ scores[b, ..., c] @ weights.T
        fine = (fine - fine.min()) / (fine.max() - fine.min())
        candidates = []
        for threshold in LOW:
            for part in flood(fine > threshold):
                y, x = np.array(part).T
                mean = np.mean([worth[cell] for cell in part])
                corners = (x.min(), y.min(), x.max() + 1, y.max() + 1)
                candidates.append((mean, np.array(corners) / side))
        mean, corners = max(candidates, key=lambda one: one[0])
        assert found.mask[b, c] and found.label[b, c] == c
        np.testing.assert_allclose(
            found.score[b, c], 1 / (1 + np.exp(-mean)), atol=1e-6
        )
        np.testing.assert_allclose(found.xyxy[b, c], corners, atol=1e-6)


def test_one_hot_cell_has_the_box_where_it_exceeds_the_threshold():
    # Bilinear, cells of 32 px: (1 - d/32) at d px from the centre, of the highest pixel,
    # which lies half a pixel off: it exceeds 180/255 as far as `far`.
    maps = np.zeros((1, 7, 7, 1))
    maps[0, 2, 3] = 5.0
    found = boxes_of(maps, maps)
    far = 32 * (1 - LOW[1] * (1 - 0.5 / 32))
    reach = np.floor(far - 0.5) + 0.5  # the outermost pixel's centre
    centre = np.array([3.5, 2.5]) * 32
    expected = np.concatenate([centre - reach - 0.5, centre + reach + 0.5]) / 224
    np.testing.assert_allclose(found.xyxy[0, 0], expected, atol=1e-6)


def test_parts_that_touch_by_a_corner_are_one():
    maps = np.zeros((1, 4, 4, 1))
    maps[0, 1, 1] = maps[0, 2, 2] = 1.0
    found = boxes_of(maps, side=4)
    np.testing.assert_allclose(found.xyxy[0, 0], [0.25, 0.25, 0.75, 0.75])


def test_the_scale_and_level_of_a_map_mean_nothing():
    maps = blobs()
    first, second = boxes_of(maps), boxes_of(3 * maps - 7)
    np.testing.assert_array_equal(first.xyxy, second.xyxy)


def test_only_classes_that_are_found_and_maps_with_a_shape_have_boxes():
    maps = blobs(rows=1, classes=3)
    maps[..., 2] = 4.0
    found = boxes_of(maps, probs=[[0.5, 0.51, 0.9]])
    assert found.mask.tolist() == [[False, True, False]]
    assert not found.xyxy[0, [0, 2]].any() and not found.score[0, [0, 2]].any()


def test_a_film_without_any_box_has_one_where_the_released_code_gives_one():
    """One pixel, score 0, of any class that may have boxes; films with boxes keep theirs."""
    maps, scores = blobs(rows=40), blobs(rows=40, seed=1)
    probs = np.random.default_rng(2).random(maps.shape[::3])
    probs[::2] /= 2.1
    may = np.array([True, True, True, False])
    given = {"probs": probs, "boxed": may}
    plain, dummy = (
        best_boxes(maps, scores, **given, rule=Rule(dummy=d)) for d in (False, True)
    )
    none = ~plain.mask.any(axis=1)
    assert 20 <= none.sum() < 40
    np.testing.assert_array_equal(dummy.mask[none].sum(axis=1), 1)
    film, label = np.nonzero(dummy.mask & none[:, None])
    assert set(label) == {0, 1, 2}
    corner = np.tile([0, 0, 1 / 224, 1 / 224], (len(film), 1))
    np.testing.assert_allclose(dummy.xyxy[film, label], corner, rtol=1e-6)
    assert not dummy.score[film].any()
    for name in ("mask", "xyxy", "score"):
        kept, own = (getattr(boxes, name)[~none] for boxes in (dummy, plain))
        np.testing.assert_array_equal(kept, own)
    # A film's box does not depend on the films beside it.
    alone = best_boxes(
        maps[:1], scores[:1], probs[:1], rule=Rule(dummy=True), boxed=may
    )
    np.testing.assert_array_equal(alone.mask[0], dummy.mask[0])
    # Nor on the last bits of what is said.
    other = given | {"probs": probs * (1 - 1e-7)}
    again = best_boxes(maps, scores, **other, rule=Rule(dummy=True))
    np.testing.assert_array_equal(again.mask[none], dummy.mask[none])
