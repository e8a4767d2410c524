"""The loss of a part of a split: the one that training tells, however many films there are."""

import types

import jax
import numpy as np
import pytest
from flax import nnx

from cxr_jax import objective
from cxr_jax.data.records import Records
from cxr_jax.models.state import ModelDef
from cxr_jax.objective import Objective
from cxr_jax.reading import Part, Reader
from cxr_jax.types import Batch, Prediction

BATCH = 4


class Mean:
    """A linear layer on the mean of each film."""

    classes = ("a", "b")

    def __init__(self, reduce):
        self.objective = Objective.of(
            [{"name": "bce", "fn": {"name": "cxr_jax.losses.bce"}, "reduce": reduce}]
        )

    def create(self, key):
        return nnx.Linear(1, 2, rngs=nnx.Rngs(params=key))

    def _logits(self, model, batch):
        return model(batch.image.mean(axis=(1, 2)))

    def predict(self, model, batch, *, key=None, samples=0):
        logits = self._logits(model, batch)
        return Prediction(logits=logits, probs=jax.nn.sigmoid(logits))

    def loss(self, model, batch, *, key, step):
        return self.objective(
            self._logits(model, batch), batch.labels, mask=batch.mask, step=step
        )

    def finalize(self, prediction):
        return prediction


def films(count):
    """The same four films, again and again."""
    rng = np.random.default_rng(0)
    image = np.resize(rng.random((BATCH, 2, 2, 1)).astype(np.float32), (count, 2, 2, 1))
    labels = np.resize(rng.integers(0, 2, (BATCH, 2)).astype(np.float32), (count, 2))
    return Batch(
        image=image,
        labels=labels,
        mask=np.ones(count, bool),
        position=np.arange(count, dtype=np.uint32),
        index=np.arange(count, dtype=np.int32),
    )


def part(count, by):
    """The films in batches of so many, the last one padded."""
    whole, words = films(-(-count // by) * by), np.full(count, "")
    number = np.zeros(count, np.float32)
    records = Records(
        classes=Mean.classes,
        id=np.arange(count).astype(str),
        patient=words,
        study=words,
        follow_up=number,
        age=number,
        sex=words,
        view=words,
        labels=films(count).labels,
    )
    mask = np.arange(len(whole.mask)) < count
    rows = jax.tree.map(lambda x: x.reshape(-1, by, *x.shape[1:]), whole)
    kept = mask.reshape(-1, by)

    def batches():
        for k in range(len(kept)):
            batch = jax.tree.map(lambda x, k=k: x[k], rows)
            yield Batch(**(vars(batch) | {"mask": kept[k]}))

    return Part(batches=batches, records=records, index=np.arange(count))


@pytest.mark.parametrize("batch", ["sum", "mean"])
@pytest.mark.parametrize(("count", "by"), [(4, 4), (4, 3), (12, 5), (40, 8)])
def test_a_part_of_the_same_films_costs_what_a_training_batch_costs(batch, count, by):
    task = Mean({"batch": batch, "classes": "sum"})
    define = ModelDef.of(task.create)
    start = jax.jit(lambda key: define.init(task.create, key))
    params, rest = start(jax.random.key(0))
    stopper = types.SimpleNamespace(poll=lambda: False)
    reader = Reader(task, define, stopper, batch_size=BATCH)
    _, found = reader(params, rest, part(count, by))
    loss = task.loss(define.merge(params, rest), films(BATCH), key=None, step=0)
    np.testing.assert_allclose(found, objective.total(loss), rtol=1e-5)
