"""Layouts, meshes, and two real processes that exchange rows."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from cxr_jax import sharding
from cxr_jax.errors import ConfigError
from cxr_jax.sharding import Layout


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_rows_of_all_processes_are_the_batch(count):
    rows = [np.arange(12)[Layout(p, count).rows(12)] for p in range(count)]
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(12))
    assert len({len(part) for part in rows}) == 1


@pytest.mark.parametrize("size", [0, -4, 6])
def test_batches_that_do_not_divide_are_refused(size):
    with pytest.raises(ConfigError, match=f"batch_size={size} .*multiple of 4"):
        Layout(0, 4).rows(size)


def test_batches_must_divide_among_devices():
    mesh = sharding.make_mesh(jax.devices()[:1])
    sharding.check_batch_size(3, mesh)
    with pytest.raises(ConfigError, match="eval.batch_size=0 .* 1 devices"):
        sharding.check_batch_size(0, mesh, key="eval.batch_size")


def test_one_process_round_trip():
    mesh = sharding.make_mesh(jax.devices()[:1])
    batch = {"x": np.arange(8.0, dtype=np.float32).reshape(4, 2), "none": None}
    placed = sharding.to_global(batch, mesh)
    assert placed["x"].sharding == sharding.batch_sharding(mesh)
    for back in (sharding.local_rows(placed), sharding.gather(placed)):
        assert isinstance(back["x"], np.ndarray) and back["none"] is None
        np.testing.assert_array_equal(back["x"], batch["x"])


def test_no_variables_mean_one_process():
    sharding.initialize_from_env({})
    assert sharding.layout() == Layout(0, 1)


COMPLETE = {
    "CXR_COORDINATOR": "127.0.0.1:5",
    "CXR_NUM_PROCESSES": "2",
    "CXR_PROCESS_ID": "0",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"CXR_PROCESS_ID": ""}, "CXR_PROCESS_ID is not: set all, or none"),
        ({"CXR_PROCESS_ID": "2"}, "CXR_PROCESS_ID='2': give 0 to 1"),
        ({"CXR_NUM_PROCESSES": "0"}, "CXR_NUM_PROCESSES='0': .* at least 1"),
        ({"CXR_COORDINATOR": "here"}, "CXR_COORDINATOR='here': give host:port"),
        ({"CXR_DISTRIBUTED": "yes"}, "CXR_DISTRIBUTED='yes': give 'auto'"),
    ],
)
def test_wrong_variables_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        sharding.initialize_from_env(COMPLETE | changes)


PEER = """
import jax, numpy as np
from cxr_jax import sharding
sharding.initialize_from_env()
here = sharding.layout()
assert here.count == 2 and jax.device_count() == 4, (here, jax.devices())
mesh = sharding.make_mesh()
owners = [device.process_index for device in mesh.devices.flat]
assert owners == [0, 0, 1, 1], owners

# Rows come back to the process that gave them, and everyone can see all of them.
whole = {"x": np.arange(24, dtype=np.float32).reshape(8, 3), "i": np.arange(8)}
mine = jax.tree.map(lambda leaf: leaf[here.rows(8)], whole)
placed = sharding.to_global({"x": mine["x"]}, mesh)
assert placed["x"].shape == (8, 3)
assert np.array_equal(sharding.local_rows(placed)["x"], mine["x"])
assert np.array_equal(sharding.gather(placed)["x"], whole["x"])
total = jax.jit(lambda x: x.sum(0), out_shardings=sharding.replicated(mesh))(placed["x"])
assert np.array_equal(sharding.local_rows(total), whole["x"].sum(0))
assert np.array_equal(sharding.gather(total), whole["x"].sum(0))

# Host rows of any type: 64-bit ones arrive whole.
for leaf in (whole["i"] + 2**40, whole["i"] / 3, whole["i"] % 2 == 0, whole["x"]):
    got = sharding.gather(leaf[here.rows(8)])
    assert got.dtype == leaf.dtype and np.array_equal(got, leaf), (got, leaf)
print("agreed", here.index)
"""


def test_two_processes_exchange_rows():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "CXR_COORDINATOR": address,
        "CXR_NUM_PROCESSES": "2",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    peers = [
        subprocess.Popen(
            [sys.executable, "-c", PEER],
            env=env | {"CXR_PROCESS_ID": str(p)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for p in range(2)
    ]
    try:
        for p, peer in enumerate(peers):
            out, err = peer.communicate(timeout=120)
            assert peer.returncode == 0 and f"agreed {p}" in out, err
    finally:
        for peer in peers:
            if peer.poll() is None:
                peer.kill()
                peer.communicate()
