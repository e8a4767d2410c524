"""Detection metrics: vectors by hand, then an independent count on random films."""

import numpy as np
import pytest

from cxr_jax.metrics import detection
from cxr_jax.metrics.detection import BoxList

IOU = (0.1, 0.3, 0.5, 0.7)
WHOLE = (0.0, 0.0, 1.0, 1.0)


def box_list(rows, *, scored=True):
    """Rows of (film, score, box) or (film, box)."""
    film = np.array([row[0] for row in rows], int)
    xyxy = np.array([row[-1] for row in rows], float).reshape(-1, 4)
    score = np.array([row[1] for row in rows], float) if scored else None
    return BoxList(film=film, xyxy=xyxy, score=score)


def pattern(hits, *, targets):
    """Films with one box each: hits, misses, and targets nobody found."""
    found = [
        (k, 1 - 0.1 * k, WHOLE if hit else (0, 0, 0.01, 0.01))
        for k, hit in enumerate(hits)
    ]
    true = [k for k, hit in enumerate(hits) if hit]
    more = range(len(hits), len(hits) + targets - len(true))
    return detection.match(
        box_list(found),
        box_list([(k, WHOLE) for k in (*true, *more)], scored=False),
        films=len(hits) + targets,
        thresholds=(0.5,),
    )


@pytest.mark.parametrize(
    ("hits", "targets", "expected"),
    [((1, 0, 1), 4, 0.422442), ((1, 1), 2, 1.0), ((0, 1), 2, 0.252475)],
)
def test_average_precision_by_hand(hits, targets, expected):
    found = detection.average_precision(pattern(hits, targets=targets))
    assert found[0, 0] == pytest.approx(expected, abs=1e-6)


def test_localization_accuracy_by_hand():
    """Film 1: IoU 0.6; film 2: IoU 0.2; film 3: a box and no finding; film 4: neither."""
    found = box_list(
        [(0, 1, (0, 0, 0.6, 1)), (1, 1, (0, 0, 0.2, 1)), (2, 1, (0, 0, 0.5, 0.5))]
    )
    targets = box_list([(0, WHOLE), (1, WHOLE)], scored=False)
    happened = detection.outcomes(found, targets, films=4, thresholds=(0.3, 0.1))
    accuracy = detection.localization_accuracy(happened)
    np.testing.assert_allclose(accuracy, [[0.4, 0.75]])
    np.testing.assert_allclose(detection.false_per_film(happened), [[2 / 4, 1 / 4]])


def test_overlaps_by_hand():
    """A quarter of the reference: the share of what is found is 1, the IoU 1/4."""
    small, apart = (0, 0, 0.5, 0.5), (0.5, 0, 1.0, 1.0)
    iou, share = detection.overlaps(np.array([small, WHOLE]), np.array([WHOLE, apart]))
    np.testing.assert_allclose(iou, [[1 / 4, 0], [1, 1 / 2]])
    np.testing.assert_allclose(share, [[1, 0], [1, 1 / 2]])


def test_the_share_is_that_of_the_found_box():
    """A quarter within the reference, and a box that holds twice the reference."""
    found = box_list([(0, 1, (0, 0, 0.5, 0.5)), (1, 1, WHOLE)])
    targets = box_list([(0, WHOLE), (1, (0, 0, 1, 0.5))], scored=False)
    given = {"films": 2, "thresholds": (0.2, 0.4, 0.9)}
    happened = detection.outcomes(found, targets, **given, share_of_found=True)
    np.testing.assert_array_equal(happened.reached, [[1, 1], [1, 1], [1, 0]])
    happened = detection.outcomes(found, targets, **given)
    np.testing.assert_array_equal(happened.reached, [[1, 1], [0, 1], [0, 0]])


def test_predicting_nothing_is_rewarded_by_accuracy_and_not_by_precision():
    targets = box_list([(0, WHOLE)], scored=False)
    nothing = box_list([])
    happened = detection.outcomes(nothing, targets, films=10, thresholds=(0.3,))
    assert detection.localization_accuracy(happened) == pytest.approx(0.9)
    hits = detection.match(nothing, targets, films=10, thresholds=(0.3,))
    assert detection.average_precision(hits) == 0


def test_the_threshold_must_be_exceeded():
    found = box_list([(0, 1, (0, 0, 0.5, 1))])
    hits = detection.match(
        found, box_list([(0, WHOLE)], scored=False), films=1, thresholds=(0.5, 0.49)
    )
    np.testing.assert_array_equal(hits.hit[:, 0], [False, True])


def test_no_reference_box_has_no_precision():
    hits = detection.match(
        box_list([(0, 1, WHOLE)]), box_list([], scored=False), films=1, thresholds=IOU
    )
    assert np.isnan(detection.average_precision(hits)).all()
    assert np.isnan(detection.froc(hits)).all()


def random_case(seed):
    rng = np.random.default_rng(seed)
    films = int(rng.integers(1, 12))

    def boxes(count):
        low, high = np.sort(rng.random((2, count, 2)), axis=0)
        return np.concatenate([low, high], axis=1)

    true = boxes(int(rng.integers(0, 15)))
    near = true[rng.random(len(true)) < 0.7]
    near = np.clip(near + 0.1 * rng.normal(size=near.shape), 0, 1)
    near = np.sort(near.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    guess = np.concatenate([near, boxes(int(rng.integers(0, 10)))])
    at = rng.integers(0, films, len(true))
    where = np.concatenate(
        [at[: len(near)], rng.integers(0, films, len(guess) - len(near))]
    )
    score = rng.permutation(len(guess)) / max(len(guess), 1)
    if seed % 3 == 0:
        score = np.round(score, 1)  # ties
    found = BoxList(film=where, xyxy=guess, score=score)
    return found, BoxList(film=at, xyxy=true), films, rng


def slow_shared(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height


def slow_share(found, target):
    area = max(0.0, found[2] - found[0]) * max(0.0, found[3] - found[1])
    return slow_shared(found, target) / area if area > 0 else 0.0


def slow_iou(a, b):
    shared = slow_shared(a, b)
    union = (
        max(0.0, a[2] - a[0]) * max(0.0, a[3] - a[1])
        + (b[2] - b[0]) * (b[3] - b[1])
        - shared
    )
    return shared / union if union > 0 else 0.0


def slow_points(found, targets, times, threshold):
    """After each score: found, and said so far; films drawn ``times`` each, box by box."""
    taken, events = set(), []
    order = sorted(range(len(found)), key=lambda k: -found.score[k])
    for k in order:
        mine = [
            (slow_iou(found.xyxy[k], targets.xyxy[g]), -g)
            for g in range(len(targets))
            if targets.film[g] == found.film[k] and g not in taken
        ]
        overlap, which = max(mine, default=(0.0, 0))
        if overlap > threshold:
            taken.add(-which)
        events.append((found.score[k], overlap > threshold, times[found.film[k]]))
    points, true, seen = [(0, 0)], 0, 0
    for rank, (score, hit, weight) in enumerate(events):
        seen += weight
        true += weight * hit
        if rank + 1 == len(events) or events[rank + 1][0] != score:
            points.append((true, seen))
    return points


def slow_precision(points, total):
    if not total:
        return np.nan
    best = [
        max(
            (true / seen for true, seen in points if seen and 100 * true >= p * total),
            default=0.0,
        )
        for p in range(101)
    ]
    return sum(best) / 101


def slow_froc(points, total, films, rate):
    if not total:
        return np.nan
    return max(true for true, seen in points if seen - true <= rate * films) / total


def slow_accuracy(found, targets, times, threshold, overlap=slow_iou):
    """Localisation accuracy, and false boxes per film."""
    true = negative = false = missed = 0
    for film, count in enumerate(times):
        mine = [found.xyxy[k] for k in np.flatnonzero(found.film == film)]
        theirs = [targets.xyxy[g] for g in np.flatnonzero(targets.film == film)]
        reached = sum(any(overlap(p, g) > threshold for p in mine) for g in theirs)
        true += count * reached
        false += count * (len(mine) - reached)
        missed += count * (len(theirs) - reached)
        negative += count * (not mine and not theirs)
    accuracy = (true + negative) / (true + negative + false + missed)
    return accuracy, false / sum(times)


def measured(found, targets, films, weights):
    """The metrics, each ``[R, T, …]``."""
    given = {"films": films, "thresholds": IOU}
    hits = detection.match(found, targets, **given)
    happened = detection.outcomes(found, targets, **given)
    shared = detection.outcomes(found, targets, **given, share_of_found=True)
    return {
        "precision": detection.average_precision(hits, weights),
        "froc": detection.froc(hits, weights),
        "accuracy": detection.localization_accuracy(happened, weights),
        "false": detection.false_per_film(happened, weights),
        "share": detection.localization_accuracy(shared, weights),
    }


def counted(found, targets, times, threshold):
    """The same, box by box, of films drawn ``times`` each."""
    points = slow_points(found, targets, times, threshold)
    total = sum(times[film] for film in targets.film)
    accuracy, false = slow_accuracy(found, targets, times, threshold)
    return {
        "precision": slow_precision(points, total),
        "froc": [
            slow_froc(points, total, sum(times), rate)
            for rate in detection.FALSE_PER_FILM
        ],
        "accuracy": accuracy,
        "false": false,
        "share": slow_accuracy(found, targets, times, threshold, slow_share)[0],
    }


@pytest.mark.parametrize(
    "cases",
    [range(100), pytest.param(range(100, 500), marks=pytest.mark.long)],
    ids=("100", "400 more"),
)
def test_random_films_counted_box_by_box(cases):
    """500 of them, of which some are left for the long tests."""
    for seed in cases:
        found, targets, films, rng = random_case(seed)
        times = rng.multinomial(films, [1 / films] * films)
        weights = np.stack([np.ones(films, int), times])
        ours = measured(found, targets, films, weights)
        for r, row in enumerate(weights.tolist()):
            for t, threshold in enumerate(IOU):
                for name, value in counted(found, targets, row, threshold).items():
                    np.testing.assert_allclose(
                        ours[name][r, t], value, atol=1e-12, err_msg=f"{name}, {seed}"
                    )


def test_froc_counts_what_is_found_before_too_many_are_false():
    """Falling scores: hit, miss, hit, miss; four films, three reference boxes."""
    hits = pattern((1, 0, 1, 0), targets=3)
    curve = detection.froc(hits, rates=(0.0, 1 / 7, 2 / 7))[0, 0]
    np.testing.assert_allclose(curve, [1 / 3, 2 / 3, 2 / 3])


def test_at_one_threshold_it_is_cocos_average_precision():
    coco = pytest.importorskip(
        "pycocotools.coco", reason="pycocotools is not installed"
    )
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    compared = 0
    for seed in range(1, 400, 3):  # Without ties, whose order is COCO's own.
        found, targets, films, _ = random_case(seed)
        if not len(found) or not len(targets):
            continue
        compared += 1
        ours = detection.average_precision(
            detection.match(found, targets, films=films, thresholds=(0.5 - 1e-9,))
        )[0, 0]

        def told(boxes, score=None):
            rows = []
            for k, (film, (x1, y1, x2, y2)) in enumerate(
                zip(boxes.film, 1000 * boxes.xyxy, strict=True)
            ):
                size = [x2 - x1, y2 - y1]
                row = {"id": k + 1, "image_id": int(film), "category_id": 1}
                row |= {"bbox": [x1, y1, *size], "area": size[0] * size[1]}
                row |= {"iscrowd": 0} if score is None else {"score": score[k]}
                rows.append(row)
            return rows

        reference = coco.COCO()
        reference.dataset = {
            "images": [{"id": k} for k in range(films)],
            "categories": [{"id": 1}],
            "annotations": told(targets),
        }
        reference.createIndex()
        judged = evaluation.COCOeval(
            reference, reference.loadRes(told(found, found.score)), "bbox"
        )
        judged.params.iouThrs = np.array([0.5])
        judged.params.areaRng, judged.params.areaRngLbl = [[0, 1e10]], ["all"]
        judged.evaluate()
        judged.accumulate()
        theirs = judged.eval["precision"][0, :, 0, 0, -1].mean()
        assert ours == pytest.approx(theirs, abs=1e-9)
    assert compared >= 100
