"""Sensitivity by kind of abnormality: counted by hand, resampled by patient."""

import dataclasses

import jax
import numpy as np
import pytest

from cxr_jax.data import kinds
from cxr_jax.errors import DataError
from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.kinds import Kinds
from cxr_jax.metrics import bootstrap
from cxr_jax.predictions import Predictions

NAMES = ("fracture", "hardware", "degenerative", "other")


def table(probs, patients=None):
    """One study per probability; the last column is that of all studies."""
    count = len(probs)
    probs = np.float32(probs)
    return Predictions(
        classes=("Hand", "All"),
        ids=np.array([f"s{k}" for k in range(count)]),
        patients=np.array(patients or [f"p{k}" for k in range(count)]),
        studies=np.array([f"s{k}" for k in range(count)]),
        index=np.arange(count),
        probs=np.stack([np.zeros(count, np.float32), probs], axis=1),
        labels=np.ones((count, 2), np.float32),
    )


def told(directory, rows):
    """Study number → its kinds, as letters of NAMES."""
    studies = [f"s{k}" for k in rows]
    columns = {n: [n[0] in rows[k] for k in rows] for n in NAMES}
    (directory / kinds.NAME).write_text(kinds.format_kinds(studies, columns))
    return str(directory)


# Of the studies 0 to 4 the scores 0.9, 0.5, 0.6, 0.2, 0.7; 5 is not abnormal.
ROWS = {0: "f", 1: "fh", 2: "h", 3: "o", 4: "fo", 99: "f"}
SCORES = [0.9, 0.5, 0.6, 0.2, 0.7, 0.8]


def test_sensitivities_are_those_counted_by_hand(tmp_path):
    block = Kinds(directory=told(tmp_path, ROWS))(table(SCORES))["kinds"]
    # Called are 0, 2 and 4: a half is not above 0.5. Study 99 is of another part.
    want = {
        "fracture": (3, 2, 2 / 3),
        "hardware": (2, 1, 1 / 2),
        "degenerative": (0, 0, None),
        "other": (2, 1, 1 / 2),
        "all": (5, 3, 3 / 5),
    }
    got = {
        name: (found["positives"], found["called"], found["value"])
        for name, found in block["per_kind"].items()
    }
    assert got == want and tuple(got) == (*NAMES, "all")
    assert block["n"] == 5 and block["threshold"] == 0.5
    assert all(found["low"] is None for found in block["per_kind"].values())
    lower = Kinds(directory=str(tmp_path), threshold=0.4)(table(SCORES))["kinds"]
    assert lower["per_kind"]["fracture"]["value"] == 1
    assert lower["per_kind"]["all"]["called"] == 4


def test_a_line_of_a_normal_study_is_no_abnormal_study(tmp_path):
    one = table(SCORES)
    one.labels[0] = 0
    told(tmp_path, ROWS | {0: ""})
    block = Kinds(directory=str(tmp_path))(one)["kinds"]
    assert block["n"] == block["per_kind"]["all"]["positives"] == 4


def test_intervals_resample_patients_and_are_exact_at_the_ends(tmp_path):
    rng = np.random.default_rng(0)
    probs = rng.random(60)
    patients = [f"p{k // 2}" for k in range(60)]
    rows = {k: "f" if k % 3 else "fh" for k in range(60)}
    rows[0] = "o"
    probs[0] = 0.9
    evaluator = Kinds(directory=told(tmp_path, rows), resamples=400, seed=5)
    block = plain(evaluator(table(probs, patients)))["kinds"]
    assert block["resampling_unit"] == "patient" and block["resamples"] == 400
    distinct, unit = np.unique(patients, return_inverse=True)
    keys = [jax.random.fold_in(jax.random.key(5), r) for r in range(400)]
    drawn = np.stack([bootstrap.draw_weights(k, len(distinct)) for k in keys])
    weights = drawn.astype(float)[:, unit]
    called = np.float32(probs) > 0.5
    for name in ("fracture", "hardware"):
        shows = np.array([name[0] in rows[k] for k in range(60)])
        many = weights @ (shows & called) / (weights @ shows)
        found = block["per_kind"][name]
        low, high = np.percentile(many, [2.5, 97.5])
        assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-6)
        assert found["value"] == pytest.approx(called[shows].mean())
    other = block["per_kind"]["other"]
    assert other["value"] == 1  # one study of one patient: anything may be so
    assert (other["low"], other["high"]) == (0.025, 1)
    assert other["discarded"] == (weights[:, 0] == 0).sum() > 0


def test_without_a_file_or_a_study_of_it_there_is_no_block(tmp_path):
    assert Kinds(directory=str(tmp_path))(table(SCORES)) == {}
    assert Kinds()(table(SCORES)) == {}
    told(tmp_path, {98: "f", 99: "h"})
    assert Kinds(directory=str(tmp_path))(table(SCORES)) == {}


def test_a_damaged_file_is_refused_before_training(tmp_path):
    path = tmp_path / kinds.NAME
    told(tmp_path, ROWS)
    Kinds(directory=str(tmp_path)).rehearse(table(SCORES))
    path.write_text(path.read_text().replace("s2,0,1", "s2,0,2"))
    with pytest.raises(DataError, match="line 4: s2,0,2"):
        Kinds(directory=str(tmp_path)).rehearse(table(SCORES))


def test_a_file_that_lies_about_is_of_no_dataset(tmp_path, monkeypatch):
    (tmp_path / kinds.NAME).write_text("something else\n")
    monkeypatch.chdir(tmp_path)
    Kinds().rehearse(table(SCORES))


def test_the_order_of_studies_is_of_no_matter(tmp_path):
    evaluator = Kinds(directory=told(tmp_path, ROWS), resamples=50)
    one = table(SCORES)
    order = [3, 5, 1, 0, 4, 2]
    arrays = ("ids", "patients", "studies", "index", "probs", "labels")
    other = dataclasses.replace(one, **{n: getattr(one, n)[order] for n in arrays})
    assert evaluator(one) == evaluator(other)
