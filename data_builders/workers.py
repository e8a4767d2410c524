"""Work spread over processes: results in order, and no process outlives who asked."""

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Not on every system.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    chunk: int = 8,
) -> Iterator[Result]:
    """``map(work, items)``, by several processes.

    Args:
        work: function of a module, or a bound method of what can be pickled.
        items: what to work on.
        workers: processes; 0: in this one.
        chunk: items handed over at a time.
    """
    if not workers:
        yield from map(work, items)
        return
    # Spawned, not forked: the parent may hold threads of other libraries.
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start
    ) as pool:
        try:
            yield from pool.map(work, items, chunksize=chunk)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start() -> None:
    import cv2

    cv2.setNumThreads(1)  # One process per core is enough.
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    # A killed parent cannot tell its workers to stop.
    multiprocessing.parent_process().join()
    os._exit(1)
