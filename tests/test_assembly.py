"""The first weights of a run: random, or imported and then those of the file."""

import json

import h5py
import jax
import numpy as np
import pytest

from configs import common
from cxr_jax import assembly
from cxr_jax import config as configs
from cxr_jax.errors import ConfigError
from cxr_jax.models import exporting
from cxr_jax.models.passport import Passport


@pytest.fixture(scope="module")
def started(toy, tmp_path_factory):
    """A config of the toy, its trainer, and a file of weights of another seed."""
    config = configs.load(f"{toy[0]}:")
    task = configs.build(config.task)
    trainer = assembly.make_trainer(config, task, films=60)
    config.seed = 5
    other = assembly.make_trainer(config, task, films=60).init()
    config.seed = 0
    file = tmp_path_factory.mktemp("weights") / "other.safetensors"
    passport = Passport(
        architecture="densenet",
        source="a test",
        licence="unknown",
        mean=(0.5,),
        std=(0.25,),
        channels=1,
        size=16,
        classes=tuple(config.task.classes),
    )
    exporting.export(file, *jax.device_get((other.params, other.rest)), passport)
    return config, trainer, other, file


def test_imported_weights_replace_the_random_ones(started, tmp_path):
    config, trainer, other, file = started
    config.pretrained["from"], config.pretrained.head = str(file), "keep"
    state = assembly.first_state(config, trainer, tmp_path)
    fresh = trainer.init()
    for name, array in other.params.items():
        np.testing.assert_array_equal(state.params[name], array, err_msg=name)
    kernel = "backbone/stem/kernel"
    assert not np.array_equal(state.params[kernel], fresh.params[kernel])
    assert jax.tree.all(jax.tree.map(np.array_equal, state.opt_state, fresh.opt_state))
    written = json.loads((tmp_path / "pretrained.json").read_text())
    assert written["passport"]["source"] == "a test"
    assert written["report"]["loaded"] >= len(other.params)


def test_a_fresh_head_keeps_its_random_weights(started, tmp_path):
    config, trainer, other, file = started
    config.pretrained["from"], config.pretrained.head = str(file), "fresh"
    state = assembly.first_state(config, trainer, tmp_path)
    fresh = trainer.init()
    head = [name for name in fresh.params if name.startswith("head/")]
    body = [name for name in fresh.params if name not in head]
    assert head and body
    for name in head:
        np.testing.assert_array_equal(state.params[name], fresh.params[name])
    for name in body:
        np.testing.assert_array_equal(state.params[name], other.params[name])


def test_a_wrong_file_is_the_users_input(started, tmp_path):
    config, trainer, _, file = started
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(file.read_bytes()[:-100])
    config.pretrained["from"] = str(bad)
    with pytest.raises(ConfigError, match=r"pretrained\.from.*bad\.safetensors"):
        assembly.first_state(config, trainer, tmp_path)
    assert not (tmp_path / "pretrained.json").exists()


def test_a_term_that_counts_its_batch_allows_no_micro_batches(toy):
    """Counts of parts are not those of the whole: it would be another loss."""
    term = {
        "name": "rare",
        "fn": {"name": "cxr_jax.losses.weighted_bce"},
        "balance": True,
        "reduce": {"classes": "mean", "batch": "mean"},
    }
    config = configs.load(toy[0])
    with config.unlocked():
        config.task.terms = (*config.task.terms, term)
    task = configs.build(config.task)
    assembly.make_trainer(config, task, films=60)
    config.train.accumulate = 2
    with pytest.raises(ConfigError, match=r"train\.accumulate=2: the term 'rare'"):
        assembly.make_trainer(config, task, films=60)
    config.task.terms = config.task.terms[:1]
    assert assembly.make_trainer(config, task, films=60).accumulate == 2


# Two backbones -------------------------------------------------------------------------

# Our module → a layer of Keras, of the tiny EfficientNet.
MODULES = {
    "stem": "stem_conv",
    "stem_norm": "stem_bn",
    "top": "top_conv",
    "top_norm": "top_bn",
    **{
        f"blocks/{n}/{ours}": f"block1{letter}_{theirs}"
        for n, letter in enumerate("ab")
        for ours, theirs in (
            *(("expand", "expand_conv"), ("expand_norm", "expand_bn")),
            *(("depthwise", "dwconv"), ("norm", "bn")),
            *(("squeeze", "se_reduce"), ("excite", "se_expand")),
            *(("project", "project_conv"), ("project_norm", "project_bn")),
        )
    },
}
LEAVES = {"scale": "gamma", "mean": "moving_mean", "var": "moving_variance"}


def as_keras(path, arrays):
    """An EfficientNet of ours in the names and axes of Keras."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            module, _, leaf = name.removeprefix("backbone/").rpartition("/")
            norm = module.endswith("norm")
            layer = MODULES[module]
            theirs = LEAVES.get(leaf, "beta" if norm else leaf)
            array = np.asarray(array)
            if leaf == "kernel" and array.ndim == 2:
                array = array[None, None]
            if layer.endswith("dwconv"):
                array = array.transpose(0, 1, 3, 2)
            file[f"{layer}/{layer}/{theirs}:0"] = array
        scale = "normalization/normalization"
        file[f"{scale}/mean:0"] = np.array([0.5], np.float32)
        file[f"{scale}/variance:0"] = np.array([0.0625], np.float32)
        file[f"{scale}/count:0"] = np.array(0)


TINY = {
    "dense": {"name": "cxr_jax.models.densenet.densenet_tiny"},
    "efficient": {"name": "cxr_jax.models.efficientnet.efficientnet_tiny"},
}
FUSED = {
    "name": "cxr_jax.models.fusion.AttentionFusion",
    "dense": TINY["dense"] | {"until": "block1"},
    "efficient": TINY["efficient"] | {"until": "block1b_expand"},
    "width": 4,
}


@pytest.fixture
def fused(toy, started, tmp_path):
    """A config of a fusion network, its trainer, and what its two files hold."""
    config = configs.load(f"{toy[0]}:")
    with config.unlocked():
        config.task.model = TINY["efficient"]
        config.seed = 5
        task = configs.build(config.task)
        alone = assembly.make_trainer(config, task, films=60).init()
        backbone = {
            name: array
            for name, array in (alone.params | alone.rest).items()
            if name.startswith("backbone/")
        }
        as_keras(tmp_path / "efficient.h5", backbone)
        config.task.model = FUSED
        config.seed = 0
        config.pretrained.parts = {
            "dense": common.source(str(started[3])),
            "efficient": common.source(str(tmp_path / "efficient.h5")),
        }
    trainer = assembly.make_trainer(config, configs.build(config.task), films=60)
    other = started[2]
    return config, trainer, {"dense": other.params | other.rest, "efficient": backbone}


def test_two_backbones_take_a_file_each(fused, tmp_path):
    config, trainer, given = fused
    state, fresh = assembly.first_state(config, trainer, tmp_path), trainer.init()
    seen = set()
    for name, array in (state.params | state.rest).items():
        _, part, rest = name.split("/", 2)
        if part in given:
            seen.add(part)
            expected = given[part][f"backbone/{rest}"]
        else:
            expected = (fresh.params | fresh.rest)[name]
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert seen == {"dense", "efficient"}
    written = json.loads((tmp_path / "pretrained.json").read_text())
    assert {*written} == {"dense", "efficient"}
    dropped = written["dense"]["report"]["dropped"]
    assert "features.norm5.weight" in dropped and "classifier.weight" in dropped
    assert "top_conv/kernel" in written["efficient"]["report"]["dropped"]
    assert written["efficient"]["passport"]["std"] == [0.25]


def test_one_backbone_alone_may_take_a_file(fused, tmp_path):
    config, trainer, given = fused
    config.pretrained.parts.dense["from"] = ""
    state, fresh = assembly.first_state(config, trainer, tmp_path), trainer.init()
    for part, source in (
        ("dense", fresh.params["backbone/dense/stem/kernel"]),
        ("efficient", given["efficient"]["backbone/stem/kernel"]),
    ):
        np.testing.assert_array_equal(
            state.params[f"backbone/{part}/stem/kernel"], source
        )


def test_parts_that_do_not_fit_are_the_users_input(fused, started, tmp_path):
    config, trainer, _ = fused
    config.pretrained["from"] = str(started[3])
    with pytest.raises(
        ConfigError, match="whole network, or one for each of its parts"
    ):
        assembly.first_state(config, trainer, tmp_path)
    config.pretrained["from"] = ""
    with config.unlocked():
        config.pretrained.parts.thin = common.source("somewhere")
    with pytest.raises(
        ConfigError, match=r"parts\.thin\.from: the network has no part"
    ):
        assembly.first_state(config, trainer, tmp_path)
    with config.unlocked():
        del config.pretrained.parts["thin"]
    config.pretrained.parts.efficient["from"] = str(started[3])
    with pytest.raises(
        ConfigError, match=r"parts\.efficient\.from: other\.safetensors"
    ):
        assembly.first_state(config, trainer, tmp_path)
    assert not (tmp_path / "pretrained.json").exists()


def test_redrawn_parameters_forget_what_was_loaded_and_statistics_stay(
    started, tmp_path
):
    config, trainer, other, file = started
    config.pretrained["from"], config.pretrained.head = str(file), "keep"
    with config.unlocked():
        config.pretrained.redraw = ("backbone/*",)
    state = assembly.first_state(config, trainer, tmp_path)
    drawn = {n: np.asarray(x) for n, x in state.params.items() if n.startswith("back")}
    assert drawn and len(drawn) < len(state.params)
    for name, array in state.params.items():
        if name not in drawn:
            np.testing.assert_array_equal(array, other.params[name], err_msg=name)
    for name, array in state.rest.items():
        np.testing.assert_array_equal(array, other.rest[name], err_msg=name)
    biases = [x.ravel() for n, x in drawn.items() if n.endswith("/bias")]
    others = [x.ravel() for n, x in drawn.items() if not n.endswith("/bias")]
    assert biases and not np.concatenate(biases).any()
    values = np.concatenate(others).astype(float)
    # A mean of n draws of deviation σ has σ/√n, their deviation σ/√(2n).
    off = 0.02 / np.sqrt(len(values))
    assert abs(values.mean()) < 5 * off and abs(values.std() - 0.02) < 5 * off
    assert len(np.unique(values)) > 0.99 * len(values)  # nothing is drawn twice


def test_parameters_are_redrawn_by_seed_and_name(started):
    _, _, other, _ = started
    first, again, second = (
        assembly.redrawn(other.params, ("*kernel",), seed=s) for s in (0, 0, 1)
    )
    few = assembly.redrawn(other.params, ("head/*",), seed=0)
    name = next(iter(n for n in few if n.endswith("kernel")))
    np.testing.assert_array_equal(first[name], again[name])
    np.testing.assert_array_equal(first[name], few[name])
    assert not np.array_equal(first[name], second[name])
    with pytest.raises(ConfigError, match="names no parameter"):
        assembly.redrawn(other.params, ("spine/*",), seed=0)
