"""Elementwise losses: pure functions of logits ``z`` and labels ``y``, no reduction.

``p = σ(z)`` throughout; ``absolute`` alone is of numbers. Labels lie in [0, 1]; which of
them are known, and how elements become a number, is ``objective.Term``'s business. Values and gradients are finite for
every finite logit: powers and logarithms are taken of nothing that can be zero.
"""

import jax
import jax.numpy as jnp
import optax

from cxr_jax.errors import ConfigError

# What the α of the focal loss may do.
ALPHA = ("balanced", "constant", "none")


def bce(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Binary cross-entropy, ``-y ln p - (1 - y) ln(1 - p)``.

    Args:
        logits: any shape.
        labels: same shape, in [0, 1].

    Returns:
        Same shape, ≥ 0.
    """
    return optax.sigmoid_binary_cross_entropy(logits, labels)


def weighted_bce(
    logits: jax.Array,
    labels: jax.Array,
    *,
    w_pos: jax.typing.ArrayLike,
    w_neg: jax.typing.ArrayLike,
) -> jax.Array:
    """Binary cross-entropy with class weights, ``-w₊ y ln p - w₋ (1 - y) ln(1 - p)``.

    Args:
        logits: any shape.
        labels: same shape, in [0, 1].
        w_pos: weight of positives: a number, or an array that broadcasts along the last
            axis (one weight per class).
        w_neg: weight of negatives, likewise.

    Returns:
        Same shape, ≥ 0.

    Reference: Rajpurkar et al., CheXNet, 2017, equation 1 (v3).
    """
    w_pos, w_neg = (_along_last(w, logits) for w in (w_pos, w_neg))
    positive, negative = _nll(logits)
    return w_pos * labels * positive + w_neg * (1.0 - labels) * negative


def focal(
    logits: jax.Array,
    labels: jax.Array,
    *,
    gamma: float,
    alpha: float | None = None,
    treatment: str = "balanced",
) -> jax.Array:
    """Focal loss, ``-α₊ y (1 - p)^γ ln p - α₋ (1 - y) p^γ ln(1 - p)``.

    =============  ===========  ====================================================
    ``treatment``  α₊, α₋       who reads it so
    =============  ===========  ====================================================
    ``balanced``   α, 1 - α     Lin et al., equation 5; optax
    ``constant``   α, α         Lin et al., equation 4 times a constant; the formula of
                                the attention-fusion report
    ``none``       1, 1         Keras, which has an α and leaves it out by default
    =============  ===========  ====================================================

    Args:
        logits: any shape.
        labels: same shape, in [0, 1].
        gamma: focusing exponent ≥ 0; 0 gives the weighted cross-entropy.
        alpha: in [0, 1]; None weighs both sides with 1.
        treatment: what α does, see above.

    Returns:
        Same shape, ≥ 0.

    Raises:
        ConfigError: another treatment, or a number outside its range.

    Reference: Lin et al., Focal loss for dense object detection, ICCV 2017, equation 5.
    """
    if treatment not in ALPHA:
        raise ConfigError(f"focal: treatment={treatment!r}: {', '.join(ALPHA)}")
    if gamma < 0 or not (alpha is None or 0 <= alpha <= 1):
        raise ConfigError(
            f"focal: gamma={gamma}, alpha={alpha}: gamma ≥ 0, alpha in [0, 1]"
        )
    a_pos = 1.0 if alpha is None or treatment == "none" else alpha
    a_neg = 1.0 - a_pos if treatment == "balanced" and alpha is not None else a_pos
    positive, negative = _nll(logits)
    # (1 - p)^γ = exp(γ ln(1 - p)): no power of a number that rounds to zero.
    easy_positive, easy_negative = (
        jnp.exp(-gamma * negative),
        jnp.exp(-gamma * positive),
    )
    return (
        a_pos * labels * easy_positive * positive
        + a_neg * (1.0 - labels) * easy_negative * negative
    )


def asymmetric(
    logits: jax.Array,
    labels: jax.Array,
    *,
    gamma_pos: float,
    gamma_neg: float,
    clip: float,
) -> jax.Array:
    """Asymmetric loss: focal, with its own exponents and easy negatives forgotten.

    ``-y (1 - p)^γ₊ ln p - (1 - y) p_m^γ₋ ln(1 - p_m)``, where ``p_m = max(p - m, 0)``.
    Gradients flow through the focusing factors.

    Args:
        logits: any shape.
        labels: same shape, in [0, 1].
        gamma_pos: γ₊ ≥ 0.
        gamma_neg: γ₋ ≥ 0.
        clip: the margin m in [0, 1).

    Returns:
        Same shape, ≥ 0.

    Reference: Ridnik et al., Asymmetric loss for multi-label classification, ICCV 2021,
    equations 4 to 7.

    Deviation: the authors' code clamps p to 1e-8 inside the logarithm; here it is exact,
    so that a missed positive below that keeps its gradient.
    """
    positive, negative = _nll(logits)
    hit = jnp.exp(-gamma_pos * negative) * positive
    margin = jax.nn.sigmoid(logits) - clip
    counted = margin > 0.0
    shifted = jnp.where(counted, margin, 1.0)
    # 1 - p_m = (1 - p) + m; with m = 0 only the logits know how small it is.
    nll = negative if clip == 0.0 else -jnp.log(jax.nn.sigmoid(-logits) + clip)
    miss = jnp.where(counted, shifted**gamma_neg * nll, 0.0)
    return labels * hit + (1.0 - labels) * miss


def absolute(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """Distance, ``|x - t|``; of a GIoU and a target of 1 it is the GIoU loss.

    Args:
        predicted: any shape; no logits.
        target: same shape.

    Returns:
        Same shape, ≥ 0.
    """
    return jnp.abs(predicted - target)


def _nll(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``-ln p`` and ``-ln(1 - p)``."""
    return jax.nn.softplus(-logits), jax.nn.softplus(logits)


def _along_last(weight: jax.typing.ArrayLike, like: jax.Array) -> jax.Array:
    weight = jnp.asarray(weight, like.dtype)
    return jnp.expand_dims(weight, tuple(range(like.ndim - weight.ndim)))
