"""The best checkpoint of a run, evaluated: ``evaluation/SPLIT`` for every part asked for."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from cxr_jax import (
    box_samples,
    evaluate,
    passes,
    progress,
    sampled,
    samples,
    sharding,
    workdir,
)
from cxr_jax import config as configs
from cxr_jax.checkpoint import sha256
from cxr_jax.data import groups, pipeline
from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import Evaluator
from cxr_jax.evaluators.subgroups import GROUP
from cxr_jax.predictions import SPREAD, Predictions
from cxr_jax.run import Run
from cxr_jax.step import TrainState
from cxr_jax.types import Batch

Result = dict[str, Any]
# Operating points and calibration are chosen on this part, and reported on the others.
FROZEN_ON = "val"


def prepare(run: Run) -> "PartReader":
    """Compiles what ``evaluate_run`` reads films with: hours later is too late to fail."""
    judge = run.judge
    predict = PartReader(judge, judge.evaluators(resamples=run.config.eval.resamples))
    predict.compile(FROZEN_ON)
    return predict


def evaluate_run(run: Run, prepared: "PartReader | None" = None) -> dict[str, Result]:
    """Evaluates the best checkpoint on the parts that the config names.

    The validation part comes first, whether it is named or not: operating points and
    calibration are frozen on it, and the other parts are judged by them. Unless it is
    named it has figures alone: no intervals, which would not tell that it chose the
    checkpoint, and no films to show. A result that was taken with the same weights,
    films, settings and further files stands.

    Args:
        run: trained.
        prepared: of the same run, from ``prepare``; else compiled when it is needed.

    Returns:
        Part → the content of its ``result.json``.

    Raises:
        ConfigError: nothing was trained here.
        CheckpointError: the best checkpoint is damaged.
        Stopped: a signal came.
    """
    run = run.judge
    state, step = _best(run)
    digest = sha256({"params": state.params, "rest": state.rest})
    asked = run.config.eval
    judges = run.evaluators(resamples=asked.resamples)
    predict, results = prepared or PartReader(run, judges), {}
    for part in dict.fromkeys((FROZEN_ON, *asked.splits)):
        named = part in asked.splits
        evaluators = judges if named else run.evaluators(resamples=0)
        folder = run.workdir / "evaluation" / part.replace("/", "-")
        key = _key(run, part, evaluators, named=named)
        key |= {"checkpoint_step": step, "weights_sha256": digest}
        old = workdir.read_json(folder / "result.json") or {}
        stands = all(old.get(k) == v for k, v in key.items())
        # Process 0 decides: another one may still see an older file.
        if sharding.gather(np.array([stands]))[0]:
            results[part] = old
            continue
        if old:
            changed = ", ".join(k for k, v in key.items() if old.get(k) != v)
            progress.say(f"{part}: evaluated again, other than before: {changed}")
        table = predict(state, part)
        frozen = results.get(FROZEN_ON, {}).get("frozen")
        if part == FROZEN_ON:
            frozen = evaluate.freeze(evaluators, table)
        results[part] = key | _judge(run, part, table, key, evaluators, frozen)
        if jax.process_index() == 0:
            (folder / "result.json").unlink(missing_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            drawn = evaluators[0].judged(table)
            _write_films(folder, **(_films(run, state, table, drawn) if named else {}))
            evaluate.write_evaluation(folder, table, results[part], drawn=drawn)
    return results


def _key(
    run: Run, part: str, evaluators: Sequence[Evaluator], *, named: bool
) -> Result:
    """What a result depends on beside the weights."""
    split, listed = run.division.named(part)
    return {
        "schema": evaluate.SCHEMA,
        "data_sha256": run.split.passport["manifest_sha256"],
        "split_sha256": split.passport["parts"][listed]["sha256"],
        "settings": json.loads(configs.to_json(run.config.eval)),
        "named": named,
        "inputs": _inputs(evaluators),
    }


def _judge(
    run: Run,
    part: str,
    table: Predictions,
    key: Result,
    evaluators: Sequence[Evaluator],
    frozen: Result,
) -> Result:
    """The figures of a part, and what must be said of them."""
    result = evaluate.evaluate_table(
        table,
        dataset=f"{run.dataset.manifest.name}/{run.dataset.manifest.version}",
        split=part,
        split_sha256=key["split_sha256"],
        checkpoint_step=key["checkpoint_step"],
        weights_sha256=key["weights_sha256"],
        evaluators=evaluators,
        reference=run.config.eval.reference or None,
        frozen=frozen,
    )
    notes = [*result["notes"], *run.division.notes(part), *_sampling(run)]
    return result | {"frozen": frozen, "notes": notes}


def _inputs(evaluators: Sequence[Evaluator]) -> dict[str, str]:
    """Key of the config → digest of the file that it means: a path alone says little."""
    return {
        f"eval.evaluators.{k}.{name}": digest
        for k, evaluator in enumerate(evaluators)
        for name, digest in evaluator.inputs().items()
    }


class PartReader:
    """Predictions of a part, with what the evaluators observe of each film."""

    def __init__(self, run: Run, evaluators: Sequence[Evaluator]):
        self._run = run
        self._boxes = any("boxes" in e.requires for e in evaluators)
        self._reader = run.reader(evaluators, augmented=True)
        # Whether one of them compares with a network that learnt nothing.
        self._random = any(e.randomised for e in evaluators)
        # Further attributes of films, such as devices, where the dataset tells them.
        found = groups.read_groups(run.dataset.directory, run.dataset.records.id)
        self._groups = {GROUP + name: column for name, column in found.items()}

    def compile(self, part: str) -> None:
        """Ahead of the first step, for networks of any weights."""
        state = self._run.trainer.abstract(0)
        films = self._run.part(part, boxes=self._boxes)
        self._reader.compile(state.params, state.rest, films)

    def __call__(self, state: TrainState, part: str) -> Predictions:
        films = self._run.part(part, boxes=self._boxes)
        table, _ = self._reader(state.params, state.rest, films)
        told = {name: column[table.index] for name, column in self._groups.items()}
        table = dataclasses.replace(table, observed=table.observed | told)
        if not self._random:
            return table
        fresh = self._run.trainer.init()
        other, _ = self._reader(fresh.params, fresh.rest, films)
        random = {f"randomised/{k}": v for k, v in other.observed.items()}
        return dataclasses.replace(table, observed=table.observed | random)


def _best(run: Run) -> tuple[TrainState, int]:
    # Only the newest steps are there twice; an older best would be another model.
    latest = run.checkpoints("latest", read_only=True)
    found = run.checkpoints("best").restore(run.trainer.saved, spare=latest)
    if found is None:
        raise ConfigError(
            f"--workdir={run.workdir} holds no best checkpoint; train first (--mode=train)"
        )
    return found.state, found.step


def _films(
    run: Run, state: TrainState, table: Predictions, judged: Predictions
) -> dict[str, Any]:
    """Films to look at, read again by this process alone: ``_write_films`` takes them."""
    reader, load = run.reader(augmented=True), _loader(run)
    shown = {}
    if count := run.config.eval.samples:
        shown["gallery"] = samples.collect_samples(
            table,
            samples.choose_samples(table, count=count, judged=judged),
            load=load,
            predict=reader.with_maps(state.params, state.rest),
        )
    if table.std is not None:
        read = reader.passes(
            state.params, state.rest, samples=passes.SHOWN[-1], seed=run.config.seed
        )
        shown["spread"] = passes.collect(table, load=load, read=read)
    if table.boxes is not None and table.targets is not None:
        shown["boxes"] = box_samples.collect(table, load=load)
    return shown


def _write_films(
    folder: epath.Path,
    *,
    gallery: samples.Samples | None = None,
    spread: passes.Passes | None = None,
    boxes: box_samples.BoxSamples | None = None,
) -> None:
    """Some films with their maps, some findings pass by pass, some films with boxes.

    What is not given is not to be seen: a file of an older evaluation goes.
    """
    samples.write_samples(folder, gallery)
    passes.write(folder, spread)
    box_samples.write(folder, boxes)


def _loader(run: Run) -> Callable[[np.ndarray], Batch]:
    """Films by their record numbers, with boxes where there are any."""
    fields = run.fields
    if "boxes" in run.dataset.features:
        most = run.config.data.max_boxes
        fields = dataclasses.replace(fields, max_boxes=most)

    def load(index: np.ndarray) -> Batch:
        return next(
            pipeline.eval_batches(
                run.dataset, index, batch_size=len(index), fields=fields, threads=0
            )
        )

    return load


def _sampling(run: Run) -> list[str]:
    """What the probabilities are, where dropout was sampled."""
    asked = run.config.eval.mc
    if not asked.samples:
        return []
    of = "those of the plain pass"
    if asked.probs == sampled.MEAN:
        of = f"means over {asked.samples} passes with dropout"
    return [f"Probabilities are {of}. std, over {asked.samples} passes: {SPREAD}."]


def headline(results: dict[str, Result]) -> str:
    """A line per part and figure: mean AUROC, mean AP of boxes; what there is of these."""
    lines = []
    for part, result in results.items():
        metrics = result["metrics"]
        name = "auroc@truth" if "auroc@truth" in metrics else "auroc"
        lines += [
            f"{part}: mean {name} {_figure(result, metrics[name]['mean'])}"
            for name in (name, "map")
            if name in metrics
        ]
        if "detection" in result and not any(result["detection"]["predicted"].values()):
            lines.append(f"{part}: no box was found on any film")
    notes = dict.fromkeys(note for r in results.values() for note in r["notes"])
    return "\n".join([*lines, *notes])


def _figure(result: Result, mean: Mapping[str, Any]) -> str:
    if mean["value"] is None:
        return mean["reason"]
    over = f"over {_classes(mean['classes'])}, {_cases(result)}"
    if mean["low"] is None:
        return f"{mean['value']:.4f} {over}; no interval"
    return (
        f"{mean['value']:.4f} [{mean['low']:.4f}, {mean['high']:.4f}] {over};"
        f" {mean['resampling_unit']}-level interval"
    )


def _cases(result: Result) -> str:
    """What was judged, in numbers."""
    films = f"{result['n']} films"
    read = result.get("studies")
    return f"{read['n']} studies of {films}" if read else films


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)} class{'es' if len(names) != 1 else ''} ({', '.join(names)})"
