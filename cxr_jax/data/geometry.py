"""Random affine maps of films: one matrix each, and the crop that holds all boxes."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from cxr_jax.types import Batch

Range = tuple[float, float]


def matrix_of(settings: Any, u: dict[str, jax.Array], aspect: float) -> jax.Array:
    """Old to new coordinates of one film in units of its sides, rows (A | t).

    A turn or a shear is one of pixels, so the aspect (width to height) enters. y runs
    downwards: a positive angle turns counter-clockwise as one sees it.
    """
    sign = jnp.where(u["flip"] < settings.flip, -1.0, 1.0)
    angle = jnp.deg2rad(either_way(settings.rotation, u["rotation"]))
    slant = jnp.tan(jnp.deg2rad(either_way(settings.shear, u["shear"])))
    scale = between(settings.zoom, u["zoom"])
    cos, sin = scale * jnp.cos(angle), scale * jnp.sin(angle)
    wide, tall = (between(settings.stretch, u[f"stretch_{axis}"]) for axis in "xy")
    sign = sign * wide
    # rotation · shear · stretch · flip
    xx, xy = cos * sign, (cos * slant + sin) / aspect * tall
    yx, yy = -sin * sign * aspect, (cos - sin * slant) * tall
    x = either_way(settings.translate, u["translate_x"]) + 0.5 * (1 - xx - xy)
    y = either_way(settings.translate, u["translate_y"]) + 0.5 * (1 - yx - yy)

    area = between(settings.crop, u["crop_area"])
    low, high = map(math.log, settings.crop_aspect)
    ratio = jnp.exp(between((low, high), u["crop_aspect"]) / 2)
    width = jnp.minimum(jnp.sqrt(area) * ratio, 1.0)
    height = jnp.minimum(jnp.sqrt(area) / ratio, 1.0)
    left, top = u["crop_x"] * (1 - width), u["crop_y"] * (1 - height)
    return jnp.stack(
        [
            jnp.stack([xx, xy, x - left]) / width,
            jnp.stack([yx, yy, y - top]) / height,
        ]
    )


def safe_crop(batch: Batch, u: dict[str, jax.Array], erosion: float) -> jax.Array:
    """Edges ``[B, 4]`` of crops that hold what is left of all boxes.

    Reference: ``RandomSizedBBoxSafeCrop`` of albumentations, whose edges are rounded to
    pixels; these are not.
    """
    held = batch.regions or batch.boxes
    if held is None:
        xyxy, kept = jnp.zeros((len(u["flip"]), 1, 4)), jnp.zeros((1, 1), bool)
    else:
        kept = getattr(held, "presence", None)
        xyxy, kept = held.xyxy, held.mask if kept is None else kept
    low, high = jnp.split(jnp.asarray(xyxy), 2, axis=-1)
    margin = erosion * (high - low)
    kept = jnp.broadcast_to(jnp.asarray(kept)[..., None], low.shape)
    low = jnp.min(jnp.where(kept, low + margin, 1.0), axis=1)  # [B, 2]
    high = jnp.max(jnp.where(kept, high - margin, 0.0), axis=1)
    near = jnp.stack([u["safe_left"], u["safe_top"]], axis=-1)
    far = jnp.stack([u["safe_right"], u["safe_bottom"]], axis=-1)
    # Nothing to hold: the same share of both sides, anywhere.
    side = 0.8 + 0.2 * far[:, :1]
    begin = near * (1 - side)
    some = jnp.any(kept, axis=(1, 2))[:, None]
    first = jnp.where(some, near * jnp.clip(low, 0.0, 1.0), begin)
    high = jnp.clip(high, 0.0, 1.0)
    last = jnp.where(some, high + far * (1 - high), begin + side)
    return jnp.concatenate([first, last], axis=-1)


def after(matrix: jax.Array, crop: jax.Array) -> jax.Array:
    """The matrix of a film that was cropped before, and enlarged to the whole."""
    scale = 1 / (crop[2:] - crop[:2])
    linear, shift = matrix[:, :2], matrix[:, 2:]
    moved = shift - jnp.sum(linear * (scale * crop[:2])[None], axis=1, keepdims=True)
    return jnp.concatenate([linear * scale[None], moved], axis=1)


def between(limits: Range, u: jax.Array) -> jax.Array:
    """A number between two, for u in [0, 1]."""
    low, high = limits
    return low + (high - low) * u


def either_way(largest: float, u: jax.Array) -> jax.Array:
    """A number between ±largest, for u in [0, 1]."""
    return largest * (2 * u - 1)
