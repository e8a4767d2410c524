"""Reader files: what is taken, and what is refused by line."""

import numpy as np
import pytest

from cxr_jax.data import readers
from cxr_jax.errors import DataError

IDS = ("a.png", "b.png", "c.png", "unread.png")
CLASSES = ("Mass", "Nodule", "Hernia")
NAMES = ("ann", "bob", "cid", "dan")
HEADER = "id,reader,Nodule,Mass"


def write(tmp_path, lines):
    path = tmp_path / "readers.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def complete(films=("b.png", "a.png")):
    """Calls 0/1 by a rule: Nodule where reader + film is even, Mass by reader alone."""
    return [
        f"{film},{name},{(k + f) % 2},{int(k > 1)}"
        for f, film in enumerate(films)
        for k, name in enumerate(NAMES)
    ]


def read(path):
    return readers.read_readers(path, ids=IDS, classes=CLASSES)


def refused(tmp_path, lines, *words):
    with pytest.raises(DataError) as error:
        read(write(tmp_path, lines))
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_calls_stand_where_they_belong(tmp_path):
    found = read(write(tmp_path, complete()))
    assert (found.readers, found.classes) == (NAMES, ("Nodule", "Mass"))
    assert found.ids.tolist() == ["b.png", "a.png"]
    assert found.lines.tolist() == [2, 6]
    assert found.calls.shape == (2, 4, 2) and not found.absent.any()
    np.testing.assert_array_equal(found.calls[0, :, 0], [0, 1, 0, 1])
    np.testing.assert_array_equal(found.calls[1, :, 0], [1, 0, 1, 0])
    np.testing.assert_array_equal(found.calls[:, :, 1], [[0, 0, 1, 1]] * 2)


def test_lines_may_come_in_any_order_and_with_a_byte_order_mark(tmp_path):
    straight = read(write(tmp_path, complete()))
    path = write(tmp_path, complete()[::-1])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    found = read(path)
    assert found.readers == NAMES[::-1]
    there = found.select(straight.ids, straight.classes)
    np.testing.assert_array_equal(there.calls[:, ::-1], straight.calls)


def test_films_and_classes_are_chosen_by_name(tmp_path):
    found = read(write(tmp_path, complete()))
    chosen = found.select(["a.png"], ["Mass", "Nodule"])
    np.testing.assert_array_equal(chosen.calls[0], found.calls[1][:, ::-1])
    assert chosen.ids.tolist() == ["a.png"] and chosen.lines.tolist() == [6]
    with pytest.raises(DataError, match=r"unread\.png"):
        found.select(["unread.png"], ["Mass"])
    with pytest.raises(DataError, match="Hernia"):
        found.select(["a.png"], ["Hernia"])


def test_a_missing_pair_is_kept_and_named_where_it_is_needed(tmp_path):
    lines = complete()
    del lines[5]  # bob did not read a.png
    found = read(write(tmp_path, lines))
    assert found.absent.tolist() == [[False] * 4, [False, True, False, False]]
    assert np.isnan(found.calls[1, 1]).all()
    with pytest.raises(DataError, match=r"line 6: film a\.png.* bob.*'each_other'"):
        found.require_complete("each_other")
    found.select(["b.png"], ["Mass"]).require_complete("each_other")


def test_a_film_with_two_of_four_readers_is_refused(tmp_path):
    lines = complete()
    del lines[5:7]
    refused(tmp_path, lines, "line 6", "a.png", "2 of 4", "bob, cid", "at least 3")


def test_two_readers_who_read_everything_are_taken(tmp_path):
    found = read(write(tmp_path, [k for k in complete() if "ann" in k or "bob" in k]))
    assert found.readers == ("ann", "bob")


@pytest.mark.parametrize("cell", ["", "2", "-1", "0.5", "yes", "nan", "1.0", "１"])
def test_calls_other_than_0_and_1_are_refused_by_line(tmp_path, cell):
    lines = complete()
    lines[3] = f"b.png,dan,0,{cell}"
    refused(tmp_path, lines, "line 5", "'Mass'", repr(cell), "0 or 1")


def test_unknown_films_are_refused_by_line(tmp_path):
    lines = [*complete(), "z.png,ann,0,0"]
    refused(tmp_path, lines, "line 10", "'z.png'", "unknown")


def test_a_film_read_twice_by_one_reader_is_refused_by_both_lines(tmp_path):
    lines = [*complete(), "a.png,cid,1,1"]
    refused(tmp_path, lines, "line 10", "cid", "a.png", "line 8")


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ("id,reader,Nodule,Mas", "'Mas'"),
        ("reader,id,Nodule,Mass", "id,reader"),
        ("id,reader,Mass,Mass", "each class once"),
        ("id,reader", "each class once"),
        ("", "id,reader"),
    ],
)
def test_headers_are_refused_as_line_1(tmp_path, header, word):
    path = tmp_path / "readers.csv"
    path.write_text("\n".join([header, *complete()]))
    with pytest.raises(DataError, match="line 1: ") as error:
        read(path)
    assert word in str(error.value)


def test_other_damage_is_refused(tmp_path):
    refused(tmp_path, [*complete(), "c.png,ann,1"], "line 10", "3 cells")
    refused(tmp_path, [*complete(), "c.png,,1,1"], "line 10", "'reader'")
    refused(tmp_path, [], "no row")
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        read(tmp_path / "gone.csv")
    (tmp_path / "binary.csv").write_bytes(b"id,reader\xff\xfe")
    with pytest.raises(DataError, match="not text"):
        read(tmp_path / "binary.csv")
