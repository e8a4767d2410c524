"""Patient-level bootstrap of AUROC and average precision, jitted.

Films are sorted once, on the host. A resample is then nothing but a weight per patient, and
one pass down the ranking gives both metrics of all classes for a whole chunk of resamples.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

IMAGE_LEVEL = "image-level, likely too narrow"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Units:
    """What the bootstrap draws with replacement.

    Attributes:
        code: int32 ``[N]``, the unit of each film, 0 … count - 1.
        count: number of units.
        name: how the unit is worded beside an interval.
        patient: int32 ``[N]``, the patient of each film, where units are not patients.
    """

    code: np.ndarray
    count: int
    name: str
    patient: np.ndarray | None = None

    @property
    def patients(self) -> np.ndarray:
        """The patient of each film: counts are of patients, whatever is drawn."""
        return self.code if self.patient is None else self.patient

    def of(self, rows: np.ndarray) -> "Units":
        """The same for some of the films."""
        patient = None if self.patient is None else self.patient[rows]
        return dataclasses.replace(self, code=self.code[rows], patient=patient)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """Films of each class in falling order of score, position first.

    Attributes:
        unit: int32 ``[N, C]``, unit of the film at this rank.
        positive: bool ``[N, C]``.
        negative: bool ``[N, C]``; both False where the label is unknown.
        last: bool ``[N, C]``, True at the last film of a group of equal scores.
    """

    unit: jax.typing.ArrayLike
    positive: jax.typing.ArrayLike
    negative: jax.typing.ArrayLike
    last: jax.typing.ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampled:
    """Metrics on resamples; NaN where a resample holds one label only.

    Attributes:
        auroc: float32 ``[R, C]``.
        average_precision: float32 ``[R, C]``.
    """

    auroc: jax.typing.ArrayLike
    average_precision: jax.typing.ArrayLike


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A percentile interval.

    Attributes:
        low: lower end, None when every resample was undefined.
        high: upper end.
        discarded: undefined resamples, left out.
    """

    low: float | None
    high: float | None
    discarded: int


def resampling_units(patients: Sequence[str], *, name: str = "patient") -> Units:
    """Groups films by patient; a film whose patient is unknown stands for itself.

    Args:
        patients: ``[N]``, empty text where unknown.
        name: what they are, if not patients.

    Returns:
        The units, worded by ``name``, or "image-level, likely too narrow" if none is known.
    """
    names = np.asarray(patients, dtype=str)
    unknown = names == ""
    # A line break cannot occur in an identifier, so these never meet a real one.
    names = np.where(unknown, [f"\n{i}" for i in range(len(names))], names)
    distinct, code = np.unique(names, return_inverse=True)
    if unknown.all():
        name = IMAGE_LEVEL
    elif unknown.any():
        name = f"{name} ({unknown.sum()} films of unknown {name} drawn singly)"
    return Units(code=code.astype(np.int32), count=len(distinct), name=name)


def rank_films(scores: np.ndarray, labels: np.ndarray, units: Units) -> Ranking:
    """Sorts the films of every class by falling score.

    Args:
        scores: ``[N, C]``, finite.
        labels: ``[N, C]`` in {0, 1} or NaN.
        units: the unit of each film.

    Returns:
        The ranking, in host arrays.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    labels = np.take_along_axis(labels, order, axis=0)
    last = np.ones(scores.shape, dtype=bool)
    last[:-1] = ranked[1:] != ranked[:-1]
    return Ranking(
        unit=units.code[order], positive=labels == 1, negative=labels == 0, last=last
    )


def draw_weights(key: jax.Array, units: int) -> jax.Array:
    """Draws as many units as there are, with replacement.

    Args:
        key: of this resample alone.
        units: number of units.

    Returns:
        float32 ``[units]``: how often each was drawn.
    """
    drawn = jax.random.randint(key, (units,), 0, units)
    return jnp.zeros(units, jnp.float32).at[drawn].add(1)


def weights_in_chunks(
    key: jax.Array, units: int, *, resamples: int, chunk: int = 512
) -> Iterator[jax.Array]:
    """Weights of all resamples, a chunk after the other.

    They are drawn by a program of their own, which is compiled once per number of units:
    what is then made of them has a shape, and a program, per table.

    Args:
        key: of the whole bootstrap; resample r depends on (key, r) only.
        units: number of units.
        resamples: R, at least 1.
        chunk: resamples at a time; the last chunk is as long, whatever R.

    Yields:
        float32 ``[chunk, units]``.
    """
    chunk = min(chunk, resamples)
    for start in range(0, resamples, chunk):
        numbers = np.arange(start, start + chunk, dtype=np.uint32)
        yield _drawn(key, numbers, units=units)


def weighted_metrics(ranking: Ranking, weights: jax.Array) -> Resampled:
    """AUROC and average precision of weighted films, ties exact.

    Going down the ranking, TP and FP are the weights passed so far. At the end of each group of
    equal scores, with TP' and FP' as they stood at the end of the previous group,
    ``AUROC = Σ (FP - FP')(TP + TP') / (2 P N)`` and
    ``AP = Σ (TP - TP') / P · TP / (TP + FP)``: scikit-learn's definitions.

    Args:
        ranking: the films in falling order.
        weights: float32 ``[units, R]``, small integers; counts stay exact below 2²⁴ films.

    Returns:
        The metrics ``[R, C]``.
    """
    zero = jnp.zeros((ranking.unit.shape[1], weights.shape[1]), jnp.float32)

    def descend(state, film):
        seen, before, auroc, precision = state
        weight = weights[film.unit]
        tp = seen[0] + jnp.where(film.positive[:, None], weight, 0)
        fp = seen[1] + jnp.where(film.negative[:, None], weight, 0)
        last = film.last[:, None]
        pairs = (fp - before[1]) * (tp + before[0])
        found = (tp - before[0]) * tp / jnp.maximum(tp + fp, 1)
        auroc = add(auroc, jnp.where(last, pairs, 0))
        precision = add(precision, jnp.where(last, found, 0))
        before = (jnp.where(last, tp, before[0]), jnp.where(last, fp, before[1]))
        return ((tp, fp), before, auroc, precision), None

    pair = (zero, zero)
    (seen, _, auroc, precision), _ = lax.scan(descend, (pair,) * 4, ranking)
    positives, negatives = seen
    defined = (positives > 0) & (negatives > 0)
    # Divided one after the other: 2PN itself would pass float32's exact integers.
    auroc = auroc[0] / jnp.maximum(positives, 1) / jnp.maximum(2 * negatives, 1)
    precision = precision[0] / jnp.maximum(positives, 1)
    return Resampled(
        auroc=jnp.where(defined, auroc, jnp.nan).T,
        average_precision=jnp.where(defined, precision, jnp.nan).T,
    )


def bootstrap(
    key: jax.Array,
    scores: np.ndarray,
    labels: np.ndarray,
    units: Units,
    *,
    resamples: int,
    chunk: int = 512,
) -> Resampled:
    """AUROC and average precision on resampled patients.

    Args:
        key: of the whole bootstrap; resample r depends on (key, r) only, not on ``chunk``.
        scores: ``[N, C]``, finite.
        labels: ``[N, C]`` in {0, 1} or NaN.
        units: what is drawn.
        resamples: R, how many.
        chunk: resamples held in memory together (``4 · units · chunk`` bytes of weights).

    Returns:
        The metrics ``[R, C]``, in host arrays.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    ranking = rank_films(scores, labels, units)
    drawn = weights_in_chunks(key, units.count, resamples=resamples, chunk=chunk)
    parts = [jax.device_get(_measured(ranking, weights)) for weights in drawn]
    return jax.tree.map(lambda *x: np.concatenate(x)[:resamples], *parts)


def percentile_interval(values: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """The central interval of resampled values.

    Args:
        values: ``[R]``, NaN where a resample is undefined.
        confidence: mass between both ends, in (0, 1).

    Returns:
        The interval and the number of undefined resamples.
    """
    defined = np.asarray(values, dtype=np.float64)
    defined = defined[np.isfinite(defined)]
    discarded = len(values) - len(defined)
    if not len(defined):
        return Interval(low=None, high=None, discarded=discarded)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(defined, [tail, 100 - tail])
    return Interval(low=float(low), high=float(high), discarded=discarded)


@jax.jit
def _measured(ranking: Ranking, weights: jax.Array) -> Resampled:
    return weighted_metrics(ranking, weights.T)


@partial(jax.jit, static_argnames="units")
def _drawn(key: jax.Array, numbers: jax.Array, *, units: int) -> jax.Array:
    keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
    return jax.vmap(partial(draw_weights, units=units))(keys)


def add(total: tuple[jax.Array, jax.Array], term: jax.Array):
    """Kahan's sum: float32 alone would drift by 1e-5 over 20,000 terms."""
    value, lost = total
    term = term - lost
    result = value + term
    return result, (result - value) - term
