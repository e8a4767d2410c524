"""A convolution that sees each feature alone, as a sum of shifted products.

XLA on CPU computes a convolution of many groups, and sums over batch and space, one
number at a time; elementwise arithmetic it does whole vectors at once, and joins the k²
products of all shifts into one pass over memory. So everything here is elementwise, the
sum over space of the kernel's gradient too, as far as its first eight terms.
"""

import functools
import itertools

import jax
import jax.numpy as jnp

# Rows and columns whose products are added before the library's sum.
_PATCH = (4, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """``y[b, i, j, f] = Σ_uv x[b, i·s + u, j·s + v, f] · w[u, v, f]``, no padding.

    Products and their sum are float32 at least. Forward-mode differentiation is not
    defined.

    Args:
        x: ``[B, H, W, F]``, at least as large as the kernel.
        kernel: ``[k, k, F]``.
        stride: s, in pixels.

    Returns:
        ``[B, (H - k) // s + 1, (W - k) // s + 1, F]``, of the type of x.
    """
    return _products(x, kernel, stride)


def _products(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    side, _, features = kernel.shape
    cells = [(size - side) // stride + 1 for size in x.shape[1:3]]
    exact = jnp.promote_types(x.dtype, jnp.float32)
    weights = kernel.astype(exact).reshape(side, side, 1, 1, 1, features)
    total = jnp.zeros((), exact)
    for u, v in itertools.product(range(side), repeat=2):
        shifted = _every(x, (u, v), (stride, stride), cells)
        total = total + shifted.astype(exact) * weights[u, v]
    return total.astype(x.dtype)


def _forward(x, kernel, stride):
    return _products(x, kernel, stride), (x, kernel)


def _backward(stride, given, gradient):
    x, kernel = given
    of_x = _of_film(gradient, kernel, stride, x.shape)
    of_kernel = _of_kernel(x, gradient, kernel.shape[0], stride)
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


def _of_film(gradient: jax.Array, kernel: jax.Array, stride: int, shape) -> jax.Array:
    """The products once more, with the kernel turned around; ``[B, H, W, F]``.

    The transpose of a sum of slices is a sum of padded arrays, which takes longer.
    """
    side, edges = kernel.shape[0], [(0, 0, 0)]
    for size, cells in zip(shape[1:3], gradient.shape[1:3], strict=True):
        rest = size - side - (cells - 1) * stride
        edges.append((side - 1, side - 1 + rest, stride - 1))
    zero = jnp.zeros((), gradient.dtype)
    spread = jax.lax.pad(gradient, zero, (*edges, (0, 0, 0)))
    return _products(spread, kernel[::-1, ::-1], 1)


def _of_kernel(x: jax.Array, gradient: jax.Array, side: int, stride: int) -> jax.Array:
    """``Σ_bij x[b, i·s + u, j·s + v, f] · g[b, i, j, f]``, ``[k, k, F]``."""
    exact = jnp.promote_types(x.dtype, jnp.float32)
    x, gradient = x.astype(exact), gradient.astype(exact)
    patch = [min(*pair) for pair in zip(_PATCH, gradient.shape[1:3], strict=True)]
    patches = [-(-n // p) for n, p in zip(gradient.shape[1:3], patch, strict=True)]
    whole = [n * p for n, p in zip(patches, patch, strict=True)]
    gradient = _filled(gradient, whole)
    x = _filled(x, [(n - 1) * stride + side for n in whole])
    steps = [p * stride for p in patch]
    sums = []
    for u, v in itertools.product(range(side), repeat=2):
        total = jnp.zeros((), exact)
        for i, j in itertools.product(*map(range, patch)):
            start = (u + i * stride, v + j * stride)
            total = total + _every(x, start, steps, patches) * _every(
                gradient, (i, j), patch, patches
            )
        sums.append(jnp.sum(total, (0, 1, 2)))
    return jnp.stack(sums).reshape(side, side, -1)


depthwise.defvjp(_forward, _backward)


def _every(x, start, step, count) -> jax.Array:
    """``count`` rows and columns of x, each ``step`` from the one before."""
    (top, left), (down, right), (rows, columns) = start, step, count
    return x[
        :,
        top : top + (rows - 1) * down + 1 : down,
        left : left + (columns - 1) * right + 1 : right,
    ]


def _filled(x: jax.Array, sizes) -> jax.Array:
    """x with zeros behind its rows and columns, to these numbers at least."""
    ends = [max(0, size - n) for n, size in zip(x.shape[1:3], sizes, strict=True)]
    return jnp.pad(x, ((0, 0), (0, ends[0]), (0, ends[1]), (0, 0)))
