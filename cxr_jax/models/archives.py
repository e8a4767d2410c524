"""One file of weights → named arrays, whoever wrote it. No code in it is ever run.

The format is told by the bytes, never by the name: ``.pth.tar`` files are no tars.
"""

import dataclasses
import hashlib
import pathlib
import struct
import zipfile

import numpy as np
import safetensors

from cxr_jax.errors import CheckpointError
from cxr_jax.models import keras_archive, torch_archive

FORMATS = (
    "safetensors, .pth and .pt of torch.save, .h5, .weights.h5 and .keras of Keras"
)
# What a damaged file makes its reader raise; every one of them is the file's fault.
_DAMAGE = (
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError),
    *(EOFError, OSError, RuntimeError, MemoryError, AssertionError),
    *(struct.error, zipfile.BadZipFile, safetensors.SafetensorError),
)


@dataclasses.dataclass(frozen=True)
class Archive:
    """What a file of weights holds.

    Attributes:
        arrays: as the file names them; for Keras ``layer/array``.
        framework: ``torch`` (also safetensors, whose users are torch's) or ``keras``.
        metadata: text beside the arrays, in safetensors.
        sha256: of the whole file.
    """

    arrays: dict[str, np.ndarray]
    framework: str
    metadata: dict[str, str]
    sha256: str


def read(path: str | pathlib.Path, *, sha256: str = "") -> Archive:
    """The arrays of one file.

    Args:
        path: see ``FORMATS``.
        sha256: what the file must hash to; "" for anything.

    Raises:
        CheckpointError: no file, another digest, no known format, a damaged file, or one
            that asks for code.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of weights")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and sha256.lower() != digest:
        raise CheckpointError(
            f"{path.name}: its sha256 is {digest}, expected is {sha256}: fetch it again"
        )
    try:
        arrays, framework, metadata = _read(path)
    except CheckpointError as error:
        # A name in the file may hold anything, ends of lines too.
        told = " ".join(str(error)[:400].split())
        raise CheckpointError(f"{path.name}: {told}") from error
    except _DAMAGE as error:
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path.name}: damaged or cut short ({type(error).__name__}: {told}):"
            " fetch it again"
        ) from error
    if not arrays:
        raise CheckpointError(f"{path.name}: holds no arrays")
    return Archive(arrays, framework, metadata, digest)


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], str, dict[str, str]]:
    with path.open("rb") as file:
        head = file.read(16)
    size = path.stat().st_size
    # First: the length that such a file begins with may look like another format's mark.
    header = int.from_bytes(head[:8], "little")
    fits, named = header <= size - 8, path.suffix == ".safetensors"
    if head[8:9] == b"{" and (fits or named):
        if not fits:
            raise CheckpointError(
                f"damaged or cut off: a header of {header:,} bytes is announced, the"
                f" file has {size:,}"
            )
        with safetensors.safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, "torch", dict(file.metadata() or {})
    if head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as archive:
            keras = "model.weights.h5" in archive.namelist()
        if keras:
            return keras_archive.read_keras(path), "keras", {}
        return torch_archive.read_zip(path), "torch", {}
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return keras_archive.read_hdf5(path, size), "keras", {}
    if head.startswith(b"\x80"):
        return torch_archive.read_stream(path), "torch", {}
    raise CheckpointError(f"no known format: give {FORMATS}")
