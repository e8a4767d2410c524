"""Records → fixed-shape Batches: endless and never padded to train, padded to evaluate.

One Grain element is one batch of this process, so element number = step, reading ahead
happens in Grain's threads, and there is nothing of Grain to save: the state of training
data is the step. Pixels stay uint8; floats are made on the device.
"""

import collections
import dataclasses
from collections.abc import Iterator

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from cxr_jax.data.order import Order, Shuffled, draw
from cxr_jax.data.source import (
    PIXELS_AND_LABELS,
    Dataset,
    Fields,
    Reader,
    open_dataset,
)
from cxr_jax.errors import DataError
from cxr_jax.sharding import ONE_PROCESS, Layout, to_global
from cxr_jax.types import Batch

__all__ = [
    "Dataset",
    "Fields",
    "Layout",
    "Order",
    "Shuffled",
    "device_batches",
    "eval_batches",
    "eval_steps",
    "open_dataset",
    "train_batches",
    "train_records",
]

# Steps of an endless stream; Grain wants a length.
_FOREVER = 2**62


def train_batches(
    dataset: Dataset,
    indices: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    layout: Layout = ONE_PROCESS,
    fields: Fields = PIXELS_AND_LABELS,
    order: Order | None = None,
    threads: int = 2,
    ahead: int = 4,
) -> Iterator[Batch]:
    """This process's slices of the endless global stream.

    At step s process p of P reads positions s·B + p·B/P .. s·B + (p+1)·B/P - 1. Position
    k is draw k mod n of epoch k // n, whose order is shuffled globally by (seed, epoch)
    before it is sliced: the films of a step do not depend on P. Batches run across the
    ends of epochs; none is padded.

    Args:
        dataset: from ``open_dataset``.
        indices: record numbers of the split, ``[n]``.
        batch_size: rows of the global batch B, a multiple of ``layout.count``.
        seed: of the order.
        start_step: the first step wanted; starting there equals continuing.
        layout: this process among its peers.
        fields: what to read beyond pixels and labels.
        order: another order of 0 .. n - 1; shuffled by ``seed`` unless given.
        threads: that read ahead; 0 reads when asked.
        ahead: batches read ahead.

    Returns:
        An endless iterator of Batches of NumPy arrays ``[B/P, ...]``. ``position`` is
        modulo 2³².

    Raises:
        DataError: no records, or fields that the dataset lacks.
        ConfigError: the batch does not divide among the processes.
    """
    indices = np.asarray(indices, np.int64)
    order = order or Shuffled(length=len(indices), seed=seed)
    rows = layout.rows(batch_size)
    reader = Reader(dataset, fields)

    def batch_at(step: int) -> Batch:
        first = (start_step + step) * batch_size
        position = np.arange(first + rows.start, first + rows.stop)
        index = indices[draw(order, position)]
        return _batch(index, position, np.ones(len(index), bool), reader.read(index))

    return _stream(_Steps(_FOREVER, batch_at), threads=threads, ahead=ahead)


def train_records(
    indices: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    step: int,
    order: Order | None = None,
) -> np.ndarray:
    """Record numbers of the global training batch at a step, without reading films.

    Args:
        indices: record numbers of the split, ``[n]``.
        batch_size: rows of the global batch B.
        seed: of the order.
        step: 0, 1, ...
        order: as given to ``train_batches``.

    Returns:
        int64 ``[B]``.
    """
    indices = np.asarray(indices, np.int64)
    order = order or Shuffled(length=len(indices), seed=seed)
    return indices[draw(order, step * batch_size + np.arange(batch_size))]


def eval_steps(count: int, *, batch_size: int) -> int:
    """Number of batches that cover ``count`` films, the last one padded: ⌈n / B⌉."""
    return -(-count // batch_size)


def eval_batches(
    dataset: Dataset,
    indices: np.ndarray,
    *,
    batch_size: int,
    layout: Layout = ONE_PROCESS,
    fields: Fields = PIXELS_AND_LABELS,
    threads: int = 2,
    ahead: int = 4,
) -> Iterator[Batch]:
    """Every film once, in the order given; the same number of batches on each process.

    Rows beyond the end are padding: ``mask`` False, ``index`` -1, labels NaN, zeros
    elsewhere.

    Args:
        dataset: from ``open_dataset``.
        indices: record numbers of the split, ``[n]``.
        batch_size: rows of the global batch B, a multiple of ``layout.count``.
        layout: this process among its peers.
        fields: what to read beyond pixels and labels.
        threads: that read ahead; 0 reads when asked.
        ahead: batches read ahead.

    Returns:
        An iterator of ⌈n / B⌉ Batches of NumPy arrays ``[B/P, ...]``; ``position``
        counts rows of the split.

    Raises:
        DataError: no records, or fields that the dataset lacks.
        ConfigError: the batch does not divide among the processes.
    """
    indices = np.asarray(indices, np.int64)
    if not len(indices):
        raise DataError(
            "0 films to evaluate, at least 1 is needed: look at the split's counts in"
            " split.json"
        )
    rows = layout.rows(batch_size)
    reader = Reader(dataset, fields)

    def batch_at(step: int) -> Batch:
        first = step * batch_size
        position = np.arange(first + rows.start, first + rows.stop)
        mask = position < len(indices)
        # Padding rows read the last film, so that every process reads something of the
        # right shape, and are blanked afterwards.
        index = indices[np.minimum(position, len(indices) - 1)]
        return _blank(_batch(index, position, mask, reader.read(index)))

    steps = eval_steps(len(indices), batch_size=batch_size)
    return _stream(_Steps(steps, batch_at), threads=threads, ahead=ahead)


def device_batches(
    batches: Iterator[Batch], mesh: Mesh, *, ahead: int = 2
) -> Iterator[Batch]:
    """Batches on the devices, their transfers started before they are asked for.

    Args:
        batches: of host arrays ``[B/P, ...]``.
        mesh: from ``sharding.make_mesh``.
        ahead: batches in transfer beside the one in use.

    Returns:
        The same batches, in order, as global arrays ``[B, ...]``.
    """
    waiting = collections.deque()
    for batch in batches:
        waiting.append(to_global(batch, mesh))
        if len(waiting) > ahead:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


class _Steps:
    """What Grain calls a data source: step → batch."""

    def __init__(self, length: int, batch_at):
        self._length, self._batch_at = length, batch_at

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> Batch:
        return self._batch_at(step)


def _stream(steps: _Steps, *, threads: int, ahead: int) -> Iterator[Batch]:
    ahead = max(ahead, threads) if threads else 0
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    batches = iter(grain.MapDataset.source(steps).to_iter_dataset(options))

    def run():
        try:
            yield from batches
        finally:
            batches.close()

    return run()


def _batch(index: np.ndarray, position: np.ndarray, mask: np.ndarray, read) -> Batch:
    return Batch(
        mask=mask,
        position=position.astype(np.uint32),
        index=index.astype(np.int32),
        **read,
    )


def _blank(batch: Batch) -> Batch:
    """Empties the rows whose mask is False."""
    if batch.mask.all():
        return batch
    keep = batch.mask

    def only(leaf, fill=0):
        leaf = leaf.copy()
        leaf[~keep] = fill
        return leaf

    blank = jax.tree.map(only, batch)
    return dataclasses.replace(
        blank,
        labels=only(batch.labels, np.nan),
        truth=None if batch.truth is None else only(batch.truth, np.nan),
        index=only(batch.index, -1),
        position=batch.position,
    )
