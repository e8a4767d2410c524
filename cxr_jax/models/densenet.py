"""DenseNet (Huang et al., CVPR 2017), laid out as torchvision's and Keras' are.

Every depth is a partial of one class; ``densenet_tiny`` is its one-block variant for
tests. Features can be taken at named taps; ``"relu"`` is what CheXNet classifies.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cxr_jax.models.layers import (
    BatchNorm,
    Conv,
    Moments,
    checked,
    draw_kernels,
    max_pool,
    taps_until,
)


class DenseNet(nnx.Module):
    """A DenseNet without its classifier: film → features.

    Args:
        blocks: number of dense layers per block; one transition between two blocks.
        growth: features that each dense layer adds.
        stem_width: features of the first convolution.
        stem_kernel: its size in pixels, odd.
        stem_stride: its stride.
        stem_pool: whether a 3×3 max-pool of stride 2 follows. Features have
            ``size / (stem_stride · (2 if stem_pool else 1) · 2^(len(blocks) - 1))`` cells.
        in_channels: channels of a film, 1 or 3.
        tap: where ``features`` reads by default: ``"block1"`` … ``"blockN"`` (the output
            of a dense block, no norm), ``"norm"`` (torchvision's ``norm5``), ``"relu"``;
            the last one where empty.
        until: the last tap there is; nothing is built behind it. All where empty.
        epsilon: of every batch norm; Keras has 1.001e-5.
        momentum: of the running statistics, in Flax's sense.
        dtype: type of activations, ``float32`` or ``bfloat16``; statistics and sums of
            the norms stay float32.
        param_dtype: type of parameters.
        rngs: source of the initial weights.

    Raises:
        ConfigError: an unknown tap.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        *,
        growth: int = 32,
        stem_width: int = 64,
        stem_kernel: int = 7,
        stem_stride: int = 2,
        stem_pool: bool = True,
        in_channels: int = 3,
        tap: str = "",
        until: str = "",
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        taps = (*(f"block{n + 1}" for n in range(len(blocks))), "norm", "relu")
        self.taps = taps_until(until, taps)
        self.tap = checked("tap", tap or self.taps[-1], self.taps)
        self.dtype = jnp.dtype(dtype)
        self.stem_pool = stem_pool
        param_dtype = jnp.dtype(param_dtype)
        norm = functools.partial(
            BatchNorm,
            epsilon=epsilon,
            momentum=momentum,
            param_dtype=param_dtype,
        )
        conv = functools.partial(Conv, dtype=self.dtype, param_dtype=param_dtype)
        self.stem = conv(in_channels, stem_width, stem_kernel, stem_stride)
        self.stem_norm = norm(stem_width)
        self.blocks, self.transitions = nnx.List([]), nnx.List([])
        width, self.widths = stem_width, ()
        for number, depth in enumerate(blocks[: len(self.taps)]):
            if number:
                self.transitions.append(_Transition(width, norm=norm, conv=conv))
                width //= 2
            self.blocks.append(_Block(width, depth, growth, norm=norm, conv=conv))
            width += depth * growth
            self.widths += (width,)
        if "norm" in self.taps:
            self.norm = norm(width)
        draw_kernels(self, rngs.params())

    def features(
        self, x: jax.Array, *, tap: str | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Features of normalised films.

        Args:
            x: ``[B, H, W, in_channels]``.
            tap: where to read; the constructor's by default.
            key: ignored; nothing here is random.

        Returns:
            ``[B, h, w, F]`` of the compute type; F is ``num_features(tap)``.

        Raises:
            ConfigError: an unknown tap.
        """
        tap = checked("tap", tap or self.tap, self.taps)
        x = nnx.relu(self.stem_norm(self.stem(x.astype(self.dtype))))
        x = max_pool(x) if self.stem_pool else x
        moments = None
        for number, block in enumerate(self.blocks):
            if number:
                x = self.transitions[number - 1](x, moments)
            x, moments = block(x)
            if tap == f"block{number + 1}":
                return x
        x = self.norm(x, moments)
        return x if tap == "norm" else nnx.relu(x)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``features`` at the default tap."""
        return self.features(x)

    def num_features(self, tap: str | None = None) -> int:
        """F at a tap; the constructor's tap by default."""
        tap = checked("tap", tap or self.tap, self.taps)
        return (*self.widths, self.widths[-1], self.widths[-1])[self.taps.index(tap)]


class _Block(nnx.Module):
    """Dense layers, each of which reads everything before it."""

    def __init__(self, width: int, depth: int, growth: int, *, norm, conv):
        self.layers = nnx.List(
            _Layer(width + n * growth, growth, norm=norm, conv=conv)
            for n in range(depth)
        )

    def __call__(self, x: jax.Array) -> tuple[jax.Array, Moments]:
        # Moments of a feature are the same for every later norm: they are taken once.
        # The compiler drops them when all norms read their running statistics.
        moments = Moments.of(x)
        for layer in self.layers:
            new = layer(x, moments)
            x = jnp.concatenate([x, new], axis=-1)
            moments = moments.concatenate(Moments.of(new))
        return x, moments


class _Layer(nnx.Module):
    """Norm, ReLU, 1×1 to four times the growth; norm, ReLU, 3×3 to the growth."""

    def __init__(self, width: int, growth: int, *, norm, conv):
        self.norm1 = norm(width)
        self.conv1 = conv(width, 4 * growth)
        self.norm2 = norm(4 * growth)
        self.conv2 = conv(4 * growth, growth, 3)

    def __call__(self, x: jax.Array, moments: Moments) -> jax.Array:
        x = self.conv1(nnx.relu(self.norm1(x, moments)))
        return self.conv2(nnx.relu(self.norm2(x)))


class _Transition(nnx.Module):
    """Norm, ReLU, 1×1 to half the features, 2×2 average."""

    def __init__(self, width: int, *, norm, conv):
        self.norm = norm(width)
        self.conv = conv(width, width // 2)

    def __call__(self, x: jax.Array, moments: Moments) -> jax.Array:
        x = nnx.relu(self.norm(x, moments))
        # A mean and a 1×1 convolution commute: pooling first leaves it a quarter to do.
        return self.conv(nnx.avg_pool(x, window_shape=(2, 2), strides=(2, 2)))


densenet121 = functools.partial(DenseNet, (6, 12, 24, 16))
densenet169 = functools.partial(DenseNet, (6, 12, 32, 32))
densenet201 = functools.partial(DenseNet, (6, 12, 48, 32))
densenet161 = functools.partial(DenseNet, (6, 12, 36, 24), growth=48, stem_width=96)
densenet_tiny = functools.partial(
    DenseNet, (2,), growth=4, stem_width=8, stem_kernel=3, stem_pool=False
)
