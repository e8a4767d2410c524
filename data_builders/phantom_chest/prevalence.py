"""How often findings occur, alone and together, by age, sex and view.

Figures counted in ChestX-ray14's label table (`Data_Entry_2017_v2020.csv`, 112,120
films, NIH Clinical Center). Findings are drawn from a Gaussian copula: finding c is
present where ``z_c + shift_c(age, sex, view) > threshold_c``, with thresholds and the
correlations of z solved so that single and pairwise rates come out as counted.
"""

import functools

import numpy as np
from scipy.special import ndtr

from cxr_jax.labels import NIH14

FILMS = 112_120
AGE_MEAN, AGE_SD = 46.6, 16.6
MALE, AP = 0.565, 0.400

# Films with both findings; the diagonal is the number of films with the finding.
# Order as NIH14. Rows are the upper triangle.
TOGETHER = (
    (11559, 370, 3275, 3264, 739, 590, 262, 774, 1223, 221, 424, 220, 496, 40),
    (2776, 1063, 587, 102, 108, 41, 49, 169, 127, 44, 52, 111, 7),
    (13317, 4000, 1254, 912, 269, 996, 1287, 593, 359, 188, 849, 21),
    (19894, 1159, 1546, 605, 946, 1221, 981, 449, 345, 750, 33),
    (5782, 906, 71, 431, 610, 129, 215, 117, 452, 25),
    (6331, 70, 341, 428, 131, 115, 166, 411, 10),
    (1431, 41, 123, 340, 23, 11, 48, 3),
    (5302, 223, 33, 747, 80, 289, 9),
    (4667, 162, 103, 79, 251, 4),
    (2303, 30, 9, 64, 3),
    (2516, 36, 151, 4),
    (1686, 176, 8),
    (3385, 8),
    (227,),
)

# Shift of the latent variable per standard deviation of age, for male against female,
# and for AP against PA (differences of probits in the same table).
SHIFTS = {
    "Atelectasis": (0.13, 0.08, 0.25),
    "Cardiomegaly": (0.01, -0.16, 0.07),
    "Effusion": (0.10, -0.02, 0.26),
    "Infiltration": (-0.03, 0.03, 0.36),
    "Mass": (0.05, 0.09, -0.03),
    "Nodule": (0.08, 0.03, -0.13),
    "Pneumonia": (-0.05, 0.03, 0.25),
    "Pneumothorax": (-0.01, -0.10, -0.09),
    "Consolidation": (-0.01, 0.01, 0.53),
    "Edema": (-0.04, -0.07, 0.95),
    "Emphysema": (0.09, 0.13, 0.01),
    "Fibrosis": (0.14, -0.04, -0.47),
    "Pleural_Thickening": (0.10, 0.07, -0.22),
    "Hernia": (0.31, -0.18, -0.40),
}


def pair_rates() -> np.ndarray:
    """``[14, 14]`` share of films with both findings; the diagonal is the prevalence."""
    out = np.zeros((len(NIH14), len(NIH14)))
    for i, row in enumerate(TOGETHER):
        out[i, i:] = row
    return (out + np.triu(out, 1).T) / FILMS


def prevalences(*, multiplier: float, floor: float, cap: float) -> np.ndarray:
    """Prevalence per class: the real one times ``multiplier``, within floor and cap."""
    natural = np.diag(pair_rates())
    return np.maximum(natural, np.clip(multiplier * natural, floor, cap))


def shift(age: np.ndarray, male: np.ndarray, ap: np.ndarray) -> np.ndarray:
    """Latent shift ``[..., 14]`` of films by age (years), sex and view."""
    table = np.array([SHIFTS[name] for name in NIH14])
    unit = (np.asarray(age) - AGE_MEAN) / AGE_SD
    parts = np.stack(np.broadcast_arrays(unit, male, ap), -1).astype(float)
    return parts @ table.T


def _cells() -> tuple[np.ndarray, np.ndarray]:
    """Shifts ``[cells, 14]`` of typical films, and the cells' weights."""
    node, weight = np.polynomial.hermite_e.hermegauss(7)
    age = np.clip(AGE_MEAN + AGE_SD * node, 18, 94)
    grid = [k.ravel() for k in np.meshgrid(age, (0, 1), (0, 1), indexing="ij")]
    mass = np.meshgrid(
        weight / weight.sum(), (1 - MALE, MALE), (1 - AP, AP), indexing="ij"
    )
    return shift(*grid), np.prod(mass, 0).ravel()


def _bisect(function, target: np.ndarray, low: float, high: float) -> np.ndarray:
    """Elementwise root of an increasing function by halving."""
    a, b = np.full(target.shape, low), np.full(target.shape, high)
    for _ in range(50):
        middle = 0.5 * (a + b)
        below = function(middle) < target
        a, b = np.where(below, middle, a), np.where(below, b, middle)
    return 0.5 * (a + b)


def thresholds(rates: np.ndarray) -> np.ndarray:
    """Thresholds at which findings have the prevalences ``rates`` over all films."""
    shifts, weight = _cells()
    negative = _bisect(
        lambda t: weight @ ndtr(shifts + t[None, :]), np.asarray(rates, float), -8, 8
    )
    return -negative


def both_above(a: np.ndarray, b: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """P(X > a, Y > b) of a standard bivariate normal with correlation rho.

    ``ndtr(-a) ndtr(-b) + 1/(2 pi) int_0^rho exp(-(a^2 - 2 a b r + b^2) /
    (2 (1 - r^2))) / sqrt(1 - r^2) dr`` (Drezner and Wesolowsky, 1990).
    """
    node, weight = np.polynomial.legendre.leggauss(16)
    r = 0.5 * rho[..., None] * (node + 1)
    a, b = a[..., None], b[..., None]
    left = 1 - r * r
    inner = np.exp(-(a * a - 2 * a * b * r + b * b) / (2 * left)) / np.sqrt(left)
    area = 0.5 * rho * (inner @ weight) / (2 * np.pi)
    return ndtr(-a[..., 0]) * ndtr(-b[..., 0]) + area


@functools.cache
def latent_correlation() -> np.ndarray:
    """``[14, 14]`` correlation of the latent variables that gives the counted pairs."""
    rates = pair_rates()
    shifts, weight = _cells()
    level = thresholds(np.diag(rates)) - shifts
    i, j = np.triu_indices(len(NIH14), 1)

    def together(rho):
        return weight @ both_above(
            level[:, i], level[:, j], rho[None, :] + 0 * level[:, i]
        )

    rho = _bisect(together, rates[i, j], -0.95, 0.95)
    matrix = np.eye(len(NIH14))
    matrix[i, j] = matrix[j, i] = rho
    return _nearest_correlation(matrix)


def _nearest_correlation(matrix: np.ndarray) -> np.ndarray:
    """Lift eigenvalues below 1e-3 and scale the diagonal back to 1."""
    value, vector = np.linalg.eigh(matrix)
    if value[0] >= 1e-3:
        return matrix
    lifted = (vector * np.maximum(value, 1e-3)) @ vector.T
    scale = 1 / np.sqrt(np.diag(lifted))
    return lifted * scale[:, None] * scale[None, :]


@functools.cache
def latent_factor() -> np.ndarray:
    """Lower triangular L with ``L L^T`` the latent correlation."""
    return np.linalg.cholesky(latent_correlation())


# Severity s = 0.03 + 0.97 (1 - (1 - u)^(1/b))^(1/a), u uniform (Kumaraswamy).
SEVERITY_A, SEVERITY_B, SEVERITY_MIN = 1.5, 1.2, 0.03


def severity_of(u: np.ndarray) -> np.ndarray:
    """Quantile function of severity; ``u`` in (0, 1)."""
    k = (1 - (1 - np.asarray(u)) ** (1 / SEVERITY_B)) ** (1 / SEVERITY_A)
    return SEVERITY_MIN + (1 - SEVERITY_MIN) * k
