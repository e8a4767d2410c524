"""What a builder yields for one film, and what the records of a dataset hold."""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """What the records of a dataset hold.

    Attributes:
        size: height and width of every film, in pixels.
        classes: names of the labels, in order.
        truth: records carry the true state beside the (noisy) labels.
        severity: records carry a severity in [0, 1] per class.
        regions: records carry the 29 anatomical regions.
    """

    size: int
    classes: tuple[str, ...]
    truth: bool = False
    severity: bool = False
    regions: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionLabels:
    """The 29 regions of one film, in the order of ``labels.REGIONS29``.

    Attributes:
        xyxy: float32 ``[29, 4]`` in [0, 1].
        presence: uint8 ``[29]``.
        labels: uint8 ``[29, 53]``, findings in the order of ``IMAGENOME_FINDINGS``.
    """

    xyxy: np.ndarray
    presence: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
    """One record, as a builder yields it.

    Attributes:
        id: unique within the dataset; the file name for released data.
        image: uint8 ``[H, W]`` or ``[H, W, 1]``.
        labels: ``[C]`` in {0, 1}, NaN where unknown.
        patient, study: identifiers; ``""`` where unknown.
        follow_up: number of the film within its patient, or None.
        age: whole years, or None.
        sex: ``M``, ``F`` or ``""``.
        view: ``PA``, ``AP`` or ``""``.
        boxes: ``[n, 4]`` xyxy in [0, 1].
        box_label: ``[n]``, index into the classes.
        splits: scheme → ``train``, ``val``, ``test``, ``train_val`` or ``""``; the same
            schemes for every film.
        truth, severity: ``[C]`` where the layout has them.
        regions: where the layout has them.
        readers: reader's name → ``[C]`` in {0, 1}; empty for films nobody read.
    """

    id: str
    image: np.ndarray
    labels: np.ndarray
    patient: str = ""
    study: str = ""
    follow_up: int | None = None
    age: int | None = None
    sex: str = ""
    view: str = ""
    boxes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4)))
    box_label: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    truth: np.ndarray | None = None
    severity: np.ndarray | None = None
    regions: RegionLabels | None = None
    readers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
