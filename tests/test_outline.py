"""The outline of a network: its parts add up, its shapes are those of a pass."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cxr_jax import outline
from cxr_jax.models import densenet, heads, layers
from cxr_jax.models.state import ModelDef, flatten
from cxr_jax.tasks.classify import Classify

WHOLE = {"freeze": (), "thaw": ()}
HEAD = {"freeze": ("backbone/*",), "thaw": ()}


def classify(model, head):
    return Classify(
        model=model,
        head=head,
        terms=[
            {
                "name": "bce",
                "fn": {"name": "cxr_jax.losses.bce"},
                "reduce": {"classes": "sum", "batch": "mean"},
            }
        ],
        classes=("A", "B", "C"),
        mean=(0.5,),
        std=(0.25,),
        channels=1,
    )


TINY = classify(
    {"name": "cxr_jax.models.densenet.densenet_tiny"},
    {"name": "cxr_jax.models.heads.PoolThenClassify", "dropout": 0.4},
)


def told(task, *, phases=(WHOLE,), size=16):
    found = outline.outline(task, ModelDef.of(task.create), phases=phases, size=size)
    return found, {part["name"]: part for part in found["parts"]}


def test_the_parts_of_a_small_network_by_hand():
    found, parts = told(TINY, phases=(HEAD, WHOLE))
    assert found["input"] == [16, 16, 1] and found["outputs"] == ["head/linear"]
    assert list(parts) == [
        "backbone",
        "global average pooling",
        "dropout 0.4",
        "head/linear",
    ]
    # 8 features at stride 2, and two layers that add 4 each.
    assert parts["backbone"]["shape"] == [8, 8, 16]
    assert parts["backbone"]["kind"] == "DenseNet"
    assert parts["backbone"]["inputs"] == ["input"]
    assert parts["global average pooling"]["shape"] == [16]
    assert parts["dropout 0.4"]["inputs"] == ["global average pooling"]
    assert parts["head/linear"]["parameters"] == 16 * 3 + 3
    # Stem; per layer two norms, 1×1 to 16 and 3×3 to 4; the last norm.
    layer = [2 * n + n * 16 + 2 * 16 + 9 * 16 * 4 for n in (8, 12)]
    body = 9 * 8 + 2 * 8 + sum(layer) + 2 * 16
    norms = 2 * (8 + 8 + 16 + 12 + 16 + 16)
    assert parts["backbone"]["parameters"] == body
    assert parts["backbone"]["statistics"] == norms
    assert parts["backbone"]["trainable"] == [0, body]
    assert found["trainable"] == [51, body + 51]
    assert (found["parameters"], found["statistics"]) == (body + 51, norms)


def test_stages_come_in_the_order_of_the_pass_with_the_shapes_of_the_taps():
    task = classify(
        {"name": "cxr_jax.models.densenet.DenseNet", "blocks": (1, 2), "growth": 4},
        {"name": "cxr_jax.models.heads.PoolThenClassify"},
    )
    _, parts = told(task, size=32)
    stages = {stage["name"]: stage for stage in parts["backbone"]["stages"]}
    assert [name.partition("/")[2] for name in stages] == [
        "stem",
        "stem_norm",
        "blocks/0",
        "transitions/0",
        "blocks/1",
        "norm",
    ]
    net = densenet.DenseNet((1, 2), growth=4, in_channels=1, rngs=nnx.Rngs(0))
    for tap, stage in (("block1", "blocks/0"), ("block2", "blocks/1")):
        shape = jax.eval_shape(
            lambda x, tap=tap: net.features(x, tap=tap), jnp.ones((1, 32, 32, 1))
        )
        assert stages[f"backbone/{stage}"]["shape"] == [*shape.shape[1:]]
    counted = sum(stage["parameters"] for stage in stages.values())
    assert counted == parts["backbone"]["parameters"]


def test_dense_net_121_counts_as_published():
    task = classify(
        {"name": "cxr_jax.models.densenet.densenet121"},
        {"name": "cxr_jax.models.heads.PoolThenClassify"},
    )
    found, parts = told(task, size=224)
    body = parts["backbone"]
    assert body["shape"] == [7, 7, 1024]
    # Keras: 7,037,504 with three input channels; one has 2 · 7 · 7 · 64 fewer.
    whole = body["parameters"] + body["statistics"]
    assert whole == 7_037_504 - 2 * 7 * 7 * 64
    assert found["parameters"] == body["parameters"] + 1024 * 3 + 3


class Branches(nnx.Module):
    """Two backbones of other grids, joined; one number of its own."""

    def __init__(self, *, in_channels, rngs):
        tiny = densenet.densenet_tiny
        self.fine = tiny(in_channels=in_channels, rngs=rngs)
        self.coarse = tiny(in_channels=in_channels, stem_stride=4, rngs=rngs)
        self.narrow = nnx.List(nnx.Linear(16, 6, rngs=rngs) for _ in range(2))
        self.gamma = nnx.Param(jnp.zeros(()))

    def features(self, x, *, key=None):
        fine = nnx.relu(self.narrow[0](self.fine.features(x)))
        coarse = nnx.relu(self.narrow[1](self.coarse.features(x)))
        with jax.named_scope("resizing"):
            coarse = jax.image.resize(coarse, fine.shape, "bilinear")
        return self.gamma[...] + jnp.concatenate([fine, coarse], axis=-1)

    def num_features(self):
        return 12


def branches():
    def create(key):
        rngs = nnx.Rngs(params=key)
        body = Branches(in_channels=1, rngs=rngs)
        return heads.Classifier(body, heads.PoolThenClassify(12, 3, rngs=rngs))

    return types.SimpleNamespace(create=create, preprocess=lambda x: x / 255.0)


def test_branches_are_told_apart_and_joined():
    found, parts = told(branches())
    reads = {name: part["inputs"] for name, part in parts.items()}
    assert reads == {
        "backbone/fine": ["input"],
        "backbone/narrow/0": ["backbone/fine"],
        "backbone/coarse": ["input"],
        "backbone/narrow/1": ["backbone/coarse"],
        "resizing": ["backbone/narrow/1"],
        "concatenation": ["backbone/narrow/0", "resizing"],
        "global average pooling": ["concatenation"],
        "head/linear": ["global average pooling"],
        outline.OTHER: [],
    }
    shapes = {name: part["shape"] for name, part in parts.items()}
    assert shapes["backbone/coarse"] == [4, 4, 16]
    assert shapes["backbone/narrow/1"] == [4, 4, 6]
    assert shapes["resizing"] == [8, 8, 6] and shapes["concatenation"] == [8, 8, 12]
    # The number that stands in no part is counted all the same.
    assert parts[outline.OTHER]["parameters"] == 1
    for key in ("parameters", "statistics"):
        assert found[key] == sum(part[key] for part in parts.values())


class Plain(nnx.Module):
    """Layers one after another, as a backbone."""

    def __init__(self, *, rngs):
        self.first = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.second = nnx.Conv(4, 5, (3, 3), rngs=rngs)

    def features(self, x, *, key=None):
        for conv in (self.first, self.second):
            x = layers.max_pool(nnx.relu(conv(x)), window=2, padding=0)
        return x


def test_layers_of_a_plain_backbone_stand_one_by_one():
    def create(key):
        rngs = nnx.Rngs(params=key)
        return heads.Classifier(
            Plain(rngs=rngs), heads.PoolThenClassify(5, 2, rngs=rngs)
        )

    task = types.SimpleNamespace(create=create, preprocess=lambda x: x / 255.0)
    _, parts = told(task)
    assert {name: part["shape"] for name, part in parts.items()} == {
        "backbone/first": [16, 16, 4],
        "max pooling": [8, 8, 4],
        "backbone/second": [8, 8, 5],
        "max pooling (2)": [4, 4, 5],
        "global average pooling": [5],
        "head/linear": [2],
    }
    assert parts["max pooling (2)"]["inputs"] == ["backbone/second"]
    assert parts["backbone/second"]["inputs"] == ["max pooling"]


def test_nothing_is_told_of_a_task_that_does_not_preprocess():
    task = types.SimpleNamespace(create=branches().create)
    definition = ModelDef.of(task.create)
    assert outline.outline(task, definition, phases=(WHOLE,), size=16) is None


def test_looking_changes_nothing():
    definition = ModelDef.of(TINY.create)
    before = [str(x) for x in flatten((definition.params, definition.rest)).values()]
    first, second = (
        outline.outline(TINY, definition, phases=(WHOLE,), size=16) for _ in range(2)
    )
    assert first == second
    after = [str(x) for x in flatten((definition.params, definition.rest)).values()]
    assert before == after


def test_names_of_functions_leave_their_numbers_alone():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    named = layers.dropout(x, 0.5, jax.random.key(1))
    kept = jax.random.bernoulli(jax.random.key(1), 0.5, x.shape)
    np.testing.assert_array_equal(named, jnp.where(kept, 2 * x, 0))


@pytest.mark.parametrize("phases", [(WHOLE,), (HEAD, WHOLE)])
def test_the_text_has_a_line_per_part_and_a_total(phases):
    found, _ = told(TINY, phases=phases)
    lines = outline.text(found).splitlines()
    words = [line.split() for line in lines]
    assert words[0][:2] == ["part", "kind"]
    assert words[1] == ["input", "16", "×", "16", "×", "1"]
    assert words[2][:2] == ["backbone", "DenseNet"]
    assert words[-1][0] == "total"
    numbers = [found["parameters"], found["statistics"], *found["trainable"]]
    assert words[-1][1:] == [f"{n:,}" for n in numbers]
    assert len(words[-1]) == 3 + len(phases)
