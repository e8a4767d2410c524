"""A fixed threshold against labels, as scikit-learn counts it."""

import dataclasses

import numpy as np
import pytest
from sklearn import metrics

from cxr_jax.evaluators.decision import Decision
from cxr_jax.predictions import Predictions


def table(*, number=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (number, 3)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    labels[:, 2] = 0
    names = np.array([f"s{k}" for k in range(number)])
    return Predictions(
        classes=("a", "b", "c"),
        ids=names,
        patients=np.array([f"p{k // 3}" for k in range(number)]),
        studies=names,
        index=np.arange(number),
        probs=np.round(rng.random((number, 3)), 1).astype(np.float32),
        labels=labels,
    )


def test_every_figure_is_that_of_scikit_learn():
    films = table()
    found = Decision(threshold=0.5)(films)["decision"]["per_class"]
    for c, name in enumerate("ab"):
        known = np.isfinite(films.labels[:, c])
        true, said = films.labels[known, c], films.probs[known, c] > 0.5
        assert (films.probs[known, c] == 0.5).any()  # which is not called
        block = found[name]
        assert block["f1"]["value"] == pytest.approx(metrics.f1_score(true, said))
        kappa = metrics.cohen_kappa_score(true, said)
        assert block["kappa"]["value"] == pytest.approx(kappa)
        recall = metrics.recall_score(true, said)
        assert block["sensitivity"]["value"] == pytest.approx(recall)
        assert (block["n"], block["positives"]) == (known.sum(), (true == 1).sum())
    assert found["c"]["sensitivity"]["value"] is None and found["c"]["f1"]["value"] == 0


def test_intervals_hold_their_figures_and_narrow_with_films():
    wide = Decision(resamples=200)(table())["decision"]["per_class"]["a"]["f1"]
    more = Decision(resamples=200)(table(number=2_000))["decision"]["per_class"]["a"]
    assert wide["low"] < wide["value"] < wide["high"]
    assert more["f1"]["high"] - more["f1"]["low"] < wide["high"] - wide["low"]


def test_a_share_of_one_keeps_its_exact_interval():
    """No negative of n patients called: resampling alone would say [1, 1]."""
    films = table()
    low = dataclasses.replace(films, probs=np.full_like(films.probs, 0.1))
    block = Decision(resamples=50)(low)["decision"]["per_class"]["c"]
    found = block["specificity"]
    known = np.isfinite(films.labels[:, 2])
    patients = len(set(films.patients[known].tolist()))
    assert found["value"] == found["high"] == 1
    assert found["low"] == pytest.approx(0.025 ** (1 / patients))
    # Nothing positive, nothing called: three figures do not exist.
    for name in ("sensitivity", "f1", "kappa"):
        assert block[name]["value"] is None and "undefined" in block[name]["reason"]
    assert "reason" not in found
