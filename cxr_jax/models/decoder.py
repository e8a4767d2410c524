"""From features to regions: learned tokens look at a map and say what each region holds.

Müller et al., Anatomy-driven pathology detection on chest X-rays, MICCAI 2023, after Carion
et al., End-to-end object detection with transformers, ECCV 2020.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cxr_jax import boxes
from cxr_jax.errors import ConfigError
from cxr_jax.models.layers import checked, dropout, linear
from cxr_jax.models.roi import roi_align
from cxr_jax.models.transformer import (
    MLP,
    DecoderLayer,
    EncoderLayer,
    Parts,
    key_stream,
    sine_encoding,
)

# What says which findings a region has, and what it sees of the region.
FINDING_HEADS = ("linear", "mlp", "transformer")
REGION_FEATURES = ("token", "roi")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionOutput:
    """What a network says of each region, before any threshold.

    Attributes:
        cxcywh: ``[B, A, 4]`` in (0, 1), centre and size relative to the film.
        presence: ``[B, A]``, logits.
        findings: ``[B, A, C]``, logits.
    """

    cxcywh: jax.Array
    presence: jax.Array
    findings: jax.Array


class RegionDecoder(nnx.Module):
    """A map → regions with boxes, presence and findings; heads are shared by all regions.

    Args:
        features: F of the map.
        regions: A, one learned token each.
        findings: C.
        width: d, a multiple of 4 and of ``heads``.
        layers: of the decoder; the paper has one.
        heads: of every attention.
        widen: hidden features of a layer, as a multiple of d.
        dropout: rate of every dropout, that behind the projection of the map too.
        drop_path: rate at which a branch of a film is left out.
        scale: that every branch starts with.
        finding_head: ``"linear"``, as the paper; ``"mlp"``, three layers; or
            ``"transformer"``, where regions attend to each other once more.
        region_features: what the finding head sees: the ``"token"``, or ``"roi"``, the
            mean of the map within the predicted box, which the paper found worse.
        dtype: type of the arithmetic; outputs are float32 at least.
        param_dtype: type of parameters.
        rngs: source of the initial weights: uniform ±1/√fan_in, as torch.

    Raises:
        ConfigError: an unknown head, or kind of features.
    """

    def __init__(
        self,
        features: int,
        *,
        regions: int,
        findings: int,
        width: int = 512,
        layers: int = 1,
        heads: int = 8,
        widen: int = 4,
        dropout: float = 0.3,
        drop_path: float = 0.2,
        scale: float = 0.1,
        finding_head: str = "linear",
        region_features: str = "token",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        checked("finding_head", finding_head, FINDING_HEADS)
        checked("region_features", region_features, REGION_FEATURES)
        if heads < 1 or width % heads:
            raise ConfigError(
                f"a width of {width} cannot be divided among {heads} heads of attention:"
                " give task.head.heads that divide task.head.width"
            )
        self.region_features, self.dropout = region_features, dropout
        self.exact = jnp.promote_types(param_dtype, jnp.float32)
        given = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(param_dtype)}
        given["rngs"] = rngs
        parts = Parts(
            linear=functools.partial(linear, **given),
            norm=functools.partial(nnx.LayerNorm, epsilon=1e-5, **given),
            heads=heads,
            widen=widen,
            dropout=dropout,
            drop_path=drop_path,
            scale=scale,
        )
        drawn = jax.random.normal(rngs.params(), (regions, width), param_dtype)
        self.tokens = nnx.Param(drawn / math.sqrt(width))
        self.project = parts.linear(features, width)
        self.layers = nnx.List([DecoderLayer(width, parts) for _ in range(layers)])
        self.presence = parts.linear(width, 1)
        self.box = MLP((width, width, width, 4), parts)
        hidden = (width, width) if finding_head == "mlp" else ()
        mixes = finding_head == "transformer"
        self.mix = EncoderLayer(width, parts) if mixes else None
        self.finding = MLP((width, *hidden, findings), parts)

    def __call__(
        self, features: jax.Array, *, key: jax.Array | None = None
    ) -> RegionOutput:
        """Regions of ``features [B, h, w, F]``; no key, no dropout."""
        keys = key_stream(key)
        projected = dropout(self.project(features), self.dropout, next(keys))
        where = sine_encoding(*projected.shape[1:]).astype(projected.dtype)
        memory = (projected + where[None]).reshape(
            len(projected), -1, projected.shape[-1]
        )
        tokens = self.tokens[...].astype(projected.dtype)[None]
        x = jnp.zeros((len(projected), *tokens.shape[1:]), projected.dtype)
        for layer in self.layers:
            x = layer.look(x, tokens, memory, keys)
        cxcywh = jax.nn.sigmoid(self.box(x, keys).astype(self.exact))
        presence = self.presence(x)[..., 0].astype(self.exact)
        if self.region_features == "roi":
            within = jax.lax.stop_gradient(boxes.xyxy_from_cxcywh(cxcywh))
            pooled = roi_align(projected, boxes.clip(within), cells=7)
            x = pooled.mean(axis=(2, 3)).astype(projected.dtype)
        if self.mix is not None:
            x = self.mix(x, tokens, keys)
        findings = self.finding(x, keys).astype(self.exact)
        return RegionOutput(cxcywh=cxcywh, presence=presence, findings=findings)
