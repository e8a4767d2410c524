"""The numbers of a run as they appear: ``metrics.jsonl`` and TensorBoard."""

import json
import math
import os
from typing import Any

import tensorboardX
from etils import epath

METRICS = "metrics.jsonl"


class Logbook:
    """Appends lines to ``metrics.jsonl`` and events to ``tensorboard/``.

    Args:
        workdir: folder of the run.
        step: the step the run stands at; later lines, written by a predecessor that
            was killed before it could save, are cut.
        active: False on all processes but the first: they write nothing.
    """

    def __init__(self, workdir: epath.PathLike, *, step: int, active: bool = True):
        self._active = active
        if not active:
            return
        workdir = epath.Path(workdir)
        self._path = workdir / METRICS
        kept = [line for line in read(workdir) if line["step"] <= step]
        partial = self._path.with_suffix(".tmp")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        partial.replace(self._path)
        self._events = tensorboardX.SummaryWriter(
            os.fspath(workdir / "tensorboard"), purge_step=step + 1
        )

    def write(self, *, step: int, epoch: float, split: str, **values: float) -> None:
        """Adds one line; values that are not finite become null, as JSON has no NaN.

        Args:
            step: training steps done.
            epoch: the same in epochs.
            split: ``train`` or ``val``.
            **values: name → number.
        """
        if not self._active:
            return
        line: dict[str, Any] = {"step": step, "epoch": round(epoch, 6), "split": split}
        line |= {k: v if math.isfinite(v) else None for k, v in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flushes what TensorBoard holds back."""
        if self._active:
            self._events.close()


def read(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``; a last line cut short by a kill is left out."""
    path = epath.Path(workdir) / METRICS
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break  # the run died in the middle of this line: it is written again
    return lines
