"""groups.csv comes back, and is refused by line."""

import pytest

from cxr_jax.data import groups
from cxr_jax.errors import DataError


def test_it_comes_back_in_the_order_asked_for(tmp_path):
    columns = {"chest_tube": ["yes", "no", ""], "site": ["a", "b", "b"]}
    text = groups.format_groups(["x", "y", "z"], columns)
    (tmp_path / groups.NAME).write_text(text)
    got = groups.read_groups(tmp_path, ["z", "x", "new"])
    assert got["chest_tube"].tolist() == ["", "yes", ""]
    assert got["site"].tolist() == ["b", "a", ""]


def test_it_is_optional(tmp_path):
    assert groups.read_groups(tmp_path, ["x"]) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the header is"),
        ("name,tube\n", "the header is name,tube"),
        ("id,tube\nx,yes\ny\n", "line 3: 1 cells"),
        ("id,tube\nx,yes\nx,no\n", "line 3.*each id once"),
    ],
)
def test_bad_files_name_the_line(tmp_path, text, words):
    (tmp_path / groups.NAME).write_text(text)
    with pytest.raises(DataError, match=words):
        groups.read_groups(tmp_path, ["x"])
