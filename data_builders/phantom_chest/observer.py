"""An observer of lesions in noise: recognition, confusion, search (see `oracle`)."""

import numpy as np
from scipy.special import ndtri

from cxr_jax.labels import NIH14

CLASSES = len(NIH14)
BANK, LIBRARY = 24, 60
# Odds of a lesion of a given class at a given place.
PRIOR = 0.01


def recognised(who: np.ndarray, unit: list[dict[str, np.ndarray]]) -> np.ndarray:
    """``rho`` ``[films, 14]``: how well the library matches each lesion, at most 1."""
    rho = np.zeros((len(unit), CLASSES))
    for k, name in enumerate(NIH14):
        rows = [i for i, signals in enumerate(unit) if name in signals]
        library = rows[:LIBRARY]
        templates = np.stack([unit[i][name] for i in library]) if library else None
        for i in rows:
            other = who[library] != who[i]
            if other.any():
                known = templates[other]
                # The mirror image of a shape is as well known: conjugate columns.
                mirror = np.roll(known[:, :, ::-1], 1, 2)
                best = [_best_match(unit[i][name], t) for t in (known, mirror)]
                rho[i, k] = max(best)
    return rho


def confusion(unit: list[dict[str, np.ndarray]]) -> np.ndarray:
    """``kappa[j, k]`` (step 3); 0 for the `SHAPES`, 1 on the diagonal."""
    bank = {
        name: [signals[name] for signals in unit if name in signals][:BANK]
        for name in NIH14
    }
    kappa = np.eye(CLASSES)
    for j, own in enumerate(NIH14):
        for k, other in enumerate(NIH14):
            if j == k or not bank[own] or not bank[other]:
                continue
            templates = np.stack(bank[other])
            best = [_best_match(signal, templates) for signal in bank[own]]
            kappa[j, k] = np.median(best)
    return kappa


def _best_match(signal: np.ndarray, templates: np.ndarray) -> float:
    """Largest correlation of a signal with any template at any shift."""
    match = np.fft.ifft2(signal[None] * templates.conj(), axes=(1, 2)).real
    return float(match.max()) * signal.size


def texture(
    d: np.ndarray, unit: list[dict[str, np.ndarray]], *, area: np.ndarray
) -> np.ndarray:
    """Detectability by energy alone, ``[films, 14]``: of textures, not of shapes.

    The observer knows how the energy of a class spreads over frequencies, from the
    library, but not the phases. In the part a of the film that the lesion takes,
    ``d_e^2 = 1/2 a sum_f q_f^2 / (1 + q_f)`` with ``q_f`` the expected energy at f over
    that of the noise there; over all f, ``sum_f a q_f = d^2``.

    Args:
        d: ``[films, 14]``.
        unit: per film, class → unit whitened spectrum.
        area: ``[films, 14]`` pixels of each lesion.
    """
    out = np.zeros(d.shape)
    for k, name in enumerate(NIH14):
        own = [np.abs(signals[name]) ** 2 for signals in unit if name in signals]
        if own:
            mean = np.mean(own[:LIBRARY], 0).reshape(1, -1)
            part = np.maximum(area[:, k, None], 1) / mean.size
            for rows in np.array_split(np.arange(len(d)), max(len(d) // 64, 1)):
                q = d[rows, k, None] ** 2 * mean / part[rows]
                energy = part[rows, 0] * np.sum(q * q / (1 + q), 1)
                out[rows, k] = np.sqrt(0.5 * energy)
    return out


def scores(
    d: np.ndarray,
    *,
    area: np.ndarray,
    lung: np.ndarray,
    kappa: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """One draw of the observer's scores, ``[films, 14]`` (step 4 of `oracle`).

    Args:
        d: ``[films, 14]``, mean answer of each lesion, 0 where there is none.
        area: ``[films, 14]``, pixels of each lesion.
        lung: ``[films]``, pixels of lung.
        kappa: ``[14, 14]``, see `confusion`.
        rng: the noise of this draw.
    """
    typical = np.array(
        [
            np.median(area[area[:, k] > 0, k]) if d[:, k].any() else 1
            for k in range(CLASSES)
        ]
    )
    # A lesion takes one of the places: the others answer with noise alone.
    lesions = (d > 0).sum(1, keepdims=True)
    places = np.maximum(lung[:, None] / np.maximum(typical, 1), 1) - lesions
    out = _largest_noise(places, rng)
    for j in range(CLASSES):
        here = d[:, j] > 0
        x = d[here, j] + rng.standard_normal(here.sum())
        noise = rng.standard_normal((here.sum(), CLASSES))
        r = kappa[j] * x[:, None] + np.sqrt(1 - kappa[j] ** 2) * noise
        rest = [_rivals(np.delete(r, k, 1)) for k in range(CLASSES)]
        out[here] = np.maximum(out[here], _evidence(r, np.stack(rest, 1)))
    return out


def _rivals(r: np.ndarray) -> np.ndarray:
    """Log odds that one of the other classes explains a place, ``[..., k]`` → ``[...]``."""
    return np.log(PRIOR) + np.logaddexp.reduce(np.maximum(r, 0) ** 2 / 2, axis=-1)


def _evidence(r: np.ndarray, rest: np.ndarray) -> np.ndarray:
    return np.sign(r) * r * r / 2 - np.logaddexp(0, rest)


def _largest_noise(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Evidence of the largest of so many normal numbers, by its quantile function."""
    p = rng.random(places.shape) ** (1 / np.maximum(places, 1e-6))
    best = ndtri(np.clip(p, 1e-12, 1 - 1e-12))
    rivals = rng.standard_normal((*places.shape, CLASSES - 1))
    found = _evidence(best, _rivals(rivals))
    return np.where(places > 0, found, -np.inf)
