"""Who has what: types, classes, kinds, views, splits and readers as stated."""

import numpy as np
import pytest

from cxr_jax.labels import BODY_PARTS
from data_builders.phantom_bone import cohort as cohorts
from data_builders.phantom_bone import readers
from data_builders.phantom_bone.cohort import KINDS, Cohort
from data_builders.phantom_bone.phantom_bone_dataset_builder import TINY, TINY_PADDED

MANY = Cohort(films=14_000, size=64, seed=1)


@pytest.fixture(scope="module")
def studies():
    return [study for who in cohorts.schedule(MANY) for study in who]


def z_of(count, n, p):
    return (count - n * p) / np.sqrt(n * p * (1 - p))


def test_table_1_is_the_one_in_print():
    assert cohorts.TABLE1.sum(0).tolist() == [9067, 5915]
    assert cohorts.TABLE1.sum(1).tolist() == [1971, 2142, 1057, 2215, 778, 3073, 3746]


def test_counts_per_type_and_class_follow_table_1(studies):
    table = cohorts.TABLE1 / cohorts.TABLE1.sum()
    for k, part in enumerate(BODY_PARTS):
        for ill in (0, 1):
            count = sum(s.part == part and s.abnormal == ill for s in studies)
            assert abs(z_of(count, len(studies), table[k, ill])) < 4, (part, ill)


def test_kinds_occur_as_in_a_hundred_abnormal_studies(studies):
    ill = [study for study in studies if study.abnormal]
    for kind, p in zip(KINDS, (0.53, 0.48, 0.35, 0.29), strict=True):
        count = sum(kind in study.severity for study in ill)
        assert abs(z_of(count, len(ill), p)) < 4, kind
    assert all(study.severity for study in ill)
    assert max(len(study.severity) for study in ill) >= 3
    s = np.array([v for study in ill for v in study.severity.values()])
    assert 0 < s.min() < 0.05
    assert s.max() <= 1


def test_views_are_one_to_four_and_as_many_as_released(studies):
    views = np.array([len(study.angles) for study in studies])
    assert set(views) == {1, 2, 3, 4}
    # 40,561 images of 14,863 studies.
    assert views.mean() == pytest.approx(40561 / 14863, abs=0.06)
    for study in studies[:300]:
        if len(study.angles) > 1:
            assert abs(study.angles[0] - study.angles[1]) > 15


def test_splits_are_by_patient_and_of_the_stated_size():
    patients = cohorts.schedule(TINY)
    assert all(len({study.split for study in who}) == 1 for who in patients)
    share = np.mean(
        [[w[0].split == s for s in ("train", "val", "test")] for w in patients], 0
    )
    np.testing.assert_allclose(share, (0.7, 0.1, 0.2), atol=0.03)
    names = [study.name for who in patients for study in who]
    assert len(set(names)) == len(names)
    assert not any("positive" in n or "negative" in n for n in names)
    several = [who for who in patients if len(who) > 1]
    assert any(len({study.part for study in who}) > 1 for who in several)
    again = [n for n in names if n.endswith("study2")]
    assert all(n[:-1] + "1" in names for n in again)
    films = sum(len(study.angles) for who in patients for study in who)
    assert TINY.films <= films < TINY.films + 12


def test_padded_films_are_of_the_same_studies():
    for a, b in zip(
        cohorts.draw_patient(TINY, 7), cohorts.draw_patient(TINY_PADDED, 7), strict=True
    ):
        assert (a.name, a.severity, a.angles) == (b.name, b.severity, b.angles)


def test_readers_parameters_come_back(studies):
    calls = [readers.read(MANY, study) for study in studies]
    ill = np.array([study.abnormal for study in studies])
    for name, (sensitivity, specificity) in readers.READERS.items():
        called = np.array([call[name] for call in calls])
        assert abs(z_of(called[ill].sum(), ill.sum(), sensitivity)) < 4, name
        assert abs(z_of((1 - called[~ill]).sum(), (~ill).sum(), specificity)) < 4, name


def test_readers_miss_the_subtle_and_err_apart_on_normal_studies(studies):
    calls = np.array([[*readers.read(MANY, s).values()] for s in studies])
    worst = np.array([study.worst for study in studies])
    subtle, plain = calls[(worst > 0) & (worst < 0.4)], calls[worst > 0.8]
    assert subtle.mean() + 0.2 < plain.mean()
    wrong = calls[worst == 0]
    together = np.corrcoef(wrong.T)[np.triu_indices(6, 1)]
    assert np.abs(together).max() < 4 / np.sqrt(len(wrong))


def test_worst_severity_has_the_stated_distribution(studies):
    worst = np.sort([study.worst for study in studies if study.abnormal])
    stated = readers.worst_severities(MANY.ease, points=len(worst))
    # Kolmogorov-Smirnov, by quantiles: where half of the stated ones lie, and so on.
    apart = np.searchsorted(worst, stated) / len(worst) - np.linspace(0, 1, len(worst))
    assert np.abs(apart).max() < 1.95 / np.sqrt(len(worst))
