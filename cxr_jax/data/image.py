"""One film as a file → one gray image; whatever is not a sound gray film is refused.

Imports no JAX, so that readers and builders stay light. Decoding is Pillow's, because it
notices damage that OpenCV fills with black in silence; reduction is OpenCV's exact area
average, which Pillow lacks for fractional factors.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import cv2
import numpy as np
from PIL import ImageFile, ImageOps, JpegImagePlugin, PngImagePlugin
from PIL.Image import Image

from cxr_jax.errors import DataError, InputRejected

# A wrong size is refused before a byte of pixels is decoded. The largest detectors give
# about 4,300 x 3,600 pixels; below 16 there is nothing to read.
SIDE_MIN = 16
SIDE_MAX = 8192
BYTES_MAX = 256 * 2**20

# A gray film kept as RGB may carry rounding noise in its channels, more so as JPEG: the
# widest and the mean spread between channels that pass, of 255. Colour is far beyond.
SPREAD_MAX = 32
SPREAD_MEAN = 4.0

# How a film that is not square becomes one, see ``reduce_film``.
Fit = Literal["pad", "stretch", "crop"]
FITS = get_args(Fit)

Result = TypeVar("Result")

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"

# What Pillow raises on damaged files: mutating thousands of them shows how varied.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    AttributeError,
    struct.error,
    zlib.error,
    Warning,  # About orientation tags, where the caller turned warnings into errors.
)


def read_film(source: str | os.PathLike | bytes) -> np.ndarray:
    """Reads a PNG or JPEG film.

    Taken: 8- and 16-bit gray; RGB, palette and RGBA where the channels are equal up to
    noise and the alpha is opaque. The full range of the stored type becomes [0, 1].
    An orientation tag is obeyed. PNG checksums are verified; a JPEG has none, so
    damage inside it (not a cut) can pass.

    Args:
        source: a path, or the bytes of a file.

    Returns:
        float32 ``[H, W]`` in [0, 1].

    Raises:
        InputRejected: with code ``missing``, ``empty``, ``format``, ``truncated``,
            ``corrupt``, ``size``, ``animated``, ``cmyk``, ``colour``, ``transparent``
            or ``mode``.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    if not data:
        raise InputRejected("empty", "the file has no bytes; give a PNG or JPEG film")
    # Image.open is not used: it would guess among forty formats.
    for magic, decode in _DECODERS:
        if data.startswith(magic):
            return decode(data)
    raise InputRejected(
        "format", f"begins with {data[:8]!r}: not a film; PNG and JPEG are allowed"
    )


def read_bytes(path: str | os.PathLike) -> bytes:
    """The bytes of a file.

    Raises:
        InputRejected: the file cannot be opened, or is absurdly long.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise InputRejected(
            "missing", f"cannot be opened ({error.strerror}); give a readable file"
        ) from None
    if len(data) > BYTES_MAX:
        raise InputRejected(
            "size", f"longer than {BYTES_MAX >> 20} MiB; films are far smaller"
        )
    return data


def reduce_film(
    film: np.ndarray, size: int, *, fit: Fit = "pad", enlarge: bool = False
) -> np.ndarray:
    """Reduces a film to a square by averaging areas, which does not alias.

    Each new pixel is the mean of the rectangle it covers, parts of pixels included.

    Args:
        film: float32 ``[H, W]`` in [0, 1].
        size: new height and width, in pixels, at most the film's longer side unless
            ``enlarge``.
        fit: for a film that is not square, ``pad`` keeps its proportions and centres it
            on black; ``stretch`` fills the square, as the makers of ChestX-ray14 did, and
            leaves boxes relative to the film as they are; ``crop`` keeps its proportions
            and its middle, see ``middle_square``.
        enlarge: whether a side that is shorter than in the square is enlarged linearly,
            as collections of small films need; it shows no more than there was.

    Returns:
        uint8 ``[size, size]``, ``round(255 * mean)``.

    Raises:
        InputRejected: ``size``: the film is smaller; enlarging would invent detail.
    """
    height, width = film.shape
    longest = max(height, width)
    if not enlarge and (longest if fit == "pad" else min(height, width)) < size:
        raise InputRejected(
            "size",
            f"{width} x {height} pixels; at least {size} is allowed: choose a smaller"
            " size, films are never enlarged",
        )
    if fit == "crop":
        top, left, side = middle_square(film.shape)
        film = film[top : top + side, left : left + side]
    if enlarge:
        film = _enlarged(film, shape_in_square(film.shape, size, fit=fit))
    height, width = shape_in_square(film.shape, size, fit=fit)
    small = cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)
    out = np.zeros((size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    out[top : top + height, left : left + width] = np.rint(small * 255)
    return out


def middle_square(shape: tuple[int, int]) -> tuple[int, int, int]:
    """The largest square in the middle of a film of this height and width.

    Its margins are whole pixels of the film, so that boxes follow it exactly; of an odd
    number of pixels too many, the larger half is cut at the bottom or to the right.

    Returns:
        Top, left and side, in pixels.
    """
    height, width = shape
    side = min(shape)
    return (height - side) // 2, (width - side) // 2, side


def shape_in_square(shape: tuple[int, int], size: int, *, fit: Fit) -> tuple[int, int]:
    """Height and width that a film of this height and width has in the square.

    With ``crop``, what is left of it.
    """
    if fit != "pad":
        return size, size
    height, width = (max(1, round(side * size / max(shape))) for side in shape)
    return height, width


def _enlarged(film: np.ndarray, wanted: tuple[int, int]) -> np.ndarray:
    """The film with no side shorter than wanted; longer ones stay for averaging."""
    height, width = map(max, film.shape, wanted)
    if (height, width) == film.shape:
        return film
    return cv2.resize(film, (width, height), interpolation=cv2.INTER_LINEAR)


def _decode_png(data: bytes) -> np.ndarray:
    if not _is_whole(data):
        raise _damaged(data, "no end marker")
    # The decoder stops at the last pixel, and skips checksums: they are read first.
    _guarded(lambda: PngImagePlugin.PngImageFile(io.BytesIO(data)).verify(), data)
    image = _guarded(lambda: PngImagePlugin.PngImageFile(io.BytesIO(data)), data)
    return _gray(image, data)


def _decode_jpeg(data: bytes) -> np.ndarray:
    if not _is_whole(data):
        raise _damaged(data, "no end marker")
    image = _guarded(lambda: JpegImagePlugin.JpegImageFile(io.BytesIO(data)), data)
    return _gray(image, data)


# The first bytes of a format and what decodes it.
_DECODERS: tuple[tuple[bytes, Callable[[bytes], np.ndarray]], ...] = (
    (PNG, _decode_png),
    (JPEG, _decode_jpeg),
)


def _gray(image: Image, data: bytes) -> np.ndarray:
    """Checks what the header says, then decodes, then checks the pixels."""
    _check_header(image)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on, so damaged films would be filled"
            " in silence; set it to False before reading films"
        )
    _guarded(image.load, data)
    image = _guarded(lambda: ImageOps.exif_transpose(image), data)
    if image.mode.startswith("I"):
        return _scaled(np.asarray(image), 65535)
    if image.mode != "L" or "transparency" in image.info:
        image = _without_alpha(image)
    if image.mode == "RGB":
        _check_colour(np.asarray(image))
        image = image.convert("L")
    return _scaled(np.asarray(image), 255)


def _check_header(image: Image) -> None:
    width, height = image.size
    if not (SIDE_MIN <= min(width, height) and max(width, height) <= SIDE_MAX):
        raise InputRejected(
            "size",
            f"{width} x {height} pixels; sides of {SIDE_MIN} to {SIDE_MAX} are allowed",
        )
    if getattr(image, "n_frames", 1) != 1:
        raise InputRejected(
            "animated", f"{image.n_frames} frames; one is allowed: give each as a file"
        )
    if image.mode in ("CMYK", "YCCK"):
        raise InputRejected(
            "cmyk", "printing colours (CMYK); gray is allowed: export the film as gray"
        )
    if image.mode not in ("L", "LA", "P", "PA", "RGB", "RGBA", "I", "I;16", "I;16B"):
        raise InputRejected(
            "mode", f"pixels of type {image.mode}; 8- or 16-bit gray is allowed"
        )


def _without_alpha(image: Image) -> Image:
    """RGB of an image whose every pixel is opaque."""
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        lowest = image.getextrema()[3][0]
        if lowest != 255:
            raise InputRejected(
                "transparent",
                f"alpha down to {lowest} of 255; opaque is allowed: flatten the film",
            )
    return image.convert("RGB")


def _check_colour(rgb: np.ndarray) -> None:
    red, green, blue = (rgb[..., k] for k in range(3))
    low = np.minimum(np.minimum(red, green), blue)
    spread = np.maximum(np.maximum(red, green), blue) - low
    if spread.max() > SPREAD_MAX or spread.mean() > SPREAD_MEAN:
        raise InputRejected(
            "colour",
            f"channels differ by up to {spread.max()} of 255 ({spread.mean():.1f} on"
            f" average); up to {SPREAD_MAX} ({SPREAD_MEAN:g}) is allowed: give a gray film",
        )


def _scaled(pixels: np.ndarray, top: int) -> np.ndarray:
    return pixels.astype(np.float32) / np.float32(top)


def _guarded(action: Callable[[], Result], data: bytes) -> Result:
    try:
        return action()
    except _DAMAGE as error:
        raise _damaged(data, error) from None


def _is_whole(data: bytes) -> bool:
    """The end marker is there, after the last of the pixels."""
    if data.startswith(PNG):
        return b"\0\0\0\0IEND\xaeB`\x82" in data
    return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _damaged(data: bytes, what: object) -> InputRejected:
    code = "corrupt" if _is_whole(data) else "truncated"
    return InputRejected(
        code, f"the file is damaged ({what}); copy or download it again"
    )
