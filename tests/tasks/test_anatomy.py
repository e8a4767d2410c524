"""ADPD's task: each loss against float64 NumPy, and how boxes of findings follow."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import adpd
from cxr_jax import config, objective, optim
from cxr_jax.errors import ConfigError
from cxr_jax.labels import CXR8
from cxr_jax.models.decoder import RegionOutput
from cxr_jax.tasks.anatomy import Anatomy
from cxr_jax.types import Batch, Regions

ROOT = pathlib.Path(__file__).parents[2]
A, C = 3, 4
FINDINGS = ("shadow", "fluid", "air", "node")
BACKBONE = {"name": "cxr_jax.models.densenet.densenet_tiny"}
HEAD = {"name": "cxr_jax.models.decoder.RegionDecoder", "width": 8, "heads": 2}
TERMS = (*adpd.REGIONS, adpd.FINDINGS, adpd.FILM)


def make(**changes):
    given = {
        "model": BACKBONE,
        "head": HEAD,
        "terms": TERMS,
        "classes": ("Shadow", "Air", "Both"),
        "mapping": {"Shadow": ("shadow",), "Air": ("air",), "Both": ("fluid", "air")},
        "findings": FINDINGS,
        "regions": ("left", "right", "middle"),
        "mean": (0.5,),
        "std": (0.25,),
        "channels": 1,
        "film_labels": "regions",
    }
    return Anatomy(**given | changes)


def random_said(seed=0, rows=4):
    rng = np.random.default_rng(seed)
    return RegionOutput(
        cxcywh=jnp.asarray(rng.uniform(0.2, 0.6, (rows, A, 4)), jnp.float32),
        presence=jnp.asarray(rng.normal(size=(rows, A)), jnp.float32),
        findings=jnp.asarray(rng.normal(size=(rows, A, C)), jnp.float32),
    )


def random_batch(seed=0, rows=4, real=None, noise=False):
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.random((2, rows, A, 2)), axis=0)
    presence = rng.random((rows, A)) < 0.6
    presence[0], presence[1] = True, [True, False, False]
    return Batch(
        image=rng.integers(0, 256 if noise else 1, (rows, 8, 8, 1), np.uint8),
        labels=np.zeros((rows, 3), np.float32),
        mask=np.ones(rows, bool) if real is None else np.asarray(real),
        position=np.arange(rows, dtype=np.uint32),
        index=np.arange(rows, dtype=np.int32),
        regions=Regions(
            xyxy=np.where(
                presence[..., None], np.concatenate([low, high], -1), 0
            ).astype(np.float32),
            presence=presence,
            probs=rng.integers(0, 2, (rows, A, C)).astype(np.float32),
        ),
    )


class Says:
    """A model that says the same whatever it sees."""

    def __init__(self, said):
        self.said = said

    def __call__(self, x, *, key=None):
        return self.said

    def features(self, x):
        return x


def loss_of(task, said, batch):
    """Values of the terms, as the task composes them."""

    @jax.jit
    def cost(said, batch):
        losses = [
            term(*(p := task._quantity(term.quantity, said, batch))[:2], mask=p[2])
            for term in task.objective.terms
        ]
        return objective.merge(*losses)

    return objective.log_entries(cost(said, batch))


def read(said, **changes):
    """As the task reads it, compiled whole."""
    return jax.jit(make(**changes).read)(said)


def asymmetric(z, y):
    p = 1 / (1 + np.exp(-z))
    shifted = np.maximum(p - 0.05, 0)
    hit, miss = (1 - p) * -np.log(p), shifted**4 * -np.log(1 - shifted)
    return y * hit + (1 - y) * miss


def test_every_term_is_its_formula():
    said, batch = random_said(), random_batch(real=[True, True, True, False])
    found = loss_of(make(), said, batch)
    box, logit, z = (np.asarray(x, float) for x in jax.tree.leaves(said))
    true = np.asarray(batch.regions.xyxy, float)
    l1 = giou = bce = asl = film = 0.0
    present = entries = 0
    for b in range(3):  # the fourth is padding
        pooled = []
        for a in range(A):
            there = bool(batch.regions.presence[b, a])
            bce += np.log1p(np.exp(-logit[b, a] if there else logit[b, a]))
            entries += 1
            if not there:
                continue
            present += 1
            x1, y1, x2, y2 = true[b, a]
            target = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
            l1 += np.abs(box[b, a] - target).sum()
            cx, cy, w, h = box[b, a]
            mine = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
            low, high = (
                np.maximum(mine, true[b, a])[:2],
                np.minimum(mine, true[b, a])[2:],
            )
            shared = np.prod(np.maximum(high - low, 0))
            union = w * h + target[2] * target[3] - shared
            hull = np.prod(
                np.maximum(mine, true[b, a])[2:] - np.minimum(mine, true[b, a])[:2]
            )
            giou += 1 - (shared / union - (hull - union) / hull)
            asl += asymmetric(z[b, a], batch.regions.probs[b, a]).sum()
            pooled.append(1 / (1 + np.exp(-z[b, a])))
        p = np.log(np.exp(5 * np.array(pooled)).sum(axis=0) / A) / 5
        p = np.clip(p, 1e-7, 1 - 1e-7)
        label = (batch.regions.probs[b] * batch.regions.presence[b][:, None]).max(
            axis=0
        )
        film += asymmetric(np.log(p / (1 - p)), label).sum()
    expected = {
        "coordinates": l1 / present,
        "giou": giou / present,
        "presence": bce / entries,
        "findings": asl,
        "film": film,
    }
    for name, value in expected.items():
        assert found[f"loss/{name}"] == pytest.approx(value, rel=1e-4), name


def test_labels_of_films_may_be_those_of_the_dataset():
    """As MIL-ADPD learns on Chest ImaGenome: unknown ones cost nothing."""
    said, batch = random_said(), random_batch()
    labels = np.random.default_rng(7).integers(0, 2, (4, C)).astype(np.float32)
    labels[1, 2] = np.nan
    batch = dataclasses.replace(batch, labels=labels)
    task = make(film_labels="labels", terms=(adpd.FILM,))
    assert task.labelled == FINDINGS
    cost = 0.0
    for b in range(4):
        there = np.asarray(batch.regions.presence[b])
        if not there.any():
            continue
        probs = 1 / (1 + np.exp(-np.asarray(said.findings[b], float)[there]))
        p = np.clip(np.log(np.exp(5 * probs).sum(axis=0) / A) / 5, 1e-7, 1 - 1e-7)
        each = asymmetric(np.log(p / (1 - p)), labels[b].astype(float))
        cost += np.nansum(each)
    found = loss_of(task, said, batch)["loss/film"]
    assert found == pytest.approx(cost, rel=1e-4)


def test_the_papers_mean_is_the_codes_sum_over_entries():
    """Of the asymmetric loss: over regions that are there, and findings."""
    said, batch = random_said(), random_batch()
    mean = {**adpd.FINDINGS, "reduce": {"regions": "mean", "findings": "mean"}}
    both = [
        loss_of(make(terms=(term,)), said, batch)["loss/findings"]
        for term in (adpd.FINDINGS, mean)
    ]
    entries = np.asarray(batch.regions.presence).sum() * C
    assert both[0] / both[1] == pytest.approx(entries, rel=1e-5)


def test_absent_regions_cost_nothing_but_their_presence():
    task, said, batch = make(), random_said(), random_batch()
    absent = ~np.asarray(batch.regions.presence)[..., None]
    other = dataclasses.replace(
        said,
        cxcywh=jnp.where(absent, 0.9, said.cxcywh),
        findings=jnp.where(absent, 50.0, said.findings),
    )
    before, after = loss_of(task, said, batch), loss_of(task, other, batch)
    for name in before:
        assert float(before[name]) == pytest.approx(float(after[name]), rel=1e-6)


def test_gradients_stay_finite_and_masked_regions_have_none():
    task, said = make(), random_said()
    batch = random_batch()
    batch.regions.presence[2] = False  # a film without any region

    @jax.grad
    def slope(findings):
        parts = task._quantity(
            "film", dataclasses.replace(said, findings=findings), batch
        )
        (term,) = (t for t in task.objective.terms if t.quantity == "film")
        return objective.total(term(*parts[:2], mask=parts[2]))

    found = np.asarray(slope(said.findings))
    assert np.isfinite(found).all()
    assert (found[~np.asarray(batch.regions.presence)] == 0).all()
    assert (found[0] != 0).any() and (found[1, 0] != 0).any()
    assert np.isfinite(np.asarray(slope(1e4 * said.findings))).all()


@pytest.mark.parametrize(
    ("probs", "present", "expected"),
    [
        ([0.9, 0.2, 0.1], 3, 0.689752),
        ([0.9, 0.2, 0.1, 0.5, 0.5], 3, 0.587587),
        ([0.5] * 29, 29, 0.5),
        ([0.9] + [0.3] * 28, 1, 0.226541),
        ([1.0] + [0.0] * 28, 29, 0.3611),
    ],
)
def test_pooling_over_regions_by_hand(probs, present, expected):
    mask = np.arange(len(probs)) < present
    found = make().pool(jnp.float32(probs)[None, :, None], mask[None])
    assert found[0, 0] == pytest.approx(
        expected, abs=1e-4 if expected == 0.3611 else 1e-6
    )


def said_of(probs, presence=(9.0, 9.0, 9.0)):
    """One film whose regions lie side by side, with these findings."""
    boxes = [[0.2, 0.5, 0.2, 0.8], [0.8, 0.5, 0.2, 0.8], [0.29, 0.5, 0.2, 0.8]]
    probs = np.asarray(probs, np.float32)
    return RegionOutput(
        cxcywh=jnp.float32([boxes]),
        presence=jnp.float32([presence]),
        findings=jnp.log(probs / (1 - probs))[None],
    )


# shadow, fluid, air, node of left, right, middle.
PROBS = [[0.9, 0.1, 0.6, 0.1], [0.8, 0.1, 0.1, 0.1], [0.6, 0.1, 0.1, 0.1]]


def test_boxes_of_a_class_are_fused_and_the_best_is_kept():
    found = read(said_of(PROBS)).boxes
    np.testing.assert_array_equal(found.mask, [[True, True, True]])
    # Left and middle overlap: their mean by 0.9 and 0.6; right stays, and scores less.
    x1 = (0.9 * 0.1 + 0.6 * 0.19) / 1.5
    np.testing.assert_allclose(found.xyxy[0, 0], [x1, 0.1, x1 + 0.2, 0.9], atol=1e-5)
    np.testing.assert_allclose(found.score[0], [0.9, 0.6, 0.35], atol=1e-5)
    np.testing.assert_array_equal(found.label, [[0, 1, 2]])


def test_without_fusion_the_loudest_region_is_kept_and_nothing_else_changes():
    fused, plain = (read(said_of(PROBS), fuse_above=t) for t in (0.03, 1.0))
    np.testing.assert_allclose(plain.boxes.xyxy[0, 0], [0.1, 0.1, 0.3, 0.9], atol=1e-6)
    np.testing.assert_array_equal(fused.probs, plain.probs)
    np.testing.assert_array_equal(fused.boxes.score, plain.boxes.score)
    np.testing.assert_array_equal(fused.boxes.mask, plain.boxes.mask)


def test_a_region_counts_by_any_of_its_findings_and_scores_by_their_mean():
    """0.6 makes it positive although the mean of 0.1 and 0.6 is 0.35."""
    found = read(said_of(PROBS)).boxes
    assert found.mask[0, 2] and found.score[0, 2] == pytest.approx(0.35, abs=1e-5)
    quiet = read(said_of(PROBS), found_above=0.7).boxes
    np.testing.assert_array_equal(quiet.mask, [[True, False, False]])


def test_presence_is_a_logit_above_one_half():
    """0.4 is a probability of 0.6, and not there."""
    said = read(said_of(PROBS, presence=(0.4, 9.0, 0.6)))
    np.testing.assert_array_equal(said.regions.found, [[False, True, True]])
    assert said.boxes.score[0, 0] == pytest.approx(0.8, abs=1e-5)
    none = read(said_of(PROBS, presence=(0.4, 0.4, 0.4)))
    assert not none.boxes.mask.any() and not none.boxes.xyxy.any()
    assert (none.probs < 1e-6).all() and np.isfinite(none.logits).all()


def test_a_class_without_findings_is_never_found():
    """As the released table of classes leaves out Pneumothorax."""
    mapping = {"Shadow": ("shadow",), "Both": ("fluid", "air")}
    whole, lacking = (read(said_of(PROBS), **m) for m in ({}, {"mapping": mapping}))
    np.testing.assert_array_equal(lacking.boxes.mask, [[True, False, True]])
    for name in ("xyxy", "score"):
        kept = np.asarray(getattr(lacking.boxes, name))[0, [0, 2]]
        np.testing.assert_array_equal(
            kept, np.asarray(getattr(whole.boxes, name))[0, [0, 2]]
        )


def test_padded_rows_change_nothing():
    """Whatever stands in them: boxes, labels and scores that are not numbers."""
    said, batch = random_said(), random_batch(real=[True, True, False, False])
    rows = np.array([False, False, True, True])

    def spoilt(leaf, by=np.nan):
        return np.where(rows.reshape(-1, *(1,) * (np.ndim(leaf) - 1)), by, leaf)

    regions = Regions(
        xyxy=spoilt(batch.regions.xyxy).astype(np.float32),
        presence=spoilt(batch.regions.presence, True).astype(bool),
        probs=spoilt(batch.regions.probs).astype(np.float32),
    )
    worse = dataclasses.replace(batch, regions=regions)
    task = make(present_above=-9.0)

    @jax.jit
    def told(said, batch):
        losses = [
            term(*(p := task._quantity(term.quantity, said, batch))[:2], mask=p[2])
            for term in task.objective.terms
        ]
        return objective.merge(*losses), task.read(said)

    plain, other = told(said, batch), told(said, worse)
    jax.tree.map(np.testing.assert_array_equal, plain, other)
    slopes = [
        jax.jit(jax.grad(lambda x, b=b: objective.total(told(x, b)[0])))(said)
        for b in (batch, worse)
    ]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    jax.tree.map(np.testing.assert_array_equal, *slopes)
    # Nor do they count: without them, the same.
    loss, found = told(*jax.tree.map(lambda leaf: leaf[:2], (said, batch)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), plain[0], loss
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[:2], b, rtol=1e-6), plain[1], found
    )
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(loss))


AGREE = """
import sys
sys.path[:0] = ["tests/tasks"]
import jax, jax.extend, numpy as np
from cxr_jax import objective, sharding
from cxr_jax.models.state import ModelDef, flatten
from test_anatomy import BACKBONE, HEAD, make, random_batch

assert jax.device_count() == 4
jax.config.update("jax_enable_x64", True)
wide = {"dtype": "float64", "param_dtype": "float64"}
task = make(
    model=BACKBONE | wide, head=HEAD | wide, present_above=-9.0, found_above=0.45
)
static = ModelDef.of(task.create)
rng = np.random.default_rng(0)
first = jax.tree.map(
    lambda leaf: rng.normal(0.0, 0.3, leaf.shape)
    if leaf.ndim > 1 else 0.1 + rng.random(leaf.shape),
    (flatten(static.params), flatten(static.rest)),
)
batch = random_batch(rows=8, noise=True)

def cost(arrays, rows):
    model = static.merge(*arrays)
    return objective.total(task.loss(model, rows, key=jax.random.key(1), step=0))

def read(devices):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    arrays = jax.device_put(first, sharding.replicated(mesh))
    both = jax.jit(lambda a, rows: (cost(a, rows), task.predict(static.merge(*a), rows)))
    return jax.device_get(both(arrays, sharding.to_global(batch, mesh)))

def roundings(jaxpr):
    for step in jaxpr.eqns:
        if step.primitive.name == "convert_element_type":
            before, after = step.invars[0].aval, step.outvars[0].aval
            # Constants of Python have no type of their own.
            if before.dtype == np.float64 and not before.weak_type:
                if after.dtype in (np.float32, np.float16, "bfloat16"):
                    yield str(step.source_info.traceback)
        for inner in jax.extend.core.jaxprs_in_params(step.params):
            yield from roundings(inner)

(loss, said), (again, same) = read(1), read(4)
assert loss.dtype == again.dtype == np.float64
np.testing.assert_allclose(loss, again, rtol=1e-12)
assert said.boxes.mask.sum() > 8
for a, b in zip(*map(jax.tree.leaves, (said, same)), strict=True):
    assert a.dtype == b.dtype != np.float64
    np.testing.assert_allclose(a, b, rtol=1e-6)
lost = list(roundings(jax.make_jaxpr(jax.grad(cost))(first, batch).jaxpr))
assert not lost, lost
print("agreed")
"""


@pytest.mark.long
def test_one_and_four_devices_agree_in_float64_and_nothing_is_rounded():
    """Losses and predictions; none of what a gradient goes through is float32."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", AGREE],
        cwd=ROOT,
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0 and "agreed" in done.stdout, done.stderr[-3000:]


def test_a_step_of_the_whole_network():
    """Compiled once; what is read has one box per class."""
    task = make()
    batch = random_batch()
    graph = nnx.split(nnx.eval_shape(task.create, jax.random.key(0)))[0]
    state = jax.jit(lambda key: nnx.state(task.create(key)))(jax.random.key(0))

    @jax.jit
    def both(state, batch, key):
        made = nnx.merge(graph, state, copy=True)
        loss = task.loss(made, batch, key=key, step=0)
        return objective.total(loss), task.predict(made, batch)

    total, found = both(state, batch, jax.random.key(1))
    assert np.isfinite(total)
    assert found.boxes.xyxy.shape == (4, 3, 4)
    assert found.regions.probs.shape == (4, A, C)
    assert found.probs.shape == (4, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"film_labels": "guesses"}, "film_labels"),
        ({"mapping": {"Shadow": ("ghost",)}}, "ghost"),
        ({"mapping": {"Nobody": ("air",)}}, "Nobody"),
        ({"mapping": {"Shadow": ()}}, "nothing"),
        ({"fuse_above": -3.0}, r"fuse_above=-3\.0: an IoU, 0 to 1"),
        ({"terms": ({**adpd.FILM, "quantity": "charm"},)}, "quantity='charm'"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        make(**changes)


def test_there_are_no_passes_with_dropout():
    with pytest.raises(ConfigError, match="mc"):
        make().predict(None, random_batch(), key=jax.random.key(0), samples=3)


# Table of classes of the released code, Pneumothorax spelled as the findings are.
CLASS_TABLE = """
Atelectasis: atelectasis
Cardiomegaly: enlarged cardiac silhouette
Effusion: pleural effusion
Infiltration: infiltration; lung opacity
Mass: mass/nodule (not otherwise specified); multiple masses/nodules
Nodule: mass/nodule (not otherwise specified)
Pneumonia: pneumonia
Pneumothorax: pneumothorax
"""
# What a variant changes in the recipe, words of the report aside: nothing else.
CHANGES = {
    "loc": set(),
    "mil": {"task.terms", "task.head.width", "phases"},
    "loc_mil": {"task.terms"},
    "no_wbf": {"task.fuse_above"},
    "as_released": {"task.mapping.Pneumothorax"},
    "redrawn": {"pretrained.redraw"},
    "mil,no_wbf": {"task.terms", "task.head.width", "phases", "task.fuse_above"},
}


def flat(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        path: leaf
        for key, value in tree.items()
        for path, leaf in flat(value, f"{prefix}.{key}" if prefix else key).items()
    }


@pytest.mark.parametrize("words", CHANGES)
def test_a_switch_changes_what_it_says_and_nothing_else(words):
    plain, other = (
        flat(config.plain(config.load(f"configs/adpd.py{spec}")))
        for spec in ("", f":{words}")
    )
    told = ("report.", "variants")
    changed = {
        path
        for path in {*plain, *other}
        if plain.get(path) != other.get(path) and not path.startswith(told)
    }
    assert changed == CHANGES[words]


def test_classes_are_means_of_the_findings_of_the_released_table():
    rows = dict(line.split(": ") for line in CLASS_TABLE.strip().splitlines())
    table = {name: tuple(of.split("; ")) for name, of in rows.items()}
    assert config.plain(config.load("configs/adpd.py").task.mapping) == table
    released = config.plain(config.load("configs/adpd.py:as_released").task.mapping)
    assert table == released | {"Pneumothorax": ("pneumothorax",)}


def test_all_layers_of_the_encoder_are_redrawn_and_none_behind_it():
    c = config.load("configs/adpd.py:redrawn,phantom")
    state = nnx.state(
        nnx.eval_shape(config.build(c.task).create, jax.random.key(0)), nnx.Param
    )
    names = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(state)]
    drawn = {n for n in names if optim.matches(n, c.pretrained.redraw)}
    assert drawn == {n for n in names if n.startswith(("backbone/", "head/project/"))}
    assert {"head/project/kernel", "head/project/bias"} < drawn < {*names}


def test_recipes_differ_where_the_paper_says():
    told = {}
    for variant in ("loc", "mil", "loc_mil", "no_wbf", "mil,no_wbf"):
        c = config.load(f"configs/adpd.py:{variant}")
        told[variant] = c
        assert tuple(c.task.classes) == CXR8
    quantities = {
        name: [t["quantity"] for t in c.task.terms][3:] for name, c in told.items()
    }
    assert quantities["loc"] == quantities["no_wbf"] == ["findings"]
    assert quantities["mil"] == ["film"]
    assert quantities["loc_mil"] == ["findings", "film"]
    assert told["loc"].task.head["width"] == 512
    assert told["mil"].task.head["width"] == 256
    assert told["mil,no_wbf"].task.fuse_above == 1.0
    assert told["loc"].phases[0]["learning_rate"] == 3e-5
    assert told["mil"].phases[0]["learning_rate"] == 1e-4


# As printed: mAP, then AP and localisation accuracy at IoU 0.1, 0.3 and 0.5. Rows that
# begin with "w/" change the row of ours above them.
TABLE_1 = """
MIL-ADPD (ours) An Pa 7.84 14.01 0.68 8.85 0.65 7.03 0.65
w/o WBF 5.42 11.05 0.67 7.97 0.65 3.44 0.64
Loc-ADPD (ours) An An-Pa 10.89 19.99 0.85 12.43 0.84 8.72 0.83
w/o WBF 8.88 17.02 0.84 9.65 0.83 7.36 0.83
w/ MIL 10.29 19.16 0.84 10.95 0.83 8.00 0.82
CheXNet [14] - Pa 5.80 12.87 0.58 8.23 0.55 3.12 0.52
STL [6] - Pa 5.61 12.76 0.57 7.94 0.54 2.45 0.50
GradCAM [18] - Pa 4.43 12.53 0.58 6.67 0.54 0.13 0.51
CXR [20] - Pa 5.61 13.91 0.59 8.01 0.55 1.24 0.51
WELDON [3] - Pa 4.76 14.57 0.61 6.18 0.56 0.34 0.51
MultiMap [23] - Pa 4.91 12.36 0.61 7.13 0.57 1.35 0.53
LSE Model [13] - Pa 3.77 14.49 0.61 2.62 0.56 0.42 0.54
AGXNet [24] - An-Pa 5.30 11.39 0.59 6.58 0.56 4.14 0.54
Faster R-CNN Pa - 7.36 9.11 0.79 7.62 0.79 7.26 0.78
"""
CHANGED = {"w/o WBF": ", without box fusion", "w/ MIL": " with MIL"}


def test_what_is_quoted_is_what_the_paper_printed():
    printed, ours = {}, ""
    for line in TABLE_1.strip().splitlines():
        name, figures = re.fullmatch(r"(.*?)((?: \d+\.\d\d){7})", line).groups()
        if name in CHANGED:
            name = ours + CHANGED[name]
        else:
            name = re.sub(r"( \(ours\)| \[\d+\])?( (An|Pa|An-Pa|-)){2}$", "", name)
            ours = name
        printed[name] = [float(figure) for figure in figures.split()]
    columns = ["map"]
    for iou in ("0.1", "0.3", "0.5"):
        columns += [f"ap@{iou}", f"loc_acc@{iou}"]
    quoted = {
        row["name"]: row["values"] for row in adpd.get_config().report.published_boxes
    }
    assert quoted == {
        name: dict(zip(columns, row, strict=True)) for name, row in printed.items()
    }


@pytest.mark.parametrize("words", ["loc", "mil", "loc_mil"])
def test_the_loss_of_films_weighs_in_a_smaller_batch_as_in_the_papers(words):
    paper, small = (
        config.load(f"configs/adpd.py:{words}{more}") for more in ("", ",phantom")
    )
    for theirs, ours in zip(paper.task.terms, small.task.terms, strict=True):
        assert theirs["name"] == ours["name"]
        assert "mean" not in adpd.FILM["reduce"].values()  # It adds up the batch.
        of_films = theirs["name"] == "film"
        rows = (paper, small) if of_films else (paper, paper)
        weights = [
            term["weight"] * one.train.batch_size
            for term, one in zip((theirs, ours), rows, strict=True)
        ]
        np.testing.assert_allclose(*weights)
