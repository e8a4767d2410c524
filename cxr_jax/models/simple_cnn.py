"""Three convolutions, as Keras' tutorials write them: the baseline without pretraining."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cxr_jax.models.layers import GLOROT, Conv, checked, draw_kernels, max_pool


class SimpleCNN(nnx.Module):
    """Per width a valid 3×3 convolution, ReLU and a 2×2 maximum: film → features.

    Args:
        widths: features of each convolution.
        in_channels: channels of a film, 1 or 3.
        dtype: type of activations, ``float32`` or ``bfloat16``.
        param_dtype: type of parameters.
        rngs: source of the initial weights: Glorot's uniform, biases 0, as Keras.
    """

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (32, 64, 128),
        in_channels: int = 3,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.widths = tuple(widths)
        self.taps = tuple(f"block{n + 1}" for n in range(len(widths)))
        self.dtype = jnp.dtype(dtype)
        conv = functools.partial(
            Conv,
            kernel=3,
            padding="valid",
            bias=True,
            dtype=self.dtype,
            param_dtype=jnp.dtype(param_dtype),
        )
        sizes = zip((in_channels, *widths), widths, strict=False)
        self.convs = nnx.List(conv(given, width) for given, width in sizes)
        draw_kernels(self, rngs.params(), GLOROT)

    def features(
        self, x: jax.Array, *, tap: str | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Features of normalised films.

        Args:
            x: ``[B, H, W, in_channels]``.
            tap: ``"block1"`` … ``"blockN"``, behind which maximum to read; the last one
                by default.
            key: ignored; nothing here is random.

        Returns:
            ``[B, h, w, F]`` of the compute type; each convolution takes two pixels off
            and each maximum halves them, rounded down.

        Raises:
            ConfigError: an unknown tap.
        """
        tap = checked("tap", tap or self.taps[-1], self.taps)
        x = x.astype(self.dtype)
        for conv in self.convs[: self.taps.index(tap) + 1]:
            x = max_pool(nnx.relu(conv(x)), window=2, stride=2, padding=0)
        return x

    def __call__(self, x: jax.Array) -> jax.Array:
        """``features`` behind the last maximum."""
        return self.features(x)

    def num_features(self, tap: str | None = None) -> int:
        """F at a tap; at the last one by default."""
        tap = checked("tap", tap or self.taps[-1], self.taps)
        return self.widths[self.taps.index(tap)]
