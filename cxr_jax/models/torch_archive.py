"""Named arrays from files of ``torch.save``, without torch: zip, and the stream before it.

The zip of torch 1.6 and later holds one pickle and one member per storage. The stream of
older versions (files of 2017 have it) is five pickles, then every storage with its length.
"""

import io
import math
import mmap
import pathlib
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cxr_jax.errors import CheckpointError
from cxr_jax.models import torch_pickle
from cxr_jax.models.torch_objects import (
    MOST,
    Inert,
    Storage,
    Tensor,
    module_weights,
)

# First pickle of the stream, and the version of the stream.
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
# Where training scripts keep the weights, among epochs and optimisers.
_KEYS = ("state_dict", "model_state_dict", "model", "model_state", "net", "network")


def read_zip(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays of a file of torch 1.6 or later.

    Raises:
        CheckpointError: another zip, a member that leads elsewhere, a compressed or
            overlapping one, a damaged one, or a pickle that is refused.
    """
    with zipfile.ZipFile(path) as archive:
        members = checked_members(archive, path.stat().st_size)
        pickles = [name for name in members if re.fullmatch(r"[^/]*/?data\.pkl", name)]
        if len(pickles) != 1 or any("/code/" in name for name in members):
            raise CheckpointError(
                "a zip without the one data.pkl of torch.save (a TorchScript program"
                " is not read): save the state_dict with torch.save"
            )
        root = pickles[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in members and archive.read(order).strip() != b"little":
            raise CheckpointError(
                "its numbers are big-endian: save it again with torch"
            )
        weights = _weights(torch_pickle.read(io.BytesIO(archive.read(pickles[0]))))

        def fetch(storage: Storage) -> bytes:
            name = f"{root}data/{storage.key}"
            if name not in members:
                raise CheckpointError(
                    f"storage {storage.key[:80]!r} is not in the file"
                )
            return archive.read(name)

        return _arrays(weights, fetch, path.stat().st_size, windows=False)


def checked_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members of a zip by name, if none can surprise.

    Args:
        archive: an open zip.
        size: of the file in bytes. Nothing in it may be larger, all together: torch and
            Keras store without compression.

    Raises:
        CheckpointError: an absolute or climbing name, one twice, a compressed member, or
            more bytes declared than the file has.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        parts = info.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise CheckpointError(f"member {info.filename[:80]!r} leads out of the zip")
        if info.filename in members:
            raise CheckpointError(f"member {info.filename[:80]!r} is there twice")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise CheckpointError(
                f"member {info.filename[:80]!r} is compressed or encrypted: store it"
            )
        members[info.filename] = info
    declared = sum(info.file_size for info in members.values())
    if declared > size:
        raise CheckpointError(f"members declare {declared} bytes, the file has {size}")
    return members


def read_stream(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays of a file older than torch 1.6, or of its old serialisation.

    Raises:
        CheckpointError: another pickle, a short file, or a pickle that is refused.
    """
    with (
        path.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file,
    ):
        if torch_pickle.read(file) != _MAGIC or torch_pickle.read(file) != _VERSION:
            raise CheckpointError("a pickle, and not one that torch.save wrote")
        system = torch_pickle.read(file)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise CheckpointError(
                "its numbers are big-endian: save it again with torch"
            )
        types: dict[str, np.dtype] = {}
        weights = _weights(torch_pickle.read(file, types))
        places = _places(file, torch_pickle.read(file), types, path.stat().st_size)

        def fetch(storage: Storage) -> bytes:
            start, count = places[storage.key]
            return file[start : start + count * storage.dtype.itemsize]

        return _arrays(weights, fetch, path.stat().st_size, windows=True)


def _places(
    file: mmap.mmap, keys: Any, types: Mapping[str, np.dtype], end: int
) -> dict[str, tuple[int, int]]:
    """Key → (first byte, elements) of every storage; they lie in the order of ``keys``."""
    texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not texts or set(keys) != set(types):
        raise CheckpointError("its list of storages is not that of its tensors")
    places, at = {}, file.tell()
    for key in keys:
        count = int.from_bytes(file[at : at + 8], "little", signed=True)
        start, at = at + 8, at + 8 + count * types[key].itemsize
        if count < 0 or at > end:
            raise CheckpointError("the file ends in the middle of its numbers")
        places[key] = (start, count)
    return places


def _elements(raw: bytes, storage: Storage, *, windows: bool) -> np.ndarray:
    width = storage.dtype.itemsize
    start, expected = storage.offset * width, storage.size * width
    if start + expected > len(raw) or not (windows or expected == len(raw)):
        raise CheckpointError(
            f"storage {storage.key[:80]!r} has {len(raw)} bytes instead of"
            f" {start + expected}"
        )
    return np.frombuffer(raw, storage.dtype)[storage.offset :][: storage.size]


def _arrays(
    weights: Mapping[str, Tensor],
    fetch: Callable[[Storage], bytes],
    size: int,
    *,
    windows: bool,
) -> dict[str, np.ndarray]:
    """The numbers of every tensor; what several share is read once.

    Args:
        weights: tensors by name.
        fetch: reads the bytes of a storage, all of them.
        size: of the file in bytes. Together the arrays may take twice as much: tied
            weights are stored once, and no network ties all of its weights twice.
        windows: whether a storage may be a part of what is stored under its key.
    """
    wanted = sum(
        math.prod(t.shape) * t.storage.dtype.itemsize for t in weights.values()
    )
    if wanted > 2 * size:  # views of one storage, over and over
        raise CheckpointError(f"tensors of {wanted} bytes in a file of {size}")
    if len(weights) > MOST:
        raise CheckpointError(f"{len(weights)} tensors, more than any network has")
    sharing: dict[str, list[str]] = {}
    for name, tensor in weights.items():
        sharing.setdefault(tensor.storage.key, []).append(name)
    arrays = {}
    for names in sharing.values():
        raw = fetch(weights[names[0]].storage)
        for name in names:
            tensor = weights[name]
            elements = _elements(raw, tensor.storage, windows=windows)
            arrays[name] = tensor.view(elements)
    return {name: arrays[name] for name in weights}


def _weights(root: Any) -> dict[str, Tensor]:
    """The one mapping of names to tensors in what was saved."""
    if isinstance(root, Inert):
        root = module_weights(root)
    if not isinstance(root, dict):
        raise CheckpointError(f"a {type(root).__name__} was saved, not weights")
    tensors = {name: x for name, x in root.items() if isinstance(x, Tensor)}
    held = [key for key in _KEYS if isinstance(root.get(key), dict | Inert)]
    if held:
        return _weights(_only(root, held))
    others = sorted(str(name)[:40] for name in root if name not in tensors)
    names = all(isinstance(name, str) for name in root)
    if others or not tensors or not names:
        raise CheckpointError(
            f"weights are expected under one of {', '.join(_KEYS)}, or alone; the file"
            f" holds {len(tensors)} tensors beside {', '.join(others[:4]) or 'nothing'}"
        )
    return tensors


def _only(root: dict, held: list[str]) -> Any:
    if len(held) > 1:
        raise CheckpointError(
            f"weights under {' and under '.join(held)}: save one alone"
        )
    return root[held[0]]
