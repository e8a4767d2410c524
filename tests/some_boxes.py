"""Reads films of noise with boxes of maps, and prints what came of it. Used by the tests.

python tests/some_boxes.py DEVICES …

One line for each number of devices: the table, names of what was gathered, and how many
films this process finished.
"""

import json
import sys

import jax
import numpy as np

from cxr_jax import reading, sharding
from cxr_jax.data.records import Records
from cxr_jax.labels import NO_FINDING
from cxr_jax.models.state import ModelDef
from cxr_jax.preemption import Stopper
from cxr_jax.tasks.heatmaps import Heatmaps
from cxr_jax.types import Batch

CLASSES = ("Mass", "Nodule", NO_FINDING)
# In batches of 4, the last one holds a single film.
FILMS, ROWS = 9, 4
TERM = {
    "name": "bce",
    "fn": {"name": "cxr_jax.losses.bce"},
    "reduce": {"classes": "sum", "batch": "mean"},
}
finished, gathered = [], set()


class Noted(Heatmaps):
    """Notes which films this process finishes."""

    def finalize(self, prediction):
        finished.append(len(prediction.maps))
        return super().finalize(prediction)


def gather(rows, real=sharding.gather):
    """Notes what crosses from process to process."""
    gathered.update(rows)
    return real(rows)


def records():
    def text(pattern):
        return np.array([pattern.format(k) for k in range(FILMS)])

    unknown = np.full(FILMS, np.nan, np.float32)
    return Records(
        classes=CLASSES,
        **{name: text(name + "{}") for name in ("id", "patient", "study")},
        **{name: text("") for name in ("sex", "view")},
        follow_up=unknown,
        age=unknown,
        labels=np.zeros((FILMS, 3), np.float32),
    )


def batches(mesh):
    """This process's rows, from the last film to the first."""
    mine = sharding.layout().rows(ROWS)
    image = np.random.default_rng(0).integers(0, 256, (FILMS, 32, 32, 1), np.uint8)
    order = np.arange(FILMS)[::-1]
    for start in range(0, FILMS, ROWS):
        index = np.pad(order[start : start + ROWS], (0, ROWS))[:ROWS]
        real = start + np.arange(ROWS) < FILMS
        rows = Batch(
            image=image[index] * real[:, None, None, None].astype(np.uint8),
            labels=np.where(real[:, None], np.float32(index % 2)[:, None], np.nan)
            * np.ones((1, 3), np.float32),
            mask=real,
            position=np.arange(start, start + ROWS, dtype=np.uint32),
            index=index.astype(np.int32),
        )
        yield sharding.to_global(jax.tree.map(lambda leaf: leaf[mine], rows), mesh)


def read(mesh):
    """The table and the loss, as a validation makes them."""
    task = Noted(
        model={"name": "cxr_jax.models.densenet.densenet_tiny"},
        head={"name": "cxr_jax.models.heads.PoolThenClassify", "prior": 0.6},
        terms=(TERM,),
        classes=CLASSES,
        mean=(0.5,),
        std=(0.25,),
        channels=1,
        side=32,
        found_above=0.2,
    )
    model = ModelDef.of(task.create)
    create = jax.jit(
        lambda: model.init(task.create, jax.random.key(0)),
        out_shardings=sharding.replicated(mesh),
    )
    part = reading.Part(
        batches=lambda: batches(mesh), records=records(), index=np.arange(FILMS)
    )
    return reading.Reader(task, model, Stopper())(*create(), part)


def main():
    sharding.initialize_from_env()
    sharding.gather = gather
    for count in sys.argv[1:]:
        finished.clear()
        table, loss = read(sharding.make_mesh(jax.devices()[: int(count)]))
        line = {name: leaf.tolist() for name, leaf in vars(table.boxes).items()}
        line |= {"probs": table.probs.tolist(), "index": table.index.tolist()}
        line |= {"labels": table.labels.tolist(), "loss": loss}
        line |= {"gathered": sorted(gathered), "finished": finished}
        print(json.dumps(line), flush=True)


main()
