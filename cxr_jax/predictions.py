"""Predictions as a table on the host, and as ``predictions.csv``."""

import csv
import dataclasses
import io
import uuid
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from cxr_jax.errors import DataError
from cxr_jax.types import Boxes

KEYS = ("id", "patient", "study")
# What an interval may draw. Films of one patient are no independent witnesses, so the
# study is for comparison with papers that drew it.
UNITS = ("patient", "study")
RESEARCH_USE = "Research use only. Not for diagnostic use."
MINED_LABELS = "Reference: labels mined from reports, not disease."
READ_LABELS = (
    "Reference: the label that one radiologist gave each study when it was read, not"
    " disease."
)
PHANTOM_LABELS = "Reference: simulated labels with a report's errors; @truth: the phantom's true state."

# What stands beside every spread, and the spread above which a paper flags a finding.
SPREAD = "spread over dropout masks; low spread does not mean correct"
MAX_STD = 0.1

PHANTOM_TRUTH = "Reference: simulated labels, which are the phantom's true state."


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a model said about N films, beside what is known about them.

    Attributes:
        classes: names of the C columns.
        ids: str ``[N]``, unique.
        patients: str ``[N]``, empty where unknown.
        studies: str ``[N]``, empty where unknown.
        index: int ``[N]``, record numbers; -1 where the films are no records.
        probs: float32 ``[N, C]``, or None where only boxes were predicted.
        labels: float32 ``[N, C]`` in {0, 1}, NaN where unknown.
        truth: float32 ``[N, C]``, the true state where it is known (phantoms), or None.
        logits: float32 ``[N, C]`` or None.
        std: float32 ``[N, C]``, spread of probabilities over dropout masks, or None.
        information: float32 ``[N, C]``, mutual information of label and mask in nats, or
            None.
        age: float32 ``[N]``, years, NaN where unknown or impossible; or None.
        sex: str ``[N]``, ``M``, ``F`` or empty; or None.
        view: str ``[N]``, ``PA``, ``AP`` or empty; or None.
        observed: name → ``[N, …]``, what evaluators observed of each film.
        findings: what each column is about, where columns are categories of films rather
            than classes (``studies.by_category``); else empty.
        unit: what a bootstrap draws of it, one of ``UNITS``.
        boxes: predicted boxes, NumPy arrays ``[N, S, …]`` with scores, or None.
        targets: reference boxes, likewise, or None.
        member: bool ``[N, C]``, whether a film belongs to the column, likewise; or None.
    """

    classes: tuple[str, ...]
    ids: np.ndarray
    patients: np.ndarray
    studies: np.ndarray
    index: np.ndarray
    probs: np.ndarray | None
    labels: np.ndarray
    truth: np.ndarray | None = None
    logits: np.ndarray | None = None
    std: np.ndarray | None = None
    information: np.ndarray | None = None
    age: np.ndarray | None = None
    sex: np.ndarray | None = None
    view: np.ndarray | None = None
    observed: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    findings: tuple[str, ...] = ()
    unit: str = "patient"
    boxes: Boxes | None = None
    targets: Boxes | None = None
    member: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


def format_predictions(predictions: Predictions) -> str:
    """``predictions.csv``: ids, then one probability per class with 9 digits.

    Nine significant digits tell any two float32 apart; eight would make ties.

    Args:
        predictions: the table.

    Returns:
        CSV text with the header ``id,patient,study,CLASS…``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*KEYS, *predictions.classes])
    keys = (predictions.ids, predictions.patients, predictions.studies)
    for *names, probs in zip(*keys, predictions.probs, strict=True):
        writer.writerow([*names, *(f"{p:.9g}" for p in probs)])
    return text.getvalue()


def format_uncertainty(predictions: Predictions) -> str:
    """``uncertainty.csv``: what dropout masks say of each probability, with 9 digits.

    One line per film, as in ``predictions.csv``; in pandas
    ``read_csv(…, index_col="id").filter(like="@std")`` is the table of spreads.

    Args:
        predictions: a table with ``std`` and ``information``.

    Returns:
        CSV text with the header ``id,CLASS@std…,CLASS@information…``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = ("std", "information")
    names = [f"{name}@{kind}" for kind in kinds for name in predictions.classes]
    writer.writerow([KEYS[0], *names])
    values = np.hstack([getattr(predictions, kind) for kind in kinds])
    for name, row in zip(predictions.ids, values, strict=True):
        writer.writerow([name, *(f"{value:.9g}" for value in row)])
    return text.getvalue()


def read_predictions(
    path: epath.PathLike, *, classes: Sequence[str] | None = None
) -> Predictions:
    """Reads ``predictions.csv``.

    Args:
        path: CSV with the header ``id,patient,study,CLASS…``.
        classes: the class columns wanted, in that order; all, as they stand, where None.

    Returns:
        The table, without labels (all NaN).

    Raises:
        DataError: a column is missing, or a line holds no numbers, too few cells, or an
            id that came before; the message names the line.
    """
    path = epath.Path(path)
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text())) or [[]]
    except (FileNotFoundError, ValueError):
        raise DataError(f"{path}: no such file, or empty; give a CSV file") from None
    found = tuple(header[len(KEYS) :])
    wanted = found if classes is None else tuple(classes)
    missing = [name for name in wanted if name not in found]
    if tuple(header[: len(KEYS)]) != KEYS or missing or not wanted:
        raise DataError(
            f"{path}: the header is {','.join(header[:5])}…, allowed is"
            f" {','.join(KEYS)} and the classes"
            f" {', '.join(missing) or '(at least one)'}; rename the columns"
        )
    columns = [header.index(name) for name in wanted]
    probs = np.empty((len(rows), len(wanted)), dtype=np.float32)
    seen: set[str] = set()
    for line, row in enumerate(rows, start=2):
        try:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} cells instead of {len(header)}")
            probs[line - 2] = [float(row[c]) for c in columns]
        except ValueError as error:
            raise DataError(f"{path}, line {line}: {error}; correct it") from None
        if row[0] in seen or not row[0]:
            raise DataError(
                f"{path}, line {line}: id {row[0]!r} is empty or repeated; every film"
                " needs one line of its own"
            )
        seen.add(row[0])
    keys = np.asarray([row[: len(KEYS)] for row in rows], dtype=str).reshape(-1, 3)
    return Predictions(
        classes=wanted,
        ids=keys[:, 0],
        patients=keys[:, 1],
        studies=keys[:, 2],
        index=np.full(len(rows), -1),
        probs=probs,
        labels=np.full(probs.shape, np.nan, dtype=np.float32),
    )


def write_atomically(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a file so that it is seen whole or not at all.

    Args:
        path: where to; the folder exists.
        content: text, or bytes.

    Raises:
        OSError: disk full, no permission; nothing is left behind.
    """
    path = epath.Path(path)
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        if isinstance(content, str):
            partial.write_text(content)
        else:
            partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
