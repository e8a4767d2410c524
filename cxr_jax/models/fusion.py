"""Two backbones whose maps are joined and attend to each other: the fusion network.

Two sub-modules, ``dense`` and ``efficient``, are whatever parts are named; freezing
``backbone/dense/*`` and ``backbone/efficient/*`` leaves what joins them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cxr_jax import config
from cxr_jax.errors import ConfigError
from cxr_jax.models.layers import GLOROT, Conv, checked, draw_kernels
from cxr_jax.models.layouts import IMAGENET_MEAN, IMAGENET_STD

DENSE = {"name": "cxr_jax.models.densenet.densenet121", "until": "block4"}
EFFICIENT = {
    "name": "cxr_jax.models.efficientnet.efficientnet_b3",
    "until": "block6a_expand",
}
FILMS = ("normalised", "rescaled", "pixels")
ATTENTION = ("learned", "off")


class AttentionFusion(nnx.Module):
    """Dense-Efficient Attention-Fusion Network without its classifier: film → features.

    Each backbone's map goes through a 1×1 convolution and ReLU, the efficient one is
    resized to the cells of the dense one, both are joined, and positions attend to each
    other: ``γ · softmax(Q Kᵀ / √F) V + f``, with γ = 0 at the start.

    Args:
        dense: the backbone that gives the grid, as a part: ``name`` and arguments.
        efficient: the other one, likewise.
        width: features that are taken of each.
        attention: ``"learned"``; ``"off"`` holds γ at 0, and nothing is built for it.
        films: what the backbones are given of a film x in [0, 1]. Keras' EfficientNet
            scales films itself, its DenseNet does not; the paper gives both the same
            tensor and does not say which. ``"normalised"``: both see
            ``y = (x - mean) / std``, as each was pretrained. ``"rescaled"``: the tensor
            is y, so the efficient one sees ``(y / 255 - mean) / std``. ``"pixels"``: the
            tensor is ``255 x``, so the dense one sees that and the efficient one y.
        mean: what the task normalises films by, one per channel; here to undo it.
        std: likewise.
        in_channels: channels of a film, 1 or 3.
        dtype: type of activations, of the backbones too unless they name theirs; the
            softmax is float32.
        param_dtype: type of parameters, likewise.
        rngs: source of the initial weights: of what joins, Glorot's uniform, as Keras.

    Raises:
        ConfigError: an unknown reading, or means of another number of channels.

    Deviation: the paper does not say whether the map is resized before or behind its
    convolution; behind it here.
    """

    def __init__(
        self,
        *,
        dense: Mapping[str, Any] = DENSE,
        efficient: Mapping[str, Any] = EFFICIENT,
        width: int = 256,
        attention: str = "learned",
        films: str = "normalised",
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        in_channels: int = 3,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        checked("attention", attention, ATTENTION)
        checked("films", films, FILMS)
        if films != "normalised" and not len(mean) == len(std) == in_channels:
            raise ConfigError(
                f"films={films!r} needs mean and std per channel: {len(mean)} and"
                f" {len(std)} are given for {in_channels}; give those of the task"
            )
        types = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(param_dtype)}
        given = types | {"in_channels": in_channels, "rngs": rngs}
        dense, efficient = (
            config.build({**given, **part}) for part in (dense, efficient)
        )
        self.width, self.films = width, films
        self.mean, self.std = tuple(mean), tuple(std)
        self.dense_conv = Conv(dense.num_features(), width, bias=True, **types)
        self.efficient_conv = Conv(efficient.num_features(), width, bias=True, **types)
        learned = attention == "learned"
        self.attention = SelfAttention(2 * width, **types) if learned else None
        # Before the backbones, which have drawn theirs, become part of it.
        draw_kernels(self, rngs.params(), GLOROT)
        self.dense, self.efficient = dense, efficient
        self.taps = ("joined", "attended")

    def features(
        self, x: jax.Array, *, tap: str | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Features of normalised films.

        Args:
            x: ``[B, H, W, in_channels]``.
            tap: ``"joined"``, before attention, or ``"attended"``, the default.
            key: of the depth of backbones that have a random one.

        Returns:
            ``[B, h, w, 2 · width]`` of the compute type, with the cells of ``dense``.

        Raises:
            ConfigError: an unknown tap.
        """
        tap = checked("tap", tap or self.taps[-1], self.taps)
        keys = (None, None) if key is None else jax.random.split(key)
        for_dense, for_efficient = self.scaled(x)
        first = self.dense.features(for_dense, key=keys[0])
        second = self.efficient.features(for_efficient, key=keys[1])
        first = nnx.relu(self.dense_conv(first))
        second = nnx.relu(self.efficient_conv(second))
        second = resized(second, first.shape[1:3])
        joined = jnp.concatenate([first, second], axis=-1)
        if tap == "joined" or self.attention is None:
            return joined
        return self.attention(joined)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``features`` behind the attention."""
        return self.features(x)

    def num_features(self, tap: str | None = None) -> int:
        """F, the same at both taps."""
        checked("tap", tap or self.taps[-1], self.taps)
        return 2 * self.width

    def scaled(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the dense and the efficient backbone see of normalised films."""
        if self.films == "normalised":
            return x, x
        shape = (1, 1, 1, len(self.mean))
        mean, std = (
            jnp.reshape(jnp.array(v, x.dtype), shape) for v in (self.mean, self.std)
        )
        if self.films == "rescaled":
            return x, (x / 255 - mean) / std
        return 255 * (x * std + mean), x


class SelfAttention(nnx.Module):
    """One head over positions: ``γ · softmax(Q Kᵀ / √F) V + f``, γ = 0 at the start.

    Q, K and V are 1×1 convolutions of f with bias, F to F; scores, their softmax and the
    sums are float32 whatever the type of the rest.

    Args:
        features: F.
        dtype: type of the result.
        param_dtype: type of parameters.

    Reference: Zhang et al., Self-attention GANs, ICML 2019, equations 1 to 3, with the
    scale of Vaswani et al., Attention is all you need, NeurIPS 2017.
    """

    def __init__(self, features: int, *, dtype: DTypeLike, param_dtype: DTypeLike):
        types = {"dtype": dtype, "param_dtype": param_dtype}
        self.query = Conv(features, features, bias=True, **types)
        self.key = Conv(features, features, bias=True, **types)
        self.value = Conv(features, features, bias=True, **types)
        self.gamma = nnx.Param(jnp.zeros((), param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features ``[B, h, w, F]`` → the same shape."""
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        exact = jnp.promote_types(x.dtype, jnp.float32)
        query, key, value = (conv(flat) for conv in (self.query, self.key, self.value))
        scores = jnp.einsum("bqf,bkf->bqk", query, key, preferred_element_type=exact)
        weights = jax.nn.softmax(scores / jnp.sqrt(jnp.array(x.shape[-1], exact)))
        found = jnp.einsum("bqk,bkf->bqf", weights, value, preferred_element_type=exact)
        added = self.gamma[...].astype(exact) * found.reshape(x.shape)
        return x + added.astype(x.dtype)


@jax.named_scope("bilinear resizing")
def resized(x: jax.Array, cells: tuple[int, int]) -> jax.Array:
    """Maps ``[B, h, w, F]`` by bilinear interpolation at half-pixel centres.

    As ``tf.image.resize`` and Keras' ``Resizing`` do it: without the low-pass filter
    that ``jax.image.resize`` puts before when it shrinks.
    """
    if x.shape[1:3] == tuple(cells):
        return x
    shape = (x.shape[0], *cells, x.shape[-1])
    return jax.image.resize(x, shape, "bilinear", antialias=False)
