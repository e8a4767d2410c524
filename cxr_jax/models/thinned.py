"""Monte-Carlo dropout: thinned networks that each read every film, and what they say together."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """What T passes say of each film and class.

    Attributes:
        logits: ``[B, C]``, the logit of ``probs``.
        probs: ``[B, C]``, the mean of the passes' probabilities.
        std: ``[B, C]``, their standard deviation, ``√(mean (p - p̄)²)``.
        information: ``[B, C]``, mutual information of label and mask in nats,
            ``H(p̄) - mean H(p)``, at least 0.
    """

    logits: jax.Array
    probs: jax.Array
    std: jax.Array
    information: jax.Array


def passes(
    head: nnx.Module, features: jax.Array, *, key: jax.Array, samples: int
) -> jax.Array:
    """Logits of T thinned networks; each has one mask, with which it reads every film.

    The mask of pass t depends on (key, t) alone: not on the films beside a film, its row,
    devices or processes; and 25 passes are the first 25 of 100. What does not depend on
    the mask (pooling, for one) is computed once; what does is one product over passes and
    films.

    Args:
        head: ``head(features, key=…) → [B, C]``, with any number of dropouts.
        features: ``[B, h, w, F]``.
        key: of all masks.
        samples: T, at least 1.

    Returns:
        ``[T, B, C]``.

    Reference: Gal and Ghahramani, Dropout as a Bayesian approximation, ICML 2016.
    """

    def one_film(film: jax.Array, key: jax.Array) -> jax.Array:
        # Films are mapped, the key is not: a mask is drawn once, for all of them.
        return head(film[None], key=key)[0]

    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(samples))
    all_films = jax.vmap(one_film, in_axes=(0, None))
    return jax.vmap(all_films, in_axes=(None, 0))(features, keys)


def spread(logits: jax.Array) -> Spread:
    """Mean, standard deviation and mutual information of passes.

    Entropies are computed from logits: no probability is so near 0 or 1 that its
    logarithm is lost.

    Args:
        logits: ``[T, B, C]``.

    Reference: Houlsby et al., Bayesian active learning, 2011 (mutual information).
    """
    probs, mean = jax.nn.sigmoid(logits), logit_of_mean(logits)
    information = _entropy(mean) - jnp.mean(_entropy(logits), axis=0)
    return Spread(
        logits=mean,
        probs=jnp.mean(probs, axis=0),
        std=jnp.std(probs, axis=0),
        # Below 0 by rounding alone.
        information=jnp.maximum(information, 0),
    )


def logit_of_mean(logits: jax.Array) -> jax.Array:
    """``ln Σ p - ln Σ (1 - p)`` over the first axis, of p that round to 0 or 1 too."""
    return _log_sum(logits) - _log_sum(-logits)


def _log_sum(logits: jax.Array) -> jax.Array:
    """ln Σ σ(z)."""
    return jax.nn.logsumexp(jax.nn.log_sigmoid(logits), axis=0)


def _entropy(logits: jax.Array) -> jax.Array:
    """``-p ln p - (1 - p) ln(1 - p)`` of ``p = σ(z)``."""
    return sum(jax.nn.sigmoid(z) * jax.nn.softplus(-z) for z in (logits, -logits))
