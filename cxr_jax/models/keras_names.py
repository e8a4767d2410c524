"""The arrays of networks as ``keras.applications`` names them, or numbers them."""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from cxr_jax.errors import CheckpointError
from cxr_jax.models import layouts
from cxr_jax.models.layouts import Source

_LEAVES = {"gamma": "scale", "beta": "bias", "moving_mean": "mean"}
_LEAVES |= {"moving_variance": "var", "depthwise_kernel": "kernel"}
_HEADS = ("predictions", "fc1000")
# Kinds of layers that ``.weights.h5`` counts, and how their names end otherwise.
_DENSENET_KINDS = {"conv": "conv2d", "bn": "batch_normalization"}
# A block of an EfficientNet, in the order in which Keras makes its layers.
_BLOCK = {
    "expand_conv": "expand",
    "expand_bn": "expand_norm",
    "dwconv": "depthwise",
    "bn": "norm",
    "se_reduce": "squeeze",
    "se_expand": "excite",
    "project_conv": "project",
    "project_bn": "project_norm",
}


def read(arrays: Mapping[str, np.ndarray], model: Iterable[str]) -> Source:
    """The arrays of a file of Keras under our names; axes are nearly the same.

    Args:
        arrays: ``{"conv1_conv/kernel": array}``.
        model: names of the arrays of the model that is to take them, and of what lies
            behind its end. The counts that ``.weights.h5`` has for names mean nothing
            without them.

    Raises:
        CheckpointError: the file is of another kind of network.
    """
    model = tuple(model)
    layers = {key.partition("/")[0] for key in arrays}
    efficient = bool(layers & {"stem_conv", "depthwise_conv2d"})
    theirs, ours = "an EfficientNet" if efficient else "a DenseNet", layouts.kind(model)
    if ours not in ("", theirs):
        raise CheckpointError(f"the file looks like {theirs}, the model is {ours}")
    if not efficient:
        return _read(arrays, _densenet(model, layers), "keras")
    source = _read(arrays, _efficientnet(model, layers), "keras-efficientnet")
    return _without_constants(source, arrays)


def _read(
    arrays: Mapping[str, np.ndarray], modules: Mapping[str, str], layout: str
) -> Source:
    modules = {**modules, **dict.fromkeys(_heads(arrays, {*modules}), "head/linear")}
    found, names, unknown = {}, {}, []
    for key, array in arrays.items():
        layer, _, part = key.partition("/")
        name = f"{modules.get(layer)}/{_LEAVES.get(part, part)}"
        if layer not in modules or name in found:
            unknown.append(key)
        else:
            depthwise = name.endswith("/depthwise/kernel")
            found[name], names[name] = _our_axes(array, depthwise), key
    return Source(found, names, tuple(unknown), (), {}, layout)


def _our_axes(array: np.ndarray, depthwise: bool) -> np.ndarray:
    """``[k, k, F, 1]`` → ``[k, k, 1, F]``, ``[1, 1, F_in, F_out]`` → ``[F_in, F_out]``."""
    if array.ndim != 4:
        return array
    if depthwise:
        return array.transpose(0, 1, 3, 2)
    return array[0, 0] if array.shape[:2] == (1, 1) else array


def _densenet(model: Iterable[str], layers: set[str]) -> dict[str, str]:
    """Keras' layer → ours, by name or by count, whatever the file has."""
    named = layer_names(layouts.depths_of(model))
    if layers & {*named}:
        return named
    counted = {}
    for ending, kind in _DENSENET_KINDS.items():
        counted |= _counted([name for name in named if name.endswith(ending)], kind)
    return {count: named[name] for count, name in counted.items()}


def layer_names(depths: tuple[int, ...]) -> dict[str, str]:
    """Keras' layer → ours, in the order in which ``keras.applications`` makes them."""
    names = {"conv1_conv": "backbone/stem", "conv1_bn": "backbone/stem_norm"}
    for block, depth in enumerate(depths):
        if block:
            names[f"pool{block + 1}_bn"] = f"backbone/transitions/{block - 1}/norm"
            names[f"pool{block + 1}_conv"] = f"backbone/transitions/{block - 1}/conv"
        for layer in range(depth):
            theirs = f"conv{block + 2}_block{layer + 1}"
            place = f"backbone/blocks/{block}/layers/{layer}"
            names[f"{theirs}_0_bn"] = f"{place}/norm1"
            names[f"{theirs}_1_conv"] = f"{place}/conv1"
            names[f"{theirs}_1_bn"] = f"{place}/norm2"
            names[f"{theirs}_2_conv"] = f"{place}/conv2"
    return names | {"bn": "backbone/norm"}


def _efficientnet(model: Iterable[str], layers: set[str]) -> dict[str, str]:
    """Likewise; the blocks of a file with names are its own."""
    if "stem_conv" not in layers:
        return _counted_efficientnet(model)
    blocks = {m.groups() for m in map(_BLOCK_NAME.match, layers) if m}
    names = {"stem_conv": "backbone/stem", "stem_bn": "backbone/stem_norm"}
    names |= {"top_conv": "backbone/top", "top_bn": "backbone/top_norm"}
    order = sorted(blocks, key=lambda block: (int(block[0]), block[1]))
    for number, (stage, letter) in enumerate(order):
        for theirs, ours in _BLOCK.items():
            place = f"backbone/blocks/{number}/{ours}"
            names[f"block{stage}{letter}_{theirs}"] = place
    return names


_BLOCK_NAME = re.compile(r"block(\d{1,3})([a-z])_", re.ASCII)


def _counted_efficientnet(model: Iterable[str]) -> dict[str, str]:
    modules = {name.rpartition("/")[0] for name in model}
    blocks = {m[1] for m in map(_BLOCK_PLACE.match, modules) if m}
    order = ["backbone/stem", "backbone/stem_norm"]
    for number in sorted(blocks, key=int):
        order += [f"backbone/blocks/{number}/{ours}" for ours in _BLOCK.values()]
    order += ["backbone/top", "backbone/top_norm"]
    kinds: dict[str, list[str]] = {}
    for module in order:
        if module in modules:
            leaf = module.rpartition("/")[2]
            kind = "batch_normalization" if leaf.endswith("norm") else "conv2d"
            kind = "depthwise_conv2d" if leaf == "depthwise" else kind
            kinds.setdefault(kind, []).append(module)
    return {
        count: module
        for kind, of_kind in kinds.items()
        for count, module in _counted(of_kind, kind).items()
    }


_BLOCK_PLACE = re.compile(r"backbone/blocks/(\d{1,3})/", re.ASCII)


def _counted(layers: Iterable[str], kind: str) -> dict[str, str]:
    """``conv2d_3`` → the fourth of the layers of that kind."""
    return {f"{kind}_{n}" if n else kind: layer for n, layer in enumerate(layers)}


def _heads(arrays: Mapping[str, np.ndarray], taken: set[str]) -> set[str]:
    """The one dense layer, whatever it is called; more than one are left over."""
    dense = {
        key.partition("/")[0]
        for key, array in arrays.items()
        if key.endswith("/kernel") and array.ndim == 2
    } - taken
    return dense if len(dense) == 1 else dense & set(_HEADS)


def _without_constants(source: Source, arrays: Mapping[str, np.ndarray]) -> Source:
    """The layer that scales films, taken out of the arrays and read as a scaling.

    Raises:
        CheckpointError: numbers that no film can be scaled by.
    """
    scales = {key.partition("/")[0] for key in source.unknown}
    scales = {name for name in scales if re.fullmatch(r"normalization(_\d+)?", name)}
    if len(scales) != 1:
        return source
    (layer,) = scales
    mine = {key for key in source.unknown if key.partition("/")[0] == layer}
    if mine != {f"{layer}/{part}" for part in ("mean", "variance", "count")}:
        return source
    scaling = _scaling(arrays[f"{layer}/mean"], arrays[f"{layer}/variance"])
    return dataclasses.replace(
        source,
        unknown=tuple(key for key in source.unknown if key not in mine),
        ignored=(f"{layer}/count",),
        scaling=scaling,
    )


def _scaling(
    mean: np.ndarray, variance: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of films in [0, 1].

    Keras divides by √variance. Its released weights hold ImageNet's standard deviations
    there instead of their squares, and its network for them divides by their root once
    more: altogether by the deviations themselves.
    """
    plain = mean.dtype.kind == variance.dtype.kind == "f"
    if not plain or mean.ndim != 1 or mean.shape != variance.shape:
        raise CheckpointError(
            "its normalization layer does not hold one number per channel"
        )
    if not np.all(np.isfinite([mean, variance])) or not np.all(variance > 0):
        raise CheckpointError(
            "its normalization layer holds infinity, NaN, or no positive variance"
        )
    imagenet = _close(mean, layouts.IMAGENET_MEAN)
    if imagenet and _close(variance, layouts.IMAGENET_STD):
        return layouts.IMAGENET_MEAN, layouts.IMAGENET_STD
    std = np.sqrt(variance.astype(np.float64))
    if imagenet and _close(std, layouts.IMAGENET_STD):
        return layouts.IMAGENET_MEAN, layouts.IMAGENET_STD
    return tuple(map(_shortest, mean)), tuple(map(_shortest, std))


def _close(values: np.ndarray, known: tuple[float, ...]) -> bool:
    return values.shape == (len(known),) and np.allclose(values, known, rtol=1e-6)


def _shortest(value: float) -> float:
    """0.5 of 0.50000001: the shortest number that is the same in float32."""
    return float(str(np.float32(value)))
