"""DenseNet whose stem takes gray films, and equals a three-channel stem to the border.

A network for colour subtracts another mean from each channel and pads with zeros after
that, so that its padding is a colour, ``mean``, and no gray. One channel padded with
zeros cannot be that: near the edges its stem would differ. ``border`` makes up for it.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from cxr_jax.errors import ConfigError
from cxr_jax.models.densenet import DenseNet
from cxr_jax.models.layers import Conv


class GrayStem(Conv):
    """A convolution of one channel, and a constant that knows how near the edge is.

    ``y = kernel * x + border * 1``, with ``1`` the film on which every pixel is one and
    both padded with zeros: inside, ``border`` adds one number per feature; at the edge,
    the sum of its taps that lie on the film. It starts at zero, as a plain convolution.

    Args:
        conv: the convolution of one channel that it takes the place of.
    """

    def __init__(self, conv: Conv):
        self.kernel = conv.kernel
        self.border = nnx.Param(jnp.zeros_like(conv.kernel[...]))
        self.bias = conv.bias
        self.stride = conv.stride
        self.padding = conv.padding
        self.depthwise = conv.depthwise
        self.dtype = conv.dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves ``x [B, H, W, 1]``."""
        ones = jnp.ones((1, *x.shape[1:]), self.dtype)
        return super().__call__(x) + self.convolve(
            ones, self.border[...].astype(self.dtype)
        )


class GrayDenseNet(DenseNet):
    """``DenseNet`` with a ``GrayStem``; arguments are the same, ``in_channels`` is 1.

    Weights made for three channels are imported into it without loss, see
    ``pretrained.load``.

    Raises:
        ConfigError: more than one channel.
    """

    def __init__(self, blocks: tuple[int, ...], *, in_channels: int = 1, **kwargs):
        if in_channels != 1:
            raise ConfigError(
                f"in_channels={in_channels}: a gray DenseNet takes 1, set task.channels=1"
            )
        super().__init__(blocks, in_channels=1, **kwargs)
        self.stem = GrayStem(self.stem)


densenet121 = functools.partial(GrayDenseNet, (6, 12, 24, 16))
densenet169 = functools.partial(GrayDenseNet, (6, 12, 32, 32))
densenet201 = functools.partial(GrayDenseNet, (6, 12, 48, 32))
densenet161 = functools.partial(GrayDenseNet, (6, 12, 36, 24), growth=48, stem_width=96)
