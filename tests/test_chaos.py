"""Signals and flipped bits at random instants: whatever comes, a run ends the same.

What is done is drawn by seed; where it falls is the machine's, so that each session
strikes elsewhere. A failure says what was done. ``CXR_JAX_STRIKES=100`` in the environment
strikes longer.
"""

import contextlib
import os
import random
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.long

STRIKES, STRIKES_PER_RUN = int(os.environ.get("CXR_JAX_STRIKES", "10")), 5
LAST = 28


def wait_until_open(process, workdir):
    """Returns when a process has written the workdir's config; imports are no target."""
    config = workdir / "config.json"
    before = config.stat().st_mtime_ns if config.exists() else None
    deadline = time.monotonic() + 200
    while not config.exists() or config.stat().st_mtime_ns == before:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def is_done_after(process, seconds):
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None


def lifetime(faulty, workdir):
    """Seconds from the opening of a workdir to the end of an untroubled run, here."""
    with faulty.start(workdir) as process:
        wait_until_open(process, workdir)
        start = time.monotonic()
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return time.monotonic() - start


def strike(process, rng, seconds):
    """One signal, or a gentle one and no patience; says which, or None if it came late."""
    if is_done_after(process, rng.uniform(0, seconds)):
        return None
    how = rng.choice([signal.SIGKILL] * 2 + [signal.SIGTERM, signal.SIGINT])
    process.send_signal(how)
    words = how.name
    impatient = how != signal.SIGKILL and rng.random() < 0.3
    # While it saves, or just after.
    if impatient and not is_done_after(process, rng.uniform(0, 0.5)):
        process.kill()
        words += " SIGKILL"
    return words


def damage(steps, flip_bit, rng):
    """Flips a bit in any file of the newest step; says where."""
    files = [path for path in sorted(steps[-1].rglob("*")) if path.is_file()]
    if steps[-1].name == str(LAST):
        # What is compared at the end stands there, and a run that is done reads no more.
        files = [path for path in files if "meta" not in path.parts]
    path = rng.choice([path for path in files if path.stat().st_size])
    flip_bit(path, rng.random(), rng.randrange(8))
    return f"flip {path.relative_to(steps[-1].parent)}"


def torment(faulty, workdir, rng, seconds, committed, flip_bit):
    """Runs until it ends in spite of it all; what was done, as words."""
    done = []
    while True:
        with faulty.start(workdir) as process:
            wait_until_open(process, workdir)
            struck = None
            if sum("SIG" in words for words in done) < STRIKES_PER_RUN:
                struck = strike(process, rng, seconds)
            _, errors = process.communicate(timeout=200)
        assert "Traceback" not in errors, (done, errors)
        if struck:
            done.append(struck)
        if process.returncode == 0:
            return done
        allowed = {-9} if struck == "SIGKILL" else {75, -9}
        assert struck and process.returncode in allowed, (done, errors)
        steps = committed(workdir)
        flipped = any(words.startswith("flip") for words in done)
        if len(steps) > 1 and (rng.random() < 0.6 or not flipped):
            done.append(damage(steps, flip_bit, rng))


def test_no_strike_changes_the_end(
    faulty, tmp_path, unbroken, passport, committed, flip_bit
):
    """At least so many signals over a few runs, bit flips between them."""
    assert unbroken()["step"] == LAST
    rng, done = random.Random(0), []
    seconds = lifetime(faulty, tmp_path / "untroubled")
    while sum("SIG" in words for words in done) < STRIKES:
        workdir = tmp_path / f"run{len(done)}"
        here = torment(faulty, workdir, rng, seconds, committed, flip_bit)
        assert passport(workdir) == unbroken(), here
        done += here
    assert any(words.startswith("flip") for words in done), done
