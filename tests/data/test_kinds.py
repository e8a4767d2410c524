"""kinds.csv comes back, and is refused by line."""

import numpy as np
import pytest

from cxr_jax.data import kinds
from cxr_jax.errors import DataError

STUDIES = ["XR_HAND/patient00001/study1", 'odd, "quoted"/study1', "XR_WRIST/p/study2"]
COLUMNS = {
    "fracture": [True, False, True],
    "hardware": [1, 0, 0],
    "degenerative": np.array([0, 0, 1]),
    "other": np.array([False, True, False]),
}


def test_it_comes_back(tmp_path):
    text = kinds.format_kinds(STUDIES, COLUMNS)
    assert text.splitlines()[0] == "study,fracture,hardware,degenerative,other"
    assert text.splitlines()[1] == "XR_HAND/patient00001/study1,1,1,0,0"
    (tmp_path / kinds.NAME).write_text(text)
    found = kinds.read_kinds(tmp_path)
    assert list(found) == STUDIES
    for row, name in enumerate(STUDIES):
        want = {kind: bool(column[row]) for kind, column in COLUMNS.items()}
        assert found[name] == want


def test_it_is_optional(tmp_path):
    assert kinds.read_kinds(tmp_path) == {}


def test_nothing_abnormal_is_a_header_alone(tmp_path):
    text = kinds.format_kinds([], {"fracture": [], "other": []})
    assert text == "study,fracture,other\n"
    (tmp_path / kinds.NAME).write_text(text)
    assert kinds.read_kinds(tmp_path) == {}


def test_columns_of_another_length_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        kinds.format_kinds(STUDIES, {"fracture": [1, 0]})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the header is ; allowed is study"),
        ("study\na\n", "the header is study; allowed is study and one"),
        ("id,fracture\na,1\n", "the header is id,fracture"),
        ("study,fracture\na,1\nb\n", "line 3: b; .* 1 cells of 0 or 1"),
        ("study,fracture\na,1,0\n", "line 2: a,1,0"),
        ("study,fracture,other\na,1,yes\n", "line 2: a,1,yes; .* 2 cells of 0 or 1"),
        ("study,fracture\na,\n", "line 2: a,; allowed"),
        ("study,fracture\na,1\na,1\n", "line 3: a,1; .* did not come before"),
        ("study,fracture\na,1\n\nb,0\n", "line 3: ; allowed"),
    ],
)
def test_bad_files_name_the_line(tmp_path, text, words):
    (tmp_path / kinds.NAME).write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        kinds.read_kinds(tmp_path)
    assert kinds.NAME in str(caught.value) and "\n" not in str(caught.value)
