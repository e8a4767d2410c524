"""The class of films without findings, where no column is called so."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from cxr_jax.data import source
from cxr_jax.data.records import Records
from cxr_jax.labels import NO_FINDING
from data_builders import packing


def table(labels, classes=("Mass", "Nodule")):
    labels = np.asarray(labels, np.float32)
    empty = np.full(len(labels), "")
    return Records(
        classes=classes,
        id=np.arange(len(labels)).astype(str),
        patient=empty,
        study=empty,
        follow_up=np.zeros(len(labels), np.float32),
        age=np.zeros(len(labels), np.float32),
        sex=empty,
        view=empty,
        labels=labels,
    )


def test_it_is_where_all_findings_are_known_to_be_absent():
    nan = np.nan
    records = table([[0, 0], [1, 0], [1, nan], [0, nan], [nan, nan], [1, 1]])
    found = records.pick((NO_FINDING,))[:, 0]
    np.testing.assert_array_equal(found, [1, 0, 0, nan, nan, 0])


def test_columns_come_in_the_order_asked_for():
    records = table([[0, 1], [1, 0], [0, 0]])
    found = records.pick(("Nodule", NO_FINDING, "Mass"))
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert found.dtype == np.float32
    assert records.missing(("Mass", NO_FINDING, "Hernia")) == ["Hernia"]


def test_a_column_of_that_name_is_taken_as_it_stands():
    records = table([[0, 0], [0, 1]], classes=("Mass", NO_FINDING))
    np.testing.assert_array_equal(records.pick((NO_FINDING,))[:, 0], [0, 1])


def test_other_tables_of_the_same_columns_are_read_alike():
    records = table([[0, 0], [0, 1]])
    truth = np.float32([[1, 0], [0, 0]])
    found = records.pick((NO_FINDING, "Mass"), truth)
    np.testing.assert_array_equal(found, [[0, 1], [1, 0]])
    same = dataclasses.replace(records, labels=truth)
    np.testing.assert_array_equal(same.pick((NO_FINDING, "Mass")), found)


def test_true_labels_may_be_learnt_where_they_are_known(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (6, 2)).astype(np.float32)

    class Builder(packing.Packed, skip_registration=True):
        name = "truths"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="8px"),)

        def layout(self):
            return packing.Layout(size=8, classes=("Mass", "Nodule"), truth=True)

        def films(self):
            for k in range(6):
                yield packing.Film(
                    id=str(k),
                    image=np.zeros((8, 8), np.uint8),
                    labels=1 - truth[k],
                    truth=truth[k],
                )

    builder = Builder(data_dir=tmp_path, config="8px")
    builder.download_and_prepare(file_format="array_record")
    dataset = source.open_dataset("truths/8px", data_dir=tmp_path)
    index, classes = np.arange(6), ("Nodule", "Mass", NO_FINDING)
    wanted = np.column_stack([truth[:, ::-1], truth.sum(axis=1) == 0])
    learnt, plain = (
        source.Reader(dataset, source.Fields(classes=classes, learn_truth=asked)).read(
            index
        )
        for asked in (True, False)
    )
    np.testing.assert_array_equal(learnt["labels"], wanted)
    flipped = np.column_stack([1 - truth[:, ::-1], truth.sum(axis=1) == 2])
    np.testing.assert_array_equal(plain["labels"], flipped)
    assert "truth" not in plain
