"""Elementwise losses: laws, a float64 formula, extremes."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest

from cxr_jax import losses
from cxr_jax.errors import ConfigError

LOGITS = np.linspace(-12, 12, 97, dtype=np.float32)
PAIRS = np.array([(z, y) for z in LOGITS for y in (0.0, 1.0)], np.float32)
Z, Y = PAIRS.T

ASL = {"gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05}
EVERY = {
    "bce": losses.bce,
    "weighted": functools.partial(losses.weighted_bce, w_pos=0.9, w_neg=0.1),
    "focal": functools.partial(losses.focal, gamma=2.0, alpha=0.25),
    "focal, root": functools.partial(losses.focal, gamma=0.5),
    "asymmetric": functools.partial(losses.asymmetric, **ASL),
    "asymmetric, plain": functools.partial(
        losses.asymmetric, gamma_pos=0.0, gamma_neg=0.0, clip=0.0
    ),
    "asymmetric, root": functools.partial(
        losses.asymmetric, gamma_pos=0.5, gamma_neg=0.5, clip=0.05
    ),
}


def formula(z, y, *, a_pos=1.0, a_neg=1.0, g_pos=0.0, g_neg=0.0, clip=0.0):
    """The loss as papers print it, in float64."""
    z, y = np.asarray(z, np.float64), np.asarray(y, np.float64)
    p = 1 / (1 + np.exp(-z))
    shifted = np.maximum(p - clip, 0)
    positive = a_pos * (1 - p) ** g_pos * -np.log(p)
    negative = a_neg * shifted**g_neg * -np.log(1 - shifted)
    return y * positive + (1 - y) * negative


@pytest.mark.parametrize(
    ("loss", "reference"),
    [
        ("bce", {}),
        ("weighted", {"a_pos": 0.9, "a_neg": 0.1}),
        ("focal", {"a_pos": 0.25, "a_neg": 0.75, "g_pos": 2, "g_neg": 2}),
        ("focal, root", {"g_pos": 0.5, "g_neg": 0.5}),
        ("asymmetric", {"g_pos": 1, "g_neg": 4, "clip": 0.05}),
        ("asymmetric, plain", {}),
        ("asymmetric, root", {"g_pos": 0.5, "g_neg": 0.5, "clip": 0.05}),
    ],
)
def test_values_are_those_of_the_formula(loss, reference):
    np.testing.assert_allclose(
        EVERY[loss](Z, Y), formula(Z, Y, **reference), rtol=2e-5, atol=2e-7
    )


@pytest.mark.parametrize(
    "same",
    [
        functools.partial(losses.weighted_bce, w_pos=1.0, w_neg=1.0),
        functools.partial(losses.focal, gamma=0.0),
        EVERY["asymmetric, plain"],
    ],
)
def test_without_weights_and_focus_everything_is_bce(same):
    np.testing.assert_allclose(same(Z, Y), losses.bce(Z, Y), rtol=1e-5, atol=1e-7)
    ours, theirs = (
        jax.grad(lambda z, f=f: f(z, Y).sum())(Z) for f in (same, losses.bce)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_values_and_gradients_are_finite_at_any_logit(name):
    z = jnp.array([-1e4, -88.0, -3.0, 0.0, 3.0, 88.0, 1e4])
    for y in (0.0, 1.0):
        labels = jnp.full_like(z, y)
        value, gradient = jax.vmap(jax.value_and_grad(EVERY[name]))(z, labels)
        assert jnp.isfinite(value).all()
        assert (value >= 0).all()
        assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["bce", "focal, root", "asymmetric, plain"])
def test_a_positive_costs_what_a_negative_costs_on_the_other_side(name):
    np.testing.assert_allclose(
        EVERY[name](Z, Y), EVERY[name](-Z, 1 - Y), rtol=1e-5, atol=1e-7
    )


def test_focus_takes_weight_from_easy_elements_only():
    easy, hard = np.float32([4.0]), np.float32([-4.0])
    one = np.ones(1, np.float32)
    ratio = functools.partial(losses.focal, gamma=2.0)
    assert ratio(easy, one) < 1e-3 * losses.bce(easy, one)
    assert ratio(hard, one) > 0.9 * losses.bce(hard, one)


@pytest.mark.parametrize(
    ("treatment", "a_pos", "a_neg"),
    [("balanced", 0.25, 0.75), ("constant", 0.25, 0.25), ("none", 1.0, 1.0)],
)
def test_alpha_has_three_readings(treatment, a_pos, a_neg):
    found = losses.focal(Z, Y, gamma=2.0, alpha=0.25, treatment=treatment)
    expected = formula(Z, Y, a_pos=a_pos, a_neg=a_neg, g_pos=2, g_neg=2)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-7)


def test_focal_loss_equals_that_of_optax():
    found = losses.focal(Z, Y, gamma=2.0, alpha=0.25)
    expected = optax.losses.sigmoid_focal_loss(Z, Y, alpha=0.25, gamma=2.0)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize(("balancing", "ours"), [(True, "balanced"), (False, "none")])
def test_focal_loss_equals_that_of_keras(balancing, ours):
    # Where Keras does not clip: it works on probabilities.
    near = np.abs(Z) < 8
    loss = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=balancing,
        alpha=0.25,
        gamma=2.0,
        from_logits=True,
        reduction=None,
    )
    expected = loss(Y[near, None], Z[near, None])
    found = losses.focal(Z[near], Y[near], gamma=2.0, alpha=0.25, treatment=ours)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    "given",
    [{"gamma": -1.0}, {"gamma": 2.0, "alpha": 2.0}, {"gamma": 0.0, "alpha": -1}],
)
def test_a_focal_loss_below_0_is_refused(given):
    with pytest.raises(ConfigError, match="gamma ≥ 0, alpha in"):
        losses.focal(np.zeros(2), np.ones(2), **given)


def test_another_treatment_of_alpha_is_refused():
    with pytest.raises(ConfigError, match="balanced, constant, none"):
        losses.focal(Z, Y, gamma=2.0, treatment="both")


def test_weights_may_differ_by_class():
    logits = jnp.zeros((2, 3))
    labels = jnp.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    found = losses.weighted_bce(
        logits, labels, w_pos=(1.0, 2.0, 3.0), w_neg=(4.0, 5.0, 6.0)
    )
    expected = np.log(2) * np.array([[1, 2, 3], [4, 5, 6]])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# Computed by the authors of the specification from the published formula.
@pytest.mark.parametrize(
    ("logit", "label", "expected"),
    [
        (0, 1, 0.346574),
        (0, 0, 0.024515),
        (2, 1, 0.015130),
        (2, 0, 0.846415),
        (-2, 1, 1.873392),
        (-2, 0, 0.000002),
        (-3, 0, 0.0),
    ],
)
def test_asymmetric_loss_has_the_published_values(logit, label, expected):
    found = losses.asymmetric(jnp.float32(logit), jnp.float32(label), **ASL)
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_asymmetric_loss_forgets_easy_negatives_entirely():
    value, slope = jax.value_and_grad(losses.asymmetric)(-3.0, 0.0, **ASL)
    assert value == 0.0
    assert slope == 0.0
