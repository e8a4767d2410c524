"""Patient-level bootstrap of whatever is made of sums over films, jitted.

Counts, means and rates need of a patient nothing but the sums over its films. A resample is
then one row of weights times a matrix: all resamples and columns together are one product.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cxr_jax.metrics import bootstrap
from cxr_jax.metrics.bootstrap import Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """A 95% percentile interval of resampled values.

    Attributes:
        low: lower end; None where every resample was undefined; may be infinite.
        high: upper end, likewise.
        discarded: undefined resamples, left out.
    """

    low: float | None
    high: float | None
    discarded: int


def sum_by_unit(values: np.ndarray, units: Units) -> np.ndarray:
    """Sums over the films of each patient.

    Args:
        values: ``[N, ...]``, finite.
        units: the patient of each of the N films; each has at least one.

    Returns:
        float32 ``[units, ...]``; whole numbers below 2²⁴ are exact.
    """
    order = np.argsort(units.code, kind="stable")
    starts = np.searchsorted(units.code[order], np.arange(units.count))
    return np.add.reduceat(values[order], starts, axis=0).astype(np.float32)


def resample_sums(
    key: jax.Array, sums: np.ndarray, *, resamples: int, chunk: int = 512
) -> np.ndarray:
    """Sums over resampled patients.

    Resample r draws the patients that ``bootstrap.bootstrap`` draws for (key, r), so that
    figures of both belong to the same resamples.

    Args:
        key: of the whole bootstrap.
        sums: ``[units, ...]`` from ``sum_by_unit``.
        resamples: R, how many.
        chunk: resamples held in memory together.

    Returns:
        float32 ``[R, ...]`` on the host.
    """
    flat = sums.reshape(len(sums), -1)
    drawn = bootstrap.weights_in_chunks(
        key, len(sums), resamples=resamples, chunk=chunk
    )
    parts = [np.asarray(_summed(weights, flat)) for weights in drawn]
    return np.concatenate(parts)[:resamples].reshape(-1, *sums.shape[1:])


def bounds(values: np.ndarray) -> Bounds:
    """The central 95% of resampled values, NaN left out, infinities kept.

    Args:
        values: ``[R]``; a ratio may be infinite.

    Returns:
        The interval; an infinite end says that it is open.
    """
    values = np.asarray(values, dtype=np.float64)
    defined = values[~np.isnan(values)]
    if np.isfinite(defined).all():
        found = bootstrap.percentile_interval(values)
        return Bounds(low=found.low, high=found.high, discarded=found.discarded)
    # An element of the sample: between a number and infinity nothing can be halved.
    low, high = np.percentile(defined, [2.5, 97.5], method="inverted_cdf")
    discarded = len(values) - len(defined)
    return Bounds(low=float(low), high=float(high), discarded=discarded)


def bounds_of_rate(value: float, values: np.ndarray, patients: int) -> Bounds:
    """``bounds`` of a rate that resampling cannot move from 0 or 1.

    None of n patients, resampled, stays none: its interval is the exact one instead,
    ``[0, 1 - 0.025^(1 / n)]``, or ``[0.025^(1 / n), 1]`` for all of n.

    Args:
        value: of the rate, in [0, 1].
        values: ``[R]``, resampled.
        patients: n, that the rate rests on.

    Reference: Clopper and Pearson, Biometrika 26 (1934), at both ends.
    """
    found = bounds(values)
    if found.low is None or value not in (0, 1) or not patients:
        return found
    least = 0.025 ** (1 / patients)
    low, high = (least, 1.0) if value == 1 else (0.0, 1 - least)
    return Bounds(low=low, high=high, discarded=found.discarded)


@jax.jit
def _summed(weights: jax.Array, sums: jax.Array) -> jax.Array:
    # Counts stay whole numbers: no accelerator may round them on the way.
    return jnp.matmul(weights, sums, precision=lax.Precision.HIGHEST)
