"""The loop, in one process: what is validated, kept, logged, and when it ends."""

import dataclasses
import json
import time

import jax
import numpy as np
import pytest

from configs import common
from cxr_jax import sharding
from cxr_jax.checkpoint import Checkpoints, sha256
from cxr_jax.logbook import Logbook, read
from cxr_jax.preemption import Stopper
from cxr_jax.step import Trainer
from cxr_jax.tasks.classify import Classify
from cxr_jax.train import NonFinite, Surroundings, fit
from cxr_jax.types import Batch

SIZE = 4


def films(step):
    rng = np.random.default_rng(step)
    return Batch(
        image=rng.random((SIZE, 8, 8, 1), np.float32),
        labels=rng.integers(0, 2, (SIZE, 1)).astype(np.float32),
        mask=np.ones(SIZE, bool),
        position=np.arange(step * SIZE, (step + 1) * SIZE, dtype=np.uint32),
        index=np.arange(SIZE, dtype=np.int32),
    )


def trainer(**phase):
    term = {
        "name": "bce",
        "fn": {"name": "cxr_jax.losses.bce"},
        "reduce": {"classes": "sum", "batch": "mean"},
    }
    task = Classify(
        model={"name": "cxr_jax.models.densenet.densenet_tiny"},
        head={"name": "cxr_jax.models.heads.PoolThenClassify"},
        terms=(term,),
        classes=("a",),
        mean=(0.5,),
        std=(0.25,),
        channels=1,
    )
    return Trainer(
        task=task,
        mesh=sharding.make_mesh(jax.devices()[:1]),
        phases=(common.phase(**({"epochs": 4.0} | phase)),),
        plateau={"factor": 0.1, "patience": 0, "rtol": 1e-4, "min_scale": 1e-6},
        augment=lambda batch, seed: batch,
        seed=0,
        batch_size=SIZE,
        steps_per_epoch=3,
    )


class Watch:
    def __init__(self):
        self.steps, self.lines = [], []

    def on_step(self, step):
        self.steps.append(step)

    def on_log(self, step, epoch, split, values):
        self.lines.append((step, split))


def run(folder, subject, values, batches=films, state=None, keep=lambda state: None):
    """Fits with a validation that returns the given values in turn."""
    watch, seen = Watch(), []

    def validate(state):
        seen.append(int(state.step))
        keep(state)
        return {"loss": values[len(seen) - 1]}

    def stream(step):
        while True:
            yield sharding.to_global(batches(step), subject.mesh)
            step += 1

    around = Surroundings(
        latest=Checkpoints(folder / "latest", keep=2),
        best=Checkpoints(folder / "best", keep=1),
        logbook=Logbook(folder, step=0),
        stopper=Stopper(),
        save_every=100,
        log_every=2,
        hooks=(watch,),
    )
    state = state or subject.init()
    try:
        state = fit(subject, state, stream, around, validate=validate, metric="loss")
    finally:
        around.latest.close()
        around.best.close()
        around.logbook.close()
    return state, watch, seen


def test_every_epoch_is_validated_and_the_best_is_kept(tmp_path):
    state, watch, seen = run(tmp_path, trainer(), [0.9, 0.5, 0.7, 0.6])
    assert seen == [3, 6, 9, 12]
    assert watch.steps == list(range(1, 13))
    assert Checkpoints(tmp_path / "best", keep=1).steps() == [6]
    assert Checkpoints(tmp_path / "latest", keep=2).steps() == [9, 12]
    assert (float(state.best), int(state.stale)) == (np.float32(0.5), 2)
    lines = [
        json.loads(t) for t in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert [ln["loss"] for ln in lines if ln["split"] == "val"] == [0.9, 0.5, 0.7, 0.6]
    # Every step is in exactly one training line: at 2, and at the validation that cuts.
    assert [ln["step"] for ln in lines if ln["split"] == "train"][:3] == [2, 3, 4]


def test_patience_ends_a_phase(tmp_path):
    _, watch, seen = run(tmp_path, trainer(stop_after=2), [0.5, 0.6, 0.7, 0.8])
    assert seen == [3, 6, 9] and watch.steps[-1] == 9


def test_every_phase_is_compiled_ahead_of_the_first_step(tmp_path, monkeypatch):
    """What does not compile, or does not fit, is known before hours of another phase."""
    events = []
    on_step, compile_ = Watch.on_step, jax.stages.Lowered.compile
    monkeypatch.setattr(
        Watch, "on_step", lambda *a: (events.append("step"), on_step(*a))
    )

    def compiled(lowered, *args, **kwargs):
        events.append("compile")
        return compile_(lowered, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)
    phases = (common.phase(), common.phase(freeze=("backbone/*",)))
    subject = dataclasses.replace(trainer(), phases=phases)
    run(tmp_path, subject, [0.5, 0.9])
    assert events == ["compile"] * 2 + ["step"] * 6


@pytest.mark.parametrize(
    ("begin", "step", "damaged"),
    [("best", 3, False), ("best", 3, True), ("last", 6, False)],
)
def test_a_phase_begins_with_the_last_weights_or_the_best(
    tmp_path, flip_bit, begin, step, damaged
):
    """The best ones lie in ``latest`` too, where the phase is short."""
    still = common.phase(begin=begin, learning_rate=0.0)
    phases = (common.phase(epochs=2.0), still)
    subject = dataclasses.replace(trainer(), phases=phases)
    # Step 6 is saved before the switch and is the state of the last step of phase 0.
    seen = {}

    def keep(found):
        seen[int(found.step)] = jax.tree.map(np.asarray, found.params)
        if damaged and len(seen) == 2:
            best = tmp_path / "best" / "3"
            for _ in range(1_000):  # it is written beside the steps
                if best.is_dir():
                    break
                time.sleep(0.01)
            files = (path for path in best.rglob("*") if path.is_file())
            flip_bit(max(files, key=lambda path: path.stat().st_size))

    state, _, _ = run(tmp_path, subject, [0.5, 0.9, 0.9], keep=keep)
    assert int(state.step) == 9
    for name, value in state.params.items():
        np.testing.assert_array_equal(value, seen[step][name])
    assert any(np.any(seen[3][name] != seen[6][name]) for name in seen[3])


@pytest.mark.long
def test_a_phase_that_begins_with_the_best_resumes_from_before_the_switch(tmp_path):
    phases = (common.phase(epochs=2.0), common.phase(begin="best"))
    subject = dataclasses.replace(trainer(), phases=phases)
    whole, _, _ = run(tmp_path, subject, [0.5, 0.9, 0.9])
    latest = Checkpoints(tmp_path / "latest", keep=2)
    before = latest.restore(subject.saved, step=6)
    latest.close()
    again, _, seen = run(tmp_path, subject, [0.9], state=before.state)
    assert seen == [9] and sha256(again) == sha256(whole)


def test_a_finished_run_does_nothing_more(tmp_path):
    subject = trainer(epochs=1.0)
    state, _, _ = run(tmp_path / "a", subject, [0.5])
    again, watch, seen = run(tmp_path / "b", subject, [], state=state)
    assert watch.steps == [] and seen == []
    assert sha256(again) == sha256(state)


def test_a_loss_that_is_not_finite_stops_at_the_last_good_state(tmp_path):
    def poisoned(step):
        batch = films(step)
        image = np.full_like(batch.image, np.nan) if step == 4 else batch.image
        return dataclasses.replace(batch, image=image)

    subject = trainer()
    with pytest.raises(NonFinite) as caught:
        run(tmp_path, subject, [0.5], batches=poisoned)
    assert caught.value.step == 4
    latest = Checkpoints(tmp_path / "latest", keep=2)
    found = latest.restore(lambda meta: subject.abstract(0))
    assert found.step == 4 and int(found.state.bad_step) == -1
    assert all(np.isfinite(x).all() for x in found.state.params.values())


def test_an_undefined_metric_is_no_improvement_and_null_in_json(tmp_path):
    state, _, _ = run(tmp_path, trainer(epochs=2.0), [0.5, float("nan")])
    assert float(state.best) == 0.5 and int(state.best_step) == 3
    assert read(tmp_path)[-1]["loss"] is None


def test_a_validation_that_will_be_repeated_is_cut(tmp_path):
    book = Logbook(tmp_path, step=0)
    for split in ("train", "val"):
        book.write(step=7, epoch=1.0, split=split, loss=1.0)
    book.close()
    Logbook(tmp_path, step=7, validated=False).close()
    assert [line["split"] for line in read(tmp_path)] == ["train"]


def test_lines_beyond_the_restored_step_are_cut(tmp_path):
    book = Logbook(tmp_path, step=0)
    for step in (1, 2, 3):
        book.write(step=step, epoch=step / 10, split="train", loss=1.0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    book.close()
    book = Logbook(tmp_path, step=2)
    book.write(step=3, epoch=0.3, split="train", loss=2.0)
    book.close()
    assert [(ln["step"], ln["loss"]) for ln in read(tmp_path)] == [
        (1, 1.0),
        (2, 1.0),
        (3, 2.0),
    ]
