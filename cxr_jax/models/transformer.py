"""Layers of transformers over few tokens: attention, what feeds a token, where a cell lies.

Norms come first, and every branch is scaled by numbers of its own.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from cxr_jax.models.layers import dropout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What layers are made of.

    Attributes:
        linear: (features in, out) → a linear layer with a bias.
        norm: features → a layer norm.
        heads: of every attention.
        widen: hidden features as a multiple of those of the layer.
        dropout: rate behind whatever a layer computes.
        drop_path: rate at which a branch is left out, for a film at a time.
        scale: that every branch starts with.
    """

    linear: Callable[..., nnx.Linear]
    norm: Callable[[int], nnx.LayerNorm]
    heads: int
    widen: int
    dropout: float
    drop_path: float
    scale: float


def sine_encoding(height: int, width: int, features: int) -> jax.Array:
    """Where a cell lies, in sines: half of the features for y, then half for x.

    For cell v of n, ``e = 2π (v + 1) / (n + 1e-6)``; feature k of a half of size h is
    ``sin`` (k even) or ``cos`` (k odd) of ``e / 10000^(2⌊k/2⌋/h)``.

    Args:
        height: cells.
        width: cells.
        features: a multiple of 4.

    Returns:
        float32 ``[height, width, features]``.

    Reference: Carion et al., ECCV 2020, supplement A.4, normalised as in its code.
    """
    half = features // 2
    number = jnp.arange(half, dtype=jnp.float32)
    divisor = 10000.0 ** (2 * jnp.floor(number / 2) / half)

    def along(cells: int) -> jax.Array:
        place = jnp.arange(1, cells + 1, dtype=jnp.float32)
        angle = 2 * math.pi / (cells + 1e-6) * place[:, None] / divisor[None]
        return jnp.where(number[None] % 2 == 0, jnp.sin(angle), jnp.cos(angle))

    shape = (height, width, half)
    y = jnp.broadcast_to(along(height)[:, None], shape)
    x = jnp.broadcast_to(along(width)[None], shape)
    return jnp.concatenate([y, x], axis=-1)


class Attention(nnx.Module):
    """Several heads of ``softmax(Q Kᵀ / √h) V``, joined by a linear layer.

    Args:
        features: d, a multiple of the heads.
        parts: of it; kernels start as Glorot's uniform, biases at 0.

    Reference: Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.2.
    """

    def __init__(self, features: int, parts: Parts):
        start = {
            "kernel_init": nnx.initializers.glorot_uniform(),
            "bias_init": nnx.initializers.zeros,
        }
        make = functools.partial(parts.linear, features, features, **start)
        self.query, self.key, self.value, self.out = (make() for _ in range(4))
        self.heads = parts.heads

    def __call__(self, query: jax.Array, memory: jax.Array) -> jax.Array:
        """``[B, Q, d]`` looks at ``[B, K, d]``."""

        def split(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:-1], self.heads, -1)

        q, k, v = map(split, (self.query(query), self.key(memory), self.value(memory)))
        # Not JAX's own function, whose softmax is float32 even of float64.
        exact = jnp.promote_types(q.dtype, jnp.float32)
        scores = jnp.einsum("bqhf,bkhf->bhqk", q, k, preferred_element_type=exact)
        weights = jax.nn.softmax(scores * (1 / math.sqrt(q.shape[-1]))).astype(v.dtype)
        found = jnp.einsum("bhqk,bkhf->bqhf", weights, v)
        return self.out(found.reshape(query.shape))


class Feed(nnx.Module):
    """``W₂ D(relu(W₁ x))``, D being dropout."""

    def __init__(self, features: int, parts: Parts):
        self.widen = parts.linear(features, parts.widen * features)
        self.narrow = parts.linear(parts.widen * features, features)
        self.dropout = parts.dropout

    def __call__(self, x: jax.Array, *, key: jax.Array | None) -> jax.Array:
        """``[…, d]`` → ``[…, d]``."""
        return self.narrow(dropout(nnx.relu(self.widen(x)), self.dropout, key))


class Branch(nnx.Module):
    """``scale · D(y)``, where D is dropout; left out for whole films at a rate.

    Args:
        features: d; each has a scale of its own.
        parts: its rates, and where scales start.
        drop_path: whether it is ever left out.
    """

    def __init__(self, features: int, parts: Parts, *, drop_path: bool = True):
        like = parts.norm(features).scale[...]
        self.scale = nnx.Param(jnp.full_like(like, parts.scale))
        self.dropout = parts.dropout
        self.drop_path = parts.drop_path if drop_path else 0.0

    def __call__(self, y: jax.Array, keys: Iterator[jax.Array | None]) -> jax.Array:
        """``[B, A, d]`` → the same."""
        y = dropout(y, self.dropout, next(keys))
        y = y * self.scale[...].astype(y.dtype)[None, None]
        return dropout(y, self.drop_path, next(keys), shape=(len(y), 1, 1))


class EncoderLayer(nnx.Module):
    """Tokens attend to each other, then each feeds itself; norms come first::

        u = LN(x + t);  x += branch(attention(u, u));  x += branch(feed(LN(x)))

    Args:
        features: d.
        parts: of it.
    """

    def __init__(self, features: int, parts: Parts):
        self.own_norm, self.feed_norm = parts.norm(features), parts.norm(features)
        self.own, self.feed = Attention(features, parts), Feed(features, parts)
        self.own_branch = Branch(features, parts)
        self.feed_branch = Branch(features, parts)

    def attend(
        self, x: jax.Array, tokens: jax.Array, keys: Iterator[jax.Array | None]
    ) -> jax.Array:
        """The first half. What says who a token is enters the values too."""
        own = self.own_norm(x + tokens)
        return x + self.own_branch(self.own(own, own), keys)

    def think(self, x: jax.Array, keys: Iterator[jax.Array | None]) -> jax.Array:
        """The second half."""
        fed = self.feed(self.feed_norm(x), key=next(keys))
        return x + self.feed_branch(fed, keys)

    def __call__(
        self, x: jax.Array, tokens: jax.Array, keys: Iterator[jax.Array | None]
    ) -> jax.Array:
        """State ``[B, A, d]`` and tokens ``[1, A, d]`` → the next state."""
        return self.think(self.attend(x, tokens, keys), keys)


class DecoderLayer(EncoderLayer):
    """An ``EncoderLayer`` whose tokens look at the map between its halves::

        x += branch(attention(LN(x + t), LN(f + e)))

    where f is the map and e says where its cells lie. This branch is never left out.

    Reference: the released code of Müller et al., MICCAI 2023.
    """

    def __init__(self, features: int, parts: Parts):
        super().__init__(features, parts)
        self.query_norm, self.map_norm = parts.norm(features), parts.norm(features)
        self.cross = Attention(features, parts)
        self.cross_branch = Branch(features, parts, drop_path=False)

    def look(
        self,
        x: jax.Array,
        tokens: jax.Array,
        memory: jax.Array,
        keys: Iterator[jax.Array | None],
    ) -> jax.Array:
        """The next state; memory is f + e, ``[B, K, d]``."""
        x = self.attend(x, tokens, keys)
        found = self.cross(self.query_norm(x + tokens), self.map_norm(memory))
        return self.think(x + self.cross_branch(found, keys), keys)


class MLP(nnx.Module):
    """Linear layers with ReLU and dropout between them.

    Args:
        widths: features in, of each hidden layer, and out.
        parts: of it.
    """

    def __init__(self, widths: tuple[int, ...], parts: Parts):
        pairs = itertools.pairwise(widths)
        self.layers = nnx.List([parts.linear(a, b) for a, b in pairs])
        self.dropout = parts.dropout

    def __call__(self, x: jax.Array, keys: Iterator[jax.Array | None]) -> jax.Array:
        """``[…, in]`` → ``[…, out]``."""
        *hidden, last = self.layers
        for layer in hidden:
            x = dropout(nnx.relu(layer(x)), self.dropout, next(keys))
        return last(x)


def key_stream(key: jax.Array | None) -> Iterator[jax.Array | None]:
    """Keys of their own, one after the other; None for ever where there is none."""
    number = 0
    while True:
        yield None if key is None else jax.random.fold_in(key, number)
        number += 1
