"""How a detector and a display show the line integrals of a limb, on films of any shape.

The same physics as `phantom_chest.detector`; there is no grid and little scatter, and the
window is set by the limb, whatever part of the film it takes.
"""

import dataclasses
import functools

import numpy as np

from data_builders.phantom_chest.detector import soften

CELLS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exposure:
    """How a film was taken and shown.

    Attributes:
        quanta: quanta per pixel of the open beam.
        scatter: scattered fraction.
        blur: focal and detector blur, sigma in mm.
        low: lower end of the window over the thin parts of the limb.
        high: upper end of the window over the dense parts.
        slope: steepness of the sigmoid table.
        shift: middle of the sigmoid table, 0.5 is neutral.
        gamma: exponent after the table.
        grain: relative spread of trabecular bone from pixel to pixel.
    """

    quanta: float
    scatter: float
    blur: float
    low: float
    high: float
    slope: float
    shift: float
    gamma: float
    grain: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """Ends of the displayed range of ``-log I``."""

    low: float
    high: float


@functools.lru_cache(maxsize=512)
def _spread(n: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """``[CELLS, n]`` averages over cells, and ``[n, CELLS]`` their wide blur."""
    edge = np.arange(CELLS + 1) * (n / CELLS)
    pixel = np.arange(n)
    left = np.maximum(edge[:-1, None], pixel)
    cover = np.minimum(edge[1:, None], pixel + 1) - left
    cover = np.maximum(cover, 0) * (CELLS / n)
    at = (pixel[:, None] + 0.5) / n - (np.arange(CELLS) + 0.5) / CELLS
    weight = np.exp(-0.5 * (at / sigma) ** 2)
    weight /= weight.sum(1, keepdims=True)
    return cover.astype(np.float32), weight.astype(np.float32)


def scatter_of(intensity: np.ndarray, *, sigma: float = 0.14) -> np.ndarray:
    """Very wide blur of ``[H, W]``; sigma relative to each side."""
    rows, wide = _spread(intensity.shape[0], sigma)
    cols, tall = _spread(intensity.shape[1], sigma)
    # Plain einsum, not BLAS: the same bits for any number of threads.
    cells = np.einsum("ij,kj->ik", np.einsum("ij,jk->ik", rows, intensity), cols)
    return np.einsum("ij,kj->ik", np.einsum("ij,jk->ik", wide, cells), tall)


def expected(
    t: np.ndarray, *, exposure: Exposure, pixel: float, scatter: np.ndarray
) -> np.ndarray:
    """Intensity without noise: ``(1 - f) exp(-t) + f scatter``, blurred."""
    f = np.float32(exposure.scatter)
    return soften((1 - f) * np.exp(-t) + f * scatter, exposure.blur / pixel)


def noisy(
    intensity: np.ndarray,
    *,
    exposure: Exposure,
    pixel: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Poisson quanta, then detector blur."""
    quanta = np.float32(exposure.quanta)
    counts = rng.poisson(intensity * quanta).astype(np.float32)
    return soften(counts / quanta, exposure.blur / pixel)


def signal_of(intensity: np.ndarray, *, exposure: Exposure) -> np.ndarray:
    """``-log I``, never below half a quantum: the signal before windowing."""
    return -np.log(np.maximum(intensity, np.float32(0.5 / exposure.quanta)))


def window_of(signal: np.ndarray, limb: np.ndarray, *, exposure: Exposure) -> Window:
    """The window that a film gets: robust percentiles over the limb.

    Args:
        signal: ``[H, W]``, ``-log I``.
        limb: bool ``[H, W]``, where there is tissue.
        exposure: where the ends lie relative to the percentiles.
    """
    inside = signal[::2, ::2][limb[::2, ::2]]
    if inside.size < 16:
        inside = signal.reshape(-1)
    thin, middle, dense = np.percentile(inside, (5, 50, 98))
    # Metal does not set the window: it is whiter than white.
    dense = min(dense, 2.4 * middle + 0.3)
    low = exposure.low * thin
    return Window(low=float(low), high=float(max(exposure.high * dense, low + 0.2)))


def shade(signal: np.ndarray, *, exposure: Exposure, window: Window) -> np.ndarray:
    """Gray values in [0, 1]: the sigmoid table over the window; dense is white."""
    scale = np.float32(1 / (window.high - window.low))
    value = np.clip((signal - np.float32(window.low)) * scale, -0.5, 1.3)
    k, m = np.float32(exposure.slope), np.float32(exposure.shift)
    ends = 1 / (1 + np.exp(-k * (np.array([-0.15, 1.15], np.float32) - m)))
    shown = (1 / (1 + np.exp(-k * (value - m))) - ends[0]) / (ends[1] - ends[0])
    return np.clip(shown, 0, 1) ** np.float32(exposure.gamma)
