"""Checkpoints that know whether they are sound.

Orbax writes each step atomically but has no checksum over what it wrote: a flipped bit
restores as a wrong weight. So every step carries digests of its values, computed before
the save, stored in the same atomic step, and recomputed after a restore. A step without
digests, or with others than its values give, is refused aloud and moved aside.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from cxr_jax.errors import CheckpointError
from cxr_jax.models.state import flatten

log = logging.getLogger(__name__)

# Odd, so that multiplying by it modulo 2^32 loses no bit (Knuth's multiplicative hash).
_KNUTH = np.uint32(2654435761)


@dataclasses.dataclass(frozen=True)
class Restored:
    """A sound step: its number, its state, and what was stored beside the state."""

    step: int
    state: Any
    meta: dict[str, Any]


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which leaves JAX's preemption service alone.

    It would tell the service its own step numbers; ``Stopper`` counts polls there, and
    all processes stop at one number.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class Checkpoints:
    """One folder of steps, the newest ``keep`` of them.

    Args:
        folder: ``checkpoints/latest`` or ``checkpoints/best`` of a workdir.
        keep: how many steps stay; a damaged newest step needs a second one.
        read_only: of a run that may be under way: nothing is made, tidied or moved.
    """

    def __init__(self, folder: epath.PathLike, *, keep: int, read_only: bool = False):
        self.folder, self.read_only = epath.Path(folder), read_only
        # Two folders may be written at once; their barriers must not meet.
        barriers = ocp.options.MultiprocessingOptions(
            barrier_sync_key_prefix=self.folder.name
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            save_interval_steps=0 if read_only else 1,
            create=not read_only,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=True,
            multiprocessing_options=barriers,
        )
        self._manager = _Manager(self.folder, options=options)

    def save(
        self, step: int, state: Any, meta: dict[str, Any], *, again: bool = False
    ) -> None:
        """Starts to write a step; the values are taken now, the disk is written later.

        A step that is there already is left alone if it holds the same values, else
        replaced (a run that was stopped within a validation saves that step twice).

        Args:
            step: step number.
            state: pytree of arrays.
            meta: anything JSON can hold; ``digests`` is added.
            again: write even if the step seems to hold these values: what lies on disk
                may be damaged.

        Raises:
            CheckpointError: an earlier write failed (a full disk reports itself late).
            RuntimeError: the folder was opened to be read only.
        """
        if self.read_only:
            raise RuntimeError(f"{self.folder} was opened to be read only")
        self.wait()
        meta = {**meta, "digests": digests(state), "sha256": sha256(state)}
        if step in self._manager.all_steps():
            if not again and self._holds(step, meta["digests"]):
                return
            self._guard(lambda: self._manager.delete(step))
        self._guard(
            lambda: self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
                ),
                force=True,
            )
        )

    def wait(self) -> None:
        """Returns when all saves are on disk.

        Raises:
            CheckpointError: a write failed.
        """
        self._guard(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self.wait()
        self._manager.close()

    def _holds(self, step: int, wanted: dict[str, int]) -> bool:
        try:
            return self.meta(step).get("digests") == wanted
        except Exception as error:  # noqa: BLE001  Orbax raises Exception itself
            log.warning("%s/%d is written again: %s", self.folder.name, step, error)
            return False

    def meta(self, step: int) -> dict[str, Any]:
        """What was stored beside the state of a step."""
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["meta"]

    def steps(self) -> list[int]:
        """Steps that were committed, oldest first."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def restore(
        self,
        abstract: Callable[[dict[str, Any]], Any],
        *,
        step: int | None = None,
        spare: "Checkpoints | None" = None,
    ) -> Restored | None:
        """The newest sound step, or None if there is no step at all.

        Damaged steps are logged, and moved to ``checkpoints/damaged`` once a sound one
        is found; where none is, or the folder is only read, nothing moves, and every
        further try says the same.

        Args:
            abstract: from a step's ``meta`` to the tree of ``jax.ShapeDtypeStruct``
                (with shardings) that the state is restored into.
            step: only this one.
            spare: another folder of the run; a damaged step is read there, if it holds
                the same one, and stays where it is.

        Raises:
            CheckpointError: there are steps, and none is sound.
        """
        steps = [s for s in self.steps() if step is None or s == step]
        refused: list[int] = []
        for candidate in reversed(steps):
            restored = self._sound(candidate, abstract)
            if restored is None and spare and candidate in spare.steps():
                restored = spare._sound(candidate, abstract)
            if restored is not None:
                for damaged in refused:
                    self._move_aside(damaged)
                return restored
            refused.append(candidate)
        if steps:
            nor = f", and {spare.folder.name} has no sound one of them" if spare else ""
            raise CheckpointError(
                f"none of the checkpoints {steps} in {self.folder} could be read{nor}; if"
                " the disk is in order they are damaged: start again in a new workdir"
            )
        return None

    def _sound(
        self, step: int, abstract: Callable[[dict[str, Any]], Any]
    ) -> Restored | None:
        """A step if it is sound on every process; else that is logged."""
        restored, fault = self._read(step, abstract)
        # Every process must take the same step, or none of them.
        if np.all(multihost_utils.process_allgather(np.array(restored is not None))):
            return restored
        log.error("checkpoint %s/%d refused: %s", self.folder.name, step, fault)
        return None

    def _read(
        self, step: int, abstract: Callable[[dict[str, Any]], Any]
    ) -> tuple[Restored | None, str]:
        # Whatever a damaged file makes the reader raise, the answer is the same: refuse
        # this step, say why, try the one before.
        try:
            meta = self.meta(step)
            args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract(meta)))
            state = self._manager.restore(step, args=args)["state"]
        except Exception as error:  # noqa: BLE001  Orbax raises Exception itself
            return None, f"{type(error).__name__}: {_reason(error)}"
        if "digests" not in meta:
            return None, "it carries no digests"
        found = digests(state)
        wrong = sorted(k for k in found if found[k] != meta["digests"].get(k))
        if wrong:
            return (
                None,
                f"values changed on disk in {len(wrong)} arrays, first {wrong[0]}",
            )
        if meta["sha256"] not in (None, sha256(state)):
            return None, "the SHA-256 of its values is another"
        return Restored(step, state, meta), ""

    def _move_aside(self, step: int) -> None:
        if self.read_only:
            return
        if jax.process_index() == 0:
            target = self.folder.parent / "damaged" / f"{self.folder.name}-{step}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rmtree()
            (self.folder / str(step)).rename(target)
        multihost_utils.sync_global_devices(f"moved {step}")
        self._manager.reload()

    def _guard(self, action: Callable[[], Any]) -> None:
        try:
            action()
        # TensorStore reports a full disk as ValueError, the file system as OSError.
        except (OSError, ValueError, RuntimeError) as error:
            steps = self.steps()
            raise CheckpointError(
                f"a checkpoint could not be written to {self.folder}: {_reason(error)}; "
                f"steps on disk: {steps}; mend that and run the same command again"
            ) from error


def _reason(error: Exception) -> str:
    text = str(error)
    for known in ("No space left", "File too large", "Disk quota", "Permission denied"):
        if known.lower() in text.lower():
            return known
    return (text.splitlines() or [type(error).__name__])[0][:200]


def digests(state: Any) -> dict[str, int]:
    """An order-aware 32-bit sum of every leaf, independent of its layout over devices.

    Each value's bits are multiplied by an odd number that depends on its position, and
    summed modulo 2^32: a single flipped bit and a swap of two values both show.
    """
    flat = flatten(state)
    sums = jax.device_get(_sums(flat))
    return {name: int(value) for name, value in sums.items()}


@jax.jit
def _sums(flat: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: _sum(jnp.asarray(leaf)) for name, leaf in flat.items()}


def _sum(array: jax.Array) -> jax.Array:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    size = array.dtype.itemsize
    kind = {1: jnp.uint8, 2: jnp.uint16}.get(size, jnp.uint32)
    words = jax.lax.bitcast_convert_type(array, kind).astype(jnp.uint32).reshape(-1)
    place = jnp.arange(words.size, dtype=jnp.uint32)
    # 2p+1 is odd: a change of one word always changes the sum.
    return jnp.sum(words * ((2 * place + 1) * _KNUTH), dtype=jnp.uint32)


def sha256(state: Any) -> str | None:
    """SHA-256 over names, types, shapes and bytes; None where no host holds all arrays."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(state).items()):
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return None
        array = host(leaf)
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def host(leaf: Any) -> np.ndarray:
    """A leaf as NumPy, from this host's own copy where it is replicated over hosts."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return np.asarray(leaf.addressable_data(0))
    return np.asarray(leaf)
