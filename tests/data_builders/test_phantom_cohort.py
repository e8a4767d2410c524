"""Who has what: rates, splits, noise and readers against their stated figures."""

import csv
import dataclasses
import gzip
import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cxr_jax.labels import NIH14
from data_builders.phantom_chest import cohort as cohorts
from data_builders.phantom_chest import prevalence, readers
from data_builders.phantom_chest.cohort import Cohort
from data_builders.phantom_chest.phantom_chest_dataset_builder import SMALL, TINY

NATURAL = Cohort(films=20_000, size=64, floor=0.0, cap=1.0, more=1e-9)


def all_visits(cohort):
    return [v for p in cohorts.schedule(cohort) for v in cohorts.visits(cohort, p)]


@pytest.fixture(scope="module")
def natural():
    return np.stack([v.truth for v in all_visits(NATURAL)])


def test_pair_table_is_the_real_one(real_dir):
    path = real_dir / "nih" / "labels" / "Data_Entry_2017_v2020.csv.gz"
    with gzip.open(path, "rt") as file:
        names = [row[1].split("|") for row in csv.reader(file)][1:]
    found = np.array([[c in row for c in NIH14] for row in names], int)
    np.testing.assert_array_equal(
        np.rint(prevalence.pair_rates() * prevalence.FILMS), found.T @ found
    )


def test_bivariate_normal_against_scipy():
    for a, b, rho in ((1.2, 2.0, 0.6), (0.3, -0.5, -0.8), (2.2, 2.4, 0.1)):
        expected = multivariate_normal.cdf([-a, -b], cov=[[1, rho], [rho, 1]])
        found = prevalence.both_above(*(np.array([k]) for k in (a, b, rho)))
        assert found[0] == pytest.approx(expected, abs=1e-5)


def test_single_rates_follow_chestxray14(natural):
    rates = np.diag(prevalence.pair_rates())
    error = np.sqrt(rates * (1 - rates) / len(natural))
    assert np.all(np.abs(natural.mean(0) - rates) < 4.5 * error)


def test_pair_rates_follow_chestxray14(natural):
    rates = prevalence.pair_rates()
    found = natural.T @ natural / len(natural)
    i, j = np.triu_indices(len(NIH14), 1)
    error = np.sqrt(rates[i, j] / len(natural)) + 2e-4
    assert np.all(np.abs(found - rates)[i, j] < 4.5 * error)


@pytest.mark.parametrize("cohort", [TINY, SMALL])
def test_every_class_has_twenty_positive_test_patients(cohort):
    positive = [set() for _ in NIH14]
    for visit in all_visits(cohort):
        if visit.patient.split == "test":
            for k in np.flatnonzero(visit.severity):
                positive[k].add(visit.patient.number)
    assert min(len(p) for p in positive) >= 20


def test_splits_are_by_patient_and_of_the_stated_size():
    patients = cohorts.schedule(TINY)
    assert sum(p.films for p in patients) == TINY.films
    assert len({p.number for p in patients}) == len(patients)
    assert all(1 <= p.films <= 6 for p in patients)
    share = np.mean(
        [[p.split == s for s in ("train", "val", "test")] for p in patients], 0
    )
    np.testing.assert_allclose(share, (0.7, 0.1, 0.2), atol=0.03)


def test_findings_persist_from_film_to_film():
    cohort = dataclasses.replace(NATURAL, films=8_000, more=0.6)
    kept = []
    for patient in cohorts.schedule(cohort):
        found = cohorts.visits(cohort, patient)
        kept += [b.episode == a.episode for a, b in itertools.pairwise(found)]
    assert np.mean(kept) == pytest.approx(cohort.persists, abs=0.02)


def test_mined_labels_miss_and_invent_at_the_stated_rates():
    cohort = dataclasses.replace(TINY, films=6_000)
    visits = all_visits(cohort)
    truth = np.stack([v.truth for v in visits]) > 0
    mined = np.stack([cohorts.mined_labels(cohort, v) for v in visits]) > 0
    severity = np.stack([v.severity for v in visits])
    for k, name in enumerate(NIH14):
        here = truth[:, k]
        chance = 2 * cohorts.MISSED[name] * (1 - severity[here, k])
        error = np.sqrt(np.sum(chance * (1 - chance)))
        assert abs(np.sum(~mined[here, k]) - chance.sum()) < 4.5 * error
        rate, n = cohorts.INVENTED[name], np.sum(~here)
        assert abs(mined[~here, k].sum() - rate * n) < 4.5 * np.sqrt(rate * n)
    clean = dataclasses.replace(cohort, label_noise=0.0)
    np.testing.assert_array_equal(
        cohorts.mined_labels(clean, visits[0]), visits[0].truth
    )


def test_readers_have_the_stated_sensitivity_and_miss_the_subtle():
    s = prevalence.severity_of(np.random.default_rng(0).random(200_000))
    for k in range(len(readers.NAMES)):
        for sensitivity, specificity in readers.stated(k):
            seen = readers.detection(sensitivity, s)
            assert seen.mean() == pytest.approx(sensitivity, abs=0.005)
            assert seen[s < 0.3].mean() < seen[s > 0.7].mean()
            mimic = np.array([1.0, 0.0])
            wrong = readers.false_call(np.full(2, 1 - specificity), mimic > 0)
            mean = wrong @ (readers.MIMIC_RATE, 1 - readers.MIMIC_RATE)
            assert mean == pytest.approx(1 - specificity)


def test_streams_are_named_not_ordered():
    a = cohorts.stream(TINY, 5, 2, "severity").random(3)
    cohorts.stream(TINY, 5, 1, "severity").random(100)
    np.testing.assert_array_equal(a, cohorts.stream(TINY, 5, 2, "severity").random(3))
    others = [(5, 3, "severity"), (6, 2, "severity"), (5, 2, "exposure")]
    for other in others:
        assert not np.array_equal(a, cohorts.stream(TINY, *other).random(3))
