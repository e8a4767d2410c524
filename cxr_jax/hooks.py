"""Observers of a run: progress for people, a profile for engineers."""

import sys
from collections.abc import Mapping

import jax
import tqdm


class Progress:
    """A bar on a terminal; plain lines elsewhere.

    Args:
        total: steps of the whole run.
        start: steps done already.
    """

    def __init__(self, *, total: int, start: int):
        self._bar = tqdm.tqdm(
            total=total,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self._total = total

    def on_step(self, step: int) -> None:
        """Moves the bar."""
        self._bar.update(step - self._bar.n)

    def on_log(
        self, step: int, epoch: float, split: str, values: Mapping[str, float]
    ) -> None:
        """Shows the numbers that people look at first."""
        shown = [name for name in ("loss", "auroc") if name in values]
        text = ", ".join(f"{name} {values[name]:.4f}" for name in shown)
        speed = values.get("examples_per_second")
        if speed:
            text += f", {speed:.0f} films/s"
        # On a terminal the bar shows training; validations stay as lines above it.
        if not self._bar.disable and split == "train":
            self._bar.set_postfix_str(text)
            return
        line = f"step {step}/{self._total}, epoch {epoch:.2f}, {split}: {text}"
        tqdm.tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar where it is."""
        self._bar.close()


class Profile:
    """Writes a profiler trace of some steps to ``WORKDIR/profile``.

    Args:
        folder: where the trace goes.
        first: step before which it begins.
        last: step after which it ends; none is written unless ``first < last``.
    """

    def __init__(self, folder: str, *, first: int, last: int):
        self._folder, self._first, self._last = folder, first, last
        self._running = False

    def on_step(self, step: int) -> None:
        """Starts and stops the trace."""
        if self._first <= step < self._last and not self._running:
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif step >= self._last and self._running:
            self.close()

    def close(self) -> None:
        """Writes what was traced so far: a run may end within the window."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False

    def on_log(
        self, step: int, epoch: float, split: str, values: Mapping[str, float]
    ) -> None:
        """Nothing to show."""
