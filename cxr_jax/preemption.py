"""Stopping when asked: SIGTERM and SIGINT, at every stage of a run.

Before the first step nothing is unsaved, so the process leaves at once, even from
within a compilation. From then on the loop polls between steps and between batches of
an evaluation, saves, and leaves with code 75, which launchers take as "run me again".
"""

import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

from cxr_jax.endings import STOPPED


class Stopped(Exception):
    """The run was asked to stop, and what it had is saved."""


class Stopper:
    """Watches for signals; all processes agree on the moment to stop.

    With several processes a notice to one of them is spread by JAX's preemption
    service, which also picks the poll at which all stop; every process must therefore
    poll equally often. A single process has no such service and handles its signals
    here.
    """

    def __init__(self) -> None:
        self._asked = False
        self._unsaved = False
        self._polls = 0
        self._many = jax.process_count() > 1

    def install(self) -> None:
        """Takes over SIGTERM and SIGINT for the rest of the process."""
        if self._many:
            # The service listens to SIGTERM in C++; Ctrl-C shall mean the same.
            signal.signal(
                signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM)
            )
            return
        # A Python handler waits until XLA has compiled. The wake-up pipe is written at
        # once by the C handler, and read by a thread: the compiler releases the GIL.
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()

    def _watch(self, reader: int) -> None:
        while number := os.read(reader, 1):
            name = signal.Signals(number[0]).name
            if not self._unsaved:
                print(f"{name}: nothing to save, stopping", file=sys.stderr, flush=True)
                os._exit(STOPPED)
            print(f"{name}: saving, then stopping", file=sys.stderr, flush=True)
            self._asked = True

    def begin(self) -> None:
        """From here on there is something to save."""
        self._unsaved = True

    def end(self) -> None:
        """Everything is saved; a signal may end the process at once."""
        self._unsaved = False

    def poll(self) -> bool:
        """Whether to save and stop now; the same answer on every process."""
        self._polls += 1
        if self._many:
            return multihost_utils.reached_preemption_sync_point(self._polls)
        return self._asked
