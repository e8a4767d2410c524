"""How a detector and a display show line integrals of attenuation."""

import dataclasses

import numpy as np

QUANTA_RANGE = (1e3, 1e5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exposure:
    """How a film was taken and shown.

    Attributes:
        quanta: quanta per pixel of the open beam, 1e3 to 1e5.
        scatter: scattered fraction, 0.2 to 0.6.
        blur: focal and detector blur, sigma in mm.
        low, high: percentiles of -log I at the ends of the window.
        slope: steepness of the sigmoid table.
        shift: middle of the sigmoid table, 0.5 is neutral.
        gamma: exponent after the table.
    """

    quanta: float
    scatter: float
    blur: float
    low: float
    high: float
    slope: float
    shift: float
    gamma: float


def _blur_matrix(n: int, cells: int, sigma: float) -> np.ndarray:
    """``[n, cells]``: Gaussian weights from coarse cells to pixels, rows sum to 1."""
    at = (np.arange(n) + 0.5) / n
    cell = (np.arange(cells) + 0.5) / cells
    weight = np.exp(-0.5 * ((at[:, None] - cell[None, :]) / sigma) ** 2)
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def scatter_blur(intensity: np.ndarray, *, sigma: float = 0.12) -> np.ndarray:
    """Very wide blur, computed on 16 x 16 block means; sigma relative to the side."""
    n, cells = len(intensity), 16
    block = intensity.reshape(cells, n // cells, cells, n // cells).mean((1, 3))
    weight = _blur_matrix(n, cells, sigma)
    # Plain einsum, not BLAS: the same bits for any number of threads.
    return np.einsum("ik,kj->ij", weight, np.einsum("kl,jl->kj", block, weight))


def soften(image: np.ndarray, sigma: float) -> np.ndarray:
    """Narrow Gaussian blur by three taps per axis, sigma in pixels (below 0.8)."""
    side = 0.5 * min(sigma * sigma, 0.6)
    if side < 1e-3:
        return image
    mid, side = np.float32(1 - 2 * side), np.float32(side)
    wide = np.pad(image, 1, mode="edge")
    rows = mid * wide[1:-1] + side * (wide[:-2] + wide[2:])
    return mid * rows[:, 1:-1] + side * (rows[:, :-2] + rows[:, 2:])


def detect(
    t: np.ndarray, *, exposure: Exposure, pixel: float, rng: np.random.Generator | None
) -> np.ndarray:
    """Detected ``-log I`` of line integrals ``t``; without ``rng`` free of noise.

    ``I = (1 - f) exp(-t) + f blur(exp(-t))``, Poisson quanta, detector blur.

    Args:
        t: float32 ``[H, W]``, line integral of attenuation, dimensionless.
        exposure: see `Exposure`.
        pixel: mm per pixel.
        rng: source of the quanta; None gives their mean.

    Returns:
        float32 ``[H, W]``; the raw signal, before windowing.
    """
    direct = np.exp(-t)
    f = np.float32(exposure.scatter)
    intensity = (1 - f) * direct + f * scatter_blur(direct)
    sigma = exposure.blur / pixel
    intensity = soften(intensity, sigma)
    quanta = np.clip(exposure.quanta, *QUANTA_RANGE)
    if rng is not None:
        counts = rng.poisson(intensity * np.float32(quanta))
        intensity = counts.astype(np.float32) * np.float32(1 / quanta)
        intensity = soften(intensity, sigma)
    return -np.log(np.maximum(intensity, np.float32(0.5 / quanta)))


def display(signal: np.ndarray, *, exposure: Exposure) -> np.ndarray:
    """Window ``-log I`` at robust percentiles, apply the sigmoid table; uint8.

    Dense is white. The percentiles are taken over the inner film, so that the amount
    of air around the patient does not set the grey of the lungs.
    """
    n = len(signal)
    inner = signal[n // 8 : n - n // 16 : 2, n // 6 : n - n // 6 : 2]
    low, high = np.percentile(inner, [exposure.low, exposure.high])
    value = (signal - np.float32(low)) * np.float32(1 / max(high - low, 1e-3))
    k, m = np.float32(exposure.slope), np.float32(exposure.shift)
    ends = 1 / (1 + np.exp(-k * (np.array([0.0, 1.0], np.float32) - m)))
    shown = 1 / (1 + np.exp(-k * (np.clip(value, -1, 2) - m)))
    shown = (shown - ends[0]) / (ends[1] - ends[0]) * np.float32(0.82) + np.float32(0.1)
    shown = np.clip(shown, 0, 1) ** np.float32(exposure.gamma)
    return np.rint(shown * 255).astype(np.uint8)
