"""Training films for the report: by rule, with all their labels, small."""

import types

import numpy as np
import pytest

from cxr_jax import sheet
from cxr_jax.types import Batch

NAN = np.nan
IDS = [f"{k}.png" for k in range(8)]
# By the digest of their ids, as sha256sum gives it.
ORDER = (6, 0, 7, 2, 1, 4, 3, 5)


def records(labels, classes=("A", "B_b")):
    return types.SimpleNamespace(
        classes=classes, id=np.array(IDS), labels=np.array(labels, np.float32)
    )


def placed(by_place):
    """Labels so that the k-th film by digest has the k-th row."""
    labels = np.zeros((8, 2))
    for place, row in enumerate(by_place):
        labels[ORDER[place]] = row
    return labels


def test_the_first_by_digest_that_is_free():
    labels = placed([(NAN, 0), (1, 1), (0, 1), (1, 0), *[(0, 0)] * 4])
    chosen = sheet.choose_films(records(labels), np.arange(8))
    # The second film has both labels; A took it, so B has the third.
    assert chosen == [(ORDER[1], "A"), (ORDER[2], "B_b"), (ORDER[0], sheet.NONE)]


def test_a_film_stands_twice_where_no_other_has_the_label():
    labels = placed([(0, 0), (1, 1), (1, 0), *[(0, 0)] * 5])
    found = sheet.choose_films(records(labels), np.arange(8))
    chosen = {name: film for film, name in found}
    assert chosen["A"] == chosen["B_b"] == ORDER[1]


def test_only_films_of_the_part_and_labels_that_it_has():
    labels = placed([(1, 1), (0, 0), (1, 0), *[(NAN, NAN)] * 5])
    part = np.array(ORDER[1:])
    chosen = sheet.choose_films(records(labels), part)
    assert chosen == [(ORDER[2], "A"), (ORDER[1], sheet.NONE)]
    assert sheet.choose_films(records(labels), np.array(ORDER[3:])) == []


def load(index, side=4):
    image = np.broadcast_to(
        np.asarray(index, np.uint8)[:, None, None, None], (len(index), side, side, 1)
    )
    return Batch(image=image, labels=None, mask=None, position=None, index=index)


@pytest.mark.parametrize(("side", "kept"), [(4, 4), (160, 160), (500, 160)])
def test_what_is_read_is_what_was_chosen_and_comes_back(tmp_path, side, kept):
    labels = placed([(1, 1), (0, 1), *[(0, 0)] * 6])
    table = records(labels)
    chosen = sheet.choose_films(table, np.arange(8))
    found = sheet.collect(table, chosen, load=lambda index: load(index, side))
    assert found.films.shape == (3, kept, kept) and found.films.dtype == np.uint8
    np.testing.assert_array_equal(found.films[:, 0, 0], [k for k, _ in chosen])
    assert found.titles.tolist() == ["A", "B_b", sheet.NONE]
    assert found.labels.tolist() == ["A\nB_b", "B_b", ""]
    assert found.ids.tolist() == [IDS[k] for k, _ in chosen]
    sheet.write(tmp_path, found)
    again = sheet.read(tmp_path)
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_without_films_nothing_is_written(tmp_path):
    assert sheet.collect(records(placed([])), [], load=load) is None
    sheet.write(tmp_path, None)
    assert sheet.read(tmp_path) is None and not list(tmp_path.iterdir())
