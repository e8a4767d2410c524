"""The arrays of a DenseNet as ``keras.applications`` names them, or numbers them."""

from collections.abc import Iterable, Mapping

import numpy as np

from cxr_jax.models.layouts import Source

_LEAVES = {"gamma": "scale", "beta": "bias", "moving_mean": "mean"}
_LEAVES["moving_variance"] = "var"
_HEADS = ("predictions", "fc1000")


def read(arrays: Mapping[str, np.ndarray], depths: tuple[int, ...]) -> Source:
    """The arrays of a file of Keras under our names; axes are nearly the same.

    Args:
        arrays: ``{"conv1_conv/kernel": array}``.
        depths: dense layers per block of the model that is to take them. The counts that
            ``.weights.h5`` has for names mean nothing without them.
    """
    ours = layer_names(depths)
    counted = {
        **_counted(ours, "conv", "conv2d"),
        **_counted(ours, "bn", "batch_normalization"),
    }
    layers = {key.partition("/")[0] for key in arrays}
    if not layers & set(ours):
        ours = {count: ours[name] for count, name in counted.items()}
    ours |= {head: "head/linear" for head in _heads(arrays, set(ours))}
    found, names, unknown = {}, {}, []
    for key, array in arrays.items():
        layer, _, part = key.partition("/")
        leaf = _LEAVES.get(part, part)
        name = f"{ours.get(layer)}/{leaf}"
        if layer not in ours or name in found:
            unknown.append(key)
            continue
        if array.ndim == 4 and array.shape[:2] == (1, 1):
            array = array[0, 0]
        found[name], names[name] = array, key
    return Source(found, names, tuple(unknown), (), {}, "keras")


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


def _counted(names: Iterable[str], ending: str, kind: str) -> dict[str, str]:
    """``conv2d_3`` → the fourth of the layers of that kind."""
    layers = [name for name in names if name.endswith(ending)]
    return {f"{kind}_{n}" if n else kind: layer for n, layer in enumerate(layers)}


def _heads(arrays: Mapping[str, np.ndarray], taken: set[str]) -> set[str]:
    """The one dense layer, whatever it is called; more than one are left over."""
    dense = {
        key.partition("/")[0]
        for key, array in arrays.items()
        if key.endswith("/kernel") and array.ndim == 2
    } - taken
    return dense if len(dense) == 1 else dense & set(_HEADS)
