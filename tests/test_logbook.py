"""The numbers of a run, read back as TensorBoard and as a script would."""

import json
import struct

import numpy as np
import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event


def masked(raw):
    """The checksum of TensorFlow's record files, by their specification."""
    crc = crc32c(raw)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(raw):
    """Length, its checksum, bytes, theirs: TensorFlow's TFRecord."""
    while raw:
        length, check = struct.unpack("<QI", raw[:12])
        data, end = raw[12 : 12 + length], raw[12 + length : 16 + length]
        assert check == masked(raw[:8]) and end == struct.pack("<I", masked(data))
        yield data
        raw = raw[16 + length :]


@pytest.fixture(scope="module")
def lines(finished):
    text = (finished / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_tensorboard_is_told_what_the_lines_say(finished, lines):
    (file,) = (finished / "tensorboard").iterdir()
    first, start, *events = map(Event.FromString, records(file.read_bytes()))
    assert "tfevents" in file.name and first.file_version == "brain.Event:2"
    assert start.session_log.status == 1 and start.step == 1  # START
    told = [
        (event.step, value.tag, value.simple_value)
        for event in events
        for value in event.summary.value
    ]
    place = ("step", "epoch", "split", "phase")
    said = [
        (line["step"], f"{line['split']}/{name}", value)
        for line in lines
        for name, value in line.items()
        if name not in place
    ]
    assert [row[:2] for row in told] == [row[:2] for row in said]
    # TensorBoard holds float32; what is null in JSON is NaN there.
    said = [np.nan if value is None else value for *_, value in said]
    np.testing.assert_allclose([value for *_, value in told], said, rtol=1e-6)
    assert {"train/loss", "train/examples_per_second", "val/auroc"} <= {
        tag for _, tag, _ in told
    }


def test_speed_is_a_number_of_every_training_line_and_of_no_other(lines):
    speeds = [ln["examples_per_second"] for ln in lines if ln["split"] == "train"]
    assert len(speeds) >= 4 and all(0 < speed < float("inf") for speed in speeds)
    assert not any("examples_per_second" in ln for ln in lines if ln["split"] == "val")
