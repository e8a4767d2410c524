"""The arrays of a DenseNet as torchvision names them, there and back.

timm, TorchXRayVision, reproduce-chexnet and arnoweng's CheXNet all descend from it: they
differ in prefixes, in the dot of ``norm.1``, and in what they put around the classifier.
Everything here renames or transposes; no number is touched.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from cxr_jax.errors import CheckpointError
from cxr_jax.models.layouts import DEPTHS, XRV18, Source

# What DataParallel and the classes of training scripts put before every name.
_PREFIXES = {"module", "model", "net", "network", "backbone", *DEPTHS.values()}
_LAYERS = (
    ("features.conv0", "backbone/stem"),
    ("features.norm0", "backbone/stem_norm"),
    ("features.norm5", "backbone/norm"),
    ("classifier", "head/linear"),
    *(
        (
            f"features.denseblock{{}}.denselayer{{}}.{kind}",
            f"backbone/blocks/{{}}/layers/{{}}/{kind}",
        )
        for kind in ("norm1", "norm2", "conv1", "conv2")
    ),
    *(
        (f"features.transition{{}}.{kind}", f"backbone/transitions/{{}}/{kind}")
        for kind in ("norm", "conv")
    ),
)
# Theirs → ours. ``border`` is our own, see ``gray``; no other library reads it.
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean"}
_NORM["running_var"] = "var"
_LEAVES = {
    "norm": _NORM,
    "conv": {"weight": "kernel"},
    "stem": {"weight": "kernel", "border": "border"},
    "linear": {"weight": "kernel", "bias": "bias"},
}


def read(arrays: Mapping[str, np.ndarray]) -> Source:
    """The arrays of a file of torch under our names and in our axes."""
    short, prefixes = _without_prefixes(arrays)
    found: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}
    unknown, ignored, extras = [], [], {}
    for key, name in short.items():
        ours = _ours(name)
        if name.endswith(".num_batches_tracked"):
            ignored.append(key)
        elif name == "op_threshs":
            extras[name] = arrays[key]
        elif ours is None or ours in found:
            unknown.append(key)
        else:
            found[ours], names[ours] = _our_axes(arrays[key]), key
    source = Source(found, names, tuple(unknown), tuple(ignored), extras, "")
    return dataclasses.replace(source, likely=_likely(source, prefixes))


def write(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our arrays under the names and in the axes of torchvision.

    Raises:
        CheckpointError: an array that no DenseNet of torchvision has.
    """
    given = {}
    for name, array in arrays.items():
        key = _theirs(name)
        if key is None:
            raise CheckpointError(f"{name}: no DenseNet of torchvision has that array")
        given[key] = np.ascontiguousarray(_their_axes(array, convolution="conv" in key))
    return dict(sorted(given.items()))


def _without_prefixes(keys: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Key → name as torchvision writes it today, and the prefixes that all keys had."""
    short, prefixes = {key: key for key in keys}, []
    while True:
        heads = {name.partition(".")[0] for name in short.values()}
        if len(heads) != 1 or not heads <= _PREFIXES:
            break
        prefixes += heads
        short = {key: name.partition(".")[2] for key, name in short.items()}
    if any(name.startswith("classifier.0.") for name in short.values()):
        prefixes.append("classifier.0")
    bare = not any(name.startswith("features.") for name in short.values())
    return {key: _today(name, bare) for key, name in short.items()}, prefixes


def _today(name: str, bare: bool) -> str:
    name = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
    name = re.sub(r"^classifier\.0\.", "classifier.", name)
    inner = re.match(r"(conv0|norm0|denseblock\d+|transition\d+|norm5)\.", name)
    return f"features.{name}" if bare and inner else name


def _likely(source: Source, prefixes: list[str]) -> str:
    if "classifier.0" in prefixes:
        wrapped = any(prefix.startswith("densenet") for prefix in prefixes)
        return "arnoweng" if wrapped else "reproduce-chexnet"
    if source.extras or (source.channels == 1 and source.outputs == len(XRV18)):
        return "torchxrayvision"
    return "torchvision"


def _ours(name: str) -> str | None:
    layer, _, leaf = name.rpartition(".")
    for theirs, ours in _LAYERS:
        place = re.fullmatch(
            re.escape(theirs).replace(r"\{\}", r"([1-9]\d{0,2})"), layer
        )
        if place:
            path = ours.format(*(int(n) - 1 for n in place.groups()))
            ours_leaf = _leaves(path).get(leaf)
            return f"{path}/{ours_leaf}" if ours_leaf else None
    return None


def _theirs(name: str) -> str | None:
    path, _, leaf = name.rpartition("/")
    for theirs, ours in _LAYERS:
        place = re.fullmatch(ours.replace("{}", r"(\d+)"), path)
        if place:
            layer = theirs.format(*(int(n) + 1 for n in place.groups()))
            back = {our: their for their, our in _leaves(path).items()}
            return f"{layer}.{back[leaf]}" if leaf in back else None
    return None


def _leaves(path: str) -> dict[str, str]:
    kind = path.rpartition("/")[2].rstrip("12").removeprefix("stem_")
    return _LEAVES[kind]


def _our_axes(array: np.ndarray) -> np.ndarray:
    """``[out, in, k, k]`` → ``[k, k, in, out]``, and ``[in, out]`` where k is 1."""
    if array.ndim != 4:
        return array.T
    array = array.transpose(2, 3, 1, 0)
    return array[0, 0] if array.shape[:2] == (1, 1) else array


def _their_axes(array: np.ndarray, *, convolution: bool) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T[..., None, None] if convolution else array.T
