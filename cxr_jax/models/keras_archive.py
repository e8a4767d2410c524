"""Named arrays from Keras: ``.h5`` of any version, ``.weights.h5``, ``.keras``.

Keras' own reader builds the model that the file describes, which may hold code. Here the
arrays are read and nothing is built; HDF5's ways to point at other files are refused.
"""

import io
import json
import pathlib
import re
import zipfile
from typing import Any, BinaryIO

import h5py
import numpy as np

from cxr_jax.errors import CheckpointError
from cxr_jax.models.torch_archive import checked_members

# State of training beside the weights: named, known, and of no use to a reader.
_TRAINING = ("optimizer", "optimizer_weights", "metrics", "compile_metrics")
# How ``.weights.h5`` numbers the arrays of a layer.
_ORDER = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "normalization": ("mean", "variance", "count"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
# Compressed arrays are larger than their file; this much larger is no network.
_EXPANSION = 4


def read_keras(path: pathlib.Path) -> dict[str, np.ndarray]:
    """``{"conv1_conv/kernel": array}`` of a ``.keras`` file.

    Raises:
        CheckpointError: a zip without the members of Keras, or a refused HDF5.
    """
    with zipfile.ZipFile(path) as archive:
        members = checked_members(archive, path.stat().st_size)
        weights, config = "model.weights.h5", "config.json"
        if weights not in members or config not in members:
            raise CheckpointError(f"a zip without {config} and {weights} of Keras")
        arrays = read_hdf5(
            io.BytesIO(archive.read(weights)), members[weights].file_size
        )
        layers = _layers(json.loads(archive.read(config)))
    return _renamed(arrays, layers)


def read_hdf5(file: pathlib.Path | BinaryIO, size: int) -> dict[str, np.ndarray]:
    """``{"conv1_conv/kernel": array}`` of HDF5 that Keras wrote.

    A ``.weights.h5`` of Keras 3 has counts instead of names: ``conv2d_7/kernel`` is the
    eighth convolution.

    Args:
        file: the file, or its bytes.
        size: how many bytes it has.

    Raises:
        CheckpointError: a link, a virtual or an external array, a type that holds no
            numbers, more bytes declared than fit, or one name for two arrays.
    """
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(file, "r") as opened:
        for name, array in _walk(opened, 4096 + _EXPANSION * size).items():
            short = _short(name)
            if short in arrays:
                raise CheckpointError(
                    f"two arrays are called {short!r}: {name!r} is one"
                )
            arrays[short] = array
    return arrays


def _walk(root: h5py.Group, budget: int) -> dict[str, np.ndarray]:
    found, todo, seen = {}, [("", root)], set()
    while todo:
        prefix, group = todo.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            raise CheckpointError(f"{prefix!r} is a group that is linked twice")
        seen.add(address)
        for name in group:
            inner = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise CheckpointError(f"{inner[:80]!r} is a link elsewhere: refused")
            item = group[name]
            if isinstance(item, h5py.Group) and inner not in _TRAINING:
                todo.append((f"{inner}/", item))
            elif isinstance(item, h5py.Dataset):
                budget -= _checked(inner, item).nbytes
                if budget < 0:
                    raise CheckpointError(
                        "arrays are declared that the file cannot hold"
                    )
                found[inner] = item[()]
    return found


def _checked(name: str, item: h5py.Dataset) -> h5py.Dataset:
    if item.external or item.is_virtual:
        raise CheckpointError(f"{name[:80]!r} points at other files: refused")
    if item.dtype.kind not in "fiub":
        raise CheckpointError(f"{name[:80]!r} holds {item.dtype}, not numbers")
    return item


def _short(name: str) -> str:
    """``layer/array`` of a path, whatever models the layer is nested in."""
    counted = re.fullmatch(r"(?:.*/)?([^/]+)/vars/(\d+)", name)
    if counted:
        layer, number = counted[1], int(counted[2])
        names = _ORDER.get(re.sub(r"_\d+$", "", layer), ())
        return f"{layer}/{names[number] if number < len(names) else number}"
    # The stem of Keras 2 is called "conv1/conv" and "conv1/bn".
    parts = name.split("/")
    if parts[-3:-2] == ["conv1"] and parts[-2] in ("conv", "bn"):
        parts[-3:-1] = [f"conv1_{parts[-2]}"]
    return "/".join(parts[-2:]).removesuffix(":0")


def _layers(config: Any) -> list[tuple[str, str]]:
    """(count, name) of every layer with arrays, models inside models included."""
    found: list[tuple[str, str]] = []
    counts: dict[str, int] = {}
    for entry in config["config"].get("layers", ()):
        kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", entry["class_name"]).lower()
        count = counts[kind] = counts.get(kind, -1) + 1
        if entry["class_name"] in ("Functional", "Sequential", "Model"):
            found += _layers(entry)
        else:
            name = entry["config"]["name"].replace("/", "_")
            found.append((f"{kind}_{count}" if count else kind, name))
    return found


def _renamed(
    arrays: dict[str, np.ndarray], layers: list[tuple[str, str]]
) -> dict[str, np.ndarray]:
    names: dict[str, str] = {}
    for count, name in layers:
        if names.setdefault(count, name) != name and f"{count}/kernel" in arrays:
            raise CheckpointError(
                f"two models inside the file have a layer {count}: save one alone"
            )
    renamed = {}
    for key, array in arrays.items():
        layer, _, part = key.partition("/")
        renamed[f"{names.get(layer, layer)}/{part}"] = array
    return renamed
