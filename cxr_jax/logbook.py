"""The numbers of a run as they appear: ``metrics.jsonl`` and TensorBoard."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

from etils import epath


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """tensorboardX imports torch where there is one: two seconds that serve nothing."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


with _without_torch():
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import scalar

METRICS = "metrics.jsonl"


class Logbook:
    """Appends lines to ``metrics.jsonl`` and events to ``tensorboard/``.

    Args:
        workdir: folder of the run.
        step: the step the run stands at; later lines, written by a predecessor that
            was killed before it could save, are cut.
        validated: whether the run stands behind its validation at that step; if not,
            that line is cut too, as it will be written again.
        active: False on all processes but the first: they write nothing.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        step: int,
        validated: bool = True,
        active: bool = True,
    ):
        self._active = active
        if not active:
            return
        workdir = epath.Path(workdir)
        self._path = workdir / METRICS
        last = {"train": step, "val": step if validated else step - 1}
        kept = [line for line in read(workdir) if line["step"] <= last[line["split"]]]
        partial = self._path.with_suffix(".tmp")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        partial.replace(self._path)
        self._events = _Events(workdir / "tensorboard", step=step)

    def write(
        self,
        *,
        step: int,
        epoch: float,
        split: str,
        phase: int | None = None,
        **values: float,
    ) -> None:
        """Adds one line; values that are not finite become null, as JSON has no NaN.

        Args:
            step: training steps done.
            epoch: the same in epochs.
            split: ``train`` or ``val``.
            phase: of the training, where it is known; not for TensorBoard.
            **values: name → number.
        """
        if not self._active:
            return
        line: dict[str, Any] = {"step": step, "epoch": round(epoch, 6), "split": split}
        if phase is not None:
            line["phase"] = phase
        line |= {k: v if math.isfinite(v) else None for k, v in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._events.write(step, {f"{split}/{k}": v for k, v in values.items()})

    def close(self) -> None:
        """Closes the file of TensorBoard."""
        if self._active:
            self._events.close()


class _Events:
    """A TensorBoard file, written in step with the run.

    tensorboardX's own writer does so in a thread, where a full disk ends in a traceback
    at exit instead of an error here.
    """

    def __init__(self, folder: epath.Path, *, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.cxr_jax"
        self._file = RecordWriter(str(folder / name))
        self._append(Event(file_version="brain.Event:2"))
        # TensorBoard drops what a killed predecessor wrote beyond this step.
        start = SessionLog(status=SessionLog.START)
        self._append(Event(session_log=start, step=step + 1))

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._append(Event(summary=scalar(name, value), step=step))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write(event.SerializeToString())


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
