"""What long work says off a terminal: now and then, in what was asked for, never padding."""

import pytest

from cxr_jax import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by ``step`` seconds whenever somebody looks at it."""
    times = {"now": 0.0, "step": 0.0}

    def look():
        times["now"] += times["step"]
        return times["now"]

    monkeypatch.setattr(progress.time, "monotonic", look)
    return times


def test_every_item_comes_and_short_work_says_nothing(clock, capsys):
    assert list(progress.track(range(50), total=50, what="films")) == [*range(50)]
    assert capsys.readouterr().err == ""


def test_long_work_says_how_far_it_is_and_when_it_is_done(clock, capsys):
    clock["step"] = 6.0
    assert len(list(progress.track(range(5), total=5, what="films"))) == 5
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["films: 2/5, 0/s", "films: 4/5, 0/s", "films: 5/5, 0/s"]


def test_padding_is_not_counted(clock, capsys):
    clock["step"] = 20.0
    batches = [[0] * 64] * 3
    list(progress.track(batches, total=150, what="films", size=len))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "films: 64/150",
        "films: 128/150",
        "films: 150/150",
    ]
