"""EfficientNet (Tan and Le, ICML 2019), laid out as Keras' is.

Every size is a partial of one class; ``efficientnet_tiny`` is its one-stage variant for
tests. Features can be taken at named taps, with Keras' names of blocks; ``"top"`` is what
Keras classifies. Normalising the film is the task's business, where Keras' network begins
with a layer of seven constants.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cxr_jax.models import pooling
from cxr_jax.models.layers import (
    FAN_OUT,
    BatchNorm,
    Conv,
    checked,
    draw_kernels,
    dropout,
    taps_until,
)

# (blocks, kernel, stride of the first, expansion, features) of each stage, B0.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNet(nnx.Module):
    """An EfficientNet without its classifier: film → features.

    Args:
        width: factor of every number of features, rounded to eights as Keras does.
        depth: factor of the number of blocks per stage, rounded up.
        stages: blocks, kernel, stride of the first block, expansion and features of each
            stage, before ``width`` and ``depth``.
        stem_width: features of the first convolution, before ``width``.
        top_width: features of the last one, likewise.
        in_channels: channels of a film, 1 or 3.
        tap: where ``features`` reads by default: ``"block1a"`` … (the output of a
            block), ``"block2a_expand"`` … (the activation behind a block's expansion),
            ``"top"``; the last one where empty.
        until: the last tap there is; nothing is built behind it. All where empty.
        drop_connect: stochastic depth; the rate at which the last block but for one is
            skipped grows from 0 to this, linearly. Per film, and only with a key.
        epsilon: of every batch norm.
        momentum: of the running statistics, in Flax's and Keras' sense.
        dtype: type of activations, ``float32`` or ``bfloat16``; statistics and sums of
            the norms stay float32.
        param_dtype: type of parameters.
        rngs: source of the initial weights.

    Raises:
        ConfigError: an unknown tap.

    Reference: Tan and Le, EfficientNet: Rethinking model scaling, ICML 2019; Huang et
    al., Deep networks with stochastic depth, ECCV 2016.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        stages: tuple[tuple[int, ...], ...] = STAGES,
        stem_width: int = 32,
        top_width: int = 1280,
        in_channels: int = 3,
        tap: str = "",
        until: str = "",
        drop_connect: float = 0.2,
        epsilon: float = 1e-3,
        momentum: float = 0.99,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        stem_width, top_width = (rounded(w, width) for w in (stem_width, top_width))
        plans = planned(stages, stem_width, width, depth, drop_connect)
        taps = (*(tap for plan in plans for tap in plan.taps), "top")
        self.taps = taps_until(until, taps)
        self.tap = checked("tap", tap or self.taps[-1], self.taps)
        self.plans = tuple(plan for plan in plans if {*plan.taps} & {*self.taps})
        self.top_width = top_width
        self.dtype = jnp.dtype(dtype)
        types = {"param_dtype": jnp.dtype(param_dtype)}
        norm = functools.partial(BatchNorm, epsilon=epsilon, momentum=momentum, **types)
        conv = functools.partial(Conv, padding="same", dtype=self.dtype, **types)
        self.stem = conv(in_channels, stem_width, 3, 2)
        self.stem_norm = norm(stem_width)
        self.blocks = nnx.List(
            _Block(plan, whole=plan.name in self.taps, norm=norm, conv=conv)
            for plan in self.plans
        )
        if "top" in self.taps:
            self.top = conv(self.plans[-1].features, top_width)
            self.top_norm = norm(top_width)
        draw_kernels(self, rngs.params(), FAN_OUT)

    def features(
        self, x: jax.Array, *, tap: str | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Features of normalised films.

        Args:
            x: ``[B, H, W, in_channels]``.
            tap: where to read; the constructor's by default.
            key: of the blocks that are skipped; without one, none is.

        Returns:
            ``[B, h, w, F]`` of the compute type; F is ``num_features(tap)``. Each stride
            of 2 leaves half the cells, rounded up.

        Raises:
            ConfigError: an unknown tap.
        """
        tap = checked("tap", tap or self.tap, self.taps)
        x = nnx.swish(self.stem_norm(self.stem(x.astype(self.dtype))))
        for number, (plan, block) in enumerate(
            zip(self.plans, self.blocks, strict=True)
        ):
            if tap == f"{plan.name}_expand":
                return block.expanded(x)
            x = block(x, None if key is None else jax.random.fold_in(key, number))
            if tap == plan.name:
                return x
        return nnx.swish(self.top_norm(self.top(x)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """``features`` at the default tap."""
        return self.features(x)

    def num_features(self, tap: str | None = None) -> int:
        """F at a tap; the constructor's tap by default."""
        tap = checked("tap", tap or self.tap, self.taps)
        widths = {"top": self.top_width}
        for plan in self.plans:
            widths |= {plan.name: plan.features, f"{plan.name}_expand": plan.inner}
        return widths[tap]


@dataclasses.dataclass(frozen=True)
class Plan:
    """One block, before anything is built.

    Attributes:
        name: Keras', such as ``block6a``.
        kernel: of the depthwise convolution.
        stride: likewise.
        expansion: factor of the features inside; at 1 there is no expansion.
        given: features that come in.
        features: features that go out.
        drop: how often the block is skipped in training.
    """

    name: str
    kernel: int
    stride: int
    expansion: int
    given: int
    features: int
    drop: float

    @property
    def inner(self) -> int:
        """Features inside the block."""
        return self.given * self.expansion

    @property
    def taps(self) -> tuple[str, ...]:
        """Where it can be read, in order."""
        first = (f"{self.name}_expand",) if self.expansion > 1 else ()
        return (*first, self.name)

    @property
    def skips(self) -> bool:
        """Whether what comes in is added to what goes out."""
        return self.stride == 1 and self.given == self.features


def planned(
    stages: tuple[tuple[int, ...], ...],
    stem_width: int,
    width: float,
    depth: float,
    drop_connect: float,
) -> tuple[Plan, ...]:
    """All blocks of a network in order."""
    counts = [math.ceil(depth * stage[0]) for stage in stages]
    plans, given = [], stem_width
    for number, (count, stage) in enumerate(zip(counts, stages, strict=True), 1):
        _, kernel, stride, expansion, features = stage
        features = rounded(features, width)
        for letter in range(count):
            plans.append(
                Plan(
                    name=f"block{number}{chr(ord('a') + letter)}",
                    kernel=kernel,
                    stride=1 if letter else stride,
                    expansion=expansion,
                    given=given,
                    features=features,
                    drop=drop_connect * len(plans) / sum(counts),
                )
            )
            given = features
    return tuple(plans)


def rounded(features: int, width: float, *, divisor: int = 8) -> int:
    """``features · width`` to the next multiple of eight, at most a tenth below it."""
    wanted = features * width
    found = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return found if found >= 0.9 * wanted else found + divisor


class _Block(nnx.Module):
    """Expand, filter each feature, weigh features, project; the inverted bottleneck."""

    def __init__(self, plan: Plan, *, whole: bool, norm, conv):
        self.drop, self.skips = plan.drop, plan.skips
        self.expand = conv(plan.given, plan.inner) if plan.expansion > 1 else None
        self.expand_norm = norm(plan.inner) if plan.expansion > 1 else None
        if not whole:
            return
        inner, least = plan.inner, max(1, plan.given // 4)
        filters = functools.partial(conv, depthwise=True)
        self.depthwise = filters(inner, inner, plan.kernel, plan.stride)
        self.norm = norm(inner)
        self.squeeze = conv(inner, least, bias=True)
        self.excite = conv(least, inner, bias=True)
        self.project = conv(inner, plan.features)
        self.project_norm = norm(plan.features)

    def expanded(self, x: jax.Array) -> jax.Array:
        if self.expand is None:
            return x
        return nnx.swish(self.expand_norm(self.expand(x)))

    def __call__(self, given: jax.Array, key: jax.Array | None) -> jax.Array:
        x = nnx.swish(self.norm(self.depthwise(self.expanded(given))))
        x = self.project_norm(self.project(x * self._weights(x)))
        if not self.skips:
            return x
        return given + dropout(x, self.drop, key, shape=(x.shape[0], 1, 1, 1))

    def _weights(self, x: jax.Array) -> jax.Array:
        """How much each feature counts in each film, ``[B, 1, 1, F]`` in (0, 1)."""
        weights = self.excite(nnx.swish(self.squeeze(pooling.gap(x))))
        return jnp.expand_dims(nnx.sigmoid(weights), (1, 2))


efficientnet_b0 = functools.partial(EfficientNet, width=1.0, depth=1.0)
efficientnet_b1 = functools.partial(EfficientNet, width=1.0, depth=1.1)
efficientnet_b2 = functools.partial(EfficientNet, width=1.1, depth=1.2)
efficientnet_b3 = functools.partial(EfficientNet, width=1.2, depth=1.4)
efficientnet_tiny = functools.partial(
    EfficientNet, stages=((2, 3, 1, 2, 8),), stem_width=8, top_width=16
)
