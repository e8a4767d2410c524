"""Reading and reducing films: exact on sound files, typed refusals on all others."""

import io
import os
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from cxr_jax.data.image import (
    SIDE_MAX,
    middle_square,
    read_film,
    reduce_film,
    shape_in_square,
)
from cxr_jax.errors import DataError, InputRejected

GRAY = np.random.default_rng(0).integers(0, 256, (48, 40), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **how) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def png(pixels: np.ndarray = GRAY, mode: str = "L") -> bytes:
    return encoded(Image.fromarray(pixels).convert(mode))


def refused(data: bytes) -> InputRejected:
    with pytest.raises(InputRejected) as caught:
        read_film(data)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_equal_channels_give_the_same_film(mode):
    film = read_film(png(mode=mode))
    assert film.dtype == np.float32 and film.shape == GRAY.shape
    np.testing.assert_allclose(film, GRAY / 255, atol=1e-7)


def test_sixteen_bits_keep_their_precision(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 65536, (20, 30), dtype=np.uint16)
    path = tmp_path / "film.png"
    Image.fromarray(pixels).save(path)
    film = read_film(path)
    np.testing.assert_allclose(film, pixels / 65535, atol=1e-7)
    assert len(np.unique(film)) == len(np.unique(pixels))


def test_path_string_and_bytes_agree(tmp_path):
    path = tmp_path / "film.png"
    path.write_bytes(png())
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(read_film(source), read_film(png()))


def test_jpeg_is_close_and_gray_in_colour_jpeg_passes():
    smooth = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    for mode in ("L", "RGB"):
        data = encoded(Image.fromarray(smooth).convert(mode), "JPEG", quality=90)
        np.testing.assert_allclose(read_film(data) * 255, smooth, atol=4)


def test_the_orientation_tag_is_obeyed():
    tag = Image.Exif()
    tag[0x0112] = 6  # Turn clockwise by 90 degrees to view.
    data = encoded(Image.fromarray(GRAY), "PNG", exif=tag)
    np.testing.assert_allclose(read_film(data), np.rot90(GRAY, -1) / 255, atol=1e-7)


def colour() -> np.ndarray:
    pixels = np.stack([GRAY] * 3, -1)
    pixels[10:20, 10:20] = (200, 20, 20)  # A red stamp.
    return pixels


def faded() -> np.ndarray:
    pixels = np.stack([GRAY] * 3 + [np.full_like(GRAY, 255)], -1)
    pixels[5, 5, 3] = 254
    return pixels


def tinted() -> np.ndarray:
    return np.stack([GRAY // 2, GRAY // 2, GRAY // 2 + 10], -1).astype(np.uint8)


@pytest.mark.parametrize(
    "data, code",
    [
        (b"", "empty"),
        (b"<html>not found</html>", "format"),
        (encoded(Image.fromarray(GRAY), "GIF"), "format"),
        (encoded(Image.fromarray(GRAY), "TIFF"), "format"),
        (encoded(Image.fromarray(colour())), "colour"),
        (encoded(Image.fromarray(tinted())), "colour"),
        (encoded(Image.fromarray(colour()), "JPEG"), "colour"),
        (encoded(Image.fromarray(faded())), "transparent"),
        (encoded(Image.fromarray(GRAY), transparency=7), "transparent"),
        (encoded(Image.fromarray(GRAY).convert("CMYK"), "JPEG"), "cmyk"),
        (encoded(Image.fromarray(GRAY > 9)), "mode"),
        (png(np.zeros((1, 1), np.uint8)), "size"),
        (png(np.zeros((15, 900), np.uint8)), "size"),
    ],
)
def test_what_is_no_gray_film_is_refused_with_its_code(data, code):
    assert refused(data).code == code


def test_animation_is_refused():
    frames = [Image.fromarray(GRAY), Image.fromarray(GRAY[::-1])]
    data = encoded(frames[0], save_all=True, append_images=frames[1:])
    assert refused(data).code == "animated"


@pytest.mark.parametrize("source", ["absent.png", "."])
def test_a_missing_file_or_a_folder_is_refused(tmp_path, source):
    with pytest.raises(InputRejected) as caught:
        read_film(tmp_path / source)
    assert caught.value.code == "missing"


def chunk(name: bytes, data: bytes) -> bytes:
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("side", [SIDE_MAX + 1, 30_000, 65_535])
def test_a_decompression_bomb_is_refused_before_it_unfolds(side):
    """A file of some kilobytes that would fill gigabytes: its header tells."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", zlib.compress(bytes(2**20))) + chunk(b"IEND", b"")
    assert refused(data).code == "size"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncation_is_noticed_wherever_it_happens(kind):
    """Sixteenths of the file, and each of its last thirty bytes."""
    data = encoded(Image.fromarray(GRAY), kind)
    cuts = [len(data) * k // 16 for k in range(1, 16)]
    cuts += [len(data) - k for k in range(1, 31)]
    for cut in cuts:
        assert refused(data[:cut]).code == "truncated", f"cut to {cut} bytes"


def test_a_flipped_bit_in_a_png_is_noticed_anywhere():
    """Every chunk has a checksum, which Pillow's decoder skips; ours does not."""
    data = png()
    for position in range(8, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        assert refused(bytes(damaged)).code in ("corrupt", "truncated", "size")


def test_a_process_that_switched_checks_off_is_told(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="LOAD_TRUNCATED_IMAGES"):
        read_film(png())


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_mutated_files_end_in_a_film_or_a_typed_refusal(seed):
    choose = random.Random(seed)
    kinds = [
        ("PNG", "L"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("JPEG", "L"),
        ("JPEG", "RGB"),
    ]
    kind, mode = choose.choice(kinds)
    data = bytearray(encoded(Image.fromarray(GRAY).convert(mode), kind))
    for _ in range(choose.choice([1, 3, 20])):
        at = choose.randrange(len(data))
        data[at : at + choose.randrange(4)] = choose.randbytes(choose.randrange(4))
    try:
        film = read_film(bytes(data))
    except InputRejected:
        return
    assert film.ndim == 2 and 0 <= film.min() <= film.max() <= 1


def area_mean(film: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area average by overlap matrices in float64."""

    def overlap(old: int, new: int) -> np.ndarray:
        edges = np.linspace(0, old, new + 1)
        low = np.maximum(edges[:-1, None], np.arange(old))
        high = np.minimum(edges[1:, None], np.arange(old) + 1)
        return np.clip(high - low, 0, None) * new / old

    return overlap(film.shape[0], height) @ film @ overlap(film.shape[1], width).T


@pytest.mark.parametrize("old, new", [(64, 64), (64, 16), (100, 32), (1024, 224)])
def test_reduction_is_the_exact_area_average(old, new):
    film = np.random.default_rng(old).random((old, old)).astype(np.float32)
    expected = 255 * area_mean(film.astype(np.float64), new, new)
    got = reduce_film(film, new)
    assert got.dtype == np.uint8 and got.shape == (new, new)
    # Half a level of rounding, and float32 sums.
    np.testing.assert_allclose(got, expected, atol=0.5 + 1e-3)


def test_same_size_changes_no_pixel():
    square = GRAY[:40]
    np.testing.assert_array_equal(reduce_film(read_film(png(square)), 40), square)


def test_fine_stripes_do_not_alias():
    stripes = np.tile(np.array([0, 1], np.float32), (256, 128))
    small = reduce_film(stripes, 64)
    assert set(np.unique(small)) == {128}  # round(127.5), ties to even


@pytest.mark.parametrize("shape", [(90, 60), (60, 90)])
def test_padding_keeps_proportions_and_stretching_fills(shape):
    film = np.ones(shape, np.float32)
    padded = reduce_film(film, 30)
    bright = padded > 0
    rows, columns = bright.any(1), bright.any(0)
    assert (rows.sum(), columns.sum()) == tuple(n // 3 for n in shape)
    assert padded[15, 15] == 255 and np.array_equal(bright, bright[::-1, ::-1])
    assert (reduce_film(film, 30, fit="stretch") == 255).all()


@pytest.mark.parametrize(
    "shape, box",
    [((90, 60), (15, 0, 60)), ((61, 91), (0, 15, 61)), ((91, 60), (15, 0, 60))],
)
def test_cropping_reduces_the_square_in_the_middle(shape, box):
    film = np.random.default_rng(0).random(shape).astype(np.float32)
    assert (
        middle_square(shape) == box
    )  # By hand; half of an odd margin is rounded down.
    top, left, side = box
    middle = film[top : top + side, left : left + side].astype(np.float64)
    got = reduce_film(film, 30, fit="crop")
    np.testing.assert_allclose(got, 255 * area_mean(middle, 30, 30), atol=0.501)
    assert shape_in_square(shape, 30, fit="crop") == (30, 30)
    with pytest.raises(
        InputRejected, match=f"{shape[1]} x {shape[0]} pixels; at least"
    ):
        reduce_film(film, side + 1, fit="crop")


def test_a_square_film_is_cropped_nowhere():
    film = np.random.default_rng(1).random((64, 64)).astype(np.float32)
    np.testing.assert_array_equal(
        reduce_film(film, 24, fit="crop"), reduce_film(film, 24, fit="stretch")
    )


def test_films_are_never_enlarged():
    with pytest.raises(InputRejected, match="48 x 20 pixels; at least 49") as caught:
        reduce_film(np.zeros((20, 48), np.float32), 49)
    assert caught.value.code == "size"
    with pytest.raises(InputRejected):
        reduce_film(np.zeros((20, 48), np.float32), 21, fit="stretch")


@pytest.mark.parametrize("shape", [(20, 48), (48, 20), (30, 30), (61, 40)])
@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
def test_enlarging_shows_no_more_than_there_was(shape, fit):
    film = np.random.default_rng(0).random(shape).astype(np.float32)
    large = reduce_film(film, 60, fit=fit, enlarge=True)
    tall, wide = shape_in_square(shape, 60, fit=fit)
    inside = large[(60 - tall) // 2 :, (60 - wide) // 2 :][:tall, :wide]
    # Linear: within the range of the film, and near its mean.
    assert inside.min() >= np.rint(255 * film.min())
    assert inside.max() <= np.rint(255 * film.max())
    if fit == "crop":
        top, left, side = middle_square(shape)
        film = film[top : top + side, left : left + side]
    assert inside.mean() == pytest.approx(255 * film.mean(), abs=6)
    assert large.sum() == inside.sum()  # black around it
    flat = reduce_film(np.full(shape, 0.4, np.float32), 60, fit=fit, enlarge=True)
    assert (flat == 102).sum() == tall * wide and set(np.unique(flat)) <= {0, 102}


@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
def test_a_film_that_is_large_enough_is_reduced_all_the_same(fit):
    film = np.random.default_rng(0).random((120, 90)).astype(np.float32)
    np.testing.assert_array_equal(
        reduce_film(film, 60, fit=fit, enlarge=True), reduce_film(film, 60, fit=fit)
    )


def test_reading_films_needs_no_jax():
    code = (
        "import sys, cxr_jax.data.image;"
        "assert not {'jax', 'flax', 'tensorflow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_real_films_read_as_another_decoder_reads_them(real_dir):
    """200 originals, three of them RGBA, against OpenCV's decoder."""
    import cv2

    paths = sorted((real_dir / "nih" / "images").glob("*.png"))
    assert len(paths) == 200
    modes = {}
    for path in paths:
        with Image.open(path) as image:
            modes[path] = image.mode
    odd = [p for p in paths if modes[p] != "L"]
    assert {modes[p] for p in odd} == {"RGBA"} and len(odd) == 3
    for path in odd + paths[:12]:
        film = read_film(path)
        other = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        other = other if other.ndim == 2 else other[..., 0]
        assert film.shape == (1024, 1024)
        np.testing.assert_array_equal(np.rint(film * 255), other)
