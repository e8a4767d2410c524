"""Classification whose maps become boxes: detectors that learnt from labels of films."""

import dataclasses
from typing import Any

import numpy as np

from cxr_jax import heat_boxes
from cxr_jax.errors import ConfigError
from cxr_jax.labels import NO_FINDING
from cxr_jax.models.heads import Classifier
from cxr_jax.tasks.classify import CAM, Classify
from cxr_jax.types import Batch, Prediction

# What a box scores.
ABNORMAL, CLASS = "abnormal", "class"


class Heatmaps(Classify):
    """Multi-label classification, and a box for each class that is found.

    Args:
        thresholds: of the maps, see ``heat_boxes.Rule``.
        side: likewise.
        found_above: likewise.
        dummy_box: likewise; a film always has a box then.
        normal: the class of films without findings; it has no boxes.
        box_score: ``"abnormal"``, the sigmoid of the mean of minus the map of
            ``normal`` over the part that is boxed; ``"class"``, the sigmoid of the mean
            of the class's own map.
        given: those of ``Classify``.

    Raises:
        ConfigError: another score or kind of maps, or no class ``normal`` that a score
            could be of.
    """

    finds_boxes = True
    # Boxes are made of maps on the host.
    finishes = ("maps",)

    def __init__(
        self,
        *,
        thresholds: tuple[float, ...] = heat_boxes.Rule.thresholds,
        side: int = heat_boxes.Rule.side,
        found_above: float = heat_boxes.Rule.found_above,
        dummy_box: bool = False,
        normal: str = NO_FINDING,
        box_score: str = ABNORMAL,
        **given: Any,
    ):
        super().__init__(**given)
        self.rule = heat_boxes.Rule(
            thresholds=tuple(thresholds),
            side=side,
            found_above=found_above,
            dummy=dummy_box,
        )
        self.normal, self.box_score = normal, box_score
        if box_score not in (ABNORMAL, CLASS) or self.maps != CAM:
            raise ConfigError(
                f"task.box_score={box_score!r}, task.maps={self.maps!r}: {ABNORMAL} or"
                f" {CLASS}, of maps {CAM!r}"
            )
        if box_score == ABNORMAL and normal not in self.classes:
            raise ConfigError(
                f"task.normal={normal!r} is not one of task.classes"
                f" {', '.join(self.classes)}: name it there, or set"
                f" task.box_score={CLASS!r}"
            )

    def predict(
        self,
        model: Classifier,
        batch: Batch,
        *,
        key: Any = None,
        samples: int = 0,
    ) -> Prediction:
        """As ``Classify`` predicts; maps are logits, with the bias of their class."""
        found = super().predict(model, batch, key=key, samples=samples)
        bias = model.head.bias.astype(found.maps.dtype)
        maps = found.maps + bias[None, None, None]
        return dataclasses.replace(found, maps=maps)

    def finalize(self, prediction: Prediction) -> Prediction:
        """The prediction with boxes, a slot for each class but ``normal``.

        Args:
            prediction: with maps, NumPy arrays.
        """
        maps = np.asarray(prediction.maps)
        worth = maps
        if self.box_score == ABNORMAL:
            normal = maps[..., self.classes.index(self.normal), None]
            worth = np.broadcast_to(-normal, maps.shape)
        boxes = heat_boxes.best_boxes(
            maps,
            worth,
            np.asarray(prediction.probs),
            rule=self.rule,
            boxed=np.array([name != self.normal for name in self.classes]),
        )
        return dataclasses.replace(prediction, boxes=boxes)
