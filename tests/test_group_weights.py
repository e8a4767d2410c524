"""The loss of MURA: a cross-entropy per film, weighed by the counts of its body part."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax import config as configs
from cxr_jax import frequencies, objective
from cxr_jax.data import groups
from cxr_jax.errors import ConfigError, DataError
from cxr_jax.objective import Objective, Term
from cxr_jax.tasks.classify import Classify
from cxr_jax.types import Batch

TERM = {
    "name": "bce",
    "fn": {
        "name": "cxr_jax.losses.weighted_bce",
        "w_pos": "negative_share",
        "w_neg": "positive_share",
    },
    "by_group": ("w_pos", "w_neg"),
    "reduce": {"classes": "sum", "batch": "mean"},
}
PARTS = ("Elbow", "Hand", "Wrist")
# Abnormal and normal films of each part, in the order of PARTS.
COUNTS = ((3, 5), (1, 7), (6, 2))


def training_films():
    """Labels ``[24, 1]`` and body parts of the films that are counted, in no order."""
    rows = [
        (part, label)
        for part, (abnormal, normal) in enumerate(COUNTS)
        for label in [1.0] * abnormal + [0.0] * normal
    ]
    rows = np.random.default_rng(0).permutation(np.array(rows))
    codes = groups.Categories(names=PARTS, code=rows[:, 0].astype(np.int32))
    return rows[:, 1:].astype(np.float32), codes


def counted(term=TERM):
    labels, codes = training_films()
    (found,) = frequencies.count_terms(
        (term,), labels, classes=("Abnormality",), groups=codes
    )
    return found


def batch_of(rows, seed, *, padding=3):
    """Films of all parts, the last ones padding."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (rows, 1)).astype(np.float32)
    labels[rng.random(rows) < 0.1] = np.nan
    return Batch(
        image=rng.integers(0, 256, (rows, 16, 16, 1)).astype(np.uint8),
        labels=labels,
        mask=np.arange(rows) < rows - padding,
        position=np.arange(rows, dtype=np.uint32),
        index=np.arange(rows, dtype=np.int32),
        group=rng.integers(0, len(PARTS), rows).astype(np.int32),
    )


def by_the_paper(logits, batch):
    """Film after film, in float64: w_T,y · -ln P(y), divided by the films that count."""
    total, films = 0.0, 0
    for z, y, real, part in zip(
        np.float64(logits)[:, 0],
        np.float64(batch.labels)[:, 0],
        batch.mask,
        batch.group,
        strict=True,
    ):
        if not real or np.isnan(y):
            continue
        abnormal, normal = COUNTS[part]
        both = abnormal + normal
        weight = normal / both if y == 1 else abnormal / both
        total += weight * np.logaddexp(0, -z if y == 1 else z)
        films += 1
    return total / films


@pytest.mark.parametrize("seed", range(5))
def test_a_term_is_the_formula_of_the_paper(seed):
    batch = batch_of(16, seed)
    logits = np.random.default_rng(seed + 100).normal(0, 3, (16, 1)).astype(np.float32)
    loss = Term.of(counted())(logits, batch.labels, mask=batch.mask, group=batch.group)
    got = float(loss.numerators["bce"] / loss.denominators["bce"])
    assert got == pytest.approx(by_the_paper(logits, batch), rel=1e-6)
    # Another body part is another loss.
    other = dataclasses.replace(batch, group=(batch.group + 1) % 3)
    assert by_the_paper(logits, other) != pytest.approx(got, rel=1e-3)


def test_abnormal_and_normal_films_of_a_part_then_weigh_the_same():
    labels, codes = training_films()
    term = Term.of(counted())
    for part, (abnormal, normal) in enumerate(COUNTS):
        for value in (0, 1):
            own = (codes.code == part) & (labels[:, 0] == value)
            loss = term(
                np.zeros_like(labels), labels, mask=own, group=codes.code
            ).numerators["bce"]
            want = abnormal * normal / (abnormal + normal) * np.log(2)
            assert loss == pytest.approx(want, rel=1e-6)


@pytest.fixture(scope="module")
def task():
    return Classify(
        model={"name": "cxr_jax.models.densenet.densenet_tiny"},
        head={"name": "cxr_jax.models.heads.PoolThenClassify"},
        terms=(counted(),),
        classes=("Abnormality",),
        mean=(0.5,),
        std=(0.25,),
        channels=1,
    )


@pytest.fixture(scope="module")
def model(task):
    return jax.jit(task.create)(jax.random.key(0))


def test_a_task_weighs_by_the_group_of_its_batch(task, model):
    """As jitted for training, and with two micro-batches that are added up."""

    @jax.jit
    def read(batch):
        loss = task.loss(model, batch, key=None, step=0)
        return loss, task.predict(model, batch).logits

    batch = batch_of(16, 7)
    loss, logits = read(batch)
    want = by_the_paper(logits, batch)
    assert objective.total(loss) == pytest.approx(want, rel=1e-5)
    halves = [jax.tree.map(lambda x, h=h: x[h::2], batch) for h in (0, 1)]
    parts = [read(half)[0] for half in halves]
    above, below = (
        sum(getattr(part, name)["bce"] for part in parts)
        for name in ("numerators", "denominators")
    )
    assert above / below == pytest.approx(want, rel=1e-5)


def test_a_task_by_group_without_groups_is_refused(task, model):
    batch = dataclasses.replace(batch_of(8, 0), group=None)
    with pytest.raises(ConfigError, match=r"'bce' weighs by group.* set data\.group"):
        task.loss(model, batch, key=None, step=0)


def test_the_recipe_is_of_this_form():
    c = configs.load(str(pathlib.Path(__file__).parents[1] / "configs" / "mura.py"))
    (term,) = configs.plain(c.task.terms)
    assert term["fn"] == TERM["fn"] and term["by_group"] == TERM["by_group"]
    assert term["reduce"] == TERM["reduce"] and term["weight"] == 1.0
    assert c.data.group == "body_part"
    configs.build(c.task)  # Words are no numbers yet, and no mistake either.


def test_words_without_a_group_count_all_films():
    labels, codes = training_films()
    plain = {k: v for k, v in TERM.items() if k != "by_group"}
    want = frequencies.count_terms((plain,), labels, classes=("a",))
    assert want == frequencies.count_terms(
        (plain,), labels, classes=("a",), groups=codes
    )
    weights = [*want[0]["fn"]["w_pos"], *want[0]["fn"]["w_neg"]]
    assert weights == pytest.approx([14 / 24, 10 / 24])
    # One argument by group, the other of all films.
    half = counted(TERM | {"by_group": ("w_pos",)})["fn"]
    assert half["w_pos"] == ((5 / 8,), (7 / 8,), (2 / 8,))
    assert half["w_neg"] == pytest.approx((10 / 24,))


def test_a_term_without_groups_ignores_those_of_the_batch():
    plain = {k: v for k, v in TERM.items() if k != "by_group"}
    plain["fn"] = plain["fn"] | {"w_pos": 0.3, "w_neg": 0.7}
    batch = batch_of(16, 1)
    given = np.zeros((16, 1), np.float32), batch.labels
    one, other = (
        Objective.of((plain,))(*given, mask=batch.mask, group=group).numerators["bce"]
        for group in (None, batch.group)
    )
    assert one == other


@pytest.mark.parametrize(("label", "words"), [(1, "0 positive"), (0, "0 negative")])
def test_a_part_with_one_kind_of_film_is_refused_by_name(label, words):
    labels, codes = training_films()
    labels = np.where((codes.code == 1)[:, None], 1.0 - label, labels)
    with pytest.raises(DataError, match=f"Abnormality, Hand: .*{words}.* would be 0"):
        frequencies.count_terms(
            (TERM,), labels.astype(np.float32), classes=("Abnormality",), groups=codes
        )


def test_a_part_without_training_films_is_refused_by_name():
    labels, codes = training_films()
    more = dataclasses.replace(codes, names=(*PARTS, "Knee"))
    with pytest.raises(DataError, match="Abnormality, Knee: 0 positive and 0 negative"):
        frequencies.count_terms((TERM,), labels, classes=("Abnormality",), groups=more)


def test_by_group_without_an_attribute_of_films_is_refused():
    labels, _ = training_films()
    with pytest.raises(ConfigError, match=r"'bce' weighs by group.*data\.group is emp"):
        frequencies.count_terms((TERM,), labels, classes=("Abnormality",))


def test_an_argument_that_the_loss_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="by_group names gamma; its fn has w_pos, w_"):
        Term.of(counted() | {"by_group": ("w_pos", "gamma")})
    bare = TERM | {"fn": {"name": "cxr_jax.losses.bce"}}
    with pytest.raises(ConfigError, match="by_group names w_pos, w_neg; .* no argum"):
        Term.of(bare)


@pytest.mark.parametrize("value", [0.3, (0.3,)])
def test_an_argument_without_a_row_per_group_is_refused(value):
    """Gathered all the same, it would be a wrong loss of the right shape."""
    fn = counted()["fn"] | {"w_pos": value}
    with pytest.raises(ConfigError, match="by_group names w_pos, which has no row per"):
        Term.of(counted() | {"fn": fn})


@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_gradients_are_finite_far_out(logit):
    term, batch = Term.of(counted()), batch_of(16, 2)

    def total(logits):
        return objective.total(
            term(logits, batch.labels, mask=batch.mask, group=batch.group)
        )

    logits = jnp.full((16, 1), logit)
    value, gradient = jax.jit(jax.value_and_grad(total))(logits)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert float(value) == pytest.approx(by_the_paper(logits, batch), rel=1e-5)
    # Right ones have no slope left, wrong ones their weight; padding none.
    films = (batch.mask & ~np.isnan(batch.labels[:, 0])).sum()
    wrong = batch.labels[:, 0] == (logit < 0)
    share = np.array([n / (a + n) if logit < 0 else a / (a + n) for a, n in COUNTS])
    sign = -1 if logit < 0 else 1
    want = np.where(wrong & batch.mask, sign * share[batch.group] / films, 0)
    np.testing.assert_allclose(gradient[:, 0], want, atol=1e-7)


def test_categories_are_numbered_over_the_whole_dataset(tmp_path):
    ids = ["x", "y", "z"]
    text = groups.format_groups(ids, {"body_part": ["Wrist", "Elbow", "Wrist"]})
    (tmp_path / groups.NAME).write_text(text)
    found = groups.read_categories(tmp_path, ["z", "y", "x"], "body_part")
    assert found.names == ("Elbow", "Wrist")
    assert found.code.tolist() == [1, 0, 1] and found.code.dtype == np.int32


def test_categories_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.group='body_part': .* tells nothing"):
        groups.read_categories(tmp_path, ["x"], "body_part")
    text = groups.format_groups(["x", "y"], {"site": ["a", ""], "tube": ["no", "no"]})
    (tmp_path / groups.NAME).write_text(text)
    with pytest.raises(DataError, match="'body_part': the dataset tells site, tube"):
        groups.read_categories(tmp_path, ["x"], "body_part")
    with pytest.raises(DataError, match="'site': film y has none"):
        groups.read_categories(tmp_path, ["x", "y"], "site")
    with pytest.raises(DataError, match="'site': film new has none"):
        groups.read_categories(tmp_path, ["x", "new"], "site")
