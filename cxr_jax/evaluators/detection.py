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
from cxr_jax.evaluators import detection_blocks as blocks
from cxr_jax.evaluators import judged_boxes
from cxr_jax.evaluators.base import Blocks, Evaluator, plain, units_of
from cxr_jax.evaluators.judged_boxes import IOBB, Judged, Lists
from cxr_jax.labels import CXR8
from cxr_jax.metrics import bootstrap
from cxr_jax.metrics.detection import FALSE_PER_FILM, BoxList
from cxr_jax.predictions import Predictions

IOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
# Of a box that is the same on every film; any number would do.
SAME = 0.5
USUAL = "usual_boxes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection(Evaluator):
    """Average precision, localisation accuracy and FROC of boxes, per class and mean.

    Attributes:
        boxed: classes whose boxes take part; those that the predictions lack are passed
            over.
        thresholds: of the IoU, to be exceeded; their mean is ``map``.
        keep_above: score above which boxes count where no ranking is looked at: for
            localisation accuracy and false positives per film. Below 0 all of them do.
    """

    boxed: tuple[str, ...] = CXR8
    thresholds: tuple[float, ...] = IOU
    keep_above: float = -1.0
    requires: ClassVar[tuple[str, ...]] = ("boxes", "predicted_boxes")
    monitors: ClassVar[bool] = True

    def freeze(self, predictions: Predictions) -> dict[str, Any]:
        """Mean reference box of each class, by name: where it usually is."""
        columns = self._columns(predictions)
        targets = judged_boxes.lists(predictions.targets, columns)
        means = {n: b.xyxy.mean(axis=0).tolist() for n, b in targets.items() if len(b)}
        return {USUAL: means}

    def __call__(
        self, predictions: Predictions, frozen: Mapping[str, Any] | None = None
    ) -> Blocks:
        """Metrics of the predicted boxes, and what chance rows reach."""
        found, targets = self._lists(predictions)
        films, units = len(predictions), units_of(predictions)
        judged = self._judge(found, targets, films)
        told = self._told(judged, units, _basis(targets, films, units))
        block = {
            "boxed": list(targets),
            "thresholds": list(self.thresholds),
            "keep_above": self.keep_above,
            "n": films,
            "predicted": {n: len(boxes) for n, boxes in found.items()},
            "reference": {n: len(boxes) for n, boxes in targets.items()},
            "unboxed": _unboxed(predictions, targets),
            "rows": self._rows(targets, films, (frozen or {}).get(USUAL, {})),
        }
        return {"metrics": told.pop("metrics"), "detection": block | told}

    def monitor(self, predictions: Predictions) -> dict[str, Any]:
        """``map`` alone."""
        found, targets = self._lists(predictions)
        films = len(predictions)
        judged = self._judge(found, targets, films)
        value = judged_boxes.precision(judged, self.thresholds)["map"][0]
        basis = _basis(targets, films, units_of(predictions))
        return {"map": blocks.metric(value, None, basis)}

    def _lists(self, predictions: Predictions) -> tuple[Lists, Lists]:
        """Predicted boxes, and reference boxes."""
        columns = self._columns(predictions)
        found = judged_boxes.lists(predictions.boxes, columns)
        return found, judged_boxes.lists(predictions.targets, columns)

    def _columns(self, predictions: Predictions) -> dict[str, int]:
        names = predictions.classes
        columns = {n: names.index(n) for n in self.boxed if n in names}
        if not columns:
            raise ConfigError(
                f"Detection: none of boxed={', '.join(self.boxed)} is a class of"
                f" {', '.join(names)}: name some of them"
            )
        return columns

    def _judge(self, found: Lists, targets: Lists, films: int) -> dict[str, Judged]:
        return judged_boxes.judge(
            found,
            targets,
            films=films,
            thresholds=self.thresholds,
            keep_above=self.keep_above,
        )

    def _told(
        self,
        judged: Mapping[str, Judged],
        units: bootstrap.Units,
        basis: blocks.Basis,
    ) -> dict[str, Any]:
        """All figures with their intervals, by block of the result."""
        point = judged_boxes.measure(judged, self.thresholds)
        drawn = self._resampled(judged, units)

        def several(kind: str, name: str) -> dict[str, Any]:
            value = point["several"][kind][0]
            resampled = None if drawn is None else drawn["several"][kind]
            form = self._form(kind)
            return blocks.figures(name, value, resampled, basis, form=form)

        metrics, restricted = (
            {
                k: blocks.metric(v[0], None if drawn is None else drawn[of][k], basis)
                for k, v in point[of].items()
            }
            for of in ("metrics", "restricted")
        )
        return {
            "metrics": metrics,
            "restricted": {k: v["mean"]["value"] for k, v in restricted.items()},
            "restricted_metrics": restricted,
            "froc": {"false_per_film": list(FALSE_PER_FILM)}
            | several("froc", "sensitivity"),
            "iobb": {"thresholds": list(IOBB)}
            | several("iobb", "accuracy")
            | several("false_per_film", "false_per_film"),
        }

    def _form(self, kind: str) -> Callable[[Any], Any]:
        """Figures of one class as JSON holds them; those of FROC by their IoU."""
        if kind != "froc":
            return plain
        names = [f"{t:g}" for t in self.thresholds]
        return lambda array: plain(dict(zip(names, array, strict=True)))

    def _resampled(
        self, judged: Mapping[str, Judged], units: bootstrap.Units
    ) -> dict[str, dict[str, np.ndarray]] | None:
        if not self.resamples:
            return None
        parts = [
            judged_boxes.measure(judged, self.thresholds, weights)
            for weights in self._weights(units)
        ]
        return jax.tree.map(lambda *x: np.concatenate(x)[: self.resamples], *parts)

    def _weights(self, units: bootstrap.Units) -> Iterator[np.ndarray]:
        """How often each film is drawn, the same patients as for every metric."""
        key = jax.random.key(self.seed)
        drawn = bootstrap.weights_in_chunks(
            key, units.count, resamples=self.resamples, chunk=256
        )
        for weights in drawn:
            yield np.asarray(weights)[:, units.code]

    def _rows(
        self, targets: Lists, films: int, usual: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """What a method that looks at no film reaches: none, and the usual box."""
        empty = BoxList(film=np.zeros(0, int), xyxy=np.zeros((0, 4)), score=np.zeros(0))
        rows = {"no boxes": dict.fromkeys(targets, empty)}
        if usual:
            rows["mean box of the validation part"] = {
                name: _everywhere(usual.get(name), films) for name in targets
            }
        always = dataclasses.replace(self, keep_above=-np.inf)
        return {
            row: always._summary(found, targets, films) for row, found in rows.items()
        }

    def _summary(self, found: Lists, targets: Lists, films: int) -> dict[str, Any]:
        """Means over the classes that have boxes: of metrics, ``restricted``, and more."""
        judged = self._judge(found, targets, films)
        known = [c for c, boxes in enumerate(targets.values()) if len(boxes)]
        means = {
            of: {k: self._form(k)(blocks.mean(v, known)[0]) for k, v in values.items()}
            for of, values in judged_boxes.measure(judged, self.thresholds).items()
        }
        metrics, several = means["metrics"], means["several"]
        return metrics | {"restricted": means["restricted"]} | several


def _basis(targets: Lists, films: int, units: bootstrap.Units) -> blocks.Basis:
    counts = {n: blocks.count(boxes, films, units) for n, boxes in targets.items()}
    return blocks.Basis(counts=counts, unit=units.name)


def _unboxed(predictions: Predictions, targets: Lists) -> int:
    """Films with a labelled finding that nobody boxed: a box there counts as false."""
    films, labels = np.arange(len(predictions)), predictions.labels
    missing = [
        (labels[:, predictions.classes.index(n)] == 1) & ~np.isin(films, boxes.film)
        for n, boxes in targets.items()
    ]
    return int(np.any(missing, axis=0).sum())


def _everywhere(box: Sequence[float] | None, films: int) -> BoxList:
    films = films if box is not None else 0
    xyxy = np.tile(np.asarray(box or [0.0] * 4, float), (films, 1))
    return BoxList(film=np.arange(films), xyxy=xyxy, score=np.full(films, SAME))
