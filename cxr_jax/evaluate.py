"""From a model and a split to ``result.json``: predict every film once, apply metrics."""

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from cxr_jax import sharding
from cxr_jax.data import box_files
from cxr_jax.data.records import Records
from cxr_jax.evaluators.base import Evaluator, plain
from cxr_jax.evaluators.classification import Classification
from cxr_jax.metrics import ranking
from cxr_jax.predictions import (
    MINED_LABELS,
    PHANTOM_LABELS,
    PHANTOM_TRUTH,
    RESEARCH_USE,
    Predictions,
    format_predictions,
    format_uncertainty,
    write_atomically,
)
from cxr_jax.progress import say
from cxr_jax.types import Batch, Boxes, Prediction

SCHEMA = 2
OBSERVED = "observed/"
# Boxes of a prediction, and those of the batch beside it.
BOXES = ("boxes/", "targets/")
# Of a prediction, one number per film and class; the last two where dropout is sampled.
SCORES = ("probs", "logits", "std", "information")
# What a task may finish on the host, where it says so.
MAPS = "maps"


def predict_split(
    predict: Callable[[Batch], Prediction],
    batches: Iterable[Batch],
    *,
    records: Records,
    expected: np.ndarray,
    classes: Sequence[str],
    finalize: Callable[[Prediction], Prediction] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Predictions:
    """Predicts every film of a split exactly once.

    Every process calls this and gets the whole table; one batch is always under way
    while the last one is read.

    Args:
        predict: jitted; of its result only ``probs``, ``logits``, the spread over
            dropout masks, ``boxes`` and ``observed`` are read here. Its rows lie as
            those of the batch.
        batches: padded device batches, the same number on every process.
        records: the dataset's table; row k describes record number k.
        expected: record numbers of the split.
        classes: names of the columns of ``probs``.
        finalize: the task's host side, if it has one to run; each process gives it the
            films that it read itself, which may be none.
        on_batch: called with 1, 2, … after each batch was dispatched; may raise, as a
            signal does.

    Returns:
        The table, sorted by record number.

    Raises:
        RuntimeError: a film of the split is missing, or came twice.
    """
    rows: list[dict[str, np.ndarray]] = []
    waiting: dict[str, Any] | None = None
    for number, batch in enumerate(batches, start=1):
        following = _outputs(predict(batch), batch)
        if waiting is not None:
            rows.append(_on_host(waiting, finalize))
        waiting = following
        if on_batch is not None:
            on_batch(number)
    if waiting is not None:
        rows.append(_on_host(waiting, finalize))
    table = {k: np.concatenate([r[k] for r in rows]) for k in rows[0]} if rows else {}
    order = np.argsort(table["index"], kind="stable") if rows else []
    table = {k: v[order] for k, v in table.items()}
    index = table.pop("index", np.empty(0, int))
    observed = _under(OBSERVED, table)
    boxes = {
        prefix[:-1]: Boxes(**found) if (found := _under(prefix, table)) else None
        for prefix in BOXES
    }
    _check_once(index, np.asarray(expected))
    return Predictions(
        classes=tuple(classes),
        ids=records.id[index],
        patients=records.patient[index],
        studies=records.study[index],
        index=index,
        age=records.age[index],
        sex=records.sex[index],
        view=records.view[index],
        observed=observed,
        **boxes,
        **table,
    )


def evaluate_table(
    predictions: Predictions,
    *,
    dataset: str,
    split: str,
    split_sha256: str,
    checkpoint_step: int | None,
    weights_sha256: str | None,
    mean_classes: Sequence[str] = (),
    resamples: int = 0,
    seed: int = 0,
    evaluators: Sequence[Evaluator] | None = None,
    reference: str | None = None,
    frozen: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of ``result.json``.

    Args:
        predictions: with labels; truth where it is known.
        dataset: name and version.
        split: name of the part, such as ``test``.
        split_sha256: digest of its sorted ids, from the split passport.
        checkpoint_step: of the weights, None for predictions of another program.
        weights_sha256: their digest, or None.
        mean_classes: the list that means run over; all classes where empty.
        resamples: of the patient bootstrap; 0 for no intervals.
        seed: of the bootstrap.
        evaluators: others than ``Classification``.
        reference: what the labels are, in words that stand beside every figure; mined
            labels, or a phantom's where the truth is known, unless given.
        frozen: what was frozen on the validation part, for every part but that one.

    Returns:
        A mapping that JSON can hold.

    Raises:
        DataError: scores that are not finite, labels other than 0, 1 and NaN.
        ConfigError: ``mean_classes`` names a class that is not there.
    """
    for labels in (predictions.labels, predictions.truth):
        if predictions.probs is not None and labels is not None:
            ranking.check_table(predictions.probs, labels, ids=predictions.ids)
    chosen = evaluators or (
        Classification(
            mean_classes=tuple(mean_classes), resamples=resamples, seed=seed
        ),
    )
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "dataset": dataset,
        "split": split,
        "split_sha256": split_sha256,
        "checkpoint_step": checkpoint_step,
        "weights_sha256": weights_sha256,
        "n": len(predictions),
        "metrics": {},
        "operating_points": {},
        "calibration": {},
        "notes": [RESEARCH_USE, reference or _reference(predictions)],
        "environment": environment(),
    }
    for evaluator in chosen:
        if jax.process_index() == 0:
            name = type(evaluator).__name__
            say(f"{split}: {name} of {len(predictions):,} films")
        for block, content in evaluator(predictions, frozen or {}).items():
            result.setdefault(block, {}).update(plain(content))
    return result


def freeze(evaluators: Sequence[Evaluator], predictions: Predictions) -> dict[str, Any]:
    """What the evaluators choose on the validation part, for ``result.json``."""
    found: dict[str, Any] = {}
    for evaluator in evaluators:
        found |= plain(evaluator.freeze(predictions))
    return found


def environment() -> dict[str, Any]:
    """Versions and devices of this process."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def roc_curves(predictions: Predictions) -> dict[str, dict[str, list[float]]]:
    """ROC points per class against the labels; classes without both are left out."""
    curves: dict[str, dict[str, list[float]]] = {}
    if predictions.probs is None:
        return curves
    units = np.arange(len(predictions))
    counts = ranking.count_labels(predictions.labels, units)
    for c, name in enumerate(predictions.classes):
        if counts[c].undefined is None:
            curve = ranking.roc_curve(predictions.probs[:, c], predictions.labels[:, c])
            curves[name] = {
                "fpr": curve.fpr.round(5).tolist(),
                "tpr": curve.tpr.round(5).tolist(),
            }
    return curves


def write_evaluation(
    directory: epath.PathLike,
    predictions: Predictions,
    result: dict[str, Any],
    *,
    drawn: Predictions | None = None,
) -> None:
    """Writes ``evaluation/SPLIT``; for process 0 alone.

    ``result.json`` comes last, so that it stands for the whole folder.

    Args:
        directory: ``WORKDIR/evaluation/SPLIT``, made if needed.
        predictions: → ``predictions.txt`` (what they are) and ``curves.json`` (ROC
            points), ``predictions.csv`` where it has probabilities, ``uncertainty.csv``
            where it has a spread, and ``boxes.csv`` where it has boxes.
        result: from ``evaluate_table``.
        drawn: the table that the curves are of, where it is another one, as of studies.
    """
    directory = epath.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    points = roc_curves(predictions if drawn is None else drawn)
    curves = json.dumps({"roc": points}, allow_nan=False)
    notes = list(result["notes"])
    if predictions.probs is not None:
        notes.append("Probabilities as the model gives them, uncalibrated.")
        write_atomically(directory / "predictions.csv", format_predictions(predictions))
    spread = directory / "uncertainty.csv"
    if predictions.std is None:
        spread.unlink(missing_ok=True)  # of an evaluation that sampled dropout
    else:
        write_atomically(spread, format_uncertainty(predictions))
    boxes = directory / "boxes.csv"
    if (found := predictions.boxes) is None:
        boxes.unlink(missing_ok=True)
    else:
        text = box_files.format_boxes(predictions.ids, predictions.classes, found)
        write_atomically(boxes, text)
    write_atomically(directory / "predictions.txt", "\n".join(notes) + "\n")
    write_atomically(directory / "curves.json", curves + "\n")
    text = json.dumps(result, indent=1, allow_nan=False)
    write_atomically(directory / "result.json", text + "\n")


def _reference(predictions: Predictions) -> str:
    """What the labels are; the truth is known of phantoms only."""
    if predictions.truth is None:
        return MINED_LABELS
    same = np.array_equal(predictions.labels, predictions.truth, equal_nan=True)
    return PHANTOM_TRUTH if same else PHANTOM_LABELS


def _outputs(prediction: Prediction, batch: Batch) -> dict[str, Any]:
    """What is fetched of a batch: never pixels; maps only to be finished on the host."""
    names = ("index", "mask", "labels", "truth")
    fetched = {name: getattr(batch, name) for name in names}
    fetched |= {name: getattr(prediction, name) for name in (*SCORES, MAPS)}
    found = prediction.observed or {}
    fetched |= {OBSERVED + name: leaf for name, leaf in found.items()}
    for prefix, boxes in zip(BOXES, (prediction.boxes, batch.boxes), strict=True):
        if boxes is not None:
            fetched |= {prefix + name: leaf for name, leaf in vars(boxes).items()}
    return {name: leaf for name, leaf in fetched.items() if leaf is not None}


def _under(prefix: str, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Takes out of a table what stands under a prefix."""
    names = [name for name in table if name.startswith(prefix)]
    return {name.removeprefix(prefix): table.pop(name) for name in names}


def _on_host(
    outputs: dict[str, Any], finalize: Callable[[Prediction], Prediction] | None
) -> dict[str, np.ndarray]:
    """Rows of all processes without the padding; maps stay with who made them."""
    own = sharding.local_rows(outputs)
    if finalize is not None:
        own |= _finalized(own, finalize)
    own.pop(MAPS, None)
    rows = sharding.gather(own)
    mask = rows.pop("mask").astype(bool)
    return {name: leaf[mask] for name, leaf in rows.items()}


def _finalized(
    own: dict[str, np.ndarray], finalize: Callable[[Prediction], Prediction]
) -> dict[str, np.ndarray]:
    """What the task's host side makes of this process's films, padded again."""
    real = own["mask"].astype(bool)
    told = {name: own[name][real] for name in (*SCORES, MAPS) if name in own}
    done = finalize(Prediction(**told))
    found = {name: getattr(done, name) for name in told if name != MAPS}
    if done.boxes is not None:
        found |= {BOXES[0] + name: leaf for name, leaf in vars(done.boxes).items()}
    return {name: _padded(np.asarray(leaf), real) for name, leaf in found.items()}


def _padded(rows: np.ndarray, real: np.ndarray) -> np.ndarray:
    """As many rows on every process: zeros where no film is."""
    whole = np.zeros((len(real), *rows.shape[1:]), rows.dtype)
    whole[real] = rows
    return whole


def _check_once(index: np.ndarray, expected: np.ndarray) -> None:
    found, times = np.unique(index, return_counts=True)
    twice, missing = found[times > 1], np.setdiff1d(expected, found)
    foreign = np.setdiff1d(found, expected)
    if len(twice) or len(missing) or len(foreign) or len(index) != len(expected):
        raise RuntimeError(
            f"evaluation saw {len(index)} films of {len(expected)}: records missing"
            f" {missing[:5].tolist()}, repeated {twice[:5].tolist()}, not of this split"
            f" {foreign[:5].tolist()}"
        )
