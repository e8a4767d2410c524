"""The severity oracle: laws of its observer, and its stored figures."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn.metrics import roc_auc_score

from cxr_jax.labels import NIH14
from data_builders.phantom_chest import cohort as cohorts
from data_builders.phantom_chest import observer, oracle
from data_builders.phantom_chest import phantom_chest_dataset_builder as builder

FILMS, K = 4000, NIH14.index("Mass")


def observe(strength, *, lung=1, kappa=None, other=None):
    """AUROC of Mass where half the films have one, of area 1 pixel."""
    d = np.zeros((FILMS, 14))
    d[::2, K] = max(strength, 1e-9)
    if other is not None:
        d[1::2, other] = strength
    score = observer.scores(
        d,
        area=(d > 0).astype(float),
        lung=np.full(FILMS, lung),
        kappa=np.eye(14) if kappa is None else kappa,
        rng=np.random.default_rng(0),
    )
    return roc_auc_score(d[:, K] > 0, score[:, K])


def test_nothing_to_see_is_a_coin():
    assert observe(0.0) == pytest.approx(0.5, abs=0.03)
    assert observe(0.0, lung=100) == pytest.approx(0.5, abs=0.03)


def test_one_place_is_the_textbook_observer():
    """Known location: AUROC = Phi(d / sqrt 2)."""
    for strength in (0.5, 1.0, 2.0):
        expected = ndtr(strength / np.sqrt(2))
        assert observe(strength) == pytest.approx(expected, abs=0.025)


def test_searching_costs_and_contrast_helps():
    weak = [observe(3.0, lung=n) for n in (1, 10, 100)]
    assert weak[0] > weak[1] > weak[2]
    strong = [observe(s, lung=50) for s in (1.0, 3.0, 6.0, 12.0)]
    assert strong == sorted(strong)
    assert strong[-1] > 0.999


def test_a_look_alike_confuses():
    """Against films with another lesion of the same shape nothing is left but chance."""
    other = NIH14.index("Nodule")
    values = []
    for like in (0.0, 0.8, 1.0):
        kappa = np.eye(14)
        kappa[K, other] = kappa[other, K] = like
        values.append(observe(6.0, kappa=kappa, other=other))
    assert values[0] > 0.999
    assert values[0] >= values[1] > values[2]
    assert values[2] == pytest.approx(0.5, abs=0.05)


def test_white_noise_gives_the_matched_filter():
    """d^2 is the signal's energy over the noise variance."""
    size, sigma = 64, 0.3
    signal = np.zeros((size, size))
    signal[20:26, 30:37] = 0.1
    one = oracle.Measured(
        visit=None,
        signals={"Mass": np.fft.fft2(signal / sigma)},
        power=np.ones((size, size)),
        area=np.ones(14),
        lung=1,
        shape=None,
    )
    d, _ = oracle.detectability([one])
    assert d[0, K] == pytest.approx(np.sqrt(42 * 0.01) / sigma, rel=1e-6)


@pytest.mark.parametrize("config", ["tiny", "small", "base"])
def test_stored_ceilings_belong_to_this_version(config):
    stored = json.loads(oracle.FILE.read_text())[config]
    assert stored["version"] == str(builder.Builder.VERSION)
    assert set(stored["classes"]) == set(NIH14)


def test_at_least_eight_classes_can_be_told_on_tiny():
    told = oracle.learnable("tiny")
    assert len(told) >= 8
    assert not {"Nodule", "Fibrosis"} & set(told)


def test_fine_things_vanish_at_64_pixels():
    table = json.loads(oracle.FILE.read_text())
    for name in ("Nodule", "Fibrosis", "Pleural_Thickening"):
        tiny, base = (table[c]["classes"][name]["ceiling"] for c in ("tiny", "base"))
        assert tiny + 0.03 < base


@pytest.mark.long
def test_a_small_recount_agrees_with_the_stored_ceilings():
    cohort = dataclasses.replace(builder.TINY, films=1200)
    found = oracle.ceilings(cohort, films=150)
    stored = json.loads(oracle.FILE.read_text())["tiny"]["classes"]
    for name, entry in found.items():
        # Standard error of an AUROC A with n positives: at most sqrt(A (1 - A) / n).
        a, n = stored[name]["ceiling"], entry["n_pos"]
        assert n > 3
        error = np.sqrt(max(a * (1 - a), 0.01) / n)
        assert abs(entry["ceiling"] - a) < 4 * error + 0.02, name
    assert cohorts.CLASSES == len(found)
