"""A network that cannot be is refused in one line, before a film is read."""

import pytest

from cxr_jax import config as configs
from cxr_jax.errors import ConfigError
from cxr_jax.models.state import ModelDef


def made(spec, *overrides):
    task = configs.build(configs.load(spec, overrides).task)
    return ModelDef.of(task.create)


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ("configs/chexnet.py:phantom", "task.model.growth=0"),
        ("configs/chexnet.py:phantom", "task.model.stem_width=-3"),
        ("configs/chexnet.py:phantom", "task.model.stem_kernel=0"),
        ("configs/adpd.py:phantom", "task.head.width=0"),
        ("configs/adpd.py:phantom", "task.head.width=-1"),
        ("configs/adpd.py:phantom", "task.head.heads=7"),
    ],
)
def test_sizes_that_no_network_has_are_refused(spec, size):
    with pytest.raises(ConfigError, match=r"no network has|heads") as refused:
        made(spec, size)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "spec", ["configs/chexnet.py:phantom", "configs/adpd.py:phantom"]
)
def test_the_sizes_of_a_recipe_are_accepted(spec):
    assert made(spec).params


def test_a_wrong_call_keeps_its_traceback():
    with pytest.raises(TypeError, match="unexpected"):
        ModelDef.of(lambda key: configs.load("configs/chexnet.py", unexpected=key))
