"""Reading speed: films/s of the input pipeline beside three other ways to read them.

    python benchmarks/input_pipeline.py [--sizes 64 256] [--films 1000] [--rounds 7]

The same films lie on disk twice: as prepared records and as PNG files. On one CPU core,
in turns, every way makes batches of 64 shuffled films with their 14 labels:

- ours:       the pipeline, two reading threads;
- tfds:       TFDS's data source, record by record, all features decoded, np.stack;
- torch-png:  torch's DataLoader (no workers: one core) over the PNG files (Pillow);
- torch-tfds: the same DataLoader over the prepared records.

Printed are medians over the rounds and ours divided by each, so more than 1 means that
ours is faster. Files are in the page cache: disks and networks are not measured.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from cxr_jax.data import pipeline
from cxr_jax.labels import NIH14
from data_builders import packing

BATCH = 64


def film(k: int, size: int) -> packing.Film:
    """A smooth film with a little grain: it compresses about as radiographs do."""
    rng = np.random.default_rng(k)
    coarse = rng.uniform(0, 255, (9, 9)).astype(np.float32)
    smooth = PIL.Image.fromarray(coarse).resize((size, size), PIL.Image.BICUBIC)
    grain = rng.normal(0, 3, (size, size))
    return packing.Film(
        id=f"{k:06d}",
        image=np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8),
        labels=rng.integers(0, 2, len(NIH14)),
    )


class Films(packing.Packed, skip_registration=True):
    """Packs the films of this benchmark as a builder would."""

    name = "benchmark_films"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="bench"),)
    size, count = 64, 100

    def layout(self) -> packing.Layout:
        return packing.Layout(size=self.size, classes=NIH14)

    def films(self) -> Iterator[packing.Film]:
        return (film(k, self.size) for k in range(self.count))


def prepare(folder: pathlib.Path, size: int, count: int) -> pipeline.Dataset:
    """Writes the films as records and as PNG files."""
    Films.size, Films.count = size, count
    builder = Films(data_dir=folder / str(size), config="bench")
    tfds.disable_progress_bar()
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=4),
        file_format="array_record",
    )
    for k in range(count):
        image = PIL.Image.fromarray(film(k, size).image)
        image.save(folder / str(size) / f"{k:06d}.png")
    return pipeline.open_dataset("benchmark_films/bench", data_dir=folder / str(size))


def ours(dataset: pipeline.Dataset, films: int, seed: int) -> None:
    # The endless stream would read ahead of the clock; this ends with the last film.
    order = np.random.default_rng(seed).permutation(films)
    for _ in pipeline.eval_batches(dataset, order, batch_size=BATCH):
        pass


def naive(source, films: int, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(source))[:films]
    for rows in order.reshape(-1, BATCH):
        examples = [source[int(k)] for k in rows]
        for name in ("image", "labels"):
            np.stack([example[name] for example in examples])


def loader(torch_set, films: int, seed: int) -> None:
    import torch

    batches = torch.utils.data.DataLoader(
        torch_set,
        batch_size=BATCH,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
    )
    for number, _ in enumerate(batches, start=1):
        if number == films // BATCH:
            return


class PngFiles:
    """What a torch user writes first: a file and a row of labels per index."""

    def __init__(self, folder: pathlib.Path, labels: np.ndarray):
        self.paths, self.labels = sorted(folder.glob("*.png")), labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array(PIL.Image.open(self.paths[k]))[..., None], self.labels[k]


class TorchRecords(PngFiles):
    """The prepared records under torch's loader."""

    def __init__(self, source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        example = self.source[k]
        return example["image"].copy(), example["labels"].copy()


def measure(
    ways: dict[str, Callable[[int], None]], films: int, rounds: int
) -> dict[str, list[float]]:
    """Films/s of each way in each round; the ways take turns, the first round is lost."""
    speeds = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run(turn)
            speeds[name].append(films / (time.perf_counter() - start))
    return {name: values[1:] for name, values in speeds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--films", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # Linux only
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    films = max(1, options.films // BATCH) * BATCH
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            report(size, films, options.rounds, pathlib.Path(folder))


def report(size: int, films: int, rounds: int, folder: pathlib.Path) -> None:
    dataset = prepare(folder, size, films)
    source = tfds.builder_from_directory(dataset.directory).as_data_source("all")
    ways = {
        "ours": lambda seed: ours(dataset, films, seed),
        "tfds": lambda seed: naive(source, films, seed),
    }
    try:
        import torch

        torch.set_num_threads(1)
        png = PngFiles(folder / str(size), dataset.records.labels)
        records = TorchRecords(source)
        ways["torch-png"] = lambda seed: loader(png, films, seed)
        ways["torch-tfds"] = lambda seed: loader(records, films, seed)
    except ImportError:
        print("torch is not installed: its two ways are left out")
    speeds = measure(ways, films, rounds)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"{size} px, {films} films, one core, median of {rounds} rounds in turns")
    for name, values in speeds.items():
        ratio = medians["ours"] / medians[name]
        print(
            f"  {name:10s} {medians[name]:8.0f} films/s"
            f"  ({min(values):.0f} to {max(values):.0f})"
            + (f"  ours/{name} {ratio:.2f}" if name != "ours" else "")
        )


if __name__ == "__main__":
    main()
