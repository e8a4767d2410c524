"""The first weights of a run: random, or imported and then those of the file."""

import json

import jax
import numpy as np
import pytest

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
