"""Runs ``cxr_jax.main`` and does something to it at a chosen moment. Used by the tests.

    python tests/faulty.py MOMENT SIGNAL MAIN-ARGUMENT …

MOMENT is one of: none; compile (while the first network is compiled); step:N (after step
N was dispatched); save:N (while the N-th save is being written); validate:N (in the N-th
validation); evaluate (in the final evaluation).
"""

import os
import signal
import sys
import threading


class WithoutTorch:
    """Hides a package that others import where it happens to lie: 3 s of each start."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, WithoutTorch)

from cxr_jax import main, results
from cxr_jax.checkpoint import Checkpoints
from cxr_jax.hooks import Progress
from cxr_jax.reading import Reader


def before(owner, name, number, strike):
    """Strikes just before the ``number``-th call of a method (from 1)."""
    original = getattr(owner, name)
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            strike()
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def strike_within_a_compilation(strike):
    """Of the first network; if that ends, the process fails."""
    import jax

    # One that lay in the cache would be there before the strike.
    jax.config.update("jax_enable_compilation_cache", False)
    original = jax.stages.Lowered.compile

    def within(*args, **kwargs):
        threading.Timer(0.05, strike).start()
        original(*args, **kwargs)
        raise SystemExit("the compilation ended, the process did not")

    jax.stages.Lowered.compile = within


def arrange(moment, strike):
    kind, _, number = moment.partition(":")
    number = int(number or 1)
    if kind == "none":
        return
    if kind == "step":
        before(Progress, "on_step", number, strike)
    elif kind == "validate":
        before(Reader, "__call__", number, strike)
    elif kind == "evaluate":
        before(results, "_best", 1, lambda: before(Reader, "__call__", 1, strike))
    elif kind == "save":
        # The values are taken, the disk is being written.
        original = Checkpoints.save

        def save(self, *args, **kwargs):
            original(self, *args, **kwargs)
            if self.folder.name == "latest":
                save.calls += 1
                if save.calls == number:
                    strike()

        save.calls = 0
        Checkpoints.save = save
    elif kind == "compile":
        strike_within_a_compilation(strike)
    else:
        raise SystemExit(f"unknown moment {moment!r}")


if __name__ == "__main__":
    moment, name, *argv = sys.argv[1:]
    arrange(moment, lambda: os.kill(os.getpid(), getattr(signal, name)))
    main.command(argv)
