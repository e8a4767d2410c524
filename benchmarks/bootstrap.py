"""Patient bootstrap of AUROC and average precision: jitted against a scikit-learn loop.

Both see the same films, patients and resamples, one after the other in one process:

    python benchmarks/bootstrap.py [--resamples=10000] [--loop=10]

The shape is that of the public ChestX-ray14 test split: 22,433 films, 6,187 patients, 14
classes. The loop is timed on a few resamples and set in proportion; the largest difference
between both is printed beside the ratio.
"""

import argparse
import time

import jax
import numpy as np
from sklearn import metrics

from cxr_jax.metrics import bootstrap

PREVALENCE = np.linspace(0.002, 0.18, 14)


def make_films(films: int, patients: int, seed: int):
    """Scores with ties, labels and patients of a made-up test split."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((films, len(PREVALENCE))) < PREVALENCE).astype(np.float32)
    scores = rng.normal(size=labels.shape) + 1.2 * labels
    names = rng.integers(0, patients, films).astype(str)
    return scores.round(4).astype(np.float32), labels, names


def loop(scores, labels, weights):
    """What one would write: one call per metric, class and resample."""
    found = np.empty((2, weights.shape[1], labels.shape[1]))
    for r, weight in enumerate(weights.T.astype(np.float64)):
        for c in range(labels.shape[1]):
            arguments = labels[:, c], scores[:, c].astype(np.float64)
            found[0, r, c] = metrics.roc_auc_score(*arguments, sample_weight=weight)
            found[1, r, c] = metrics.average_precision_score(
                *arguments, sample_weight=weight
            )
    return found


def main() -> None:
    """Times both and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, default=22_433)
    parser.add_argument("--patients", type=int, default=6_187)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--loop", type=int, default=10, help="resamples of the loop")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    scores, labels, names = make_films(args.films, args.patients, args.seed)
    units = bootstrap.resampling_units(names)
    key = jax.random.key(args.seed)

    start = time.perf_counter()
    ours = bootstrap.bootstrap(key, scores, labels, units, resamples=args.resamples)
    jitted = time.perf_counter() - start

    keys = [jax.random.fold_in(key, r) for r in range(args.loop)]
    weights = np.stack([bootstrap.draw_weights(k, units.count) for k in keys], axis=1)
    start = time.perf_counter()
    theirs = loop(scores, labels, weights[units.code])
    looped = time.perf_counter() - start

    pair = np.stack([ours.auroc, ours.average_precision])[:, : args.loop]
    rate, slow = args.resamples / jitted, args.loop / looped
    shape = f"{args.films} films, {labels.shape[1]} classes, {units.count} patients"
    print(f"{jax.devices()[0].device_kind}, {shape}; AUROC and average precision")
    print(
        f"jitted:       {args.resamples} resamples in {jitted:.1f} s with compilation"
        f" and sorting, {rate:.1f} a second"
    )
    print(f"scikit-learn: {args.loop} resamples in {looped:.1f} s, {slow:.2f} a second")
    print(
        f"largest difference on the same resamples: {np.abs(pair - theirs).max():.1e}"
    )
    print(f"ratio: {rate / slow:.0f}")


if __name__ == "__main__":
    main()
