"""Augmentation on the device: batched, jitted, one matrix and one resampling per film.

Every random number is a function of (seed, position) alone, so a film comes out the same
in whatever batch, on whatever device and in whatever company it is augmented, and a film
drawn twice comes out different each time. Boxes and regions follow the pixels.

A mirrored film keeps the names of its regions: the box of the right lung is mirrored and
is still called the right lung. Labels are never changed.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cxr_jax import boxes
from cxr_jax.data import geometry
from cxr_jax.data.resample import UNIT, blur, warp
from cxr_jax.errors import ConfigError
from cxr_jax.types import Batch

# Keeps these random numbers apart from all others drawn from the same seed.
_STREAM = 0x61756731
# One slot per number, so that switching one transformation on leaves the others alone.
_SLOTS = (
    "flip",
    "rotation",
    "zoom",
    "shear",
    "translate_x",
    "translate_y",
    "crop_area",
    "crop_aspect",
    "crop_x",
    "crop_y",
    "brightness",
    "contrast",
    "blur",
    "safe_left",
    "safe_top",
    "safe_right",
    "safe_bottom",
    "stretch_x",
    "stretch_y",
    "gain",
    "blurred",
)

Range = geometry.Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """What is done to films; the defaults do nothing.

    Geometry in this order, composed into one matrix about the centre of the film: safe
    crop, flip, stretch, shear, rotation, zoom, translation, crop; what comes from outside
    the film is black. Then blur, contrast, gain, brightness, and a clip to [0, 1].

    Attributes:
        safe_crop: what a crop may cut of a box from each side, as a share of it, in
            [0, 0.5); otherwise the crop holds all regions (boxes, where films have no
            regions), and its four edges are uniform between theirs and the film's. -1 for
            no such crop. Films without either keep 80% to 100% of each side.
        flip: probability of mirroring left and right, in [0, 1]. Where nothing else
            moves pixels, they are mirrored exactly, without resampling.
        rotation: largest angle either way, degrees, in [0, 180]; uniform.
        stretch: least and largest magnification of the width and, drawn by itself, of
            the height; uniform.
        shear: largest angle of the vertical edges, degrees, in [0, 60]; uniform.
        zoom: least and largest magnification, positive; uniform.
        translate: largest shift along each axis, as a share of it, in [0, 1]; uniform.
        crop: least and largest share of the area that is kept and enlarged to the
            whole, in (0, 1]; uniform, its place too.
        crop_aspect: least and largest width to height of the crop; log-uniform. A crop
            that would leave the film is cut to it.
        size: side in pixels of the films that come out; 0 for that of those that go in.
            Square, and resampled in the same one step.
        brightness: largest b either way in x + b, in [0, 1]; uniform.
        gain: least and largest g in g·x; uniform.
        contrast: least and largest c in (x - m)·c + m with m the film's mean; uniform.
        blur: largest standard deviation of a Gaussian, pixels; uniform from ``blur_from``.
        blur_from: the smallest.
        blur_share: probability of a blur, in [0, 1].
        blur_radius: pixels to each side that it reaches; 0 for four of the largest
            standard deviations.
        min_visible: boxes and regions of which less than this share is left in the
            film are masked, in [0, 1]; those wholly outside always are.
    """

    safe_crop: float = -1.0
    flip: float = 0.0
    stretch: Range = (1.0, 1.0)
    rotation: float = 0.0
    shear: float = 0.0
    zoom: Range = (1.0, 1.0)
    translate: float = 0.0
    crop: Range = (1.0, 1.0)
    crop_aspect: Range = (1.0, 1.0)
    size: int = 0
    brightness: float = 0.0
    gain: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    blur: float = 0.0
    blur_from: float = 0.0
    blur_share: float = 1.0
    blur_radius: int = 0
    min_visible: float = 0.0

    def __post_init__(self):
        highest = {"rotation": 180.0, "shear": 60.0, "blur": math.inf, "size": math.inf}
        highest |= {"blur_from": self.blur, "blur_radius": math.inf}
        shares = ("flip", "translate", "brightness", "min_visible", "blur_share")
        for name in (*shares, *highest):
            _check(name, getattr(self, name), 0.0, highest.get(name, 1.0))
        if self.safe_crop != -1.0:
            _check("safe_crop", self.safe_crop, 0.0, 0.499)
        for name in ("zoom", "stretch", "crop", "crop_aspect", "gain", "contrast"):
            # Configs may bring lists, which are neither hashable nor equal to tuples.
            object.__setattr__(self, name, tuple(getattr(self, name)))
            _check_range(name, getattr(self, name), 1.0 if name == "crop" else math.inf)
        if self.crop_aspect != (1.0, 1.0) and self.crop == (1.0, 1.0):
            raise ConfigError(
                f"augment.crop_aspect={self.crop_aspect} needs a crop: give"
                " augment.crop, such as (0.8, 1.0)"
            )

    @property
    def resamples(self) -> bool:
        """Whether anything but a mirror moves pixels."""
        still = Augment()
        names = (
            "safe_crop",
            "stretch",
            "rotation",
            "shear",
            "zoom",
            "translate",
            "crop",
        )
        return any(getattr(self, name) != getattr(still, name) for name in names)

    def __call__(self, batch: Batch, seed: int | jax.Array) -> Batch:
        """Augments a batch; jittable, and local to each device of a sharded batch.

        Args:
            batch: ``image`` uint8, or float in [0, 1], ``[B, H, W, K]``; ``position``
                says which random numbers each row gets.
            seed: of the run.

        Returns:
            The batch with ``image`` float32 in [0, 1], and boxes and regions moved.
        """
        drawn = _uniforms(seed, batch.position)
        _, height, width, _ = batch.image.shape
        matrix = jax.vmap(lambda u: geometry.matrix_of(self, u, width / height))(drawn)
        if self.safe_crop >= 0:
            matrix = jax.vmap(geometry.after)(
                matrix, geometry.safe_crop(batch, drawn, self.safe_crop)
            )
        image = batch.image
        size = (self.size, self.size) if self.size else (height, width)
        if self.resamples or size != (height, width):
            image = warp(image, matrix, size=size)
        elif self.flip:
            mirrored = drawn["flip"] < self.flip
            image = jnp.where(mirrored[:, None, None, None], image[:, :, ::-1], image)
        image = self._shade(as_float(image), drawn)
        batch = dataclasses.replace(batch, image=image)
        return self._move(batch, matrix) if self.resamples or self.flip else batch

    def _shade(self, image: jax.Array, drawn: dict[str, jax.Array]) -> jax.Array:
        if self.blur:
            radius = self.blur_radius or math.ceil(4 * self.blur)
            sigma = geometry.between((self.blur_from, self.blur), drawn["blur"])
            sigma = jnp.where(drawn["blurred"] < self.blur_share, sigma, 0.0)
            image = blur(image, sigma, radius=radius)
        if self.contrast != (1.0, 1.0):
            image = contrast(image, geometry.between(self.contrast, drawn["contrast"]))
        if self.gain != (1.0, 1.0):
            factor = geometry.between(self.gain, drawn["gain"])
            image = image * factor[:, None, None, None]
        if self.brightness:
            image = brightness(
                image, geometry.either_way(self.brightness, drawn["brightness"])
            )
        return jnp.clip(image, 0.0, 1.0)

    def _move(self, batch: Batch, matrix: jax.Array) -> Batch:
        changes = {}
        if (found := batch.boxes) is not None:
            xyxy, mask = self._follow(found.xyxy, found.mask, matrix)
            changes["boxes"] = dataclasses.replace(found, xyxy=xyxy, mask=mask)
        if (found := batch.regions) is not None:
            xyxy, presence = self._follow(found.xyxy, found.presence, matrix)
            changes["regions"] = dataclasses.replace(
                found, xyxy=xyxy, presence=presence
            )
        return dataclasses.replace(batch, **changes)

    def _follow(
        self, xyxy: jax.Array, mask: jax.Array, matrix: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        moved = boxes.transform(xyxy, matrix)
        share = boxes.visible_share(moved)
        kept = mask & (share > 0) & (share >= self.min_visible)
        return jnp.where(kept[..., None], boxes.clip(moved), 0.0), kept


def normalize(
    image: jax.Array,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    channels: int,
) -> jax.Array:
    """Films as a network takes them: (x - mean) / std, gray repeated over channels.

    Args:
        image: uint8, or float in [0, 1], ``[B, H, W, K]`` with K = 1 or ``channels``.
        mean: one number per channel, of pixels in [0, 1].
        std: one positive number per channel.
        channels: 1 for gray, 3 for networks made for colour.

    Returns:
        float32 ``[B, H, W, channels]``.

    Raises:
        ConfigError: the numbers do not fit the channels.
    """
    if not len(mean) == len(std) == channels or image.shape[-1] not in (1, channels):
        raise ConfigError(
            f"task.mean has {len(mean)} numbers and task.std {len(std)}, films have"
            f" {image.shape[-1]} channels, task.channels={channels}: give one mean and"
            " one std per channel, and gray films or as many channels"
        )
    shape = (1, 1, 1, channels)
    shift = jnp.asarray(mean, jnp.float32).reshape(shape)
    scale = jnp.asarray(std, jnp.float32).reshape(shape)
    return (as_float(image) - shift) / scale


def as_float(image: jax.Array) -> jax.Array:
    """float32 in [0, 1]: uint8 times UNIT, floats as they are."""
    image = jnp.asarray(image)
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) * UNIT
    return image.astype(jnp.float32)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """(x - m)·c + m, m the mean over the film.

    Args:
        image: float ``[B, H, W, K]``.
        factor: c ``[B]``, at least 0.

    Returns:
        ``[B, H, W, K]``, not clipped.
    """
    mean = image.mean(axis=(1, 2, 3), keepdims=True)
    return (image - mean) * factor[:, None, None, None] + mean


def brightness(image: jax.Array, shift: jax.Array) -> jax.Array:
    """x + b.

    Args:
        image: float ``[B, H, W, K]``.
        shift: b ``[B]``.

    Returns:
        ``[B, H, W, K]``, not clipped.
    """
    return image + shift[:, None, None, None]


def _uniforms(seed: int | jax.Array, position: jax.Array) -> dict[str, jax.Array]:
    """Slot → numbers in [0, 1), ``[B]``, each of (seed, position) alone."""
    key = jax.random.fold_in(jax.random.key(seed), _STREAM)

    def draw(row: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, row), (len(_SLOTS),))

    numbers = jax.vmap(draw)(jnp.asarray(position))
    return {name: numbers[:, slot] for slot, name in enumerate(_SLOTS)}


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high or math.isinf(value):
        raise ConfigError(f"augment.{name}={value}: give a number in [{low}, {high}]")


def _check_range(name: str, limits: Range, high: float) -> None:
    fits = len(limits) == 2 and 0 < limits[0] <= limits[1] <= high
    if not fits or math.isinf(limits[1]):
        raise ConfigError(
            f"augment.{name}={limits}: give (least, largest), positive"
            + ("" if math.isinf(high) else f" and at most {high}")
        )
