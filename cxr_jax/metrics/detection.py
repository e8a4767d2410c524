"""How well scored boxes find reference boxes: average precision, accuracy, FROC.

Everything is a function of what happened on each film and of how often the film counts, so
that a resample of patients is nothing but weights. NumPy, float64.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

RECALLS = 101
FALSE_PER_FILM = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BoxList:
    """Boxes of one class on N films.

    Attributes:
        film: int ``[K]``, row of the film of each box.
        xyxy: float64 ``[K, 4]``.
        score: float64 ``[K]``; None for references.
    """

    film: np.ndarray
    xyxy: np.ndarray
    score: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.film)

    def keep(self, rows: np.ndarray) -> "BoxList":
        """Some of them."""
        score = None if self.score is None else self.score[rows]
        return BoxList(film=self.film[rows], xyxy=self.xyxy[rows], score=score)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """Predicted boxes of one class by falling score, and which of them found something.

    Attributes:
        film: int ``[P]``, row of the film.
        last: bool ``[P]``, the last of those of equal score.
        hit: bool ``[T, P]``, at each IoU threshold.
        targets: int ``[N]``, reference boxes on each film.
    """

    film: np.ndarray
    last: np.ndarray
    hit: np.ndarray
    targets: np.ndarray


def overlaps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU of every box with every other, and the share of the first that is shared.

    Args:
        a: ``[n, 4]``.
        b: ``[m, 4]``.

    Returns:
        IoU and intersection over the area of a (IoBB, where a is detected), ``[n, m]``.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1)
    own, other = (
        np.prod(np.maximum(x[:, 2:] - x[:, :2], 0.0), axis=-1) for x in (a, b)
    )
    union = own[:, None] + other[None] - shared
    own = np.broadcast_to(own[:, None], shared.shape)
    return _share(shared, union), _share(shared, own)


def match(
    found: BoxList, targets: BoxList, *, films: int, thresholds: Sequence[float]
) -> Hits:
    """Which predicted boxes find a reference box that none before them found.

    By falling score, each predicted box takes the reference box of its film that it
    overlaps most among those not yet taken, if their IoU exceeds the threshold.

    Args:
        found: with scores.
        targets: reference boxes.
        films: N.
        thresholds: of the IoU, to be exceeded; T of them.

    Returns:
        What happened.

    Reference: COCO's evaluation, with IoU > T in place of IoU ≥ T.
    """
    order = np.argsort(-found.score, kind="stable")
    found = found.keep(order)
    hit = np.zeros((len(thresholds), len(found)), bool)
    limit = np.asarray(thresholds, np.float64)
    rows_of = _rows_by_film(targets.film)
    taken = {
        film: np.zeros((len(limit), len(rows)), bool) for film, rows in rows_of.items()
    }
    for k, film in enumerate(found.film):
        if (rows := rows_of.get(int(film))) is None:
            continue
        iou, _ = overlaps(found.xyxy[k : k + 1], targets.xyxy[rows])
        free = np.where(taken[film], -1.0, iou[0][None])  # [T, references]
        best = free.argmax(axis=1)
        good = free[np.arange(len(limit)), best] > limit
        hit[good, k] = True
        taken[film][good, best[good]] = True
    last = np.ones(len(found), bool)
    last[:-1] = found.score[1:] != found.score[:-1]
    count = np.bincount(targets.film, minlength=films)
    return Hits(film=found.film, last=last, hit=hit, targets=count)


def average_precision(hits: Hits, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean over 101 recalls t of the best precision at a recall of at least t.

    Boxes of equal score count together: their order in a file means nothing.

    Args:
        hits: of one class.
        weights: whole numbers ``[R, N]``, how often each film counts; once where None.

    Returns:
        ``[R, T]`` (R = 1 without weights); NaN where there is no reference box.
    """
    weights = _films(hits, weights)
    targets = weights @ hits.targets
    out = np.full((len(weights), len(hits.hit)), np.nan)
    wanted = np.arange(RECALLS) * targets[:, None]
    for t, (true, passed) in enumerate(_at_hits(hits, weights)):
        best = np.maximum.accumulate(_share(true, passed)[:, ::-1], axis=1)[:, ::-1]
        # One column behind the last: a recall that is never reached has precision 0.
        best = np.pad(best, ((0, 0), (0, 1)))
        # In whole numbers: 0.29 · 100 is not 29.
        at = _search(100 * true, wanted, side="left")
        out[:, t] = np.take_along_axis(best, at, axis=1).mean(axis=1)
    out[targets == 0] = np.nan
    return out


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """What happened on each film at a fixed score, for one class.

    Attributes:
        found: int ``[N]``, predicted boxes.
        targets: int ``[N]``, reference boxes.
        reached: int ``[T, N]``, reference boxes that a predicted one overlaps enough.
    """

    found: np.ndarray
    targets: np.ndarray
    reached: np.ndarray


def outcomes(
    found: BoxList,
    targets: BoxList,
    *,
    films: int,
    thresholds: Sequence[float],
    share_of_found: bool = False,
) -> Outcomes:
    """Films with their predicted and reference boxes of one class.

    Args:
        found: those that count.
        targets: reference boxes.
        films: N.
        thresholds: to be exceeded; T of them.
        share_of_found: measure the share of the predicted box that is shared (IoBB)
            instead of the IoU.
    """
    limit = np.asarray(thresholds, np.float64)
    reached = np.zeros((len(limit), films), int)
    mine = _rows_by_film(found.film)
    for film, rows in _rows_by_film(targets.film).items():
        if (own := mine.get(film)) is not None:
            both = overlaps(found.xyxy[own], targets.xyxy[rows])
            best = both[int(share_of_found)].max(axis=0)
            reached[:, film] = (best[None] > limit[:, None]).sum(axis=1)
    count = [np.bincount(boxes.film, minlength=films) for boxes in (found, targets)]
    return Outcomes(found=count[0], targets=count[1], reached=reached)


def localization_accuracy(
    happened: Outcomes, weights: np.ndarray | None = None
) -> np.ndarray:
    """``(TP + TN) / (TP + TN + FP + FN)``, TN being films without any box of the class.

    TP counts reference boxes that are reached, FP = predicted - TP, FN = reference - TP.
    A film without findings counts as a success, so that no box at all scores high.

    Args:
        happened: of one class.
        weights: ``[R, N]``, how often each film counts.

    Returns:
        ``[R, T]``.

    Reference: Müller et al., MICCAI 2023, section 3.1, as their code counts.
    """
    weights = np.ones((1, len(happened.found))) if weights is None else weights
    empty = (happened.found == 0) & (happened.targets == 0)
    negative = (weights @ empty)[:, None]
    true = weights @ happened.reached.T
    wrong = (weights @ (happened.found + happened.targets))[:, None] - 2 * true
    return _share(true + negative, true + negative + wrong)


def false_per_film(happened: Outcomes, weights: np.ndarray | None = None) -> np.ndarray:
    """Average false positives, ``(predicted - TP) / films``, ``[R, T]``.

    Reference: Wang et al., ChestX-ray8, CVPR 2017, section 4.2.
    """
    weights = np.ones((1, len(happened.found))) if weights is None else weights
    false = (weights @ happened.found)[:, None] - weights @ happened.reached.T
    return _share(false, weights.sum(axis=1, keepdims=True) * np.ones_like(false))


def froc(
    hits: Hits,
    weights: np.ndarray | None = None,
    *,
    rates: Sequence[float] = FALSE_PER_FILM,
) -> np.ndarray:
    """Share of reference boxes found at a number of false positives per film.

    Args:
        hits: of one class.
        weights: whole numbers ``[R, N]``, how often each film counts.
        rates: false positives per film; F of them.

    Returns:
        ``[R, T, F]``: the most that is found at no more than each rate; NaN without
        reference boxes.

    Reference: Bunch et al., A free-response approach to the measurement and
    characterization of radiographic-observer performance, 1978.
    """
    weights = _films(hits, weights)
    targets, films = weights @ hits.targets, weights.sum(axis=1)
    out = np.full((len(weights), len(hits.hit), len(rates)), np.nan)
    allowed = np.asarray(rates) * films[:, None]
    some = targets > 0
    for t, (true, passed) in enumerate(_at_hits(hits, weights)):
        at = _search(passed - true, allowed, side="right")
        most = np.take_along_axis(np.pad(true, ((0, 0), (1, 0))), at, axis=1)
        out[some, t] = most[some] / targets[some, None]
    return out


def _at_hits(
    hits: Hits, weights: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What was found, and what was said, by the end of each group of scores with a hit.

    Between hits precision falls, recall stays and false positives grow: the best of
    either curve is at these.

    Yields:
        For each threshold true positives and boxes so far, ``[R, K]``.
    """
    counted = weights[:, hits.film]
    passed = counted.cumsum(axis=1)
    ends = np.flatnonzero(hits.last)
    group = np.cumsum(hits.last) - hits.last
    for hit in hits.hit:
        own = np.flatnonzero(hit)
        final = np.ones(len(own), bool)
        final[:-1] = group[own[1:]] != group[own[:-1]]
        true = counted[:, own].cumsum(axis=1)[:, final]
        yield true, passed[:, ends[group[own[final]]]]


def _search(rows: np.ndarray, wanted: np.ndarray, *, side: str) -> np.ndarray:
    """``np.searchsorted`` of each row in its own: rising numbers, none below 0."""
    step = max(rows.max(initial=0), wanted.max(initial=0)) + 1
    number = np.arange(len(rows))[:, None]
    # One rising list: each row begins above all of the last.
    shifted = ((a + step * number).ravel() for a in (rows, wanted))
    at = np.searchsorted(*shifted, side=side).reshape(wanted.shape)
    return at - rows.shape[1] * number


def _films(hits: Hits, weights: np.ndarray | None) -> np.ndarray:
    """How often each film counts, ``[R, N]``, in whole numbers."""
    if weights is None:
        return np.ones((1, len(hits.targets)), np.int64)
    return np.asarray(weights).astype(np.int64)


def _rows_by_film(film: np.ndarray) -> dict[int, np.ndarray]:
    order = np.argsort(film, kind="stable")
    names, first = np.unique(film[order], return_index=True)
    return (
        dict(zip(names.tolist(), np.split(order, first[1:]), strict=True))
        if len(film)
        else {}
    )


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotient, 0 of nothing."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)
