"""One run, put together from its config: data, task, devices; then trained and evaluated."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from etils import epath
from ml_collections import config_dict

from cxr_jax import config as configs
from cxr_jax import (
    hooks,
    reading,
    rehearsal,
    sampled,
    sharding,
    sheet,
    tta,
    workdir,
)
from cxr_jax.assembly import (
    describe,
    first_state,
    make_evaluators,
    make_task,
    make_trainer,
)
from cxr_jax.checkpoint import Checkpoints
from cxr_jax.data import leakage, pipeline, splits
from cxr_jax.division import LABELS, Division
from cxr_jax.errors import DataError
from cxr_jax.evaluators.base import Evaluator
from cxr_jax.logbook import Logbook
from cxr_jax.opening import Films, open_judging, open_training
from cxr_jax.predictions import write_atomically
from cxr_jax.preemption import Stopper
from cxr_jax.step import Trainer, TrainState
from cxr_jax.train import Surroundings, fit
from cxr_jax.types import Batch

CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The parts of a run.

    Attributes:
        config: as resolved.
        workdir: where it writes.
        dataset: the opened dataset.
        fields: what is read of each film.
        division: which films train, in what order, and which may judge.
        trainer: the static half of training: task, devices, phases.
        stopper: says when to stop.
        other_films: those that validate and judge, where they are not these.
        costed: whether a loss can be taken on the films.
    """

    config: config_dict.ConfigDict
    workdir: epath.Path
    dataset: pipeline.Dataset
    fields: pipeline.Fields
    division: Division
    trainer: Trainer
    stopper: Stopper
    other_films: Films | None = None
    costed: bool = True

    @property
    def judge(self) -> "Run":
        """The run with the films that validate and judge it."""
        films = self.other_films
        if films is None:
            return self
        return dataclasses.replace(
            self,
            dataset=films.dataset,
            fields=films.fields,
            division=films.division,
            other_films=None,
            costed=films.costed,
        )

    @property
    def split(self) -> splits.Split:
        """Record numbers per part, and the passport."""
        return self.division.split

    def checkpoints(self, name: str, *, read_only: bool = False) -> Checkpoints:
        """``latest`` or ``best``."""
        keep = self.config.checkpoint.keep if name == "latest" else 1
        folder = self.workdir / CHECKPOINTS / name
        return Checkpoints(folder, keep=keep, read_only=read_only)

    def part(self, name: str, *, boxes: bool = False) -> reading.Part:
        """``test``, ``official/test``, …, to be evaluated; with boxes where wanted."""
        split, part = self.division.named(name)
        index = split.parts[part]
        most = self.config.data.max_boxes
        # Films are judged by the labels that others have, whatever trained.
        fields = dataclasses.replace(self.fields, learn_truth=False)
        fields = dataclasses.replace(fields, max_boxes=most) if boxes else fields

        def batches() -> Iterator[Batch]:
            read = pipeline.eval_batches(
                self.dataset,
                index,
                batch_size=self.config.eval.batch_size,
                layout=sharding.layout(),
                fields=fields,
                threads=self.config.data.threads,
            )
            return pipeline.device_batches(read, self.trainer.mesh)

        return reading.Part(batches=batches, records=self.dataset.records, index=index)

    def reader(
        self, evaluators: Sequence[Evaluator] = (), *, augmented: bool = False
    ) -> reading.Reader:
        """The network, ready to read any part with any weights.

        Args:
            evaluators: observe each batch.
            augmented: whether films are read as ``eval.tta`` and ``eval.mc`` say, or
                once, without dropout.
        """
        task = self.trainer.task
        if augmented:
            task = sampled.wrap(task, self.config.eval.mc, seed=self.config.seed)
            task = tta.wrap(task, self.config.eval.tta)
        return reading.Reader(
            task,
            self.trainer.model_def,
            self.stopper,
            evaluators=evaluators,
            costs=self.costed,
            batch_size=self.config.train.batch_size,
        )

    def evaluators(self, *, resamples: int) -> tuple[Evaluator, ...]:
        """Those that the config names."""
        directory = str(self.dataset.directory)
        return make_evaluators(self.config, resamples=resamples, directory=directory)


def open_run(
    config: config_dict.ConfigDict, *, path: str, data_dir: str, stopper: Stopper
) -> Run:
    """Opens data, splits it, and makes or checks the workdir.

    Args:
        config: as resolved.
        path: the workdir.
        data_dir: where prepared datasets lie.
        stopper: installed.

    Raises:
        ConfigError: a part, a batch size, a metric, or a workdir that does not fit.
        DataError: data that is not prepared, a split without films, a class it lacks.
    """
    task = configs.build(config.task)  # its mistakes come before those of the data
    films = open_training(config, task, data_dir=data_dir)
    judging = open_judging(config, task, films, data_dir=data_dir)
    task = make_task(config, films.division)
    trainer = make_trainer(config, task, films=films.division.order.length)
    rehearsal.rehearse(
        config,
        trainer=trainer,
        dataset=judging.dataset,
        fields=judging.fields,
        evaluators=make_evaluators(
            config, resamples=0, directory=str(judging.dataset.directory)
        ),
        costed=judging.costed,
    )
    pipeline.Reader(films.dataset, films.fields)  # refuses fields that are not there
    passport = films.division.split.passport
    if judging is not films:
        passport = passport | {"evaluation": judging.division.split.passport}
    folder = workdir.prepare(path, config, passport)
    if jax.process_index() == 0:
        write_atomically(folder / leakage.FILE, films.division.ids())
        workdir.write_json(folder / LABELS, films.division.label_counts())
        describe(config, trainer, folder, size=films.dataset.manifest.image_size)
        _write_sheet(folder, films)
    return Run(
        config=config,
        workdir=folder,
        dataset=films.dataset,
        fields=films.fields,
        division=films.division,
        trainer=trainer,
        stopper=stopper,
        other_films=None if judging is films else judging,
    )


def _write_sheet(folder: epath.Path, films: Films) -> None:
    """Some training films, by which a reader of the report knows what was seen."""
    dataset = films.dataset

    def load(index: np.ndarray) -> Batch:
        return next(
            pipeline.eval_batches(
                dataset, index, batch_size=len(index), fields=films.fields, threads=0
            )
        )

    train = films.division.split.parts["train"]
    chosen = sheet.choose_films(dataset.records, train)
    sheet.write(folder, sheet.collect(dataset.records, chosen, load=load))


def train(run: Run) -> TrainState:
    """Trains from the newest sound checkpoint, or from the start.

    Raises:
        Stopped: a signal came; the state is saved.
        NonFinite: a loss was not finite.
        CheckpointError: no checkpoint is sound, or one could not be written.
    """
    config, trainer = run.config, run.trainer
    latest, best = run.checkpoints("latest"), run.checkpoints("best")
    restored = latest.restore(trainer.saved)
    state = restored.state if restored else first_state(config, trainer, run.workdir)
    reader = run.judge.reader()
    reader.compile(state.params, state.rest, _validation(run))
    step, first = int(state.step), jax.process_index() == 0
    validated = int(state.validated) == step
    logbook = Logbook(run.workdir, step=step, validated=validated, active=first)
    around = Surroundings(
        latest=latest,
        best=best,
        logbook=logbook,
        stopper=run.stopper,
        save_every=config.checkpoint.every_steps,
        log_every=config.train.log_every,
        hooks=_observers(run, step) if first else (),
    )
    with contextlib.ExitStack() as ending:
        for open_until_the_end in (logbook, *around.hooks):
            ending.callback(open_until_the_end.close)
        state = fit(
            trainer,
            state,
            functools.partial(train_batches, run),
            around,
            validate=functools.partial(_validate, run, reader),
            metric=config.checkpoint.metric,
        )
    if int(state.best_step) < 0:
        raise DataError(
            f"checkpoint.metric={config.checkpoint.metric} was never defined on the"
            " validation part, so no checkpoint is best: look at metrics.jsonl, and"
            " choose another metric or split"
        )
    return state


def _observers(run: Run, step: int) -> tuple[hooks.Progress, hooks.Profile]:
    trainer = run.trainer
    total = sum(map(trainer.phase_steps, range(len(trainer.phases))))
    begin, end = run.config.train.profile_steps
    return (
        hooks.Progress(total=total, start=step),
        hooks.Profile(str(run.workdir / "profile"), first=begin, last=end),
    )


def train_batches(run: Run, step: int) -> Iterator[Batch]:
    """The endless device batches of training, from a step on."""
    batches = pipeline.train_batches(
        run.dataset,
        run.split.parts["train"],
        batch_size=run.config.train.batch_size,
        seed=run.config.seed,
        start_step=step,
        layout=sharding.layout(),
        fields=run.fields,
        order=run.division.order,
        threads=run.config.data.threads,
    )
    return pipeline.device_batches(batches, run.trainer.mesh)


def describe_step(run: Run, step: int) -> str:
    """The films of one training step, for a message about it."""
    index = pipeline.train_records(
        run.split.parts["train"],
        batch_size=run.config.train.batch_size,
        seed=run.config.seed,
        step=step,
        order=run.division.order,
    )
    ids = run.dataset.records.id[index]
    return f"films of that step: {', '.join(ids)}; the state before it is saved"


def _validate(run: Run, reader: reading.Reader, state: TrainState) -> dict[str, float]:
    """Loss and mean metrics on the validation part; undefined ones are NaN."""
    table, loss = reader(state.params, state.rest, _validation(run))
    values = {"loss": loss}
    for evaluator in _monitors(run):
        for name, metric in evaluator.monitor(table).items():
            mean = metric["mean"]["value"]
            values[name] = float("nan") if mean is None else mean
    return values


def _monitors(run: Run) -> list[Evaluator]:
    """The evaluators whose means every validation takes."""
    return [e for e in run.judge.evaluators(resamples=0) if e.monitors]


def _validation(run: Run) -> reading.Part:
    """What a validation reads of each film."""
    boxes = any("boxes" in e.requires for e in _monitors(run))
    return run.judge.part("val", boxes=boxes)
