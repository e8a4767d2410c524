"""Coverage and risk: what is left when the films a model is least sure of are put aside.

Films are kept in rising order of an uncertainty. At coverage c the share c of the films is
kept, and their mean loss is the risk. Films are taken as divisible and films of equal
uncertainty as one, which is the mean over all orders they could have: the loss of what is
kept is then a line between two distinct uncertainties, and the area under the risk,

    ∫₀¹ risk(c) dc = 1/N Σ_g [ℓ_g + (L - K ℓ_g/m_g) ln(1 + m_g/K)],

over groups g of m_g films with the summed loss ℓ_g, after K films with the loss L (the
first group gives ℓ_g), needs no grid. It does not change when all films are doubled, so it
is the same quantity on a resample.

Deviation: the usual sum over whole films, 1/N Σ_k risk(k/N) (Geifman and El-Yaniv, NeurIPS
2017), differs from it by O(ln N / N).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cxr_jax.metrics import bootstrap
from cxr_jax.metrics.bootstrap import Units

# A probability of another program may be 0 or 1; its log-loss ends here.
LEAST = 1e-7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """Means over the films that are kept.

    Attributes:
        coverage: float64 ``[P]`` in (0, 1], rising.
        mean: float64 ``[P]``, of losses (the risk) or of labels (retained prevalence).
    """

    coverage: np.ndarray
    mean: np.ndarray


def brier(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``(p - y)²``, float64; NaN where the label is unknown."""
    return (probs.astype(np.float64) - labels) ** 2


def log_loss(
    probs: np.ndarray, labels: np.ndarray, *, logits: np.ndarray | None = None
) -> np.ndarray:
    """``-y ln p - (1 - y) ln(1 - p)``, float64; NaN where the label is unknown.

    Args:
        probs: any shape, in [0, 1].
        labels: the same shape.
        logits: of ``probs``, which keep what rounds to 0 or 1; else probabilities are
            taken as at least ``LEAST`` away from both.
    """
    if logits is None:
        p = np.clip(probs.astype(np.float64), LEAST, 1 - LEAST)
        logits = np.log(p) - np.log1p(-p)
    logits = logits.astype(np.float64)
    return np.logaddexp(0, logits) - labels * logits


def entropy(probs: np.ndarray) -> np.ndarray:
    """``-p ln p - (1 - p) ln(1 - p)`` in nats, float64.

    It orders films as ``doubt`` does: of two classes, entropy and the larger probability
    say the same.
    """
    p = probs.astype(np.float64)
    both = np.stack([p, 1 - p])
    logs = np.log(both, where=both > 0, out=np.zeros_like(both))
    return -(both * logs).sum(axis=0)


def doubt(probs: np.ndarray) -> np.ndarray:
    """``1 - max(p, 1 - p)``, float64: the order of rejection by maximum probability."""
    p = probs.astype(np.float64)
    return np.minimum(p, 1 - p)


def area(uncertainty: np.ndarray, losses: np.ndarray) -> float:
    """The area under the coverage-risk curve of one class.

    Args:
        uncertainty: ``[N]``, finite.
        losses: ``[N]``, NaN where the label is unknown: left out.

    Returns:
        float64; NaN where no label is known.
    """
    kept, sums = _groups(uncertainty, losses)
    if not len(kept):
        return float("nan")
    before, loss_before = np.append(0, kept[:-1]), np.append(0, sums[:-1])
    films, loss = kept - before, sums - loss_before
    growth = np.log1p(films / np.maximum(before, 1)) * (before > 0)
    inside = loss + (loss_before - before * loss / films) * growth
    return float(inside.sum() / kept[-1])


def curve(uncertainty: np.ndarray, values: np.ndarray, coverage: np.ndarray) -> Curve:
    """Means of what is kept, at given coverages; exact where films are tied.

    Args:
        uncertainty: ``[N]``.
        values: ``[N]``, losses or labels; NaN is left out. At least one is known.
        coverage: ``[P]`` in (0, 1].
    """
    kept, sums = _groups(uncertainty, values)
    films = coverage * kept[-1]
    found = np.interp(films, np.append(0, kept), np.append(0, sums))
    return Curve(coverage=coverage, mean=found / films)


def resampled_areas(
    key: jax.Array,
    uncertainties: np.ndarray,
    losses: np.ndarray,
    labels: np.ndarray,
    units: Units,
    *,
    resamples: int,
    chunk: int = 256,
) -> np.ndarray:
    """Areas on resampled patients; random rejection, whose area is the mean loss, comes last.

    Resample r draws the patients that ``bootstrap.bootstrap`` draws for (key, r).

    Args:
        key: of the whole bootstrap.
        uncertainties: ``[M, N, C]``, M ways to order the films of each class.
        losses: ``[K, N, C]``, K kinds of loss; what stands at unknown labels is not read.
        labels: ``[N, C]`` in {0, 1} or NaN.
        units: the patient of each film.
        resamples: R, how many.
        chunk: resamples held in memory together.

    Returns:
        float64 ``[R, M + 1, K, C]``; NaN where a resample holds one label only.
    """
    chunk = min(chunk, resamples)
    chunks = -(-resamples // chunk)
    numbers = jnp.arange(chunks * chunk, dtype=jnp.uint32).reshape(chunks, chunk)
    films = _sorted(uncertainties, losses, labels, units)
    found = jax.device_get(_run(key, films, numbers, units=units.count))
    found = np.moveaxis(found, -1, 1)  # [chunks, chunk, K, M + 1, C]
    found = found.reshape(-1, *found.shape[2:])[:resamples]
    return np.swapaxes(found, 1, 2).astype(np.float64)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sorted:
    """Films in rising order of each uncertainty, position first.

    Attributes:
        unit: int32 ``[N, M, C]``.
        positive: bool ``[N, M, C]``.
        known: bool ``[N, M, C]``.
        losses: float32 ``[N, K, M, C]``, 0 where unknown.
        last: bool ``[N, M, C]``, at the last of films of equal uncertainty.
    """

    unit: jax.typing.ArrayLike
    positive: jax.typing.ArrayLike
    known: jax.typing.ArrayLike
    losses: jax.typing.ArrayLike
    last: jax.typing.ArrayLike


def _sorted(
    uncertainties: np.ndarray, losses: np.ndarray, labels: np.ndarray, units: Units
) -> _Sorted:
    order = np.argsort(uncertainties, axis=1, kind="stable")
    ranked = np.take_along_axis(uncertainties, order, axis=1)
    last = np.ones(ranked.shape, bool)
    last[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    labels = np.take_along_axis(labels[None], order, axis=1)
    known = np.isfinite(labels)
    losses = np.take_along_axis(losses[:, None], order[None], axis=2)
    losses = np.where(known[None], losses, 0).astype(np.float32)

    def films_first(leaf: np.ndarray) -> np.ndarray:
        return np.moveaxis(leaf, -2, 0)

    return _Sorted(
        unit=films_first(units.code[order]),
        positive=films_first(labels == 1),
        known=films_first(known),
        losses=films_first(losses),
        last=films_first(last),
    )


def _groups(
    uncertainty: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Films kept, and the sum of their values, at each distinct uncertainty."""
    known = np.isfinite(values)
    uncertainty, values = uncertainty[known], values[known].astype(np.float64)
    _, group = np.unique(uncertainty, return_inverse=True)
    return np.cumsum(np.bincount(group)), np.cumsum(np.bincount(group, values))


@partial(jax.jit, static_argnames="units")
def _run(
    key: jax.Array, films: _Sorted, numbers: jax.Array, *, units: int
) -> jax.Array:
    def chunk(number: jax.Array) -> jax.Array:
        keys = jax.vmap(partial(jax.random.fold_in, key))(number)
        draw = partial(bootstrap.draw_weights, units=units)
        return _areas(films, jax.vmap(draw, out_axes=1)(keys))

    return lax.map(chunk, numbers)


def _areas(films: _Sorted, weights: jax.Array) -> jax.Array:
    """``[K, M + 1, C, R]`` of weighted films, ``weights [units, R]``."""
    kinds, *shape = (*films.losses.shape[1:], weights.shape[1])
    zero, zeros = jnp.zeros(shape), jnp.zeros((kinds, *shape))

    def descend(state, film: _Sorted):
        kept, lost, before, area, positive = state
        weight = weights[film.unit] * film.known[..., None]
        positive = positive + weight * film.positive[..., None]
        kept = kept + weight
        lost = bootstrap.add(lost, film.losses[..., None] * weight[None])
        films_in, loss_in = kept - before[0], lost[0] - before[1]
        growth = jnp.log1p(films_in / jnp.maximum(before[0], 1)) * (before[0] > 0)
        mean = loss_in / jnp.maximum(films_in, 1)[None]
        inside = loss_in + (before[1] - before[0][None] * mean) * growth[None]
        last = film.last[..., None]
        area = bootstrap.add(area, jnp.where(last[None], inside, 0))
        before = (
            jnp.where(last, kept, before[0]),
            jnp.where(last[None], lost[0], before[1]),
        )
        return (kept, lost, before, area, positive), None

    begin = (zero, (zeros, zeros), (zero, zeros), (zeros, zeros), zero)
    (kept, lost, _, area, positive), _ = lax.scan(descend, begin, films)
    # Whatever the order, the sums over all films are the same.
    found = jnp.concatenate([area[0], lost[0][:, :1]], axis=1)
    defined = ((positive > 0) & (positive < kept))[:1]
    return jnp.where(defined[None], found / jnp.maximum(kept[:1], 1)[None], jnp.nan)
