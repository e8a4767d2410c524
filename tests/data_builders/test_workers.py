"""Processes that share the work: when signals reach who starts them."""

import os
import signal
import threading

import pytest

from data_builders import workers


@pytest.fixture
def handled():
    """The signals that a handler was given, in order."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, before)


def test_signals_wait_while_processes_are_started(handled):
    with workers._signals_held():
        signal.raise_signal(signal.SIGTERM)
        assert not handled
    assert handled == [signal.SIGTERM]


def test_a_signal_to_a_thread_of_a_library_waits_too(handled):
    """Such a thread was there before, and holds nothing back."""
    go = threading.Event()

    def take():
        go.wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    thread = threading.Thread(target=take)
    thread.start()
    with workers._signals_held():
        go.set()
        thread.join()
        assert not handled
    assert handled == [signal.SIGTERM]


def test_who_watches_is_woken_when_they_are_started(handled):
    """By the pipe that tells at once of a signal, whichever thread it reached."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    before = signal.set_wakeup_fd(writer)

    def take():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    try:
        with workers._signals_held():
            thread = threading.Thread(target=take)
            thread.start()
            thread.join()
            with pytest.raises(BlockingIOError):
                os.read(reader, 1)
        assert os.read(reader, 8) == bytes([signal.SIGTERM])
        assert handled == [signal.SIGTERM]
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
