"""Decoder: vectors by hand, laws of its tokens, and torch's own modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cxr_jax import config
from cxr_jax.errors import ConfigError
from cxr_jax.models import decoder, roi, transformer

D, A, C, F = 16, 5, 3, 6


def network(**changes):
    given = {"regions": A, "findings": C, "width": D, "heads": 4} | changes
    return decoder.RegionDecoder(F, rngs=nnx.Rngs(params=0), **given)


def random_map(batch=2, cells=3, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(batch, cells, cells, F)), jnp.float32)


@nnx.jit
def say(model, x, key=None):
    """Compiled whole: operation by operation takes longer."""
    return model(x, key=key)


def test_sine_code_by_hand():
    code = transformer.sine_encoding(7, 7, 8)
    first = [0.7818, 0.6235, 0.0090, 1.0000]
    np.testing.assert_allclose(code[0, 0], first * 2, atol=1e-4)
    y, x = [0.4339, -0.9010, 0.0269, 0.9996], [-0.7818, 0.6235, 0.0538, 0.9986]
    np.testing.assert_allclose(code[2, 5], y + x, atol=1e-4)


def test_shapes_and_ranges():
    said = say(network(), random_map())
    assert said.cxcywh.shape == (2, A, 4)
    assert said.presence.shape == (2, A)
    assert said.findings.shape == (2, A, C)
    assert (said.cxcywh > 0).all() and (said.cxcywh < 1).all()


def test_the_papers_decoder_says_29_regions_and_53_findings():
    """Of the map of DenseNet-121 at 224 px; shapes alone, nothing is computed."""
    asked = config.load("configs/adpd.py")
    head = config.plain(asked.task.head)
    counts = {"regions": len(asked.task.regions), "findings": len(asked.task.findings)}

    def made_and_asked(x):
        rngs = nnx.Rngs(params=0)
        return config.build(head | counts, features=1024, rngs=rngs)(x)

    said = jax.eval_shape(
        made_and_asked, jax.ShapeDtypeStruct((2, 7, 7, 1024), jnp.float32)
    )
    assert said.cxcywh.shape == (2, 29, 4)
    assert said.presence.shape == (2, 29)
    assert said.findings.shape == (2, 29, 53)


def test_heads_are_shared_by_all_regions():
    """Tokens that are the same say the same, whatever they are asked."""
    model = network()
    model.tokens[...] = jnp.broadcast_to(model.tokens[...][:1], (A, D))
    said = say(model, random_map())
    for leaf in jax.tree.leaves(said):
        np.testing.assert_allclose(
            leaf, jnp.broadcast_to(leaf[:, :1], leaf.shape), atol=1e-6
        )


def test_films_do_not_see_each_other():
    model, x = network(), random_map(3)
    both, alone = say(model, x), say(model, x[1:2])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1:2], b, atol=1e-5), both, alone
    )


def test_where_a_cell_lies_matters():
    model, x = network(), random_map()
    turned = say(model, x[:, ::-1])
    assert np.abs(np.asarray(say(model, x).cxcywh - turned.cxcywh)).max() > 1e-6


def test_a_key_makes_it_random_and_no_key_does_not():
    model, x = network(dropout=0.5), random_map()
    key = jax.random.key(0)
    same, other = say(model, x, key), say(model, x, jax.random.key(1))
    np.testing.assert_array_equal(say(model, x, key).findings, same.findings)
    assert (same.findings != other.findings).any()
    np.testing.assert_array_equal(say(model, x).findings, say(model, x).findings)


def test_branches_are_left_out_for_whole_films():
    """With a rate near 1 only the look at the map is left, which is never left out."""
    model = network(dropout=0.0, drop_path=0.9, scale=1.0)
    x, keys = random_map(64), transformer.key_stream(jax.random.key(0))
    branch = model.layers[0].own_branch
    y = branch(jnp.ones((64, A, D)), keys)
    kept = np.asarray(y[:, 0, 0]) != 0
    assert 0 < kept.sum() < 20
    assert (np.asarray(y)[~kept] == 0).all()
    np.testing.assert_allclose(np.asarray(y)[kept], 10.0, rtol=1e-5)
    cross = model.layers[0].cross_branch(jnp.ones((64, A, D)), keys)
    np.testing.assert_allclose(cross, 1.0)
    assert x.shape[0] == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"finding_head": "mlp"},
        {"finding_head": "transformer"},
        {"region_features": "roi"},
        {"layers": 2},
    ],
    ids=str,
)
def test_ablations_change_what_is_built_and_what_is_said(changes):
    plain, other = network(), network(**changes)
    x = random_map()
    ours, theirs = say(other, x).findings, say(plain, x).findings
    assert ours.shape == theirs.shape
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(nnx.state(m))) for m in (plain, other)
    ]
    assert sizes[1] > sizes[0] or "region_features" in changes
    assert np.abs(np.asarray(ours - theirs)).max() > 1e-6


@pytest.mark.parametrize("name", ["finding_head", "region_features"])
def test_unknown_ablations_are_refused(name):
    with pytest.raises(ConfigError, match=name):
        network(**{name: "nonsense"})


def test_a_region_of_interest_is_the_mean_of_what_it_covers():
    """On a plane, the mean over a box is the value at its middle."""
    y, x = np.mgrid[0:8, 0:8] + 0.5
    plane = np.stack([x / 8, y / 8], axis=-1)[None].astype(np.float32)
    xyxy = np.array([[[0.25, 0.25, 0.75, 0.5], [0.3, 0.4, 0.5, 0.9]]], np.float32)
    found = roi.roi_align(plane, xyxy, cells=7)
    assert found.shape == (1, 2, 7, 7, 2)
    expected = (xyxy[..., :2] + xyxy[..., 2:]) / 2
    np.testing.assert_allclose(found.mean(axis=(2, 3)), expected, atol=1e-5)
    # Its first cell lies at the upper left.
    assert (found[0, :, 0, 0] < found[0, :, -1, -1]).all()


def test_a_layer_is_that_of_torch():
    """The same weights in torch's own attention, norms and linear layers."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model = network(scale=0.3)
    layer = model.layers[0]
    rng = np.random.default_rng(1)
    draw = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype),
        nnx.state(model, nnx.Param),
    )
    nnx.update(model, draw)

    def tensor(x):
        return torch.tensor(np.asarray(x))

    def linear(ours):
        made = torch.nn.Linear(*ours.kernel[...].shape)
        made.weight.data = tensor(ours.kernel[...]).T.contiguous()
        made.bias.data = tensor(ours.bias[...])
        return made

    def norm(ours):
        made = torch.nn.LayerNorm(D)
        made.weight.data, made.bias.data = (
            tensor(ours.scale[...]),
            tensor(ours.bias[...]),
        )
        return made

    def attention(ours, query, memory):
        made = torch.nn.MultiheadAttention(D, 4, batch_first=True)
        parts = (ours.query, ours.key, ours.value)
        made.in_proj_weight.data = torch.cat([tensor(p.kernel[...]).T for p in parts])
        made.in_proj_bias.data = torch.cat([tensor(p.bias[...]) for p in parts])
        made.out_proj = linear(ours.out)
        return made(query, memory, memory, need_weights=False)[0]

    x = random_map()
    with torch.no_grad():
        projected = linear(model.project)(tensor(x))
        code = tensor(transformer.sine_encoding(3, 3, D))
        memory = norm(layer.map_norm)((projected + code).reshape(2, 9, D))
        tokens = tensor(model.tokens[...])[None].expand(2, A, D)
        state = torch.zeros(2, A, D)
        own = norm(layer.own_norm)(state + tokens)
        state = state + tensor(layer.own_branch.scale[...]) * attention(
            layer.own, own, own
        )
        looked = attention(layer.cross, norm(layer.query_norm)(state + tokens), memory)
        state = state + tensor(layer.cross_branch.scale[...]) * looked
        hidden = torch.relu(linear(layer.feed.widen)(norm(layer.feed_norm)(state)))
        fed = linear(layer.feed.narrow)(hidden)
        state = state + tensor(layer.feed_branch.scale[...]) * fed
        presence = linear(model.presence)(state)[..., 0]
        findings = linear(model.finding.layers[0])(state)
        box = state
        for k, one in enumerate(model.box.layers):
            box = linear(one)(box)
            box = torch.relu(box) if k < 2 else torch.sigmoid(box)
    said = model(x)
    for ours, theirs in zip(
        (said.presence, said.findings, said.cxcywh),
        (presence, findings, box),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)
