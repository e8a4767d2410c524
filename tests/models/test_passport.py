"""A passport survives the trip through JSON, and nothing else passes as one."""

import dataclasses
import json

import pytest

from cxr_jax.errors import CheckpointError
from cxr_jax.models.passport import Passport

GRAY = Passport(
    architecture="densenet121",
    source="a test",
    licence="Apache-2.0",
    mean=(0.5,),
    std=(1 / 2048,),
    channels=1,
    size=224,
    classes=("Hernia", "Pleural Thickening"),
    sha256="0" * 64,
    notes="Größe",
)


def test_json_brings_back_the_same_passport():
    assert Passport.from_json(GRAY.to_json()) == GRAY


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", ""),
        ("licence", None),
        ("mean", [0.5, 0.5]),
        ("mean", [float("nan")]),
        ("mean", "0.5"),
        ("std", [0.0]),
        ("std", [True]),
        ("channels", 2),
        ("channels", 1.0),
        ("mean", [10**400]),
        ("std", [float("inf")]),
        ("size", 0),
        ("size", 15),
        ("size", 4097),
        ("size", 10**30),
        ("notes", json.loads("[" * 900 + "]" * 900)),
        ("size", "224"),
        ("classes", ["a", "a"]),
        ("classes", "Hernia"),
        ("outputs", "tanh"),
        ("sha256", "ABC"),
        ("notes", 3),
    ],
)
def test_a_wrong_field_is_named(field, value):
    text = json.dumps(dataclasses.asdict(GRAY) | {field: value})
    with pytest.raises(CheckpointError, match=field):
        Passport.from_json(text)


def test_a_key_too_many_or_too_few_is_named():
    fields = dataclasses.asdict(GRAY)
    with pytest.raises(CheckpointError, match="colour"):
        Passport.from_json(json.dumps(fields | {"colour": 1}))
    del fields["size"]
    with pytest.raises(CheckpointError, match="size"):
        Passport.from_json(json.dumps(fields))


def test_the_bounds_of_the_size_are_allowed():
    for size in (16, 4096):
        assert dataclasses.replace(GRAY, size=size).size == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 200_000,
        '{"mean":' * 200_000,
        '{"%s": 1}' % ("k" * 10**6),
    ],
)
def test_what_is_not_an_object_is_refused_in_one_line(text):
    with pytest.raises(CheckpointError) as caught:
        Passport.from_json(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
