"""What backbones share: convolutions, batch norm with moments taken once, pooling."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cxr_jax.errors import ConfigError
from cxr_jax.models.depthwise import depthwise

# torchvision's choice for linear layers: U(±1/√fan_in).
linear_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def linear(features_in: int, features_out: int, **given: Any) -> nnx.Linear:
    """A linear layer that starts as torch's: kernel and bias uniform in ±1/√fan_in.

    Args:
        features_in: fan_in.
        features_out: of the layer.
        given: further arguments of ``nnx.Linear``, which come before these.
    """
    bound = features_in**-0.5

    def bias_init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    start = {"kernel_init": linear_init, "bias_init": bias_init}
    return nnx.Linear(features_in, features_out, **start | given)


class Conv(nnx.Module):
    """A square convolution; ``draw_kernels`` gives it its weights.

    A 1×1 convolution is a matrix product, which compilers do faster, and its kernel is
    ``[F_in, F_out]``; that of a wider one is ``[k, k, F_in, F_out]``, of a depthwise one
    ``[k, k, 1, F]``.

    Args:
        features_in: F_in.
        features_out: F_out.
        kernel: k in pixels, odd.
        stride: in pixels.
        padding: zeros around the film. ``"half"``: k // 2 on every side, as torchvision;
            ``"same"``: as few as leave ``ceil(size / stride)`` cells, an odd one behind,
            as Keras; ``"valid"``: none.
        depthwise: each feature is seen alone; F_out is F_in.
        bias: whether a number per feature is added; it starts at 0.
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
        padding: str = "half",
        depthwise: bool = False,
        bias: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        shape = (1 if depthwise else features_in, features_out)
        if (kernel, stride, depthwise) != (1, 1, False):
            shape = (kernel, kernel, *shape)
        self.kernel = nnx.Param(jnp.zeros(shape, param_dtype))
        self.bias = nnx.Param(jnp.zeros(features_out, param_dtype)) if bias else None
        self.stride = stride
        self.padding = padding
        self.depthwise = depthwise
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves ``x [B, H, W, F_in]``; a 1×1 convolution takes any ``[..., F_in]``."""
        y = self.convolve(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        if self.bias is None:
            return y
        bias = self.bias[...].astype(self.dtype)
        return y + jnp.expand_dims(bias, tuple(range(y.ndim - 1)))

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """With another kernel of the same type as x, and without the bias."""
        if kernel.ndim == 2:
            return jnp.tensordot(x, kernel, axes=1)
        edges = [self._edges(size, kernel.shape[0]) for size in x.shape[1:3]]
        if self.depthwise:
            x = jnp.pad(x, ((0, 0), *edges, (0, 0)))
            return depthwise(x, kernel[:, :, 0], self.stride)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=edges,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def _edges(self, size: int, kernel: int) -> tuple[int, int]:
        """Zeros before and behind an axis."""
        if self.padding == "half":
            return (kernel // 2, kernel // 2)
        if self.padding == "valid":
            return (0, 0)
        cells = -(-size // self.stride)
        zeros = max((cells - 1) * self.stride + kernel - size, 0)
        return (zeros // 2, zeros - zeros // 2)


@dataclasses.dataclass(frozen=True)
class Start:
    """How kernels are drawn: independent values of one variance.

    Attributes:
        draw: (key, shape, type) → values of mean 0 and variance 1.
        variance: (fan_in, fan_out) → the variance wanted.
    """

    draw: Callable[..., jax.Array]
    variance: Callable[[int, int], float]


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    limit = math.sqrt(3.0)
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def _truncated(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    # What is left of a normal's spread when it is cut off at two sigma.
    return (
        jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype) / 0.8796256610342398
    )


# torchvision's DenseNet, He et al., ICCV 2015; JAX's own ``he_normal`` is truncated.
HE_NORMAL = Start(jax.random.normal, lambda fan_in, fan_out: 2 / fan_in)
# Keras' EfficientNet.
FAN_OUT = Start(_truncated, lambda fan_in, fan_out: 2 / fan_out)
# Keras' default; Glorot and Bengio, AISTATS 2010.
GLOROT = Start(_uniform, lambda fan_in, fan_out: 2 / (fan_in + fan_out))


def draw_kernels(module: nnx.Module, key: jax.Array, start: Start = HE_NORMAL) -> None:
    """Fills every ``Conv`` of a module with values of mean 0.

    One draw for all: a random generator per layer takes XLA twenty seconds to compile
    for DenseNet-121.

    Args:
        module: whose convolutions are filled.
        key: of the draw.
        start: distribution and variance; by default N(0, 2 / fan_in), as torchvision.
    """
    convs = [m for _, m in nnx.iter_modules(module) if isinstance(m, Conv)]
    sizes = [conv.kernel[...].size for conv in convs]
    draws = start.draw(key, (sum(sizes),), convs[0].kernel[...].dtype)
    begin = 0
    for conv, size in zip(convs, sizes, strict=True):
        shape = conv.kernel[...].shape
        values = jax.lax.slice_in_dim(draws, begin, begin + size).reshape(shape)
        fan_in = math.prod(shape[:-1])
        fan_out = math.prod(shape[:-2]) * (1 if conv.depthwise else shape[-1])
        values *= math.sqrt(start.variance(fan_in, fan_out))
        conv.kernel.set_value(values.astype(conv.kernel[...].dtype))
        begin += size


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
        # One pass over x instead of two. Its error is that of mean²: it may be negative.
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
        # One product and one sum, whose gradients need x alone: no x - mean is made or kept.
        bias = self.bias[...] - moments.mean * scale
        scale, bias = (
            jnp.expand_dims(v, tuple(range(x.ndim - 1))) for v in (scale, bias)
        )
        return (x.astype(scale.dtype) * scale + bias).astype(x.dtype)

    def _remember(self, moments: Moments) -> None:
        moments = jax.lax.stop_gradient(moments)
        past, now = self.momentum, 1.0 - self.momentum
        # Not `mean[...] = …`, which asks tracers for their sharding: what they answer, a
        # message on all operations so far, was two thirds of tracing DenseNet-121.
        for kept, seen in ((self.mean, moments.mean), (self.var, moments.var)):
            value = kept[...]
            kept.set_value((past * value + now * seen).astype(value.dtype))


@jax.named_scope("max pooling")
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


def dropout(
    x: jax.Array,
    rate: float,
    key: jax.Array | None,
    *,
    shape: tuple[int, ...] | None = None,
) -> jax.Array:
    """Zeroes each element with probability ``rate`` and scales the others up.

    Args:
        x: any shape.
        rate: in [0, 1).
        key: random key; None reads, and returns ``x``.
        shape: of the mask, where elements fall together: ``(B, 1, 1, 1)`` drops whole
            films, which is stochastic depth; that of ``x`` by default.

    Raises:
        ConfigError: another rate.
    """
    if not 0.0 <= rate < 1.0:
        raise ConfigError(f"a dropout of {rate:g}: give a rate in [0, 1)")
    if key is None or rate == 0.0:
        return x
    with jax.named_scope(f"dropout {rate:g}"):
        kept = jax.random.bernoulli(key, 1.0 - rate, shape or x.shape)
        return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))


def checked(what: str, value: str, known: tuple[str, ...]) -> str:
    """The value, if it is one of those that are known.

    Raises:
        ConfigError: it is none; ``what`` names it.
    """
    if value not in known:
        raise ConfigError(f"{what}={value!r}: choose one of {', '.join(known)}")
    return value


def taps_until(until: str, taps: tuple[str, ...]) -> tuple[str, ...]:
    """The taps of a network that ends at one of them; all where it names none.

    Raises:
        ConfigError: an unknown one.
    """
    last = checked("until", until or taps[-1], taps)
    return taps[: taps.index(last) + 1]
