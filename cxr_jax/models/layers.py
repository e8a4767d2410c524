"""What backbones share: convolutions, batch norm with moments taken once, pooling."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

# torchvision's choice for linear layers: U(±1/√fan_in).
linear_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nnx.Module):
    """A square convolution without bias; ``draw_kernels`` gives it its weights.

    A 1×1 convolution is a matrix product, which compilers do faster, and its kernel is
    ``[F_in, F_out]``; that of a wider one is ``[k, k, F_in, F_out]``.

    Args:
        features_in: F_in.
        features_out: F_out.
        kernel: k in pixels, odd.
        stride: in pixels; borders are padded with k // 2 zeros.
        dtype: type of the arithmetic and the result.
        param_dtype: type of the kernel.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        shape = (features_in, features_out)
        if (kernel, stride) != (1, 1):
            shape = (kernel, kernel, *shape)
        self.kernel = nnx.Param(jnp.zeros(shape, param_dtype))
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves ``x [B, H, W, F_in]``."""
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        if kernel.ndim == 2:
            return jnp.tensordot(x, kernel, axes=1)
        edge = (kernel.shape[0] // 2,) * 2
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=(edge, edge),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def draw_kernels(module: nnx.Module, key: jax.Array) -> None:
    """Fills every ``Conv`` of a module from N(0, 2 / fan_in), as torchvision does.

    One draw for all: a random generator per layer takes XLA twenty seconds to compile
    for DenseNet-121. JAX's ``he_normal`` is truncated; this is not.

    Reference: He et al., Delving deep into rectifiers, ICCV 2015.
    """
    convs = [m for _, m in nnx.iter_modules(module) if isinstance(m, Conv)]
    sizes = [conv.kernel[...].size for conv in convs]
    draws = jax.random.normal(key, (sum(sizes),), convs[0].kernel[...].dtype)
    start = 0
    for conv, size in zip(convs, sizes, strict=True):
        shape = conv.kernel[...].shape
        values = jax.lax.slice_in_dim(draws, start, start + size).reshape(shape)
        conv.kernel[...] = values * math.sqrt(2.0 / math.prod(shape[:-1]))
        start += size


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Per-feature mean and biased variance over batch and space, at least float32.

    Attributes:
        mean: ``[F]``.
        var: ``[F]``.
    """

    mean: jax.Array
    var: jax.Array

    @classmethod
    def of(cls, x: jax.Array) -> "Moments":
        """Moments of ``x [..., F]``; of the global batch when it is sharded under jit."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = tuple(range(x.ndim - 1))
        mean = jnp.mean(x, axes)
        # One pass over x instead of two; rounding may leave it slightly negative.
        var = jnp.mean(jnp.square(x), axes) - jnp.square(mean)
        return cls(mean, jnp.maximum(var, 0.0))

    def concatenate(self, other: "Moments") -> "Moments":
        """Moments of two tensors joined along their features."""
        return Moments(
            jnp.concatenate([self.mean, other.mean]),
            jnp.concatenate([self.var, other.var]),
        )


class BatchNorm(nnx.Module):
    """Batch normalisation whose moments may be given, ``(x - μ) / √(σ² + ε) · γ + β``.

    The mode is the attribute ``use_running_average``, set by ``nnx.view`` or ``eval()``;
    a new layer reads, so that a model made in a notebook does too, and a ``frozen`` one
    does in any mode. Statistics and the arithmetic are float32 at least; only the result
    has the type of ``x``.

    Args:
        features: number of features.
        momentum: weight of the past in the running statistics, in [0, 1); PyTorch's
            default, which it writes as 0.1.
        epsilon: added to the variance; Keras' DenseNet has 1.001e-5.
        param_dtype: type of parameters; statistics have it too, but float32 at least.

    Deviation: the running variance is the biased one, as everywhere in Flax; PyTorch
    stores the unbiased one.
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        param_dtype: DTypeLike = jnp.float32,
    ):
        stored = jnp.promote_types(param_dtype, jnp.float32)
        self.scale = nnx.Param(jnp.ones((features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros((features,), stored))
        self.var = nnx.BatchStat(jnp.ones((features,), stored))
        self.momentum = momentum
        self.epsilon = epsilon
        self.use_running_average = True
        self.frozen = False

    def set_view(self, use_running_average: bool | None = None) -> None:
        """What ``nnx.view`` calls to set the mode of a view."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x: jax.Array, moments: Moments | None = None) -> jax.Array:
        """Normalises ``x [..., F]``; in training mode, updates the running statistics.

        Args:
            x: features.
            moments: ``Moments.of(x)`` where they are known already; ignored when reading.
        """
        if self.use_running_average or self.frozen:
            moments = Moments(self.mean[...], self.var[...])
        else:
            moments = Moments.of(x) if moments is None else moments
            self._remember(moments)
        scale = self.scale[...] * jax.lax.rsqrt(moments.var + self.epsilon)
        mean, scale, bias = (
            jnp.expand_dims(v, tuple(range(x.ndim - 1)))
            for v in (moments.mean, scale, self.bias[...])
        )
        return ((x.astype(scale.dtype) - mean) * scale + bias).astype(x.dtype)

    def _remember(self, moments: Moments) -> None:
        moments = jax.lax.stop_gradient(moments)
        past, now = self.momentum, 1.0 - self.momentum
        self.mean[...] = past * self.mean[...] + now * moments.mean
        self.var[...] = past * self.var[...] + now * moments.var


def max_pool(
    x: jax.Array, *, window: int = 3, stride: int = 2, padding: int = 1
) -> jax.Array:
    """Largest value of each window of ``x [B, H, W, F]``, by maxima of strided slices.

    Rows first, then columns. The forward pass equals ``nnx.max_pool``; the backward pass
    needs no scatter, which is slow on CPU and refused by deterministic modes of GPUs.

    Deviation: equal maxima share the gradient; PyTorch gives it to the first.
    """
    edge = (padding, padding, 0)
    lowest = jnp.asarray(-jnp.inf, x.dtype)
    x = jax.lax.pad(x, lowest, ((0, 0, 0), edge, edge, (0, 0, 0)))
    for axis in (1, 2):
        last = x.shape[axis] - window
        slices = [
            jax.lax.slice_in_dim(x, k, last + k + 1, stride, axis)
            for k in range(window)
        ]
        x = slices[0]
        for other in slices[1:]:
            x = jnp.maximum(x, other)
    return x


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes each element with probability ``rate`` and scales the others up.

    Args:
        x: any shape.
        rate: in [0, 1).
        key: random key; None reads, and returns ``x``.
    """
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))
