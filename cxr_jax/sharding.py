"""Devices and processes: the mesh, how arrays lie on it, and which rows a process reads.

There is one mesh axis, ``data``: batches are split over it, everything else is
replicated. Device order follows process order, so that row r of a global batch lies on
the same process that read position r, whatever the number of processes.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cxr_jax.errors import ConfigError

AXIS = "data"

# JAX waits 100 s by default: a killed peer would hold the others that long.
HEARTBEAT_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Layout:
    """This process among its peers.

    Attributes:
        index: 0 .. count - 1.
        count: number of processes, at least 1.
    """

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> slice:
        """The rows of a global batch that this process reads.

        Args:
            batch_size: rows of the global batch, a multiple of ``count``.

        Returns:
            ``slice(index · B/P, (index + 1) · B/P)``.

        Raises:
            ConfigError: if the rows do not divide among the processes.
        """
        if batch_size < 1 or batch_size % self.count:
            raise ConfigError(
                f"batch_size={batch_size} cannot be split over {self.count} processes:"
                f" give a positive multiple of {self.count}"
            )
        share = batch_size // self.count
        return slice(self.index * share, (self.index + 1) * share)


ONE_PROCESS = Layout()


def initialize_from_env(env: Mapping[str, str] | None = None) -> None:
    """Joins the other processes of this run, if the environment names any.

    Must come before anything that touches a device. Three cases:
    ``CXR_COORDINATOR`` (host:port of process 0), ``CXR_NUM_PROCESSES`` and
    ``CXR_PROCESS_ID``, as set by ``launch/local.sh``; ``CXR_DISTRIBUTED=auto``, where
    JAX reads what the cluster (TPU pod, SLURM, Open MPI, Kubernetes) tells it; neither,
    which is one process. A peer that dies is noticed within HEARTBEAT_SECONDS.

    Args:
        env: variables, ``os.environ`` unless given.

    Raises:
        ConfigError: a variable is missing or out of range.
    """
    env = os.environ if env is None else env
    names = ("CXR_COORDINATOR", "CXR_NUM_PROCESSES", "CXR_PROCESS_ID")
    given = [name for name in names if env.get(name)]
    how = env.get("CXR_DISTRIBUTED", "")
    if how not in ("", "auto"):
        raise ConfigError(f"CXR_DISTRIBUTED={how!r}: give 'auto', or leave it unset")
    if not given and not how:
        return
    if given and len(given) < len(names):
        missing = ", ".join(name for name in names if name not in given)
        raise ConfigError(f"{given[0]} is set but {missing} is not: set all, or none")
    # Only CPU devices use this; it is JAX's default, said here because runs rely on it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    arguments = _explicit(*(env[name] for name in names)) if given else {}
    jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **arguments)


def layout() -> Layout:
    """This process among its peers, as JAX counts them (starts the backend)."""
    return Layout(index=jax.process_index(), count=jax.process_count())


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """One axis, ``data``, over all devices, in process order.

    Not ``jax.make_mesh``: it may reorder devices for the network's sake, and the rows a
    process reads would no longer be the rows it holds.

    Args:
        devices: all devices of all processes unless given.

    Returns:
        The mesh; its axis is left to the compiler (Auto).
    """
    devices = jax.devices() if devices is None else devices
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.asarray(ordered), (AXIS,), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First axis over the devices, the others whole."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(batch_size: int, mesh: Mesh, *, key: str = "batch_size") -> None:
    """Raises ConfigError unless a global batch divides among the devices.

    Args:
        batch_size: rows of the global batch.
        mesh: from ``make_mesh``.
        key: name of the config key, for the message.
    """
    if batch_size < 1 or batch_size % mesh.size:
        raise ConfigError(
            f"{key}={batch_size} cannot be split over {mesh.size} devices:"
            f" give a positive multiple of {mesh.size}"
        )


def to_global(batch: Any, mesh: Mesh) -> Any:
    """Puts this process's rows on its devices, as a slice of one global batch.

    Args:
        batch: pytree of host arrays ``[B/P, ...]``, the rows ``Layout.rows`` names.
        mesh: from ``make_mesh``.

    Returns:
        The same pytree of ``jax.Array`` ``[B, ...]``, sharded along the first axis.
    """
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch
    )


def wait_for_peers(name: str) -> None:
    """Returns when every process has come to the point of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def local_rows(tree: Any) -> Any:
    """The rows of global arrays that this process holds, on the host.

    The counterpart of ``to_global``: nothing crosses between processes.

    Args:
        tree: pytree of arrays sharded along the first axis, or replicated.

    Returns:
        The same pytree of NumPy arrays: ``[B/P, ...]``, replicated ones whole.
    """
    return jax.tree.map(_local, tree)


def gather(tree: Any) -> Any:
    """All rows of all processes, on every host, in process order.

    Every process must call it, with the same shapes.

    Args:
        tree: pytree of global arrays ``[B, ...]``, or of host arrays ``[B/P, ...]``
            that each process holds its own rows of; any dtype of fixed width.

    Returns:
        The same pytree of NumPy arrays ``[B, ...]``.
    """
    return jax.tree.map(_gather, tree)


def _explicit(coordinator: str, count: str, index: str) -> dict[str, Any]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"CXR_COORDINATOR={coordinator!r}: give host:port")
    if not count.isdigit() or int(count) < 1:
        raise ConfigError(f"CXR_NUM_PROCESSES={count!r}: give a number of at least 1")
    if not index.isdigit() or int(index) >= int(count):
        raise ConfigError(f"CXR_PROCESS_ID={index!r}: give 0 to {int(count) - 1}")
    local = host in ("127.0.0.1", "localhost")
    return {
        "coordinator_address": coordinator,
        "num_processes": int(count),
        "process_id": int(index),
        "cluster_detection_method": "deactivate",
        # A run on one machine opens no port to the network.
        "coordinator_bind_address": coordinator if local else None,
    }


def _local(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    shards = {shard.index[0].start: shard.data for shard in leaf.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def _gather(leaf: Any) -> np.ndarray:
    if jax.process_count() == 1 or not _is_local(leaf):
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    # As bytes: JAX would round 64-bit numbers to 32 on the way.
    rows = np.ascontiguousarray(leaf)
    raw = rows.reshape(*rows.shape, 1).view(np.uint8)
    return multihost_utils.process_allgather(raw, tiled=True).view(rows.dtype)[..., 0]


def _is_local(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
