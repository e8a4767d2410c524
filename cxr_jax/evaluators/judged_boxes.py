"""What happened to the boxes of each class, and all that is measured of it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cxr_jax.metrics.detection import (
    BoxList,
    Hits,
    Outcomes,
    average_precision,
    false_per_film,
    froc,
    localization_accuracy,
    match,
    outcomes,
)
from cxr_jax.types import Boxes

IOBB = (0.1, 0.25, 0.5, 0.75, 0.9)
Lists = Mapping[str, BoxList]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What happened to the boxes of one class.

    Attributes:
        hits: for average precision.
        boxed: the same on films with a reference box of the class alone.
        kept: at the score above which boxes count.
        shared: the same, by the share of the predicted box.
    """

    hits: Hits
    boxed: Hits
    kept: Outcomes
    shared: Outcomes


def lists(boxes: Boxes, columns: Mapping[str, int]) -> Lists:
    """Class → its boxes."""
    return {name: box_list(boxes, c) for name, c in columns.items()}


def box_list(boxes: Boxes, label: int) -> BoxList:
    """The boxes of one class of padded ones.

    Args:
        boxes: NumPy arrays ``[N, S, …]``.
        label: the class.
    """
    film, slot = np.nonzero(np.asarray(boxes.mask) & (np.asarray(boxes.label) == label))
    score = None if boxes.score is None else np.asarray(boxes.score, float)[film, slot]
    xyxy = np.asarray(boxes.xyxy, float)[film, slot]
    return BoxList(film=film, xyxy=xyxy, score=score)


def judge(
    found: Lists,
    targets: Lists,
    *,
    films: int,
    thresholds: Sequence[float],
    keep_above: float,
) -> dict[str, Judged]:
    """Class → what happened to its boxes.

    Args:
        found: class → predicted boxes.
        targets: class → reference boxes.
        films: N.
        thresholds: of the IoU.
        keep_above: score above which boxes count where no ranking is looked at.
    """
    given = {"films": films, "thresholds": thresholds}
    share = {"films": films, "thresholds": IOBB, "share_of_found": True}
    judged = {}
    for name, boxes in found.items():
        true = targets[name]
        kept = boxes.keep(np.flatnonzero(boxes.score > keep_above))
        # Other films may show a finding that nobody boxed: a box there counts as false.
        there = boxes.keep(np.flatnonzero(np.isin(boxes.film, true.film)))
        judged[name] = Judged(
            hits=match(boxes, true, **given),
            boxed=match(there, true, **given),
            kept=outcomes(kept, true, **given),
            shared=outcomes(kept, true, **share),
        )
    return judged


def measure(
    judged: Mapping[str, Judged],
    thresholds: Sequence[float],
    weights: np.ndarray | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """All that is measured, for each time that films are drawn.

    Args:
        judged: of C classes.
        thresholds: of the IoU, T.
        weights: ``[R, N]``, how often each film counts; once where None.

    Returns:
        ``metrics``: metric → ``[R, C]``; ``restricted``: the same on films with a box of
        the class alone, as far as it ranks; ``several``: ``froc [R, C, T, F]``,
        ``iobb [R, C, 5]`` and ``false_per_film [R, C, T]``.
    """
    accuracy = _stack(judged, lambda one: localization_accuracy(one.kept, weights))
    at = {f"loc_acc@{t:g}": accuracy[..., k] for k, t in enumerate(thresholds)}
    shared = _stack(judged, lambda one: localization_accuracy(one.shared, weights))
    known = np.array([one.hits.targets.any() for one in judged.values()])
    return {
        "metrics": precision(judged, thresholds, weights) | at,
        "restricted": precision(judged, thresholds, weights, boxed=True),
        "several": {
            "froc": _stack(judged, lambda one: froc(one.hits, weights)),
            # Undefined without a reference box, as the accuracy by the IoU is.
            "iobb": np.where(known[:, None], shared, np.nan),
            "false_per_film": _stack(
                judged, lambda one: false_per_film(one.kept, weights)
            ),
        },
    }


def precision(
    judged: Mapping[str, Judged],
    thresholds: Sequence[float],
    weights: np.ndarray | None = None,
    *,
    boxed: bool = False,
) -> dict[str, np.ndarray]:
    """``map`` and ``ap@IoU``, ``[R, C]``, of all films or of ``boxed`` ones."""
    ap = _stack(
        judged,
        lambda one: average_precision(one.boxed if boxed else one.hits, weights),
    )
    at = {f"ap@{t:g}": ap[..., k] for k, t in enumerate(thresholds)}
    return {"map": ap.mean(axis=-1)} | at


def _stack(
    judged: Mapping[str, Judged], measured: Callable[[Judged], np.ndarray]
) -> np.ndarray:
    """``[R, C, …]``."""
    return np.stack([measured(one) for one in judged.values()], axis=1)
