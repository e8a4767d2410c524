"""Films become studies: by definition, in any order, however they fall over batches."""

import dataclasses

import numpy as np
import pytest

from cxr_jax import studies
from cxr_jax.errors import ConfigError, DataError
from cxr_jax.predictions import Predictions


def films(*, number=60, seed=0, truth=True):
    """Films of about 20 studies, of 12 patients, in no order."""
    rng = np.random.default_rng(seed)
    study = rng.integers(0, 20, number)
    abnormal = rng.integers(0, 2, 20)
    labels = abnormal[study][:, None].astype(np.float32)
    return Predictions(
        classes=("Abnormality",),
        ids=np.array([f"film{k}" for k in range(number)]),
        patients=np.array([f"p{s % 12}" for s in study]),
        studies=np.array([f"XR/p{s % 12}/study{s}" for s in study]),
        index=np.arange(number),
        probs=rng.random((number, 1)).astype(np.float32),
        labels=labels,
        truth=labels if truth else None,
        age=rng.integers(20, 80, number).astype(np.float32),
    )


def reordered(table, order):
    found = {
        field.name: getattr(table, field.name)[order]
        for field in dataclasses.fields(table)
        if isinstance(getattr(table, field.name), np.ndarray)
    }
    return dataclasses.replace(table, **found)


def test_a_study_is_the_mean_of_its_films():
    table = films()
    found = studies.by_study(table)
    assert found.table.ids.tolist() == sorted(set(table.studies.tolist()))
    assert found.views.sum() == len(table)
    for k, name in enumerate(found.table.ids):
        own = [j for j in range(len(table)) if table.studies[j] == name]
        mean = sum(float(table.probs[j, 0]) for j in own) / len(own)
        assert found.table.probs[k, 0] == pytest.approx(mean, rel=1e-15)
        assert found.views[k] == len(own)
        assert {table.patients[j] for j in own} == {found.table.patients[k]}
        assert {float(table.labels[j, 0]) for j in own} == {found.table.labels[k, 0]}
    assert not found.disagreeing


def test_the_order_of_the_films_is_of_no_matter():
    """A study that falls over two batches is one whose films are not side by side."""
    table = films()
    apart = reordered(table, np.random.default_rng(1).permutation(len(table)))
    one, other = studies.by_study(table).table, studies.by_study(apart).table
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_allclose(one.probs, other.probs, rtol=1e-15)
    np.testing.assert_array_equal(one.labels, other.labels)


def test_a_study_of_one_film_is_that_film():
    table = films(number=20)
    alone = dataclasses.replace(table, studies=table.ids, patients=table.ids)
    found = studies.by_study(alone)
    order = np.argsort(table.ids)
    np.testing.assert_array_equal(found.table.probs, table.probs[order])
    assert (found.views == 1).all()


def test_views_that_disagree_make_an_abnormal_study_and_are_named():
    table = films()
    name = table.studies[0]
    own = table.studies == name
    labels = table.labels.copy()
    labels[own] = 0
    mixed = np.flatnonzero(own)
    labels[mixed[0]] = 1
    assert len(mixed) > 1
    found = studies.by_study(dataclasses.replace(table, labels=labels, truth=None))
    assert found.disagreeing == (name,)
    assert found.table.labels[found.table.ids == name] == 1
    labels[own] = np.nan
    labels[mixed[0]] = 0
    found = studies.by_study(dataclasses.replace(table, labels=labels, truth=None))
    assert not found.disagreeing and found.table.labels[found.table.ids == name] == 0
    labels[own] = np.nan
    found = studies.by_study(dataclasses.replace(table, labels=labels, truth=None))
    assert np.isnan(found.table.labels[found.table.ids == name]).all()


def test_films_without_a_study_or_of_two_patients_are_refused():
    table = films()
    nameless = table.studies.copy()
    nameless[3] = ""
    with pytest.raises(DataError, match=r"1 of 60 films name no study, such as film3"):
        studies.by_study(dataclasses.replace(table, studies=nameless))
    strangers = table.patients.copy()
    twin = int(np.flatnonzero(table.studies == table.studies[0])[1])
    strangers[twin] = "somebody"
    with pytest.raises(DataError, match="films of two patients"):
        studies.by_study(dataclasses.replace(table, patients=strangers))


def test_columns_by_category_hold_their_own_studies_and_the_last_all():
    table = studies.by_study(films()).table
    names = ("Elbow", "Hand", "Wrist")
    category = np.array([names[k % 2] for k in range(len(table))])
    found = studies.by_category(table, category, names=names, whole="All")
    assert found.classes == (*names, "All")
    assert found.findings == ("Abnormality",) * 4
    for c, name in enumerate(names):
        own = category == name
        np.testing.assert_array_equal(found.labels[own, c], table.labels[own, 0])
        assert np.isnan(found.labels[~own, c]).all()
        np.testing.assert_array_equal(found.member[:, c], own)
    np.testing.assert_array_equal(found.labels[:, 3], table.labels[:, 0])
    np.testing.assert_array_equal(found.truth[:, 3], table.truth[:, 0])
    np.testing.assert_array_equal(found.probs, np.repeat(table.probs, 4, axis=1))


def test_columns_that_make_no_sense_are_refused():
    table = studies.by_study(films()).table
    category = np.array(["Elbow"] * len(table))
    with pytest.raises(DataError, match=r"'Elbow'; allowed are Hand"):
        studies.by_category(table, category, names=("Hand",), whole="All")
    with pytest.raises(ConfigError, match="one name comes twice"):
        studies.by_category(table, category, names=("Elbow",), whole="Elbow")
    two = dataclasses.replace(table, classes=("A", "B"))
    with pytest.raises(ConfigError, match="one class is allowed"):
        studies.by_category(two, category, names=("Elbow",), whole="All")
