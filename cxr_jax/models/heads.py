"""From features to logits, and the classifier that joins a backbone and a head."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cxr_jax.errors import ConfigError
from cxr_jax.models import pooling
from cxr_jax.models.layers import dropout, linear_init


class PoolThenClassify(nnx.Module):
    """Average over space, dropout, one linear layer: ``logits = W·gap(f) + b``.

    Args:
        features: F.
        classes: number of classes C.
        dropout: rate in [0, 1), applied where a key is given.
        prior: what a film without evidence is given at the start, in (0, 1). At 0.5
            biases start at 0, and rare classes are first made rare by weights: every
            part of a film then speaks against them, and maps peak where there is no
            film. At the prevalence the bias says it (Lin et al., ICCV 2017, 3.3).
        dtype: type of the arithmetic; logits stay float32 whatever the backbone's type.
        param_dtype: type of parameters.
        rngs: source of the initial weights.

    Reference: Rajpurkar et al., CheXNet, 2017, section 2.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        dropout: float = 0.0,
        prior: float = 0.5,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dropout = dropout
        self.linear = nnx.Linear(
            features,
            classes,
            dtype=jnp.dtype(dtype),
            param_dtype=jnp.dtype(param_dtype),
            kernel_init=linear_init,
            bias_init=nnx.initializers.constant(_log_odds(prior)),
            rngs=rngs,
        )

    @property
    def kernel(self) -> jax.Array:
        """``[F, C]``: the weight of each feature in each class, as CAM needs it."""
        return self.linear.kernel[...]

    @property
    def bias(self) -> jax.Array:
        """``[C]``: what each class is given wherever it is looked for."""
        return self.linear.bias[...]

    def __call__(
        self, features: jax.Array, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Logits ``[B, C]`` of features ``[B, h, w, F]``; no key, no dropout."""
        return self.linear(dropout(pooling.gap(features), self.dropout, key))


class PoolHiddenClassify(nnx.Module):
    """Average over space, a hidden layer, classes; dropout before both layers.

    ``logits = W₂·d₂(relu(W₁·d₁(gap(f)) + b₁)) + b₂``, with d₁ and d₂ of their own masks.

    Args:
        features: F.
        classes: number of classes C.
        hidden: features of the hidden layer.
        dropout: rate of both dropouts in [0, 1), applied where a key is given.
        prior: what a film without evidence is given at the start, in (0, 1); see
            ``PoolThenClassify``.
        dtype: type of the arithmetic; logits stay float32 whatever the backbone's type.
        param_dtype: type of parameters.
        rngs: source of the initial weights: Glorot's uniform, as Keras.

    Raises:
        ConfigError: a prior of certainty.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        hidden: int = 512,
        dropout: float = 0.4,
        prior: float = 0.5,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dropout = dropout
        linear = functools.partial(
            nnx.Linear,
            dtype=jnp.dtype(dtype),
            param_dtype=jnp.dtype(param_dtype),
            kernel_init=nnx.initializers.glorot_uniform(),
            rngs=rngs,
        )
        self.hidden = linear(features, hidden)
        bias_init = nnx.initializers.constant(_log_odds(prior))
        self.linear = linear(hidden, classes, bias_init=bias_init)

    def __call__(
        self, features: jax.Array, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Logits ``[B, C]`` of features ``[B, h, w, F]``; no key, no dropout."""
        first, second = (None, None) if key is None else jax.random.split(key)
        x = dropout(pooling.gap(features), self.dropout, first)
        return self.linear(dropout(nnx.relu(self.hidden(x)), self.dropout, second))


def _log_odds(prior: float) -> float:
    if not 0 < prior < 1:
        raise ConfigError(f"prior={prior}: give a probability between 0 and 1")
    return math.log(prior / (1 - prior))


class Classifier(nnx.Module):
    """A backbone and a head: film → features → logits.

    Args:
        backbone: has ``features(x, key=…) → [B, h, w, F]``.
        head: ``head(features, key=…) → [B, C]``.
    """

    def __init__(self, backbone: nnx.Module, head: nnx.Module):
        self.backbone = backbone
        self.head = head

    def features(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Features ``[B, h, w, F]`` of normalised films ``[B, H, W, K]``.

        A key is for backbones that are random in training, such as in their depth.
        """
        return self.backbone.features(x, key=key)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Logits ``[B, C]`` of normalised films ``[B, H, W, K]``.

        The head has the key itself: its masks do not depend on what the backbone draws.
        """
        inner = None if key is None else jax.random.fold_in(key, 1)
        return self.head(self.features(x, key=inner), key=key)
