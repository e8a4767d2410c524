"""Bootstrap of MURA's reader study: one jitted computation against a loop in NumPy.

Both see the same studies, patients and resamples, one after the other in one process:

    python benchmarks/reader_bootstrap.py [--resamples=10000] [--loop=20]

The shape is that of the paper's test set: 209 studies of 208 patients and seven types, six
readers and a model. Ours is the whole evaluator as ``configs/mura.py`` has it: all figures
of each type and of all studies, against the majority of five, the truth and a panel of
three. The loop computes F1 alone, of each reader and of the model against each five; it is
timed on a few resamples and set in proportion. The largest difference between both is
printed beside the ratio.
"""

import argparse
import pathlib
import tempfile
import time

import jax
import numpy as np

from cxr_jax import config, studies
from cxr_jax.evaluators.readers import Readers
from cxr_jax.labels import BODY_PARTS, MURA
from cxr_jax.metrics import bootstrap
from cxr_jax.predictions import Predictions

READERS = 6
WHOLE = "All"
RECIPE = pathlib.Path(__file__).parents[1] / "configs" / "mura.py"


def make_studies(
    count: int, patients: int, seed: int
) -> tuple[Predictions, np.ndarray]:
    """A table with one row per study, and readers' calls ``[N, 6]``."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.48
    right = rng.random((count, READERS)) < rng.uniform(0.85, 0.95, READERS)
    calls = np.where(right, truth[:, None], ~truth[:, None]).astype(int)
    names = np.array([f"study{k:03d}" for k in range(count)])
    patient = np.concatenate(
        [np.arange(patients), rng.integers(0, patients, count - patients)]
    )
    labels = truth[:, None].astype(np.float32)
    table = Predictions(
        classes=MURA,
        ids=names,
        patients=np.array([f"patient{k:03d}" for k in patient]),
        studies=names,
        index=np.arange(count),
        probs=np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1),
        labels=labels,
        truth=labels,
    )
    part = np.array(BODY_PARTS)[rng.integers(0, len(BODY_PARTS), count)]
    return studies.by_category(table, part, names=BODY_PARTS, whole=WHOLE), calls


def write_calls(folder: str, table: Predictions, calls: np.ndarray) -> str:
    """A file of readers' calls."""
    rows = [
        f"{name},reader{r},{call}"
        for name, row in zip(table.ids, calls, strict=True)
        for r, call in enumerate(row)
    ]
    path = pathlib.Path(folder) / "readers.csv"
    path.write_text("\n".join(["id,reader,Abnormality", *rows]))
    return str(path)


def make_evaluator(path: str, resamples: int, seed: int) -> Readers:
    """The evaluator of the recipe."""
    by_study = config.load(str(RECIPE)).eval.evaluators[0]
    (spec,) = [one for one in by_study["of"] if one["name"].endswith(".Readers")]
    spec = {**spec, "file": path, "draws": resamples}
    return config.build(spec, resamples=resamples, seed=seed)


def f1(said: np.ndarray, true: np.ndarray, weight: np.ndarray) -> float:
    """Of weighted studies; NaN where nothing is positive."""
    below = weight[said].sum() + weight[true].sum()
    return 2 * weight[said & true].sum() / below if below else np.nan


def loop(table: Predictions, calls: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What one would write: mean F1 of readers and model, ``[2, resamples, columns]``."""
    columns = len(table.classes)
    found = np.empty((2, len(weights), columns))
    for s, weight in enumerate(weights):
        for c in range(columns):
            own = table.member[:, c]
            model, each = table.probs[own, c] > 0.5, []
            for r in range(READERS):
                others = np.delete(calls[own], r, axis=1)
                true = 2 * others.sum(axis=1) > READERS - 1
                each.append(
                    [f1(x, true, weight[own]) for x in (calls[own, r] == 1, model)]
                )
            found[:, s, c] = np.mean(each, axis=0)
    return found


def difference(block: dict, theirs: np.ndarray) -> float:
    """Between the intervals of the readers' mean and of the model, in both ways."""
    per_class = block["protocols"]["majority"]["per_class"]
    gaps = []
    for c, found in enumerate(per_class.values()):
        for who, values in zip(("average", "model"), theirs[..., c], strict=True):
            ends = np.percentile(values[np.isfinite(values)], [2.5, 97.5])
            got = found["f1"][who]
            gaps += [got["low"] - ends[0], got["high"] - ends[1]]
    return float(np.abs(gaps).max())


def main() -> None:
    """Times both and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=209)
    parser.add_argument("--patients", type=int, default=208)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--loop", type=int, default=20, help="resamples of the loop")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    table, calls = make_studies(args.studies, args.patients, args.seed)
    units = bootstrap.resampling_units(table.patients)

    with tempfile.TemporaryDirectory() as folder:
        path = write_calls(folder, table, calls)
        evaluator = make_evaluator(path, args.resamples, args.seed)
        times = []
        for _ in range(2):
            start = time.perf_counter()
            evaluator(table)
            times.append(time.perf_counter() - start)
        few = make_evaluator(path, args.loop, args.seed)(table)["readers"]

    key = jax.random.key(args.seed)
    keys = [jax.random.fold_in(key, r) for r in range(args.loop)]
    weights = np.stack([bootstrap.draw_weights(k, units.count) for k in keys])
    start = time.perf_counter()
    theirs = loop(table, calls, weights[:, units.code].astype(np.float64))
    looped = time.perf_counter() - start

    rate, slow = args.resamples / times[1], args.loop / looped
    shape = f"{args.studies} studies of {units.count} patients"
    print(
        f"{jax.devices()[0].device_kind}, {shape}, 7 types and all, {READERS} readers"
    )
    print(
        f"evaluator: {args.resamples} resamples in {times[0]:.1f} s with compilation,"
        f" {times[1]:.1f} s without, {rate:.0f} a second"
    )
    print(f"loop:      {args.loop} resamples in {looped:.1f} s, {slow:.1f} a second")
    print(
        f"largest difference of the ends of intervals on {args.loop} resamples:"
        f" {difference(few, theirs):.1e}"
    )
    print(f"ratio: {rate / slow:.0f} (F1 alone in the loop)")


if __name__ == "__main__":
    main()
