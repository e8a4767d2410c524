"""What is planted is planted, and nothing else moves."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cxr_jax.data import groups
from data_builders.phantom_chest import acquisition, radiograph
from data_builders.phantom_chest import (
    phantom_chest_dataset_builder as builder,
)

FEW = 24


def films(cohort):
    return list(radiograph.generate(dataclasses.replace(cohort, films=FEW)))


@pytest.fixture(scope="module")
def tiny():
    return films(builder.TINY)


def test_the_planted_configs_have_the_patients_of_tiny():
    configs = {c.name: c.cohort for c in builder.Builder.BUILDER_CONFIGS}
    for name, field in (
        ("disparity", "subtle_in_women"),
        ("confounded", "device_confounder"),
    ):
        back = dataclasses.replace(configs[name], **{field: 0.0})
        assert back == configs["tiny"] and configs[name] != configs["tiny"]


def test_disparity_touches_women_with_findings_alone(tiny):
    changed = 0
    for plain, other in zip(tiny, films(builder.DISPARITY), strict=True):
        np.testing.assert_array_equal(plain.truth, other.truth)
        ill_woman = plain.visit.patient.female and plain.truth.any()
        assert np.array_equal(plain.image, other.image) != ill_woman
        changed += ill_woman
    assert 0 < changed < FEW


def test_the_link_touches_films_whose_tube_comes_or_goes(tiny):
    moved = 0
    for plain, other in zip(tiny, films(builder.CONFOUNDED), strict=True):
        tubes = [f.devices[acquisition.TUBE] for f in (plain, other)]
        same = np.array_equal(plain.image, other.image)
        assert same == (tubes[0] == tubes[1])
        assert not tubes[1] or other.visit.severity[7] > 0
        moved += not same
    assert moved


class Few(builder.Builder, skip_registration=True):
    """A class of its own: TFDS remembers the configs of a class for good."""

    name = "phantom_chest"
    DEFAULT_BUILDER_CONFIG_NAME = "planted"
    BUILDER_CONFIGS = (
        builder.PhantomConfig(
            name="planted", cohort=dataclasses.replace(builder.CONFOUNDED, films=FEW)
        ),
    )


def test_tubes_are_told_beside_the_records(tmp_path):
    made = Few(data_dir=tmp_path, config="planted")
    made.download_and_prepare(file_format="array_record")
    source = tfds.builder_from_directory(made.data_path).as_data_source("all")
    ids = [source[k]["id"].decode() for k in range(FEW)]
    told = groups.read_groups(made.data_path, ids)["chest_tube"]
    known = films(builder.CONFOUNDED)
    want = ["yes" if f.devices[acquisition.TUBE] else "no" for f in known]
    assert told.tolist() == want
