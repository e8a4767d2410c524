"""How well predicted boxes find the boxed findings, beside rows that know nothing.

Average precision ranks; localisation accuracy counts films without any box as successes, so
that a method which never predicts one scores high: it is shown with that row beside it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import Blocks, Evaluator, units_of
from cxr_jax.labels import CXR8
from cxr_jax.metrics import bootstrap, ranking
from cxr_jax.metrics.detection import (
    FALSE_PER_FILM,
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
from cxr_jax.predictions import Predictions
from cxr_jax.types import Boxes

IOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
IOBB = (0.1, 0.25, 0.5, 0.75, 0.9)
# Of a box that is the same on every film; any number would do.
SAME = 0.5
USUAL = "usual_boxes"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What happened to the boxes of one class.

    Attributes:
        hits: for average precision.
        kept: at the score above which boxes count.
        shared: the same, by the share of the predicted box.
    """

    hits: Hits
    kept: Outcomes
    shared: Outcomes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection(Evaluator):
    """Average precision, localisation accuracy and FROC of boxes, per class and mean.

    Attributes:
        boxed: classes whose boxes take part; those that the predictions lack are passed
            over.
        thresholds: of the IoU, to be exceeded; their mean is ``map``.
        keep_above: score above which boxes count where no ranking is looked at: for
            localisation accuracy and false positives per film.
    """

    boxed: tuple[str, ...] = CXR8
    thresholds: tuple[float, ...] = IOU
    keep_above: float = 0.0
    requires: ClassVar[tuple[str, ...]] = ("boxes", "predicted_boxes")
    monitors: ClassVar[bool] = True

    def freeze(self, predictions: Predictions) -> dict[str, Any]:
        """Mean reference box of each class, by name: where it usually is."""
        found = {}
        for name, c in self._columns(predictions).items():
            targets = box_list(predictions.targets, c)
            if len(targets):
                found[name] = targets.xyxy.mean(axis=0).tolist()
        return {USUAL: found}

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """Metrics of the predicted boxes, and what chance rows reach."""
        columns = self._columns(predictions)
        targets = {n: box_list(predictions.targets, c) for n, c in columns.items()}
        found = {n: box_list(predictions.boxes, c) for n, c in columns.items()}
        films = len(predictions)
        judged = {n: self._judge(found[n], targets[n], films) for n in columns}
        units = units_of(predictions)
        values = self._measure(judged, None)
        drawn = self._resampled(judged, units)
        counts = {n: _count(targets[n], films, units) for n in columns}
        metrics = {}
        for metric, array in values.items():
            resampled = None if drawn is None else drawn[metric]
            metrics[metric] = _block(array[0], resampled, counts, units.name)
        block = {
            "boxed": list(columns),
            "thresholds": list(self.thresholds),
            "keep_above": self.keep_above,
            "n": films,
            "predicted": {n: len(found[n]) for n in columns},
            "reference": {n: len(targets[n]) for n in columns},
            "unboxed": _unboxed(predictions.labels, targets, columns),
            "rows": self._rows(targets, films, (frozen or {}).get(USUAL, {})),
            "restricted": self._restricted(found, targets, films),
            "froc": self._froc(judged),
            "iobb": _shared(judged),
        }
        return {"metrics": metrics, "detection": block}

    def monitor(self, predictions: Predictions) -> dict[str, Any]:
        """``map`` alone."""
        columns = self._columns(predictions)
        films = len(predictions)
        judged = {
            n: self._judge(
                box_list(predictions.boxes, c), box_list(predictions.targets, c), films
            )
            for n, c in columns.items()
        }
        units = units_of(predictions)
        counts = {
            n: _count(box_list(predictions.targets, c), films, units)
            for n, c in columns.items()
        }
        value = self._measure(judged, None)["map"][0]
        return {"map": _block(value, None, counts, units.name)}

    def _columns(self, predictions: Predictions) -> dict[str, int]:
        names = predictions.classes
        columns = {n: names.index(n) for n in self.boxed if n in names}
        if not columns:
            raise ConfigError(
                f"Detection: none of boxed={', '.join(self.boxed)} is a class of"
                f" {', '.join(names)}: name some of them"
            )
        return columns

    def _judge(self, found: BoxList, targets: BoxList, films: int) -> Judged:
        kept = found.keep(np.flatnonzero(found.score > self.keep_above))
        return Judged(
            hits=match(found, targets, films=films, thresholds=self.thresholds),
            kept=outcomes(kept, targets, films=films, thresholds=self.thresholds),
            shared=outcomes(
                kept, targets, films=films, thresholds=IOBB, share_of_found=True
            ),
        )

    def _measure(
        self, judged: Mapping[str, Judged], weights: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Metric → ``[R, C]``."""
        ap = _stack(judged, lambda one: average_precision(one.hits, weights))
        accuracy = _stack(judged, lambda one: localization_accuracy(one.kept, weights))
        found = {"map": ap.mean(axis=-1)}
        for t, threshold in enumerate(self.thresholds):
            found[f"ap@{threshold:g}"] = ap[..., t]
            found[f"loc_acc@{threshold:g}"] = accuracy[..., t]
        return found

    def _resampled(
        self, judged: Mapping[str, Judged], units: bootstrap.Units
    ) -> dict[str, np.ndarray] | None:
        if not self.resamples:
            return None
        parts = [self._measure(judged, weights) for weights in self._weights(units)]
        return {
            name: np.concatenate([part[name] for part in parts])[: self.resamples]
            for name in parts[0]
        }

    def _weights(self, units: bootstrap.Units) -> Iterator[np.ndarray]:
        """How often each film is drawn, the same patients as for every metric."""
        key = jax.random.key(self.seed)
        drawn = bootstrap.weights_in_chunks(
            key, units.count, resamples=self.resamples, chunk=256
        )
        for weights in drawn:
            yield np.asarray(weights)[:, units.code]

    def _rows(
        self, targets: Mapping[str, BoxList], films: int, usual: Mapping[str, Any]
    ) -> dict[str, dict[str, float | None]]:
        """What a method that looks at no film reaches: none, and the usual box."""
        empty = BoxList(film=np.zeros(0, int), xyxy=np.zeros((0, 4)), score=np.zeros(0))
        rows = {"no boxes": dict.fromkeys(targets, empty)}
        if usual:
            rows["mean box of the validation part"] = {
                name: _everywhere(usual.get(name), films) for name in targets
            }
        always = dataclasses.replace(self, keep_above=-np.inf)
        return {
            row: always._summary(
                {n: always._judge(found[n], targets[n], films) for n in targets}
            )
            for row, found in rows.items()
        }

    def _summary(self, judged: Mapping[str, Judged]) -> dict[str, float | None]:
        """Metric → mean over the classes that have boxes."""
        known = np.array([one.hits.targets.any() for one in judged.values()])
        values = self._measure(judged, None)
        return {
            name: float(value[0, known].mean()) if known.any() else None
            for name, value in values.items()
        }

    def _restricted(
        self,
        found: Mapping[str, BoxList],
        targets: Mapping[str, BoxList],
        films: int,
    ) -> dict[str, float | None]:
        """The same on films with a box of the class alone.

        Films may show a finding that nobody boxed: a box there counts as false.
        """
        judged = {}
        for name, boxes in found.items():
            there = np.isin(boxes.film, targets[name].film)
            kept = boxes.keep(np.flatnonzero(there))
            judged[name] = self._judge(kept, targets[name], films)
        summary = self._summary(judged)
        return {k: v for k, v in summary.items() if not k.startswith("loc_acc")}

    def _froc(self, judged: Mapping[str, Judged]) -> dict[str, Any]:
        curves = _stack(judged, lambda one: froc(one.hits))[0]  # [C, T, F]
        return {
            "false_per_film": list(FALSE_PER_FILM),
            "sensitivity": {
                name: {
                    f"{t:g}": curve[k].tolist() for k, t in enumerate(self.thresholds)
                }
                for name, curve in zip(judged, curves, strict=True)
            },
        }


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


def _unboxed(
    labels: np.ndarray, targets: Mapping[str, BoxList], columns: Mapping[str, int]
) -> int:
    """Films with a labelled finding that nobody boxed: a box there counts as false."""
    films = np.arange(len(labels))
    missing = [
        (labels[:, c] == 1) & ~np.isin(films, targets[name].film)
        for name, c in columns.items()
    ]
    return int(np.any(missing, axis=0).sum())


def _everywhere(box: Sequence[float] | None, films: int) -> BoxList:
    films = films if box is not None else 0
    xyxy = np.tile(np.asarray(box or [0.0] * 4, float), (films, 1))
    return BoxList(film=np.arange(films), xyxy=xyxy, score=np.full(films, SAME))


def _stack(
    judged: Mapping[str, Judged], measure: Callable[[Judged], np.ndarray]
) -> np.ndarray:
    """``[R, C, …]``."""
    return np.stack([measure(one) for one in judged.values()], axis=1)


def _shared(judged: Mapping[str, Judged]) -> dict[str, Any]:
    """By the share of the predicted box, as Wang et al. count; and false positives."""
    accuracy = _stack(judged, lambda one: localization_accuracy(one.shared))[0]
    false = _stack(judged, lambda one: false_per_film(one.kept))[0]
    return {
        "thresholds": list(IOBB),
        "accuracy": dict(zip(judged, accuracy.tolist(), strict=True)),
        "false_per_film": dict(zip(judged, false.tolist(), strict=True)),
    }


def _count(targets: BoxList, films: int, units: bootstrap.Units) -> ranking.LabelCount:
    rows = np.unique(targets.film)
    return ranking.LabelCount(
        n=films,
        positives=len(rows),
        positive_patients=len(np.unique(units.patients[rows])),
    )


def _block(
    values: np.ndarray,
    resampled: np.ndarray | None,
    counts: Mapping[str, ranking.LabelCount],
    unit: str,
) -> dict[str, Any]:
    """Values ``[C]`` and their resamples ``[R, C]`` → per class, and their mean."""
    names = list(counts)
    defined = [c for c, name in enumerate(names) if counts[name].positives]
    told = {"resampling_unit": unit}
    told["resamples"] = 0 if resampled is None else len(resampled)
    per_class = {}
    for c, name in enumerate(names):
        known = c in defined
        interval = _interval(None if resampled is None else resampled[:, c], known)
        per_class[name] = dataclasses.asdict(
            ranking.Value(
                value=float(values[c]) if known else None,
                low=interval.low,
                high=interval.high,
                discarded=interval.discarded,
                flag=counts[name].flag,
                reason=None if known else "undefined: no reference box",
                **dataclasses.asdict(counts[name]),
                **told,
            )
        )
    means = None if resampled is None else resampled[:, defined].mean(axis=1)
    interval = _interval(means, bool(defined))
    mean = told | {
        "value": float(values[defined].mean()) if defined else None,
        "low": interval.low,
        "high": interval.high,
        "classes": [names[c] for c in defined],
        "left_out": {
            name: "undefined: no reference box"
            for c, name in enumerate(names)
            if c not in defined
        },
        "n": max((count.n for count in counts.values()), default=0),
        "discarded": interval.discarded,
        "reason": None if defined else "undefined: no reference box",
    }
    return {"per_class": per_class, "mean": mean}


def _interval(resampled: np.ndarray | None, known: bool) -> bootstrap.Interval:
    if resampled is None or not known:
        return bootstrap.Interval(low=None, high=None, discarded=0)
    return bootstrap.percentile_interval(resampled)
