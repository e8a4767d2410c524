"""Films for the gallery of a report: successes and failures, with their activation maps.

Failures are always part of it: a gallery of successes says nothing about a model.
"""

import dataclasses
import io
from collections.abc import Callable, Sequence

import jax
import numpy as np
from etils import epath

from cxr_jax.metrics import ranking
from cxr_jax.predictions import Predictions, write_atomically
from cxr_jax.types import Batch, Prediction

FILE = "samples.npz"
MOST_VIEWS = 4  # of a study that are shown
HIT, MISS, ALARM = (
    "highest-scored positive",
    "lowest-scored positive",
    "highest-scored negative",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One film, shown for one class.

    Attributes:
        row: of the predictions.
        column: of the class.
        kind: ``HIT``, ``MISS`` or ``ALARM``.
        title: heading of the films it stands among: the class, or a category of studies.
        view: which view of its study it is, where a study was chosen.
        case: that study, or empty.
        views: how many films it has.
    """

    row: int
    column: int
    kind: str
    title: str
    view: str = ""
    case: str = ""
    views: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """K films with what a page shows beside them.

    Attributes:
        films: uint8 ``[K, H, W]``.
        maps: float32 ``[K, h, w]``, the map of the shown class, in logits.
        classes: str ``[K]``, the shown class, or category of studies.
        kinds: str ``[K]``, why it was chosen.
        ids: str ``[K]``.
        probs: float32 ``[K]``, probability of the shown class.
        ranks: int ``[K]``, 1 for the film of the split with the highest score.
        boxes: float32 ``[K, N, 4]``, reference boxes of the class, NaN for none.
        cases: str ``[K]``, the study that was chosen, or the film.
        views: int ``[K]``, how many films it has.
        names: str ``[C]``, all classes; with the next four where films were chosen, not
            studies.
        scores: float32 ``[K, C]``, all probabilities.
        labels: float32 ``[K, C]``, in {0, 1}, NaN where unknown.
        truths: float32 ``[K, C]``, the true state, where it is known.
        spreads: float32 ``[K, C]``, standard deviation over dropout masks, if sampled.
    """

    films: np.ndarray
    maps: np.ndarray
    classes: np.ndarray
    kinds: np.ndarray
    ids: np.ndarray
    probs: np.ndarray
    ranks: np.ndarray
    boxes: np.ndarray
    cases: np.ndarray | None = None
    views: np.ndarray | None = None
    names: np.ndarray | None = None
    scores: np.ndarray | None = None
    labels: np.ndarray | None = None
    truths: np.ndarray | None = None
    spreads: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.films)


def choose_samples(
    predictions: Predictions, *, count: int, judged: Predictions | None = None
) -> list[Choice]:
    """Picks films by a fixed rule that cannot flatter.

    For every class shown: its highest-scored positive, its lowest-scored positive and
    its highest-scored negative. Where not all classes fit, those shown are evenly spaced
    from the best AUROC to the worst. The truth decides where it is known, else the label.

    Args:
        predictions: of one split.
        count: about how many films or studies; three a class, at least one class.
        judged: the table that is judged, where that is one of studies
            (``Evaluator.judged``): then studies are chosen, of every category of its
            own, and shown with their first ``MOST_VIEWS`` views.

    Returns:
        The choices, class by class, best AUROC first; none if no class has both labels.
    """
    cases = predictions if judged is None else judged
    reference = cases.labels if cases.truth is None else cases.truth
    areas = ranking.auroc(cases.probs, reference)
    if cases.member is not None and not cases.member.all():
        areas[cases.member.all(axis=0)] = np.nan  # All together would show them twice.
    ranked = [c for c in np.argsort(-areas, kind="stable") if np.isfinite(areas[c])]
    shown = min(max(1, count // 3), len(ranked)) if count else 0
    places = np.linspace(0, len(ranked) - 1, shown).round().astype(int)
    choices = []
    for column in (int(ranked[place]) for place in places):
        scores = cases.probs[:, column].astype(np.float64)
        positive, negative = reference[:, column] == 1, reference[:, column] == 0
        rows = {
            HIT: np.argmax(np.where(positive, scores, -np.inf)),
            MISS: np.argmin(np.where(positive, scores, np.inf)),
            ALARM: np.argmax(np.where(negative, scores, -np.inf)),
        }
        for kind, case in rows.items():
            choices += _films_of(predictions, cases, int(case), column, kind)
    return choices


def _films_of(
    predictions: Predictions, cases: Predictions, case: int, column: int, kind: str
) -> list[Choice]:
    """The film itself, or the views of a study."""
    title = cases.classes[column]
    if cases is predictions:
        return [Choice(row=case, column=column, kind=kind, title=title)]
    rows = np.flatnonzero(predictions.studies == cases.ids[case])
    shown = cases.findings[column] if cases.findings else title
    column_of_film = predictions.classes.index(shown)
    score = cases.probs[case, column]
    return [
        Choice(
            row=int(row),
            column=column_of_film,
            kind=kind,
            title=title,
            view=f"view {k} of {len(rows)} of a study that scores {score:.3f}",
            case=str(cases.ids[case]),
            views=len(rows),
        )
        for k, row in enumerate(rows[:MOST_VIEWS], start=1)
    ]


def collect_samples(
    predictions: Predictions,
    choices: Sequence[Choice],
    *,
    load: Callable[[np.ndarray], Batch],
    predict: Callable[[Batch], Prediction],
    batch_size: int = 8,
) -> Samples | None:
    """Reads the chosen films again, this time with maps; for one process alone.

    Args:
        predictions: the choices were made on.
        choices: from ``choose_samples``.
        load: int ``[batch_size]`` record numbers → a Batch of host arrays, with boxes
            where there are any.
        predict: jitted; its ``maps`` are read.
        batch_size: films read together; the last batch repeats its last film.

    Returns:
        The samples, or None where there are no choices or no maps.
    """
    films, maps, boxes = [], [], []
    for start in range(0, len(choices), batch_size):
        some = choices[start : start + batch_size]
        rows = [choice.row for choice in some]
        rows += rows[-1:] * (batch_size - len(rows))
        batch = load(predictions.index[rows])
        found = jax.device_get(predict(batch).maps)
        if found is None:
            return None
        for k, choice in enumerate(some):
            films.append(np.asarray(batch.image)[k, :, :, 0])
            maps.append(found[k, :, :, choice.column].astype(np.float32))
            boxes.append(_boxes(batch, k, choice.column))
    if not choices:
        return None
    return Samples(
        films=np.stack(films),
        maps=np.stack(maps),
        boxes=_padded(boxes),
        **_captions(predictions, choices),
        **_findings(predictions, choices),
    )


def write_samples(directory: epath.PathLike, samples: Samples | None) -> None:
    """Writes ``samples.npz`` into ``evaluation/SPLIT``; None takes away an older one."""
    path = epath.Path(directory) / FILE
    if samples is None:
        path.unlink(missing_ok=True)
        return
    buffer = io.BytesIO()
    known = {name: array for name, array in vars(samples).items() if array is not None}
    np.savez_compressed(buffer, allow_pickle=False, **known)
    write_atomically(path, buffer.getvalue())


def read_samples(directory: epath.PathLike) -> Samples | None:
    """Reads ``samples.npz``; None where there is none."""
    path = epath.Path(directory) / FILE
    if not path.exists():
        return None
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return Samples(**arrays)


def _captions(
    predictions: Predictions, choices: Sequence[Choice]
) -> dict[str, np.ndarray]:
    rows = [choice.row for choice in choices]
    columns = [choice.column for choice in choices]
    probs = predictions.probs[rows, columns]
    return {
        "classes": np.asarray([choice.title for choice in choices]),
        "kinds": np.asarray(
            [", ".join(filter(None, (c.kind, c.view))) for c in choices]
        ),
        "ids": predictions.ids[rows],
        "cases": np.asarray([c.case or predictions.ids[c.row] for c in choices]),
        "views": np.asarray([choice.views for choice in choices]),
        "probs": probs,
        "ranks": 1 + (predictions.probs[:, columns] > probs[None]).sum(axis=0),
    }


def _findings(
    predictions: Predictions, choices: Sequence[Choice]
) -> dict[str, np.ndarray | None]:
    """What is said of all classes; a study is judged whole, not by one of its views."""
    if any(choice.case for choice in choices):
        return {}
    rows = [choice.row for choice in choices]
    tables = {"scores": "probs", "labels": "labels", "truths": "truth"}
    tables |= {"spreads": "std"}
    found = {name: getattr(predictions, table) for name, table in tables.items()}
    found = {k: None if table is None else table[rows] for k, table in found.items()}
    return {"names": np.asarray(predictions.classes), **found}


def _boxes(batch: Batch, row: int, column: int) -> np.ndarray:
    if batch.boxes is None:
        return np.empty((0, 4), np.float32)
    known = np.asarray(batch.boxes.mask)[row]
    mine = known & (np.asarray(batch.boxes.label)[row] == column)
    return np.asarray(batch.boxes.xyxy, np.float32)[row][mine]


def _padded(boxes: list[np.ndarray]) -> np.ndarray:
    padded = np.full((len(boxes), max(map(len, boxes)), 4), np.nan, np.float32)
    for k, some in enumerate(boxes):
        padded[k, : len(some)] = some
    return padded
