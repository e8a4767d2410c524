"""What boxes of regions could reach on the phantom, and where Loc- and MIL-ADPD fall short.

    make measure NAME=adpd_ceiling     (after adpd_order, whose runs it reads)

Each row is the mean average precision (IoU 0.1 to 0.7, ×100) on the test part, per class:

- true regions, true findings: the method itself, if nothing that it learns were wrong;
- the best region: of all true regions the one that lies best on the finding, where there
  is one: no choice of regions gives more with boxes that are not fused;
- of each run, what it says; then its regions with true findings, and true regions with
  its findings: what its boxes cost, and what its findings do;
- of each run of maps, what it says, and its boxes of classes that the film truly has.

A box of something true scores 1: the ranking of those is the order of films, and costs
nothing, for none of them is on a film without the finding.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cxr_jax import best, boxes, opening
from cxr_jax import config as configs
from cxr_jax.data import pipeline
from cxr_jax.evaluators import judged_boxes
from cxr_jax.labels import CXR8
from cxr_jax.models.decoder import RegionOutput
from cxr_jax.models.state import ModelDef
from cxr_jax.types import Batch, Boxes, Prediction

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "adpd_order"
RECIPE = "configs/adpd.py:loc,phantom"
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SURE = 20.0  # a logit of what is true


def films() -> list[Batch]:
    """The test part, with regions, reference boxes and true labels."""
    config = configs.load(RECIPE)
    task = configs.build(config.task)
    opened = opening.open_training(config, task, data_dir=str(ROOT / "data"))
    fields = pipeline.Fields(
        classes=CXR8, truth=True, regions=True, max_boxes=config.data.max_boxes
    )
    index = opened.division.split.parts["test"]
    return list(
        pipeline.eval_batches(opened.dataset, index, batch_size=64, fields=fields)
    )


def true_output(batch: Batch) -> RegionOutput:
    """What a network would say that knows everything."""
    regions = batch.regions
    there = np.asarray(regions.presence)
    xyxy = np.where(there[..., None], regions.xyxy, (0.4, 0.4, 0.6, 0.6))
    return RegionOutput(
        cxcywh=jnp.asarray(boxes.cxcywh_from_xyxy(np.float32(xyxy))),
        presence=jnp.where(there, SURE, -SURE),
        findings=jnp.where(np.asarray(regions.probs) > 0.5, SURE, -SURE),
    )


def best_region(batch: Batch) -> Boxes:
    """Reference boxes, each replaced by the true region that lies best on it."""
    true, regions = batch.boxes, batch.regions
    there = np.asarray(regions.presence)[:, None]
    xyxy = np.asarray(regions.xyxy)
    given = np.where(np.asarray(true.mask)[..., None], true.xyxy, 0.0)
    overlap = np.asarray(boxes.iou(given[:, :, None], xyxy[:, None]))
    chosen = np.argmax(np.where(there, overlap, -1.0), axis=-1)
    rows = np.arange(len(xyxy))[:, None]
    score = np.ones(chosen.shape, np.float32)
    return Boxes(xyxy=xyxy[rows, chosen], label=true.label, mask=true.mask, score=score)


def precision(found: list[Boxes], batches: list[Batch]) -> np.ndarray:
    """Mean average precision of each class, ×100."""
    columns = {name: c for c, name in enumerate(CXR8)}
    rows = [np.flatnonzero(np.asarray(b.mask)) for b in batches]
    true, said = (_joined(of, rows) for of in ([b.boxes for b in batches], found))
    judged = judged_boxes.judge(
        judged_boxes.lists(said, columns),
        judged_boxes.lists(true, columns),
        films=sum(map(len, rows)),
        thresholds=THRESHOLDS,
        keep_above=0.0,
    )
    return 100 * judged_boxes.precision(judged, THRESHOLDS)["map"][0]


def _joined(found: list[Boxes], rows: list[np.ndarray]) -> Boxes:
    def join(*leaves: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [np.asarray(x)[r] for x, r in zip(leaves, rows, strict=True)]
        )

    return jax.tree.map(join, *found)


def of_regions(run: pathlib.Path, batches: list[Batch]) -> Iterator[tuple[str, list]]:
    """A run of ADPD: what it says, and what it would if half of it were true."""
    model, task = _opened(run)

    @jax.jit
    def say(image: jax.Array) -> RegionOutput:
        return model()(task.preprocess(image))

    said = [say(batch.image) for batch in batches]
    true = [true_output(batch) for batch in batches]
    pairs = list(zip(said, true, strict=True))
    mixed = [_mixed(regions=s, findings=t) for s, t in pairs]
    other = [_mixed(regions=t, findings=s) for s, t in pairs]
    to_boxes = jax.jit(lambda output: task.read(output).boxes)
    for name, outputs in (
        ("as it is", said),
        ("its regions, true findings", mixed),
        ("true regions, its findings", other),
    ):
        yield f"{run.name}: {name}", [to_boxes(output) for output in outputs]


def _mixed(*, regions: RegionOutput, findings: RegionOutput) -> RegionOutput:
    return RegionOutput(
        cxcywh=regions.cxcywh, presence=regions.presence, findings=findings.findings
    )


def of_maps(run: pathlib.Path, batches: list[Batch]) -> Iterator[tuple[str, list]]:
    """A run of maps: what it says, and its boxes of classes that are there."""
    model, task = _opened(run)

    @jax.jit
    def say(batch: Batch) -> Prediction:
        return task.predict(model(), batch)

    said = [jax.device_get(say(batch)) for batch in batches]
    yield f"{run.name}: as it is", [task.finalize(one).boxes for one in said]
    known = [
        dataclasses.replace(one, probs=_known(one.probs, batch))
        for one, batch in zip(said, batches, strict=True)
    ]
    name = f"{run.name}: its maps, true classes"
    yield name, [task.finalize(one).boxes for one in known]


def _known(probs: np.ndarray, batch: Batch) -> np.ndarray:
    """1 for each class that the film has, 0 for the others, films without any included."""
    out = np.zeros_like(probs)
    out[:, : len(CXR8)] = np.nan_to_num(batch.truth)
    return out


def _opened(run: pathlib.Path) -> tuple[Callable[[], Any], Any]:
    """The network of a run as it is evaluated, and its task."""
    read = best.read(run)
    define = ModelDef.of(read.task.create)

    def model() -> Any:
        whole = define.merge(read.params, read.rest)
        return nnx.view(whole, use_running_average=True, raise_if_not_found=False)

    return model, read.task


def main() -> None:
    batches = films()
    task = configs.build(configs.load(RECIPE).task)
    read = jax.jit(lambda output: task.read(output).boxes)
    print(f"{'':42} mean  " + " ".join(f"{name[:9]:>9}" for name in CXR8))
    rows = [
        ("true regions, true findings", [read(true_output(b)) for b in batches]),
        ("the best region", [best_region(b) for b in batches]),
    ]
    for name, found in rows:
        tell(name, found, batches)
    for run in sorted(RUNS.iterdir()) if RUNS.is_dir() else ():
        if not (run / "evaluation/test/result.json").exists():
            continue
        config = json.loads((run / "config.json").read_text())
        kind = of_maps if config["name"] == "detectors" else of_regions
        for name, found in kind(run, batches):
            tell(name, found, batches)


def tell(name: str, found: list[Boxes], batches: list[Batch]) -> None:
    values = precision(found, batches)
    cells = " ".join(f"{value:9.1f}" for value in values)
    print(f"{name:42} {values.mean():5.1f} {cells}", flush=True)


if __name__ == "__main__":
    main()
