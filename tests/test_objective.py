"""Terms: reductions, missing labels, padding, micro-batches, weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax import losses, objective
from cxr_jax.errors import ConfigError
from cxr_jax.objective import Objective, Term

CHEXNET = {"batch": "mean", "classes": "sum"}
REDUCTIONS = [
    {"batch": b, "classes": c} for b in ("mean", "sum") for c in ("mean", "sum")
]


def case(seed, rows=8, classes=3, missing=0.3, padding=0.25):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (rows, classes)).astype(np.float32)
    labels[rng.random(labels.shape) < missing] = np.nan
    logits = 2 * rng.standard_normal(labels.shape).astype(np.float32)
    return logits, labels, rng.random(rows) >= padding


def term(reduce, **kwargs):
    return Term(name="bce", fn=losses.bce, reduce=reduce, **kwargs)


def by_hand(logits, labels, mask, reduce):
    """The same number by Python loops in float64."""
    rows = []
    for z, y, real in zip(np.float64(logits), np.float64(labels), mask, strict=True):
        known = [
            np.logaddexp(0, z) - y * z
            for z, y in zip(z, y, strict=True)
            if not np.isnan(y)
        ]
        if real and known:
            by = len(known) if reduce["classes"] == "mean" else 1
            rows.append(sum(known) / by)
    return sum(rows) / (max(len(rows), 1) if reduce["batch"] == "mean" else 1)


@pytest.mark.parametrize("reduce", REDUCTIONS, ids=lambda r: "-".join(r.values()))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_total_is_the_number_a_loop_gives(reduce, seed):
    logits, labels, mask = case(seed)
    found = objective.total(term(reduce)(logits, labels, mask=mask))
    expected = by_hand(logits, labels, mask, reduce)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_chexnet_sums_over_classes_and_averages_over_films():
    logits, labels = jnp.zeros((4, 14)), jnp.ones((4, 14))
    loss = term(CHEXNET)(logits, labels, mask=jnp.ones(4, bool))
    assert loss.denominators["bce"] == 4
    np.testing.assert_allclose(objective.total(loss), 14 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize("reduce", REDUCTIONS, ids=lambda r: "-".join(r.values()))
def test_micro_batches_add_up_to_the_whole_batch(reduce):
    logits, labels, mask = case(3, rows=12)
    labels[:4] = np.nan  # one micro-batch in which nothing is known
    loss = term(reduce)
    whole = loss(logits, labels, mask=mask)
    parts = [
        loss(logits[k : k + 4], labels[k : k + 4], mask=mask[k : k + 4])
        for k in (0, 4, 8)
    ]
    added = dataclasses.replace(
        parts[0],
        numerators={"bce": sum(p.numerators["bce"] for p in parts)},
        denominators={"bce": sum(p.denominators["bce"] for p in parts)},
    )
    np.testing.assert_allclose(
        objective.total(added), objective.total(whole), rtol=1e-6
    )


@pytest.mark.parametrize("reduce", REDUCTIONS, ids=lambda r: "-".join(r.values()))
def test_padding_changes_nothing(reduce):
    logits, labels, _ = case(4)
    real = np.ones(len(logits), bool)
    rubbish = np.full((5, logits.shape[1]), np.inf, np.float32)
    padded = term(reduce)(
        np.concatenate([logits, rubbish]),
        np.concatenate([labels, rubbish]),
        mask=np.concatenate([real, ~real[:5]]),
    )
    plain = term(reduce)(logits, labels, mask=real)
    for a, b in zip(jax.tree.leaves(padded), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_what_is_unknown_has_no_gradient_and_no_nan():
    logits, labels, mask = case(5)
    labels[0], mask[0] = np.nan, True
    gradient = jax.grad(lambda z: objective.total(term(CHEXNET)(z, labels, mask=mask)))(
        logits
    )
    known = mask[:, None] & ~np.isnan(labels)
    assert np.isfinite(gradient).all()
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).all()


def test_a_batch_without_any_label_costs_nothing():
    logits, labels = jnp.ones((2, 3)), jnp.full((2, 3), jnp.nan)
    value, gradient = jax.value_and_grad(
        lambda z: objective.total(term(CHEXNET)(z, labels, mask=jnp.ones(2, bool)))
    )(logits)
    assert value == 0
    assert not gradient.any()


def test_denominators_do_not_depend_on_the_network():
    logits, labels, mask = case(6)
    slope = jax.grad(lambda z: term(CHEXNET)(z, labels, mask=mask).denominators["bce"])(
        logits
    )
    assert not slope.any()


def test_more_axes_are_reduced_from_the_last_to_the_first():
    rng = np.random.default_rng(7)
    logits = rng.standard_normal((2, 4, 3)).astype(np.float32)
    labels = np.ones_like(logits)
    labels[0, 1:] = np.nan  # regions that are absent
    loss = term(
        {"batch": "mean", "regions": "mean", "classes": "sum"},
        axes=("batch", "regions", "classes"),
    )
    values = np.logaddexp(0, -np.float64(logits)).sum(-1)
    expected = (values[0, 0] + values[1].mean()) / 2
    found = objective.total(loss(logits, labels, mask=np.ones(2, bool)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # A mask per region says the same as labels that are not there.
    present = np.ones((2, 4), bool)
    present[0, 1:] = False
    again = objective.total(loss(logits, np.ones_like(logits), mask=present))
    np.testing.assert_allclose(again, expected, rtol=1e-6)


def test_terms_are_weighted_and_logged_apart():
    specs = (
        {
            "name": "main",
            "fn": {"name": "cxr_jax.losses.bce"},
            "reduce": CHEXNET,
            "weight": 2.0,
        },
        {
            "name": "extra",
            "fn": {"name": "cxr_jax.losses.focal", "gamma": 2.0},
            "reduce": CHEXNET,
        },
    )
    logits, labels, mask = case(8)
    loss = Objective.of(specs)(logits, labels, mask=mask)
    entries = objective.log_entries(loss)
    assert list(entries) == ["loss/main", "loss/extra"]
    np.testing.assert_allclose(
        objective.total(loss),
        2 * entries["loss/main"] + entries["loss/extra"],
        rtol=1e-6,
    )


def test_a_weight_may_follow_the_step():
    logits, labels, mask = case(9)
    rising = term(CHEXNET, weight=lambda step: 0.1 * step)
    one, five = (rising(logits, labels, mask=mask, step=s) for s in (1, 5))
    np.testing.assert_allclose(
        objective.total(five), 5 * objective.total(one), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reduce": {"batch": "mean"}}, "'bce'.*classes"),
        ({"reduce": {"batch": "mean", "classes": "max"}}, "'max'.*sum or mean"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_wrong_term_says_what_is_allowed(change, words):
    spec = {"name": "bce", "fn": {"name": "cxr_jax.losses.bce"}, "reduce": CHEXNET}
    with pytest.raises(ConfigError, match=words):
        Term.of(spec | change)


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="names of their own"):
        Objective((term(CHEXNET), term(CHEXNET)))


def test_rare_sides_weigh_as_much_as_they_are_rare_in_the_batch():
    logits, labels, mask = case(3, rows=16)
    balanced = Term(
        name="bce",
        fn=losses.weighted_bce,
        balance=True,
        reduce={"batch": "mean", "classes": "mean"},
    )
    found = objective.total(balanced(logits, labels, mask=mask))
    rows = []
    for c in range(labels.shape[1]):
        known = [y for y, real in zip(labels[:, c], mask, strict=True) if real]
        known = [y for y in known if not np.isnan(y)]
        n, positives = len(known), known.count(1.0)
        weight = {1.0: (n + 1) / (positives + 1), 0.0: (n + 1) / (n - positives + 1)}
        for row, (z, y, real) in enumerate(
            zip(np.float64(logits[:, c]), labels[:, c], mask, strict=True)
        ):
            if real and not np.isnan(y):
                loss = weight[float(y)] * (np.logaddexp(0, z) - float(y) * z)
                rows.append((row, loss))
    means = [
        np.mean([loss for number, loss in rows if number == row])
        for row in {number for number, _ in rows}
    ]
    np.testing.assert_allclose(found, np.mean(means), rtol=1e-5)
