"""Optimizers with an L2 term, against their formulas in float64."""

import jax
import numpy as np
import optax
import pytest

from cxr_jax import optim

STEPS, RATE, L2 = 6, 0.05, 0.1


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def descend(transformation, start):
    """The gradient is that of Σ x⁴ / 4, plus what the transformation adds."""
    params, state = {"w": start}, transformation.init({"w": start})
    for _ in range(STEPS):
        gradients = {"w": params["w"] ** 3}
        updates, state = transformation.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params["w"])


def test_momentum_and_l2_are_those_of_torch():
    """``torch.optim.SGD``: g ← g + λx; v ← μv + g; x ← x - ηv."""
    start = np.array([1.0, -0.5, 0.1])
    ours = descend(optim.sgd(optax.constant_schedule(RATE), momentum=0.9, l2=L2), start)
    x, v = start.copy(), np.zeros(3)
    for _ in range(STEPS):
        v = 0.9 * v + x**3 + L2 * x
        x = x - RATE * v
    np.testing.assert_allclose(ours, x, rtol=1e-12)


def test_adam_takes_l2_into_its_moments():
    """``torch.optim.Adam``: coupled, unlike AdamW's decay."""
    start = np.array([1.0, -0.5, 0.1])
    ours = descend(optim.adam(optax.constant_schedule(RATE), l2=L2), start)
    x, m, s = start.copy(), np.zeros(3), np.zeros(3)
    for k in range(1, STEPS + 1):
        g = x**3 + L2 * x
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
        x = x - RATE * (m / (1 - 0.9**k)) / (np.sqrt(s / (1 - 0.999**k)) + 1e-8)
    np.testing.assert_allclose(ours, x, rtol=1e-9)
    decoupled = optim.adamw(optax.constant_schedule(RATE), weight_decay=L2)
    assert np.abs(descend(decoupled, start) - x).max() > 1e-3


@pytest.mark.parametrize(("patience", "cuts"), [(1, [3, 4, 6]), (2, [4])])
def test_the_rate_falls_after_so_many_stale_validations(patience, cuts):
    """Losses 5 4 4 4 3 3: with patience 1 every stale one cuts, as RC's loop does.

    ``torch``'s ``ReduceLROnPlateau`` cuts when it is *exceeded*: its 5 is 6 here.
    """
    spec = {"factor": 0.1, "patience": patience, "rtol": 1e-9, "min_scale": 1e-6}
    plateau = optim.plateau(spec)
    state, scales = plateau.init({}), [1.0]
    for value in (5.0, 4.0, 4.0, 4.0, 3.0, 3.0):
        _, state = plateau.update({}, state, value=value)
        scales.append(float(state.scale))
    found = [k for k in range(1, 7) if scales[k] < scales[k - 1]]
    assert found == cuts
    np.testing.assert_allclose(scales[-1], 0.1 ** len(cuts), rtol=1e-6)


def test_the_cosine_does_not_wait_for_the_warm_up():
    """ADPD: lr·t/3,000, then lr·(1 + cos(π t/T))/2 at the same t; a small jump down."""
    rate, rise, steps = 3e-5, 3_000, 45_750
    schedule = optim.cosine_under_warmup(rate, steps, warmup_steps=rise)
    t = np.array([0, 1, 1_500, 2_999, 3_000, 3_001, 24_375, 45_749, 45_750, 50_000])
    found = np.array([schedule(step) for step in t])
    angle = np.pi * np.minimum(t, steps) / steps
    expected = np.where(t < rise, rate * t / rise, rate * (1 + np.cos(angle)) / 2)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-20)
    assert found[4] < found[3]  # 0.9894 of the rate
    np.testing.assert_allclose(found[4] / rate, 0.989428, atol=1e-6)
    bare = optim.cosine_under_warmup(rate, steps, warmup_steps=0)
    np.testing.assert_allclose(float(bare(0)), rate, rtol=1e-12)
