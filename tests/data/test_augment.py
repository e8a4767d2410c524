"""Augmentation against SciPy, OpenCV and hand-made expectations in float64."""

import dataclasses
import os
import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from cxr_jax.data import augment, geometry, resample
from cxr_jax.data.augment import Augment
from cxr_jax.errors import ConfigError
from cxr_jax.types import Batch, Boxes, Regions

EVERYTHING = Augment(
    flip=0.5,
    rotation=20,
    shear=10,
    zoom=(0.8, 1.2),
    translate=0.1,
    crop=(0.7, 1.0),
    crop_aspect=(0.75, 1.33),
    brightness=0.1,
    contrast=(0.8, 1.2),
    blur=1.0,
)
warp = jax.jit(resample.warp)
blur = jax.jit(resample.blur, static_argnames="radius")
GEOMETRY = dataclasses.replace(
    EVERYTHING, brightness=0.0, contrast=(1.0, 1.0), blur=0.0
)


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


def films(count=4, height=24, width=24, channels=1, seed=0):
    noise = np.random.default_rng(seed)
    return noise.integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def unit(image):
    return image.astype(np.float32) * np.float32(1 / 255)


def batch_of(image, **fields):
    count = len(image)
    fields = {"position": np.arange(count, dtype=np.uint32)} | fields
    return Batch(
        image=image,
        labels=np.zeros((count, 2), np.float32),
        mask=np.ones(count, bool),
        index=np.arange(count, dtype=np.int32),
        **fields,
    )


def run(config, batch, seed=0):
    return jax.device_get(jax.jit(config, static_argnums=1)(batch, seed))


def matrices(rng, count):
    """Turns, shears, zooms and shifts about the centre, float64 ``[count, 2, 3]``."""
    linear = np.eye(2) + rng.uniform(-0.4, 0.4, (count, 2, 2))
    shift = rng.uniform(-0.2, 0.2, (count, 2, 1))
    centre = np.full((2, 1), 0.5)
    return np.concatenate([linear, centre + shift - linear @ centre], axis=2)


# The resampling


@pytest.mark.parametrize(("height", "width"), [(24, 24), (20, 31)])
def test_warp_agrees_with_scipy(height, width):
    rng = np.random.default_rng(1)
    image, matrix = films(8, height, width, 2), matrices(rng, 8)
    ours = np.asarray(warp(image, matrix.astype(np.float32)))
    size = np.array([width, height])
    for k in range(8):
        # Shares of the sides to pixels, (x, y) to (row, column), new to old.
        linear = size[:, None] * matrix[k, :, :2] / size
        inverse = np.linalg.inv(linear)
        offset = inverse @ (0.5 - size * matrix[k, :, 2]) - 0.5
        for channel in range(2):
            theirs = scipy.ndimage.affine_transform(
                image[k, :, :, channel] / 255.0,
                inverse[::-1, ::-1],
                offset[::-1],
                order=1,
                mode="grid-constant",
            )
            np.testing.assert_allclose(ours[k, :, :, channel], theirs, atol=2e-5)


def test_warp_agrees_with_opencv():
    """OpenCV rounds coordinates to 1/32 pixel, so a smooth film is compared."""
    rng = np.random.default_rng(2)
    size = 64
    smooth = scipy.ndimage.gaussian_filter(rng.uniform(size=(size, size)), 4)
    smooth = ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)
    matrix = matrices(rng, 4)
    ours = warp(np.stack([smooth[..., None]] * 4), matrix.astype(np.float32))
    for k in range(4):
        linear, shift = matrix[k, :, :2], size * matrix[k, :, 2]
        shift = linear @ np.full(2, 0.5) + shift - 0.5  # between pixel centres
        theirs = cv2.warpAffine(
            smooth, np.column_stack([linear, shift]), (size, size), flags=1
        )
        inside = theirs > 0.05  # its black border is rounded too
        assert inside.mean() > 0.3
        difference = np.abs(np.asarray(ours[k, :, :, 0]) - theirs)[inside]
        assert np.quantile(difference, 0.99) < 0.01


@pytest.mark.parametrize(("side", "size"), [(24, 20), (20, 24), (32, 16)])
def test_another_size_agrees_with_opencv(side, size):
    """OpenCV's bilinear resize is the same map where nothing is averaged or outside."""
    image = unit(films(3, side, side))
    same = np.tile(np.float32([[1, 0, 0], [0, 1, 0]]), (3, 1, 1))
    resize = jax.jit(resample.warp, static_argnames="size")
    ours = resize(image, same, size=(size, size))
    for k in range(3):
        theirs = cv2.resize(image[k], (size, size), interpolation=cv2.INTER_LINEAR)
        inside = slice(1, -1)  # its edges repeat, ours fade to black
        np.testing.assert_allclose(
            ours[k, inside, inside, 0], theirs[inside, inside], atol=1e-5
        )


def test_a_crop_of_another_size_shows_the_crop():
    """Each film says where it is: its pixels are their own coordinates."""
    config = Augment(crop=(0.2, 0.5), crop_aspect=(0.75, 4 / 3), size=28)
    side, count = 64, 12
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side
    image = np.stack(np.broadcast_arrays(grid[None, :], grid[:, None]), axis=-1)
    out = run(config, batch_of(np.stack([image] * count))).image
    assert out.shape == (count, 28, 28, 2)
    drawn = augment._uniforms(0, jnp.arange(count, dtype=jnp.uint32))
    u = {name: np.asarray(row, np.float64) for name, row in drawn.items()}
    for k in range(count):
        area = 0.2 + 0.3 * u["crop_area"][k]
        ratio = 0.75 * (16 / 9) ** u["crop_aspect"][k]
        w, h = (area * ratio) ** 0.5, (area / ratio) ** 0.5
        centres = (np.arange(28) + 0.5) / 28
        x = u["crop_x"][k] * (1 - w) + w * centres
        y = u["crop_y"][k] * (1 - h) + h * centres
        near = slice(1, -1)
        np.testing.assert_allclose(out[k, 5, near, 0], x[near], atol=1e-5)
        np.testing.assert_allclose(out[k, near, 5, 1], y[near], atol=1e-5)


@pytest.mark.parametrize(
    ("side", "size", "before"),
    [(256, 224, 16), (65, 56, 4), (64, 57, 4), (224, 224, 0)],
)
def test_the_centre_is_that_of_torchvision(side, size, before):
    """Margins of 4.5 and 3.5 pixels: both become 4."""
    image = films(1, side, side)
    expected = image[:, before : before + size, before : before + size]
    np.testing.assert_array_equal(resample.centre(image, size), expected)
    np.testing.assert_array_equal(resample.centre(image, 0), image)
    assert resample.centre(image, 300).shape == image.shape


def test_maps_of_the_middle_are_framed_by_the_film():
    """Half a cell outside on each side: new values lie between the old ones."""
    maps = np.random.default_rng(0).normal(size=(2, 7, 7, 3)).astype(np.float32)
    framed = resample.frame_maps(maps, seen=224, side=256)
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    corners = [padded[:, i : i + 8, j : j + 8] for i in (0, 1) for j in (0, 1)]
    np.testing.assert_allclose(framed, sum(corners) / 4, atol=1e-6)
    np.testing.assert_array_equal(resample.frame_maps(maps, seen=224, side=224), maps)


@pytest.mark.parametrize(("seen", "side", "cells"), [(224, 320, 7), (56, 64, 8)])
def test_framed_maps_are_interpolated_in_place(seen, side, cells):
    maps = np.random.default_rng(1).normal(size=(1, cells, cells, 1))
    framed = resample.frame_maps(maps.astype(np.float32), seen=seen, side=side)
    count = round(cells * side / seen)
    assert framed.shape == (1, count, count, 1)
    pixel = (np.arange(count) + 0.5) * side / count - (side - seen) / 2
    at = np.stack(np.meshgrid(*[pixel * cells / seen - 0.5] * 2, indexing="ij"))
    expected = scipy.ndimage.map_coordinates(
        maps[0, :, :, 0], at, order=1, mode="nearest"
    )
    np.testing.assert_allclose(framed[0, :, :, 0], expected, atol=1e-5)


EXACT = {
    "identity": ([[1, 0, 0], [0, 1, 0]], lambda x: x),
    "mirror": ([[-1, 0, 1], [0, 1, 0]], lambda x: x[:, :, ::-1]),
    "upside down": ([[1, 0, 0], [0, -1, 1]], lambda x: x[:, ::-1]),
    "half turn": ([[-1, 0, 1], [0, -1, 1]], lambda x: x[:, ::-1, ::-1]),
    "quarter turn": ([[0, 1, 0], [-1, 0, 1]], lambda x: np.rot90(x, axes=(1, 2))),
    "shift": (
        [[1, 0, 0.25], [0, 1, 0]],
        lambda x: np.pad(x, ((0, 0), (0, 0), (6, 0), (0, 0)))[:, :, :24],
    ),
    "outside": ([[1, 0, 7], [0, 1, 0]], np.zeros_like),
}


@pytest.mark.parametrize("case", EXACT)
def test_whole_pixel_moves_are_exact(case):
    matrix, expected = EXACT[case]
    image = films()
    moved = warp(image, np.tile(np.float32(matrix), (4, 1, 1)))
    np.testing.assert_array_equal(moved, unit(expected(image)))


@pytest.mark.parametrize("size", [17, 64, 224])
def test_quarter_turns_are_exact_at_any_size(size):
    image = films(1, size, size)
    moved = warp(image, np.float32([[[0, 1, 0], [-1, 0, 1]]]))
    np.testing.assert_array_equal(moved, unit(np.rot90(image, axes=(1, 2))))


def test_blur_agrees_with_scipy():
    image = unit(films(3, 20, 27))
    sigma = np.float32([0.0, 0.7, 2.0])
    ours = np.asarray(blur(image, sigma, radius=8))
    np.testing.assert_array_equal(ours[0], image[0])
    for k in (1, 2):
        theirs = scipy.ndimage.gaussian_filter(
            image[k, :, :, 0].astype(np.float64), sigma[k], mode="nearest", radius=8
        )
        np.testing.assert_allclose(ours[k, :, :, 0], theirs, atol=1e-6)


# The whole


def test_nothing_asked_changes_nothing():
    image = films(channels=3)
    out = run(Augment(), batch_of(image)).image
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, unit(image))


def test_flips_alone_are_exact_and_fair():
    image = films(600, 6, 7)
    corners = np.tile(np.float32([0.25, 0.125, 0.5, 0.75]), (600, 1, 1))
    found = Boxes(
        xyxy=corners,
        label=np.zeros((600, 1), np.int32),
        mask=np.ones((600, 1), bool),
    )
    out = run(Augment(flip=0.3), batch_of(image, boxes=found))
    plain = unit(image)
    flipped = (out.image != plain).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(out.image[flipped], plain[flipped, :, ::-1])
    assert 132 < flipped.sum() < 230  # 180 ± 4.4 standard deviations
    mirrored = np.float32([0.5, 0.125, 0.75, 0.75])
    expected = np.where(flipped[:, None, None], mirrored, corners)
    np.testing.assert_array_equal(out.boxes.xyxy, expected)


def test_brightness_and_contrast_follow_their_formulas():
    image = unit(films(5))
    c, b = np.float32([0.5, 0.9, 1.0, 1.1, 2.0]), np.float32([0.1, -0.1, 0, 0.3, -0.3])
    exact = image.astype(np.float64)
    mean = exact.mean(axis=(1, 2, 3), keepdims=True)
    expected = (exact - mean) * c.reshape(-1, 1, 1, 1) + mean
    np.testing.assert_allclose(augment.contrast(image, c), expected, atol=1e-6)
    expected = exact + b.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(augment.brightness(image, b), expected, atol=1e-6)


def test_drawn_numbers_cover_their_ranges():
    image = np.full((400, 2, 2, 1), 128, np.uint8)
    shift = run(Augment(brightness=0.2), batch_of(image)).image[:, 0, 0, 0] - 128 / 255
    assert -0.2 <= shift.min() < -0.19 and 0.19 < shift.max() <= 0.2
    assert abs(shift.mean()) < 0.025  # 4.3 standard errors
    assert run(Augment(brightness=1.0), batch_of(image)).image.max() == 1.0  # clipped


@pytest.mark.parametrize(
    "config",
    [
        Augment(rotation=180),
        Augment(zoom=(0.6, 1.4), shear=15),
        Augment(crop=(0.5, 0.9), crop_aspect=(0.7, 1.4)),
        GEOMETRY,
    ],
)
def test_boxes_follow_the_pixels(config):
    """White rectangles are moved; the box of what is bright must be the moved box."""
    count, size = 40, 96
    rng = np.random.default_rng(3)
    low = rng.integers(20, 40, (count, 2))
    high = low + rng.integers(16, 36, (count, 2))
    image = np.zeros((count, size, size, 1), np.uint8)
    for k in range(count):
        image[k, low[k, 1] : high[k, 1], low[k, 0] : high[k, 0]] = 255
    xyxy = np.concatenate([low, high], axis=1)[:, None].astype(np.float32) / size
    found = Boxes(
        xyxy=xyxy,
        label=np.zeros((count, 1), np.int32),
        mask=np.ones((count, 1), bool),
    )
    out = run(config, batch_of(image, boxes=found))
    assert out.boxes.mask.mean() > 0.8
    for k in np.flatnonzero(out.boxes.mask[:, 0]):
        rows, columns = np.nonzero(out.image[k, :, :, 0] > 0.05)
        if not len(rows):
            continue  # less than a pixel is left
        bright = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        # A turned corner is thinner than a pixel, so up to two are too dark to count.
        np.testing.assert_allclose(out.boxes.xyxy[k, 0] * size, bright, atol=2.0)


def test_boxes_outside_are_masked_and_regions_follow():
    config = Augment(crop=(0.25, 0.25), min_visible=0.5)
    corners = np.float32([[0, 0, 0.1, 0.1], [0, 0, 1, 1], [0.45, 0.45, 0.55, 0.55]])
    count = 50
    xyxy = np.tile(corners, (count, 1, 1))
    present = np.tile([True, True, True], (count, 1))
    fields = {
        "boxes": Boxes(xyxy=xyxy, label=np.zeros((count, 3), np.int32), mask=present),
        "regions": Regions(
            xyxy=xyxy,
            presence=np.tile([True, True, False], (count, 1)),
            probs=np.ones((count, 3, 2), np.float32),
        ),
    }
    out = run(config, batch_of(films(count), **fields))
    drawn = augment._uniforms(0, jnp.arange(count, dtype=jnp.uint32))
    left, top = (np.asarray(drawn[f"crop_{axis}"], np.float64) / 2 for axis in "xy")
    offset = np.stack([left, top, left, top], axis=1)[:, None]
    moved = (xyxy - offset) / 0.5
    seen = np.clip(moved, 0, 1)
    share = np.prod(seen[..., 2:] - seen[..., :2], -1) / np.prod(
        moved[..., 2:] - moved[..., :2], -1
    )
    np.testing.assert_array_equal(out.boxes.mask, share >= 0.5)
    assert not out.boxes.mask[:, 1].any()  # a quarter of the whole film is left
    assert out.boxes.mask[:, 2].sum() > 40
    expected = np.where(out.boxes.mask[..., None], seen, 0)
    np.testing.assert_allclose(out.boxes.xyxy, expected, atol=1e-5)
    np.testing.assert_array_equal(
        out.regions.presence, (share >= 0.5) & [True, True, False]
    )
    np.testing.assert_array_equal(out.regions.probs, fields["regions"].probs)


def test_the_matrix_is_the_product_of_its_steps():
    """Step by step in float64 and pixels, about the centre, on films that are not square."""
    width, height, count = 30, 20, 16
    drawn = augment._uniforms(3, jnp.arange(count, dtype=jnp.uint32))
    ours = jax.vmap(lambda u: geometry.matrix_of(GEOMETRY, u, width / height))(drawn)
    u = {name: np.asarray(row, np.float64) for name, row in drawn.items()}

    def step(linear=((1, 0), (0, 1)), shift=(0, 0)):
        top = np.column_stack([np.array(linear, np.float64), shift])
        return np.vstack([top, [0, 0, 1]])

    for k in range(count):
        angle = np.deg2rad(20 * (2 * u["rotation"][k] - 1))
        cos, sin = np.cos(angle), np.sin(angle)
        slant = np.tan(np.deg2rad(10 * (2 * u["shear"][k] - 1)))
        zoom = 0.8 + 0.4 * u["zoom"][k]
        moves = [0.1 * (2 * u[f"translate_{axis}"][k] - 1) for axis in "xy"]
        area = 0.7 + 0.3 * u["crop_area"][k]
        ratio = 0.75 * (1.33 / 0.75) ** u["crop_aspect"][k]
        w, h = min((area * ratio) ** 0.5, 1), min((area / ratio) ** 0.5, 1)
        left, top = u["crop_x"][k] * (1 - w), u["crop_y"][k] * (1 - h)
        steps = [
            step(shift=(-0.5, -0.5)),
            step(np.diag([width, height])),  # to pixels about the centre
            step(np.diag([-1 if u["flip"][k] < 0.5 else 1, 1])),
            step([[1, slant], [0, 1]]),
            step([[cos, sin], [-sin, cos]]),
            step(np.diag([zoom, zoom])),
            step(np.diag([1 / width, 1 / height])),
            step(shift=(0.5, 0.5)),
            step(shift=moves),
            step(shift=(-left, -top)),
            step(np.diag([1 / w, 1 / h])),
        ]
        product = np.eye(3)
        for part in steps:
            product = part @ product
        np.testing.assert_allclose(ours[k], product[:2], atol=2e-6)


# Which film gets which numbers


def test_a_film_does_not_depend_on_its_company():
    image = films(8)
    whole = run(EVERYTHING, batch_of(image))
    for rows in ([5], [7, 0]):
        part = batch_of(image[rows], position=np.array(rows, np.uint32))
        np.testing.assert_allclose(
            run(EVERYTHING, part).image, whole.image[rows], atol=1e-6
        )


def test_position_and_seed_decide():
    image = np.repeat(films(1), 6, axis=0)
    a = run(EVERYTHING, batch_of(image)).image
    np.testing.assert_array_equal(a, run(EVERYTHING, batch_of(image)).image)
    assert len({film.tobytes() for film in a}) == 6  # the same film, six positions
    assert (
        (a != run(EVERYTHING, batch_of(image), seed=1).image).any(axis=(1, 2, 3)).all()
    )


def test_switching_one_thing_on_leaves_the_others():
    image = films(64, 4, 4)
    flip = run(Augment(flip=0.5), batch_of(image)).image
    both = run(Augment(flip=0.5, brightness=1e-7), batch_of(image)).image
    np.testing.assert_allclose(flip, both, atol=1e-6)


def test_one_compilation_serves_all_steps():
    traced = []

    def count(batch, seed):
        traced.append(1)
        return EVERYTHING(batch, seed)

    step = jax.jit(count)
    for k in range(3):
        step(batch_of(films(), position=np.arange(4, dtype=np.uint32) + 4 * k), k)
    assert len(traced) == 1


DEVICES = """
import jax, numpy as np
from cxr_jax import sharding
from cxr_jax.data.augment import Augment
from cxr_jax.types import Batch
image = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 1), dtype=np.uint8)
batch = Batch(image=image, labels=np.zeros((8, 1), np.float32), mask=np.ones(8, bool),
              position=np.arange(8, dtype=np.uint32), index=np.arange(8, dtype=np.int32))
for config, limit in ((Augment(flip=0.5), 0.0), (Augment(**{config}), 1e-6)):
    step = jax.jit(config, static_argnums=1)
    one, four = (
        sharding.to_global(batch, sharding.make_mesh(jax.devices()[:n])) for n in (1, 4)
    )
    difference = np.abs(np.asarray(step(one, 0).image) - np.asarray(step(four, 0).image))
    assert difference.max() <= limit, difference.max()
    text = step.lower(four, 0).compile().as_text()
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in text, word
    assert step(four, 0).image.sharding.spec[0] == "data"
"""


def test_four_devices_augment_as_one_does_and_do_not_talk():
    script = DEVICES.replace("{config}", repr(dataclasses.asdict(EVERYTHING)))
    flags = "--xla_force_host_platform_device_count=4"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# Normalisation and refusals


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_gray_films_are_normalised_for_colour_networks(kind):
    image = films(2)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    given = image if kind == "uint8" else image.astype(np.float32) / 255
    out = augment.normalize(given, mean=mean, std=std, channels=3)
    expected = (image.astype(np.float64) / 255 - mean) / std
    assert out.dtype == jnp.float32 and out.shape == (2, 24, 24, 3)
    np.testing.assert_allclose(out, expected, atol=2e-6)


def test_lists_are_as_good_as_tuples():
    assert Augment(zoom=[1.0, 1.0], crop=[0.5, 1.0]) == Augment(crop=(0.5, 1.0))
    assert not Augment(zoom=[1.0, 1.0]).resamples


def test_channels_must_fit():
    with pytest.raises(ConfigError, match="task.mean has 1 .* task.channels=3"):
        augment.normalize(films(), mean=(0.5,), std=(0.2,), channels=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flip": 1.5}, "augment.flip=1.5: give a number in"),
        ({"rotation": -1}, "augment.rotation=-1"),
        ({"zoom": (1.2, 0.8)}, "augment.zoom=.*least, largest"),
        ({"crop": (0.5, 1.5)}, "augment.crop=.*at most 1.0"),
        ({"crop": (0.0, 1.0)}, "augment.crop=.*positive"),
        ({"blur": float("nan")}, "augment.blur=nan"),
        ({"size": -1}, "augment.size=-1"),
        ({"crop_aspect": (0.5, 2.0)}, "needs a crop"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Augment(**wrong)
