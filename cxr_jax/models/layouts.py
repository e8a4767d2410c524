"""What the weights of other libraries expect of a film, and which library wrote a file."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cxr_jax import labels
from cxr_jax.errors import CheckpointError, ConfigError
from cxr_jax.models import efficientnet
from cxr_jax.models.passport import Passport

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEPTHS = {
    (6, 12, 24, 16): "densenet121",
    (6, 12, 32, 32): "densenet169",
    (6, 12, 48, 32): "densenet201",
    (6, 12, 36, 24): "densenet161",
}
EFFICIENTNETS = tuple(f"efficientnet_b{n}" for n in range(4))
XRV18 = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema"),
    *("Emphysema", "Fibrosis", "Effusion", "Pneumonia", "Pleural_Thickening"),
    *("Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture"),
    *("Lung Opacity", "Enlarged Cardiomediastinum"),
)
# The one file of TorchXRayVision that is known by digest; it was trained on all 18.
XRV_ALL = "56524913dd16a906422e8d8b66a7a5c46be1d82eb7ac012d8103776f1aa68899"


@dataclasses.dataclass(frozen=True)
class Layout:
    """What weights of a library expect, where nobody said otherwise.

    Attributes:
        mean: one number per channel, of films in [0, 1].
        std: likewise.
        classes: of its head, if the number of outputs is theirs.
        licence: of the weights of these classes.
        epsilon: of its batch norms.
        notes: what a reader must know.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    licence: str = "unknown"
    epsilon: float = 1e-5
    notes: str = ""


_IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
LAYOUTS = {
    "torchvision": Layout(**_IMAGENET),
    "timm": Layout(**_IMAGENET),
    # It scales films to [-1024, 1024]: (2x - 1) · 1024 = (x - 1/2) / (1/2048).
    "torchxrayvision": Layout(
        (0.5,),
        (1 / 2048,),
        XRV18,
        licence="Apache-2.0",
        notes="logits before the library's op_threshs, which only move 0.5",
    ),
    "reproduce-chexnet": Layout(
        **_IMAGENET, classes=labels.NIH14, licence="BSD-3-Clause"
    ),
    "arnoweng": Layout(
        **_IMAGENET,
        classes=labels.NIH14,
        notes="evaluated by its author on ten crops of 224 pixels from 256",
    ),
    "keras": Layout(**_IMAGENET, epsilon=1.001e-5),
    "keras-efficientnet": Layout(**_IMAGENET, epsilon=1e-3),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """Arrays of a file under our names and in our axes, and what was left over.

    Attributes:
        arrays: such as ``backbone/stem/kernel``.
        names: our name → the file's.
        unknown: names in the file that no array of ours has.
        ignored: names that are known to say nothing to a reader.
        extras: arrays that are no weights and worth keeping, such as ``op_threshs``.
        likely: the layout that the names point to.
        scaling: mean and std of films in [0, 1] that the file itself holds; None where
            it holds none.
    """

    arrays: dict[str, np.ndarray]
    names: dict[str, str]
    unknown: tuple[str, ...]
    ignored: tuple[str, ...]
    extras: dict[str, np.ndarray]
    likely: str
    scaling: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def channels(self) -> int:
        """Channels of the stem; 0 where there is none that can be read."""
        kernel = self.arrays.get("backbone/stem/kernel")
        return kernel.shape[2] if kernel is not None and kernel.ndim == 4 else 0

    @property
    def outputs(self) -> int:
        """Logits of the head; 0 without a head."""
        bias = self.arrays.get("head/linear/bias")
        return bias.size if bias is not None else 0


def chosen(name: str, source: Source) -> str:
    """The layout of a file: the one asked for, or the likely one.

    Raises:
        ConfigError: no such layout.
        CheckpointError: the file is of another.
    """
    if not name:
        return source.likely
    if name not in LAYOUTS:
        raise ConfigError(
            f"pretrained.layout={name!r}: choose one of {', '.join(LAYOUTS)}, or none"
        )
    same = {source.likely}
    if source.likely in ("torchvision", "torchxrayvision") and not source.extras:
        same |= {"torchxrayvision"} if source.channels == 1 else {"torchvision", "timm"}
    if name not in same:
        raise CheckpointError(
            f"pretrained.layout={name!r}: the names in the file are those of"
            f" {' or '.join(sorted(same))}"
        )
    return name


def assumed(layout: str, source: Source, file: str, sha256: str) -> Passport:
    """The passport of a file that states none: what its library does by default.

    Raises:
        CheckpointError: a stem whose channels that library has no scaling for.
    """
    usual = LAYOUTS[layout]
    mean, std = source.scaling or (usual.mean, usual.std)
    channels = source.channels or len(mean)
    if channels != len(mean):
        raise CheckpointError(
            f"{file}: its stem takes {channels} channels, {layout} scales"
            f" {len(mean)}: write {file}.passport.json beside it, or name its layout"
        )
    classes = usual.classes if source.outputs == len(usual.classes) else ()
    guess = "classes not known"
    if source.scaling is None:
        guess = f"scaling assumed from the layout, {guess}"
    if classes == XRV18:
        classes = _trained(source, sha256)
        guess = (
            "nothing in the file says which of TorchXRayVision's 18 outputs were trained,"
            " some of its files trained 2 of them"
        )
    named = bool(classes)
    return Passport(
        architecture=architecture(source.arrays),
        source=file,
        licence=usual.licence if named else "unknown",
        mean=mean,
        std=std,
        channels=channels,
        size=224,
        classes=classes,
        outputs={0: "none", 1000: "softmax"}.get(source.outputs, "sigmoid"),
        sha256=sha256,
        notes="; ".join(filter(None, (usual.notes, "" if named else guess))),
    )


def check_scaling(passport: Passport, source: Source, file: str) -> None:
    """A passport must say what a file's own layer does.

    Raises:
        CheckpointError: it says otherwise.
    """
    if source.scaling in (None, (passport.mean, passport.std)):
        return
    raise CheckpointError(
        f"{file}: its passport says mean={passport.mean} and std={passport.std}, its"
        f" normalization layer {source.scaling[0]} and {source.scaling[1]}: correct the"
        " passport"
    )


def xrv_classes(trained: Iterable[str]) -> tuple[str, ...]:
    """TorchXRayVision's 18 outputs; those that were not trained have no name."""
    trained = frozenset(trained)
    return tuple(
        c if c in trained else f"untrained output {n}" for n, c in enumerate(XRV18)
    )


def _trained(source: Source, sha256: str) -> tuple[str, ...]:
    """The outputs, as far as the file itself shows them; () where it does not.

    TorchXRayVision's ``op_threshs`` are NaN for what a network was not trained on. Its
    released files may lack them; a ``state_dict`` of its models has them.
    """
    if sha256 == XRV_ALL:
        return XRV18
    known = source.extras.get("op_threshs")
    if known is None or known.shape != (len(XRV18),) or known.dtype.kind != "f":
        return ()
    trained = [c for c, x in zip(XRV18, known, strict=True) if np.isfinite(x)]
    return xrv_classes(trained) if trained else ()


def depths_of(names: Iterable[str]) -> tuple[int, ...]:
    """Dense layers per block of a model, from the names of its arrays."""
    found: dict[int, int] = {}
    for name in names:
        place = re.match(r"backbone/blocks/(\d+)/layers/(\d+)/", name)
        if place:
            block, layer = int(place[1]), int(place[2])
            found[block] = max(found.get(block, 0), layer + 1)
    return tuple(found[block] for block in sorted(found))


def kind(names: Iterable[str]) -> str:
    """``a DenseNet``, ``an EfficientNet``, or "" for neither, by the names of arrays."""
    names = tuple(names)
    if depths_of(names):
        return "a DenseNet"
    inside = re.compile(r"backbone/blocks/\d+/(expand|depthwise)/")
    return "an EfficientNet" if any(map(inside.match, names)) else ""


def architecture(arrays: Mapping[str, Any]) -> str:
    """``densenet121``, ``efficientnet_b0`` and so on, or what else can be said.

    Args:
        arrays: name → anything with a ``shape``. Of a network that ends early, the name
            is that of the whole one.
    """
    if kind(arrays) == "an EfficientNet":
        return _efficientnet(arrays)
    depths = depths_of(arrays)
    if not depths:
        return "no DenseNet or EfficientNet"
    return DEPTHS.get(depths, f"densenet{depths}".replace(",)", ")"))


def _efficientnet(arrays: Mapping[str, Any]) -> str:
    """The first size whose stem and blocks begin as these do."""
    places = itertools.takewhile(
        arrays.__contains__,
        (f"backbone/blocks/{n}/project/kernel" for n in itertools.count()),
    )
    names = ["backbone/stem/kernel", *places]
    widths = [arrays[n].shape[-1:] for n in names if n in arrays]
    for known in EFFICIENTNETS:
        if widths == [(w,) for w in _widths(known)][: len(widths)]:
            return known
    return f"an EfficientNet of {len(names) - 1} blocks"


def _widths(known: str) -> list[int]:
    sizes = getattr(efficientnet, known).keywords
    width, depth = sizes["width"], sizes["depth"]
    stem = efficientnet.rounded(32, width)
    plans = efficientnet.planned(efficientnet.STAGES, stem, width, depth, 0.0)
    return [stem, *(plan.features for plan in plans)]
