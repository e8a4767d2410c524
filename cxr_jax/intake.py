"""Whatever a film is given as → the pixels that a network takes. No JAX is needed here."""

import dataclasses
import os

import numpy as np

from cxr_jax.data import image
from cxr_jax.errors import InputRejected

Source = str | os.PathLike | bytes | np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reduced:
    """A film as the network takes it.

    Attributes:
        name: file name, ``bytes`` or ``array``.
        pixels: uint8 ``[S, S]``.
        shape: height and width before, in pixels.
    """

    name: str
    pixels: np.ndarray
    shape: tuple[int, int]


def reduce(
    film: Source, size: int, *, fit: image.Fit = "stretch", enlarge: bool = False
) -> Reduced:
    """Decodes and reduces a film by the functions that build the datasets.

    Args:
        film: a path of a PNG or JPEG file, the bytes of one, or a float array ``[H, W]``
            in [0, 1].
        size: side in pixels.
        fit: of a film that is not square, see ``image.reduce_film``.
        enlarge: whether smaller films are taken, likewise.

    Raises:
        InputRejected: it is not a sound gray film, or too small.
    """
    pixels = _pixels(film)
    small = image.reduce_film(pixels, size, fit=fit, enlarge=enlarge)
    return Reduced(name=name_of(film), pixels=small, shape=pixels.shape)


def name_of(film: Source) -> str:
    """What a film is called in messages and tables."""
    if isinstance(film, str | os.PathLike):
        return os.path.basename(os.fspath(film))
    return "bytes" if isinstance(film, bytes) else "array"


def _pixels(film: Source) -> np.ndarray:
    """float32 ``[H, W]`` in [0, 1]."""
    if isinstance(film, str | os.PathLike):
        film = image.read_bytes(film)
    if isinstance(film, bytes):
        if film[128:132] == b"DICM":
            raise InputRejected(
                "dicom", "DICOM files are not read yet; export the film as PNG"
            )
        return image.read_film(film)
    array = np.asarray(film)
    if array.ndim != 2:
        raise InputRejected(
            "shape",
            f"an array of shape {array.shape}; [H, W] is allowed: one gray film",
        )
    if not image.SIDE_MIN <= min(array.shape) <= max(array.shape) <= image.SIDE_MAX:
        raise InputRejected(
            "size",
            f"{array.shape[1]} x {array.shape[0]} pixels; sides of {image.SIDE_MIN} to"
            f" {image.SIDE_MAX} are allowed",
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise InputRejected(
            "type",
            f"an array of {array.dtype}; floats in [0, 1] are allowed: divide by the"
            " highest value of the type, such as 255",
        )
    # A NaN fails both comparisons.
    if not (array.min() >= 0 and array.max() <= 1):
        raise InputRejected(
            "range",
            f"values from {array.min():g} to {array.max():g}; [0, 1] is allowed: divide"
            " by the highest value of the stored type",
        )
    return np.ascontiguousarray(array, np.float32)
