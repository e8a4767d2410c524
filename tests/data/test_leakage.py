"""The guard: whoever was trained on is found again, by film and by patient."""

import csv
import gzip
import io

import numpy as np
import pytest

from cxr_jax.data import leakage, splits
from cxr_jax.data.leakage import Films, check_unseen
from cxr_jax.data.records import Records
from cxr_jax.errors import DataError

OWN = {
    "train": Films(ids=["a0", "a1", "b0", "x0"], patients=["a", "a", "b", ""]),
    "val": Films(ids=["c0"], patients=["c"]),
    "test": Films(ids=["d0"], patients=["d"]),
}


def records(count=60):
    words, nothing = np.full(count, ""), np.full(count, np.nan, np.float32)
    listed = ["train", "val", "test"]
    return Records(
        classes=("Mass",),
        id=np.array([f"{k}.png" for k in range(count)]),
        patient=np.array([f"p{k // 3}" if k else "" for k in range(count)]),
        study=words,
        follow_up=nothing,
        age=nothing,
        sex=words,
        view=words,
        labels=np.zeros((count, 1), np.float32),
        splits={
            "patient_disjoint": np.array([listed[k // 3 % 3] for k in range(count)])
        },
    )


def test_the_files_of_a_split_come_back(tmp_path):
    table = records()
    split = splits.split_records(
        table, "patient_disjoint", dataset="d", version="1", required=()
    )
    content = leakage.format_ids(table, split.parts)
    assert content == leakage.format_ids(table, split.parts)
    (tmp_path / leakage.FILE).write_bytes(content)
    found = leakage.read_ids(tmp_path / leakage.FILE)
    for part, films in found.items():
        # The digest of the passport vouches for the file.
        passport = split.passport["parts"][part]
        assert splits.ids_sha256(films.ids) == passport["sha256"]
        assert len(set(films.patients) - {""}) == passport["patients"]
    assert set(found) == {"train", "val", "test"}
    rows = list(csv.reader(io.StringIO(gzip.decompress(content).decode())))
    assert rows[0] == ["part", "id", "patient"] and len(rows) == 61
    assert ["train", "0.png", ""] in rows


@pytest.mark.parametrize(
    ("ids", "patients", "words"),
    [
        (
            ["a0", "e0"],
            ["a", "e"],
            "of 2 evaluated films 1 are films of this run's train",
        ),
        (
            ["a9", "b9", "e0"],
            ["a", "b", "e"],
            "0 are films .* train .* 2 more .* a9, b9;",
        ),
        (["c0", "c1"], ["c", "c"], "1 are films of this run's val part and 1 more"),
        (["x0"], [""], "1 are films of this run's train part and 0 more"),
    ],
)
def test_what_was_seen_is_refused_with_counts_and_examples(ids, patients, words):
    films = Films(ids=ids, patients=patients)
    with pytest.raises(DataError, match=rf"official/test: .*{words}") as caught:
        check_unseen(films, OWN, what="official/test")
    assert "eval.allow_seen=True" in str(caught.value) and "\n" not in str(caught.value)
    assert check_unseen(films, OWN, what="official/test", allowed=True)


def test_strangers_pass():
    """Test films of the run's own, new ones, and films without a patient."""
    films = Films(ids=["d0", "d1", "e0", "x9"], patients=["d", "d", "e", ""])
    found = check_unseen(films, OWN, what="test")
    assert not found and found.seen == {"train": 0, "val": 0} == found.related
    val = check_unseen(OWN["val"], OWN, what="val", against=("train",))
    assert not val


def test_another_scheme_is_caught_and_the_same_is_not():
    """Patients that one scheme tests on are mostly trained on in another."""
    table = records(90)
    own, other = (
        splits.split_records(table, scheme, dataset="d", version="1", seed=1)
        for scheme in ("patient_disjoint", "image_level")
    )
    parts = {part: Films.of(table, index) for part, index in own.parts.items()}
    test = {
        name: Films.of(table, s.parts["test"])
        for name, s in (("own", own), ("other", other))
    }
    assert not check_unseen(test["own"], parts, what="test")
    with pytest.raises(DataError, match="image_level/test"):
        check_unseen(test["other"], parts, what="image_level/test")
    leaking = {part: Films.of(table, index) for part, index in other.parts.items()}
    found = check_unseen(test["other"], leaking, what="test", allowed=True)
    assert found.seen == {"train": 0, "val": 0} and sum(found.related.values())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "nobody knows which films"),
        (b"part,id,patient\n", "damaged"),
        (gzip.compress(b"", mtime=0), "part,id,patient are allowed"),
        (gzip.compress(b"part,id\ntrain,1\n", mtime=0), "part,id,patient are allowed"),
        (
            gzip.compress(b"part,id,patient\ntrain,1\n", mtime=0),
            "a row of another length",
        ),
        (leakage.format_ids(records(), {"train": np.arange(9)})[:-20], "damaged"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused(tmp_path, content, words):
    path = tmp_path / leakage.FILE
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        leakage.read_ids(path)
