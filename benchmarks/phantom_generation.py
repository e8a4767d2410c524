"""Computing a phantom film against reading a released one, both on one core.

    python benchmarks/phantom_generation.py [--sizes 64 128] [--films=32] [--rounds=5]

A builder comes by a film in one of two ways. They take turns in one process:

- computed: ``radiograph.generate``, with labels, boxes, regions and readers;
- read: what the ChestX-ray14 builder does with a released film: decode a PNG of 1024 px
  (``read_film``), reduce it by area (``reduce_film``). No labels.

The PNG files are computed films, enlarged, with grain that makes them about as large as
the released ones (0.4 MB). They are read faster all the same (1.2 to 1.6 times), so they
flatter reading: ``--images=FOLDER`` takes released files. All are in the page cache. Printed are medians over the rounds, and computed divided by read in films/s: more
than 1 means that computing a film takes less time than reading one.
"""

import argparse
import dataclasses
import os
import pathlib
import statistics
import tempfile
import time

import cv2
import numpy as np
import PIL.Image

from cxr_jax.data.image import read_film, reduce_film
from data_builders.phantom_chest import phantom_chest_dataset_builder as phantom
from data_builders.phantom_chest import radiograph
from data_builders.phantom_chest.cohort import Cohort

COHORTS = {cohort.size: cohort for cohort in (phantom.TINY, phantom.SMALL)}
RELEASED = 1024
GRAIN = 1.0


def compute(cohort: Cohort) -> list[np.ndarray]:
    """The films of a cohort."""
    return [made.image for made in radiograph.generate(cohort)]


def read(paths: list[pathlib.Path], size: int) -> list[np.ndarray]:
    """The films of some files, reduced."""
    return [reduce_film(read_film(path), size, fit="stretch") for path in paths]


def write_released(
    films: list[np.ndarray], folder: pathlib.Path, seed: int
) -> list[pathlib.Path]:
    """Films enlarged to the size of released ones, as PNG files."""
    rng = np.random.default_rng(seed)
    paths = []
    for k, film in enumerate(films):
        large = cv2.resize(film, (RELEASED, RELEASED), interpolation=cv2.INTER_CUBIC)
        grain = rng.normal(0, GRAIN, large.shape)
        paths.append(folder / f"{k:04d}.png")
        PIL.Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(
            paths[-1]
        )
    return paths


def rates(ways: dict, films: int, rounds: int) -> dict[str, list[float]]:
    """Films/s of each way in each round; a first round warms up and is not counted."""
    found = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            assert len(run()) == films
            found[name].append(films / (time.perf_counter() - start))
    return {name: values[1:] for name, values in found.items()}


def report(size: int, args: argparse.Namespace, folder: pathlib.Path) -> None:
    """Times both ways at one size and prints them."""
    cohort = dataclasses.replace(COHORTS[size], films=args.films, seed=args.seed)
    if args.images:
        paths = sorted(pathlib.Path(args.images).glob("*.png"))[: args.films]
    else:
        paths = write_released(compute(cohort), folder, args.seed)
    if len(paths) < args.films:
        raise SystemExit(f"--images: {len(paths)} PNG files, {args.films} are needed")
    mega = statistics.mean(path.stat().st_size for path in paths) / 1e6
    ways = {"computed": lambda: compute(cohort), "read": lambda: read(paths, size)}
    found = rates(ways, args.films, args.rounds)
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(
        f"{size} px, {args.films} films, seed {args.seed}, one core, median of"
        f" {args.rounds} rounds in turns; PNG files of {mega:.2f} MB"
    )
    for name, values in found.items():
        print(
            f"  {name:8s} {medians[name]:6.1f} films/s"
            f"  ({min(values):.1f} to {max(values):.1f})"
        )
    print(f"  computed/read {medians['computed'] / medians['read']:.2f}")


def main() -> None:
    """Times both ways at each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", choices=sorted(COHORTS), default=[64, 128]
    )
    parser.add_argument("--films", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", metavar="FOLDER", help="PNG files to read instead")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # Linux only
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    if hasattr(os, "getloadavg"):
        print(f"load of the machine over the last minute: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            report(size, args, pathlib.Path(folder))


if __name__ == "__main__":
    main()
