"""Config strings, overrides and dotted paths: what is right loads, what is wrong is named."""

import dataclasses
import json
import pathlib

import pytest

from cxr_jax import config as configs
from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import Evaluator

FILE = """
from ml_collections import config_dict
from configs import common

def get_config():
    c = common.base()
    c.name = "toy"
    c.task.size = 64
    return c

def small(c):
    c.task.size = 32

def smaller(c):
    c.task.size = c.task.size // 2

VARIANTS = {"small": small, "smaller": smaller}
"""


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(FILE)
    return str(path)


def test_variants_apply_in_the_order_of_the_file(toy):
    assert configs.load(toy).task.size == 64
    assert configs.load(f"{toy}:smaller,small").task.size == 16
    assert configs.load(f"{toy}:smaller,small").variants == ("small", "smaller")


def test_overrides_keep_their_types(toy):
    given = [
        "train.batch_size=64",
        "phases.0.learning_rate=1",
        "data.fractions=(0.8,0.1,0.1)",
        "data.scheme=official",
        "phases.0.optimizer.name=cxr_jax.optim.sgd",
    ]
    c = configs.load(toy, given)
    assert c.train.batch_size == 64
    assert isinstance(c.phases[0]["learning_rate"], float)
    assert c.data.fractions == (0.8, 0.1, 0.1)
    assert c.data.scheme == "official"
    assert c.phases[0]["optimizer"]["name"] == "cxr_jax.optim.sgd"


def test_one_load_does_not_leak_into_the_next(toy):
    configs.load(toy, ["phases.0.learning_rate=7.0"])
    assert configs.load(toy).phases[0]["learning_rate"] != 7.0


@pytest.mark.parametrize(
    ("spec", "overrides", "words"),
    [
        ("{}:smal", [], "smal.*did you mean small"),
        ("{}", ["train.batch_sise=1"], "train.batch_sise.*train.batch_size"),
        ("{}", ["train.batch_size=1.5"], "train.batch_size=1.5: expected int"),
        ("{}", ["train.batch_size=True"], "expected int, got bool"),
        ("{}", ["train.batch_size=many"], "expected int, got str"),
        ("{}", ["train.batch_size"], "KEY=VALUE"),
        ("{}", ["train=1"], "group of keys"),
        ("{}", ["phases.3.epochs=1.0"], "entries 0 to 0"),
        ("{}", ["train.batch_size=0"], "at least 1"),
        ("{}", ["train.accumulate=3"], "not divisible"),
        ("{}", ["phases.0.epochs=0.0"], "must be > 0"),
        ("{}", ["checkpoint.mode=most"], "min or max"),
        ("nowhere.py", [], "no config file"),
    ],
)
def test_what_is_wrong_is_named(toy, spec, overrides, words):
    with pytest.raises(ConfigError, match=words):
        configs.load(spec.format(toy), overrides)


def test_json_round_trip_and_differences(toy):
    old = json.loads(configs.to_json(configs.load(toy)))
    assert configs.differences(old, old) == []
    new = json.loads(
        configs.to_json(
            configs.load(toy, ["seed=1", "eval.resamples=7", "phases.0.epochs=2.0"])
        )
    )
    # eval.resamples touches no state: a run may go on with another value.
    assert configs.differences(old, new) == [
        "phases.0.epochs: 1.0 → 2.0",
        "seed: 0 → 1",
    ]


SET_ELSEWHERE = {
    "by_study",
    "directory",
    "films",
    *(f.name for f in dataclasses.fields(Evaluator)),
}


def test_a_reader_study_is_asked_for_on_the_command_line(toy):
    given = {
        "file": "R.csv",
        "protocols": "('majority',)",
        "threshold": "0.25",
        "tie": "left_out",
        "least": "2",
        "draws": "100",
        "margin": "0.05",
        "focus": "Mass",
    }
    overrides = [f"eval.evaluators.3.{key}={text}" for key, text in given.items()]
    overrides.append("eval.evaluators.1.sensitivity=0.95")
    c = configs.load(toy, overrides)
    found = configs.build(c.eval.evaluators[3])
    assert (found.file, found.protocols, found.least) == ("R.csv", ("majority",), 2)
    assert (found.tie, found.draws, found.margin) == ("left_out", 100, 0.05)
    assert float(found.threshold) == 0.25 and found.focus == "Mass"
    assert configs.build(c.eval.evaluators[1]).sensitivity == 0.95
    # Another reader file, or study, touches no state of a trained run.
    old, new = (
        json.loads(configs.to_json(config)) for config in (configs.load(toy), c)
    )
    assert configs.differences(old, new) == []


@pytest.mark.parametrize("number", [1, 3])
def test_keys_of_an_evaluator_are_its_fields_with_their_defaults(toy, number):
    spec = configs.plain(configs.load(toy).eval.evaluators[number])
    kind = configs.resolve(spec.pop("name"))
    fields = dataclasses.fields(kind)
    assert spec == {f.name: f.default for f in fields if f.name not in SET_ELSEWHERE}


def test_resolve_finds_parts_and_suggests_near_misses():
    assert callable(configs.resolve("cxr_jax.losses.bce"))
    with pytest.raises(ConfigError, match="did you mean bce"):
        configs.resolve("cxr_jax.losses.bse")
    with pytest.raises(ConfigError, match="no module 'cxr_jax.loses'"):
        configs.resolve("cxr_jax.loses.bce")
    with pytest.raises(ConfigError, match="not a part of this package"):
        configs.resolve("os.system", "true")
    with pytest.raises(ConfigError, match="gamme"):
        configs.build({"name": "cxr_jax.optim.sgd", "gamme": 1}, schedule=None)


def test_every_config_of_the_project_loads_with_every_variant():
    root = pathlib.Path(__file__).parents[1] / "configs"
    for path in sorted(root.glob("*.py")):
        if path.stem in ("__init__", "common"):
            continue
        words = list(configs.variants(str(path)))
        for word in ["", *words]:
            config = configs.load(f"{path}:{word}")
            assert config.name == path.stem
            json.loads(configs.to_json(config))


def test_variants_that_exclude_each_other_are_refused(tmp_path):
    file = tmp_path / "c.py"
    file.write_text(
        "from configs import common\n\n\ndef get_config():\n    return common.base()\n\n\n"
        "def nothing(c):\n    del c\n\n\n"
        "VARIANTS = dict.fromkeys(('a', 'b', 'c'), nothing)\n"
        "ONE_OF = (('a', 'b'),)\n"
    )
    with pytest.raises(ConfigError, match="a, b of .* exclude each other"):
        configs.load(f"{file}:b,a", check=False)
    for words in ("a,c", "b,c", "c"):
        assert configs.load(f"{file}:{words}", check=False).variants
