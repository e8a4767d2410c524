"""The bootstrap of a reader study: every figure of every class from one draw of patients.

Outcomes are summed per patient once; the counts of all resamples are then one product of
matrices. AUROCs take one pass down the ranking, as in ``metrics.bootstrap``.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cxr_jax.metrics.bootstrap import Units, draw_weights


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupRanking:
    """Films of each class in falling order of score, under G references; N first.

    Attributes:
        unit: int32 ``[N, C]``.
        positive: bool ``[N, C, G]``.
        negative: bool ``[N, C, G]``; both False where a reference is unknown.
        last: bool ``[N, C]``, True at the last film of a group of equal scores.
    """

    unit: jax.typing.ArrayLike
    positive: jax.typing.ArrayLike
    negative: jax.typing.ArrayLike
    last: jax.typing.ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws:
    """What S resamples gave.

    Attributes:
        sums: float32 ``[S, K]``, columns of the table, summed over the films drawn.
        auroc: float32 ``[S, G, C]``, NaN where a reference holds one label only.
        pooled: float32 ``[S, C]``, films of all groupings in one ranking.
        pooled_drawn: float32 ``[S, C]``, the same, groupings counted as their readers
            were drawn.
        readers: float32 ``[S, R]``, how often each reader was drawn.
    """

    sums: jax.typing.ArrayLike
    auroc: jax.typing.ArrayLike
    pooled: jax.typing.ArrayLike
    pooled_drawn: jax.typing.ArrayLike
    readers: jax.typing.ArrayLike


def rank_groups(
    scores: np.ndarray, references: np.ndarray, units: Units
) -> GroupRanking:
    """Sorts the films of every class by falling score.

    Args:
        scores: ``[N, C]``, finite.
        references: ``[N, G, C]`` in {0, 1} or NaN.
        units: the unit of each film.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    labels = np.take_along_axis(references, order[:, None], axis=0)
    labels = np.moveaxis(labels, 1, 2)
    last = np.ones(scores.shape, dtype=bool)
    last[:-1] = ranked[1:] != ranked[:-1]
    return GroupRanking(
        unit=units.code[order], positive=labels == 1, negative=labels == 0, last=last
    )


def resample(
    key: jax.Array,
    table: np.ndarray,
    ranking: GroupRanking,
    units: Units,
    *,
    readers: int,
    resamples: int,
    chunk: int = 64,
) -> Draws:
    """Draws patients, and beside them readers, with replacement.

    Args:
        key: of the whole bootstrap; resample r depends on (key, r) only, and draws the
            patients that ``bootstrap.bootstrap`` draws.
        table: ``[N, K]``, what is summed over films.
        ranking: the films in falling order; its first R groupings are those of the
            readers, and these are pooled.
        units: what is drawn.
        readers: R, how many are drawn, independently of the patients.
        resamples: S.
        chunk: resamples held in memory together.

    Returns:
        Host arrays.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13;
    on drawing readers beside cases, Obuchowski et al., Academic Radiology 11 (2004).
    """
    chunk = min(chunk, resamples)
    chunks = -(-resamples // chunk)
    numbers = jnp.arange(chunks * chunk, dtype=jnp.uint32).reshape(chunks, chunk)
    per_unit = np.zeros((units.count, table.shape[1]), np.float32)
    np.add.at(per_unit, units.code, table.astype(np.float32))
    found = jax.device_get(
        _run(key, per_unit, ranking, numbers, units=units.count, readers=readers)
    )
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:resamples], found)


@partial(jax.jit, static_argnames=("units", "readers"))
def _run(key, table, ranking, numbers, *, units, readers):
    def one(number):
        own = jax.random.fold_in(key, number)
        drawn = draw_weights(jax.random.fold_in(own, 1), readers)
        return draw_weights(own, units), drawn

    def chunk(number):
        weights, drawn = jax.vmap(one)(number)
        areas = _areas(ranking, weights.T, drawn.T)
        groups = ranking.positive.shape[-1]
        return Draws(
            sums=jnp.matmul(weights, table, precision=lax.Precision.HIGHEST),
            auroc=areas[:, :groups],
            pooled=areas[:, groups],
            pooled_drawn=areas[:, groups + 1],
            readers=drawn,
        )

    return lax.map(chunk, numbers)


def _areas(ranking: GroupRanking, weights: jax.Array, drawn: jax.Array) -> jax.Array:
    """AUROC ``[S, G + 2, C]`` for weights ``[units, S]`` and readers ``[R, S]``.

    ``Σ (FP - FP')(TP + TP') / (2 P N)`` over groups of equal scores, see
    ``bootstrap.weighted_metrics``; the last two are the pooled ones.
    """
    groups, classes = ranking.positive.shape[-1], ranking.unit.shape[1]
    zero = jnp.zeros((classes, groups + 2, weights.shape[1]), jnp.float32)

    def add(seen, label, weight):
        # A film stands in the pooled ranking once per grouping.
        label = label.astype(jnp.float32)
        pool = label[:, : len(drawn)]
        once = pool.sum(axis=1, keepdims=True)[..., None]
        as_drawn = (pool @ drawn)[:, None]
        by_group = label[..., None] * weight[:, None]
        pooled = [once * weight[:, None], as_drawn * weight[:, None]]
        return seen + jnp.concatenate([by_group, *pooled], axis=1)

    def descend(state, film):
        (tp, fp), (tp0, fp0), (area, lost) = state
        weight = weights[film.unit]
        tp, fp = add(tp, film.positive, weight), add(fp, film.negative, weight)
        last = film.last[:, None, None]
        # Kahan's sum: float32 alone would drift.
        term = jnp.where(last, (fp - fp0) * (tp + tp0), 0) - lost
        total = area + term
        before = jnp.where(last, tp, tp0), jnp.where(last, fp, fp0)
        return ((tp, fp), before, (total, (total - area) - term)), None

    pair = (zero, zero)
    ((tp, fp), _, (area, _)), _ = lax.scan(descend, (pair, pair, pair), ranking)
    share = area / jnp.maximum(tp, 1) / jnp.maximum(2 * fp, 1)
    share = jnp.where((tp > 0) & (fp > 0), share, jnp.nan)
    return jnp.transpose(share, (2, 1, 0))
