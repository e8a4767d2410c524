"""Weighted boxes fusion: by hand, by its laws, and the reference package's clusters."""

import itertools

import jax
import numpy as np
import pytest

from cxr_jax import boxes

ABOVE = 0.03


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


@jax.jit
def fuse(xyxy, score, mask):
    return boxes.fuse(xyxy, score, mask, above=ABOVE)


def fused(xyxy, score, mask=None):
    """Clusters of one set, without the padding."""
    mask = np.ones(len(score), bool) if mask is None else mask
    found = fuse(np.float32(xyxy), np.float32(score), mask)
    return np.asarray(found.xyxy)[found.mask], np.asarray(found.score)[found.mask]


def test_by_hand():
    """A and B overlap by 0.0323; the fused box is their mean, weighted by score."""
    xyxy, score = fused(
        [[0, 0, 0.4, 0.4], [0.3, 0.3, 0.7, 0.7], [0.8, 0.8, 1, 1]], [0.9, 0.6, 0.7]
    )
    expected = [[0.12, 0.12, 0.52, 0.52], [0.8, 0.8, 1, 1]]
    np.testing.assert_allclose(xyxy, expected, atol=1e-6)
    np.testing.assert_allclose(score, [0.9, 0.7], atol=1e-7)


def test_laws():
    box = np.array([[0.1, 0.2, 0.5, 0.6]])
    xyxy, score = fused(np.repeat(box, 4, axis=0), [0.2, 0.8, 0.4, 0.4])
    np.testing.assert_allclose(xyxy, box, atol=1e-6)
    np.testing.assert_allclose(score, [0.8])
    # Boxes that do not touch stay as they are; the best comes first.
    apart = [[0, 0, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6], [0.9, 0.9, 1, 1]]
    xyxy, score = fused(apart, [0.1, 0.3, 0.2])
    np.testing.assert_allclose(xyxy, np.array(apart, np.float32)[[1, 2, 0]])
    # Padding and boxes without area are nothing.
    assert len(fused(apart, [0.1, 0.3, 0.2], np.zeros(3, bool))[0]) == 0
    assert len(fused([[0.3, 0.3, 0.3, 0.9]] * 3, [0.5] * 3)[0]) == 0


def test_equal_scores_keep_the_order_given():
    """Two boxes that do not touch, and one between them: it joins the first of equals."""
    left, right, middle = [0, 0, 0.5, 1], [0.5, 0, 1, 1], [0.25, 0, 0.75, 1]
    first, _ = fused([left, right, middle], [0.5] * 3)
    np.testing.assert_allclose(first[0], [0.125, 0, 0.625, 1], atol=1e-6)
    second, _ = fused([right, left, middle], [0.5] * 3)
    np.testing.assert_allclose(second[0], [0.375, 0, 0.875, 1], atol=1e-6)


def test_sets_do_not_see_each_other():
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.random((2, 2, 3, 9, 2)), axis=0)
    xyxy = np.concatenate([low, high], axis=-1).astype(np.float32)
    score, mask = rng.random((2, 3, 9)).astype(np.float32), rng.random((2, 3, 9)) < 0.7
    together = fuse(xyxy, score, mask)
    for at in np.ndindex(2, 3):
        alone = fuse(xyxy[at], score[at], mask[at])
        jax.tree.map(
            lambda whole, one, at=at: np.testing.assert_array_equal(whole[at], one),
            together,
            alone,
        )


def candidates(seed, count=29):
    """Boxes as regions are: of all sizes, overlapping; distinct scores."""
    rng = np.random.default_rng(seed)
    centre, size = rng.random((count, 2)), rng.uniform(0.02, 0.4, (count, 2))
    xyxy = np.clip(np.concatenate([centre - size / 2, centre + size / 2], 1), 0, 1)
    xyxy = xyxy.astype(np.float32)
    score = (rng.permutation(count) + 1).astype(np.float32) / np.float32(count + 1)
    return xyxy, score, rng.random(count) < rng.uniform(0.1, 1.0)


def close_call(xyxy, score, mask):
    """Whether an overlap met on the way lies within 1e-5 of the threshold (float64)."""
    clusters, near = [], False
    for k in sorted(np.flatnonzero(mask), key=lambda k: -score[k]):
        box, best = xyxy[k].astype(float), (ABOVE, None)
        for number, (total, weight) in enumerate(clusters):
            mean = total / weight
            low, high = np.maximum(mean[:2], box[:2]), np.minimum(mean[2:], box[2:])
            shared = np.prod(np.maximum(high - low, 0))
            area = [np.prod(b[2:] - b[:2]) for b in (mean, box)]
            overlap = shared / (sum(area) - shared)
            near |= abs(overlap - ABOVE) < 1e-5
            if overlap > best[0]:
                best = (overlap, number)
        if best[1] is None:
            clusters.append((score[k] * box, float(score[k])))
        else:
            total, weight = clusters[best[1]]
            clusters[best[1]] = (total + score[k] * box, weight + score[k])
    return near


def test_a_thousand_random_films_have_the_clusters_of_the_reference():
    reference = pytest.importorskip(
        "ensemble_boxes", reason="ensemble-boxes is not installed"
    )
    compared = 0
    for seed in itertools.count():
        if compared == 1000:
            break
        xyxy, score, mask = candidates(seed)
        if not mask.any() or close_call(xyxy, score, mask):
            continue
        ours = fused(xyxy, score, mask)
        theirs = reference.weighted_boxes_fusion(
            [xyxy[mask].astype(float)],
            [score[mask].astype(float)],
            [np.zeros(mask.sum())],
            iou_thr=ABOVE,
            skip_box_thr=0.0,
            conf_type="max",
        )[:2]
        assert len(ours[1]) == len(theirs[1])
        np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
        compared += 1
    assert seed < 1100  # few are skipped
