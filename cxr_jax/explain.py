"""Where a class is seen: activation maps of a head, and what they point at.

Maps are ``[B, h, w, C]`` on the grid of the features. They show influence on a score, not
the extent of a finding.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

# Sums over features decide where a peak lies: never in a matrix unit's short floats.
_EXACT = lax.Precision.HIGHEST


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Located:
    """What a map points at.

    Attributes:
        peak: ``[B, C, 2]``, x and y in [0, 1]; NaN where the map is flat.
        xyxy: ``[B, C, 4]``, the box around the peak; zeros where nothing is above 0.
    """

    peak: ArrayLike
    xyxy: ArrayLike


def cam(features: jax.Array, kernel: jax.Array) -> jax.Array:
    """Class activation maps, ``M_c = Σ_k w_ck f_k``.

    With global average pooling and a linear head, the mean of ``M_c`` over space plus
    the bias of class c is its logit. The maps are raw: no ReLU, bias or sigmoid.

    Args:
        features: ``[B, h, w, F]``, what the head pools.
        kernel: ``[F, C]``, the head's weights.

    Returns:
        ``[B, h, w, C]``, float32 at least.

    Reference: Zhou et al., Learning deep features for discriminative localization, CVPR
    2016, equation 2; Rajpurkar et al., CheXNet, 2017, section 5.
    """
    features = _widened(features)
    kernel = kernel.astype(features.dtype)
    return jnp.einsum("bhwf,fc->bhwc", features, kernel, precision=_EXACT)


def probability_ratio(
    features: jax.Array, kernel: jax.Array, bias: jax.Array, base_rates: ArrayLike
) -> jax.Array:
    """How much likelier than usual each place makes a class, as public code draws it.

    ``log(sigmoid(Σ_k w_ck relu(f_k) + b_c) / p_c)``: each cell is read as if the whole
    film looked like it. It rises with the map of ``cam``, so both have the same peak.

    Args:
        features: ``[B, h, w, F]``, before or after the ReLU.
        kernel: ``[F, C]``.
        bias: ``[C]``.
        base_rates: ``[C]``, share of positive films, in (0, 1).

    Returns:
        ``[B, h, w, C]``; 0 where a cell says no more than the base rate.

    Reference: Zech, reproduce-chexnet, ``visualize_prediction.py``. Not the CheXNet
    paper's map, which is ``cam``.
    """
    logits = cam(jax.nn.relu(features), kernel) + bias[None, None, None]
    rates = jnp.log(jnp.asarray(base_rates, logits.dtype))
    return jax.nn.log_sigmoid(logits) - rates[None, None, None]


def feature_weights(
    head: Callable[[jax.Array], jax.Array], features: jax.Array
) -> jax.Array:
    """How each feature moves each logit, ``α_ck = 1/(h·w) Σ_xy ∂y_c/∂f_kxy``.

    Args:
        head: features ``[B, h, w, F]`` → logits ``[B, C]``, film by film.
        features: where the gradient is taken.

    Returns:
        ``[B, C, F]``, float32 at least. Of average pooling and a linear layer:
        ``w_ck / (h·w)``.
    """
    features = _widened(features)
    batch, height, width, depth = features.shape

    # A feature raised everywhere by ε: the gradient of ε sums those of its cells.
    def raised(shift: jax.Array) -> jax.Array:
        return head(features + shift)

    logits, pull = jax.vjp(raised, jnp.zeros((batch, 1, 1, depth), features.dtype))
    count = logits.shape[1]
    one = jnp.broadcast_to(
        jnp.eye(count, dtype=logits.dtype)[:, None], (count, *logits.shape)
    )
    (found,) = jax.vmap(pull)(one)  # [C, B, 1, 1, F]
    return jnp.moveaxis(found[:, :, 0, 0], 0, 1) / (height * width)


def grad_cam(head: Callable[[jax.Array], jax.Array], features: jax.Array) -> jax.Array:
    """Grad-CAM of all classes, ``relu(Σ_k α_ck f_k)``, for any head.

    For average pooling and a linear layer it is ``relu(cam) / (h·w)``.

    Args:
        head: features ``[B, h, w, F]`` → logits ``[B, C]``, film by film.
        features: what the head takes.

    Returns:
        ``[B, h, w, C]``, at least 0.

    Reference: Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2.
    """
    weights = feature_weights(head, features)
    maps = jnp.einsum("bhwf,bcf->bhwc", _widened(features), weights, precision=_EXACT)
    return jax.nn.relu(maps)


def upsample(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear interpolation of maps to the size of the film, half-pixel centres.

    Args:
        maps: ``[B, h, w, C]``.
        size: ``(H, W)`` in pixels, each at least that of the maps.

    Returns:
        ``[B, H, W, C]``.
    """
    shape = (maps.shape[0], *size, maps.shape[-1])
    return jax.image.resize(maps, shape, "linear", antialias=False)


def locate(maps: jax.Array, *, share: float = 0.5, refine: int = 4) -> Located:
    """The peak of each map and the box around it.

    The peak is the centre of the highest cell, which is where the interpolated map is
    highest. The box is tight around the connected part (by edges) that holds the peak
    and lies at or above ``share`` of the maximum, on a grid ``refine`` times as fine.

    Args:
        maps: ``[B, h, w, C]``.
        share: of the maximum, in (0, 1].
        refine: how fine boxes are, in parts of a cell.

    Returns:
        In relative coordinates; nothing is left to do on the host.
    """
    batch, height, width, classes = maps.shape
    flat = jnp.moveaxis(maps, 3, 1).reshape(batch, classes, height * width)
    best = jnp.argmax(flat, axis=-1)
    across, down = (best % width).astype(float), (best // width).astype(float)
    peak = jnp.stack([(across + 0.5) / width, (down + 0.5) / height], axis=-1)
    points = (flat.max(-1) > flat.min(-1))[..., None]
    fine = upsample(maps, (refine * height, refine * width))
    highest = fine.max(axis=(1, 2), keepdims=True)
    above = (fine >= share * highest) & (highest > 0)
    part = _grown(_first_highest(fine) & above, above)
    return Located(peak=jnp.where(points, peak, jnp.nan), xyxy=_tight_box(part))


def mass_inside(
    maps: jax.Array, xyxy: jax.Array, mask: jax.Array, *, refine: int = 4
) -> jax.Array:
    """Share of what speaks for a class, ``Σ relu(M)``, that lies in its boxes.

    Args:
        maps: ``[B, h, w]``, of one class per film.
        xyxy: ``[B, N, 4]``, in [0, 1].
        mask: ``[B, N]``, which boxes count; where several overlap, they count once (up
            to the cells that their edges cut).
        refine: the map is interpolated to a grid so many times as fine.

    Returns:
        ``[B]`` in [0, 1]; 0 for a map that is nowhere above 0.

    Reference: Wang et al., Score-CAM, CVPRW 2020, section 4.3 (energy-based pointing
    game).
    """
    height, width = refine * maps.shape[1], refine * maps.shape[2]
    mass = jax.nn.relu(upsample(maps[..., None], (height, width))[..., 0])
    x1, y1, x2, y2 = jnp.moveaxis(xyxy, -1, 0)
    down = jnp.where(mask[..., None], _overlap(y1, y2, height), 0.0)
    cover = jnp.einsum("bny,bnx->byx", down, _overlap(x1, x2, width), precision=_EXACT)
    inside = (mass * jnp.minimum(cover, 1.0)).sum(axis=(1, 2))
    total = mass.sum(axis=(1, 2))
    return jnp.where(total > 0, inside / jnp.where(total > 0, total, 1.0), 0.0)


def _widened(features: jax.Array) -> jax.Array:
    return features.astype(jnp.promote_types(features.dtype, jnp.float32))


def _first_highest(maps: jax.Array) -> jax.Array:
    """One True per map ``[B, H, W, C]``: the first of its highest cells."""
    batch, height, width, classes = maps.shape
    flat = maps.reshape(batch, height * width, classes)
    first = jnp.argmax(flat, axis=1)[:, None]
    return (jnp.arange(height * width)[None, :, None] == first).reshape(maps.shape)


def _grown(seed: jax.Array, allowed: jax.Array) -> jax.Array:
    """The cells of ``allowed`` that a path of neighbours joins to the seed."""

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        _, now = state
        wide = jnp.pad(now, ((0, 0), (1, 1), (1, 1), (0, 0)))
        near = wide[:, :-2, 1:-1] | wide[:, 2:, 1:-1]
        near |= wide[:, 1:-1, :-2] | wide[:, 1:-1, 2:]
        return now, now | (near & allowed)

    def grows(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.any(state[0] != state[1])

    return lax.while_loop(grows, step, (jnp.zeros_like(seed), seed))[1]


def _tight_box(cells: jax.Array) -> jax.Array:
    """Corners ``[B, C, 4]`` around the True cells of ``[B, H, W, C]``; zeros if none."""
    ends = []
    for axis, other in ((2, 1), (1, 2)):  # x, then y
        hit = cells.any(axis=other)  # [B, size, C]
        size = hit.shape[1]
        place = jnp.arange(size)[None, :, None]
        low = jnp.where(hit, place, size).min(axis=1)
        high = jnp.where(hit, place + 1, 0).max(axis=1)
        ends.append((jnp.where(high > 0, low, 0) / size, high / size))
    (x1, x2), (y1, y2) = ends
    return jnp.stack([x1, y1, x2, y2], axis=-1)


def _overlap(low: jax.Array, high: jax.Array, size: int) -> jax.Array:
    """Share of each of ``size`` cells in [0, 1] that lies between low and high."""
    edges = jnp.arange(size + 1) / size
    first = jnp.maximum(low[..., None], edges[None, None, :-1])
    last = jnp.minimum(high[..., None], edges[None, None, 1:])
    return jnp.maximum(last - first, 0.0) * size
