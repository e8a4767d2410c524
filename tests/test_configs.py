"""Every recipe, in every variant: its parts exist, fit each other, and train."""

import functools
import pathlib
import re

import jax
import numpy as np
import pytest

from cxr_jax import assembly, optim, sharding
from cxr_jax import config as configs
from cxr_jax.data import groups
from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import check_requirements
from cxr_jax.labels import NO_FINDING
from cxr_jax.models import hub, pretrained
from cxr_jax.tasks.base import traits
from cxr_jax.types import Batch, Regions
from data_builders import install

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
    path
    for path in (ROOT / "configs").glob("*.py")
    if path.stem not in ("__init__", "common")
)
SPECS = [
    f"{path.relative_to(ROOT)}:{word}".removesuffix(":")
    for path in FILES
    for word in ("", *configs.variants(str(path)))
]
PARTS = 7  # Categories of films, where a recipe weighs by category.
# Words that change what others mean.
TOGETHER = (
    "pneumonia,phantom",
    "pneumonia,v3",
    "pneumonia,image_level",
    "zz,phantom",
    "phantom,small",
)
# Parts of a network that is trained whole, or the same with another loss.
LESS = ("dense_alone", "efficient_alone", "no_attention", "bce", "mil")
# What is made of a network's output changes no step.
READ_OUT = ("classes", "mapping", "fuse_above")
# Of one name each: DenseNet-121, -169, …; and what stands in for them.
DEEP = "cxr_jax.models.densenet.densenet1"
SHALLOW = "cxr_jax.models.densenet.densenet_tiny"
TOGETHER_FUSION = (
    *("simple_cnn", "densenet121", "efficientnet_b0"),
    *("dense_alone", "efficient_alone", "no_attention"),
)
combined = pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, marks=pytest.mark.long) if spec.endswith(LESS) else spec
        for spec in (
            *SPECS,
            *(f"configs/chexnet.py:{words}" for words in TOGETHER),
            "configs/mura.py:phantom,padded",
            *(f"configs/fusion.py:phantom,{word}" for word in TOGETHER_FUSION),
        )
    ],
)


def distinct():
    """Without variants that only divide or report the films in another way."""
    seen = {}
    for spec in SPECS:
        if spec.endswith(LESS):
            continue
        config = configs.load(str(ROOT / spec))
        # Rates and the number of classes aside: they make no other program.
        parts = configs.plain(config.task)
        parts = {k: v for k, v in parts.items() if k not in READ_OUT}
        computed = [parts, configs.plain(config.augment)]
        computed += [phase["optimizer"] for phase in config.phases]
        dataset = config.data.dataset.split("/")[0]  # Its configs share their shapes.
        seen.setdefault(repr([dataset, *computed]), spec)
    return list(seen.values())


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@functools.cache
def layout(dataset):
    """Size and classes of a dataset, as its builder states them."""
    builder, config = install.find(dataset)
    return builder(data_dir=str(ROOT / "nowhere"), config=config).layout()


def films(config, *, number, step=0):
    """Noise in the dataset's size; labels, and regions where they are read, drawn too."""
    size, task = layout(config.data.dataset).size, configs.build(config.task)
    classes = traits(task).labelled
    rng = np.random.default_rng(step)
    regions = None
    if "regions" in traits(task).reads:
        low, high = np.sort(rng.random((2, number, len(task.regions), 2)), axis=0)
        regions = Regions(
            xyxy=np.concatenate([low, high], axis=-1).astype(np.float32),
            presence=np.ones((number, len(task.regions)), bool),
            probs=rng.integers(
                0, 2, (number, len(task.regions), len(task.findings))
            ).astype(np.float32),
        )
    return Batch(
        regions=regions,
        image=rng.integers(0, 256, (number, size, size, 1), np.uint8),
        labels=rng.integers(0, 2, (number, len(classes))).astype(np.float32),
        mask=np.ones(number, bool),
        position=np.arange(step * number, (step + 1) * number, dtype=np.uint32),
        index=np.arange(number, dtype=np.int32),
        group=np.arange(number, dtype=np.int32) % PARTS if config.data.group else None,
    )


class Drawn:
    """The training part as far as a task counts on it: both values of every class."""

    def __init__(self, config):
        self._group = config.data.group

    def labels(self, classes):
        return np.arange(4 * PARTS)[:, None] // PARTS % 2 * np.ones(len(classes))

    def train_groups(self):
        code = np.arange(4 * PARTS) % PARTS
        names = tuple(f"part {k}" for k in range(PARTS))
        return groups.Categories(names=names, code=code) if self._group else None


@functools.cache
def shapes(parts, spec):
    """What a recipe predicts, by shape; recipes of the same parts are traced once."""
    del parts
    config = loaded(spec)
    task = configs.build(config.task)
    trainer = assembly.make_trainer(config, task, films=1_000)
    for phase in range(len(config.phases)):
        state = trainer.abstract(phase)
    batch = films(config, number=2)

    def predict(params, rest):
        return task.predict(trainer.model_def.merge(params, rest), batch)

    return jax.eval_shape(predict, state.params, state.rest)


def parts_of(config):
    return repr([configs.plain(config.task), config.data.dataset, config.phases])


def loaded(spec, overrides=()):
    """A recipe; all but the first of a file with a backbone that is traced in a second."""
    config = configs.load(spec, overrides)
    if ":" in spec and config.task.model["name"].startswith(DEEP):
        config.task.model = {"name": SHALLOW}
    return config


FIRST = {}
for _spec in SPECS:
    FIRST.setdefault(parts_of(loaded(str(ROOT / _spec))), _spec)


@combined
def test_the_parts_of_a_recipe_fit_each_other(spec):
    """Task, network, optimizers and evaluators; shapes only, nothing is computed."""
    config = loaded(spec)
    task = configs.build(config.task)
    learnt = layout(config.data.dataset).classes
    judged = layout(config.data.evaluation.dataset or config.data.dataset).classes
    # Any table of findings tells which films have none.
    assert set(traits(task).labelled) <= {*learnt, NO_FINDING}
    assert set(task.classes) <= {*judged, NO_FINDING}
    parts = parts_of(config)
    got = shapes(parts, FIRST.get(parts, spec))
    assert got.logits.shape == got.probs.shape == (2, len(task.classes))
    if got.maps is not None:
        # Fewer cells say nothing about where a finding is.
        assert min(got.maps.shape[1:3]) >= 7, got.maps.shape
    chosen = assembly.make_evaluators(config, resamples=0)
    # All these builders have boxes.
    have = ["labels", "probs", "boxes"]
    have += ["maps"] if traits(task).maps else []
    have += ["predicted_boxes"] if traits(task).finds_boxes else []
    have += ["regions"] if layout(config.data.dataset).regions else []
    have += ["std", "information"] if config.eval.mc.samples else []
    check_requirements(chosen, have)


@pytest.mark.parametrize("spec", SPECS)
def test_a_recipe_starts_from_public_weights_of_its_own_network(spec):
    config = configs.load(spec)
    start = configs.plain(config.pretrained)
    files = {"": start["from"]} | {k: p["from"] for k, p in start["parts"].items()}
    files = {part: name for part, name in files.items() if name}
    assert not ("" in files and len(files) > 1)
    for part, name in files.items():
        model = config.task.model[part] if part else config.task.model
        assert hub.HUB[name].architecture == model["name"].rpartition(".")[2], part


@pytest.mark.parametrize("spec", SPECS)
def test_every_network_computes_in_half_precision_where_asked(spec):
    assert configs.load(spec).task.model["dtype"] == "float32"
    config = configs.load(spec, ["task.model.dtype=bfloat16"])
    assert config.task.model["dtype"] == "bfloat16"


@pytest.mark.parametrize("spec", SPECS)
def test_the_scaling_of_those_weights_can_be_taken(spec):
    """A recipe whose films have another mean than its weights would not start."""
    config = configs.load(spec)
    models = {"": config.task.model, **config.task.model}
    for part, given in {"": config.pretrained, **config.pretrained.parts}.items():
        if not given["from"]:
            continue
        passport = hub.HUB[given["from"]].passport(given["from"], "0" * 64)
        kernel, channels = "backbone/stem/kernel", config.task.channels
        shape = (7, 7, channels, 64)
        wanted = {kernel: jax.ShapeDtypeStruct(shape, np.float32)}
        if models[part]["name"].startswith("cxr_jax.models.gray."):
            wanted["backbone/stem/border"] = wanted[kernel]
        taken = pretrained._fit_stem(
            {kernel: np.ones((7, 7, passport.channels, 64), np.float32)},
            wanted,
            passport,
            config.task.mean,
            config.task.std,
            how=given.get("stem", "fit"),
        )
        assert taken.kernel.shape == shape, part
        assert (taken.mean, taken.std) == (config.task.mean, config.task.std), part


@combined
def test_what_a_recipe_reports_is_about_its_classes(spec):
    config = configs.load(spec)
    classes = set(config.task.classes)
    for evaluator in config.eval.evaluators:  # Some judge columns of their own.
        classes |= {*evaluator.get("order", ()), evaluator.get("whole", "")} - {""}
    assert set(config.eval.mean_classes) <= classes
    assert set(config.report.ceilings) <= classes
    for column in config.report.published:
        assert column["name"] and column["split"], column
        values = column["values"]
        assert values and set(values) <= classes
        assert all(0.5 < value < 1 for value in values.values())


def test_a_pneumonia_recipe_repeats_positives_or_weighs_them_never_both():
    for words, repeats in (("pneumonia", True), ("pneumonia,v3", False)):
        config = configs.load(f"configs/chexnet.py:{words}")
        (term,) = config.task.terms
        assert bool(config.data.oversample.label) == repeats
        assert ("w_pos" in term["fn"]) != repeats
        assert config.data.scheme == "set_apart" and config.data.holdout == 420
    v3 = configs.load("configs/chexnet.py:pneumonia,v3").data
    assert round(v3.fractions[1] * 30_416) == 1_672


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_head_of_a_recipe_says_what_it_claims(path):
    head = configs.load(str(path)) and path.read_text().split('"""')[1]
    for word in ("Paper:", "Number:", "Command:", "Hardware:"):
        assert word in head, f"{path.name} does not say {word}"


def overrides_of_the_readme():
    text = (ROOT / "README.md").read_text()
    found = re.findall(r"--config\.([\w.]+=(?:\"[^\"]*\"|[^\s`]+))", text)
    return [one.replace('"', "") for one in found if not one.startswith("KEY=")]


@pytest.mark.parametrize("override", overrides_of_the_readme())
def test_every_override_of_the_readme_is_one(override):
    """It loads with a recipe, and a reader file goes to the readers."""
    taken = []
    for path in FILES:
        try:
            taken.append(configs.load(str(path), [override]))
        except ConfigError:
            continue  # of another recipe
    assert taken
    if override.endswith(".file=R.csv"):
        where = override.partition("=")[0].rpartition(".")[0].split(".")[1:]
        for config in taken:
            found = configs.plain(config.eval)
            for key in where:
                found = found[int(key) if key.isdigit() else key]
            assert found["name"].endswith(".Readers") and found["file"] == "R.csv"


def test_the_published_means_are_those_of_the_papers():
    """CheXNet v1 as its page states it, v3 as the reproductions do."""
    config = configs.load("configs/chexnet.py")
    columns = {c["name"]: c["values"] for c in config.report.published}
    means = {name: np.mean(list(values.values())) for name, values in columns.items()}
    assert round(means["CheXNet v1"], 4) == 0.8424
    assert round(means["CheXNet v3"], 4) == 0.8414


def test_the_published_mean_of_fusion_is_near_that_of_its_rounded_rows():
    """Table 2 prints two digits; its last mean is off by 0.0008, as the spec says."""
    config = configs.load("configs/fusion.py")
    means = [np.mean([*c["values"].values()]) for c in config.report.published]
    assert np.round(means, 4).tolist() == [0.6550, 0.7093, 0.7357, 0.8164]


def test_the_fusion_recipe_is_that_of_the_report():
    """Counts of the paper's Figure 3, Keras' way: all of it, and what trains first."""
    # EfficientNet's seven constants are our task's mean and std.
    counts = {
        "simple_cnn": (129_870, 129_870),
        "densenet121": (7_569_486, 531_982),
        "efficientnet_b0": (4_712_625 - 7, 663_054),
        "fusion": (10_638_528 - 7, 10_521_273 - 6_951_808 - 2_302_762),
    }
    for variant, (every, trainable) in counts.items():
        config = configs.load(f"configs/fusion.py:{variant}")
        trainer = assembly.make_trainer(config, configs.build(config.task), films=9_999)
        state = trainer.abstract(0)
        sizes = {k: v.size for k, v in (state.params | state.rest).items()}
        assert sum(sizes.values()) == every, variant
        own, _ = optim.partition(state.params, config.phases[0])
        assert sum(sizes[name] for name in own) == trainable, variant


@pytest.mark.long
@pytest.mark.parametrize("spec", distinct())
def test_each_config_takes_two_steps(spec):
    """Films of the dataset's size, two per device; else the recipe, a file's own whole."""
    config = loaded(spec, ["train.accumulate=1", "train.batch_size=2"])
    task = assembly.make_task(config, Drawn(config))
    trainer = assembly.make_trainer(config, task, films=1_000)
    state, step = trainer.init(), trainer.step(0)
    before = jax.tree.map(np.asarray, state.params)
    for number in range(2):
        if number and len(trainer.phases) > 1:  # The second step is of the next phase.
            state, step = trainer.next_phase(state), trainer.step(1)
        batch = sharding.to_global(films(config, number=2, step=number), trainer.mesh)
        state, metrics = step(state, batch)
        assert np.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0
    assert int(state.step) == 2 and int(state.bad_step) == -1
    moved = [k for k, v in before.items() if not np.array_equal(v, state.params[k])]
    assert moved and all(np.isfinite(v).all() for v in state.params.values())
