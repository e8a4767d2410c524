"""Figures with their percentile intervals, over cases and over cases and readers."""

import dataclasses

import numpy as np

from cxr_jax.metrics import bootstrap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its intervals.

    Attributes:
        value: None where it is undefined.
        low: lower end of the 95% percentile interval over cases.
        high: upper end.
        discarded: resamples without the figure.
        low_readers: lower end over cases and readers; None where readers are not drawn.
        high_readers: upper end.
        discarded_readers: resamples of cases and readers without the figure.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    discarded: int = 0
    low_readers: float | None = None
    high_readers: float | None = None
    discarded_readers: int = 0


def estimates(
    values: np.ndarray, cases: np.ndarray | None, readers: np.ndarray | None
) -> list:
    """Figures in nested lists.

    Args:
        values: any shape; NaN where undefined.
        cases: ``[S, …]``, on resampled cases, or None.
        readers: ``[S, …]``, on resampled cases and readers, or None.

    Returns:
        Lists nested as ``values`` is; an ``Estimate`` where it is a single figure.
    """
    if np.ndim(values):
        return [
            estimates(
                values[k],
                None if cases is None else cases[:, k],
                None if readers is None else readers[:, k],
            )
            for k in range(len(values))
        ]
    if not np.isfinite(values):
        return Estimate(value=None)
    narrow, wide = map(_interval, (cases, readers))
    return Estimate(
        value=float(values),
        low=narrow.low,
        high=narrow.high,
        discarded=narrow.discarded,
        low_readers=wide.low,
        high_readers=wide.high,
        discarded_readers=wide.discarded,
    )


def _interval(resampled: np.ndarray | None) -> bootstrap.Interval:
    if resampled is None:
        return bootstrap.Interval(low=None, high=None, discarded=0)
    return bootstrap.percentile_interval(resampled)


def verdict(low: float | None, high: float | None, *, margin: float = 0.0) -> str:
    """What an interval of a difference model - readers allows to be said.

    An interval that holds 0 says that no difference was detected, not that there is none.

    Args:
        low: lower end, or None.
        high: upper end, or None.
        margin: of non-inferiority, named beforehand; 0 for none.

    Returns:
        Words.
    """
    if low is None or high is None:
        return "no interval, no verdict"
    words = f"(interval {low:+.3f} to {high:+.3f})".replace("-", "−")
    if low > 0:
        return f"model higher {words}"
    text = f"no difference detected {words}" if high >= 0 else f"model lower {words}"
    if margin > 0 and low > -margin:
        return f"{text}; not inferior by the margin of {margin:g} named beforehand"
    return text
