"""Work spread over processes: results in order, and no process outlives who asked."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from typing import TypeVar

from cxr_jax.endings import SIGNALS

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
    _start_tracker()
    # Spawned, not forked: the parent may hold threads of other libraries.
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start
    ) as pool:
        try:
            with _signals_held():
                # Starts the processes.
                results = pool.map(work, items, chunksize=chunk)
            yield from results
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_tracker() -> None:
    """Starts what frees the pool's semaphores, before the pool would.

    A signal may end this process at once. The tracker then does what it is there for; its
    warning that it had to would stand below our line.
    """
    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = f"{before},{quiet}" if before else quiet
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ["PYTHONWARNINGS"]
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals wait for the end of the block; processes started within it hold them back.

    Ctrl-C reaches the workers as well as their parent. It is the parent that stops, and
    they leave with it: at any time, even while they import. The parent itself must not
    leave between starting a process and telling it what to do.
    """
    asked: list[int] = []
    # Held back here, a signal may reach a thread of a library, and Python then runs the
    # handler here all the same. Only the main thread has handlers.
    main = threading.current_thread() is threading.main_thread()
    handlers = {
        number: signal.signal(number, lambda sent, _: asked.append(sent))
        for number in (SIGNALS if main else ())
    }
    # Whoever watches is woken by a signal to any thread, and may end the process at once.
    watched = signal.set_wakeup_fd(-1) if main else -1
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if main:
            signal.set_wakeup_fd(watched, warn_on_full_buffer=False)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in asked[:1]:
            signal.raise_signal(number)


def _start() -> None:
    import cv2

    # A broken pool ends its other processes by this one.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    cv2.setNumThreads(1)  # One process per core is enough.
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    # A killed parent cannot tell its workers to stop.
    multiprocessing.parent_process().join()
    os._exit(1)
