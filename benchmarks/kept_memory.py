"""A training on CPU that keeps freed memory beside one that gives it back to the system.

    python benchmarks/kept_memory.py [--steps 40] [--rounds 5]

Steps of ``configs/chexnet.py:phantom`` on films of noise, in processes that take turns.
Printed are the medians over the rounds: ms of a step, page faults of a step, and the ratio
of both times. More than 1 means that keeping memory (``cxr_jax.memory``) is faster.
"""

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def steps(count: int) -> None:
    """Trains in this process; prints seconds and page faults of a step."""
    sys.path.insert(0, str(ROOT))
    import jax
    import numpy as np

    from cxr_jax import assembly, sharding
    from cxr_jax import config as configs
    from cxr_jax.types import Batch

    config = configs.load(str(ROOT / "configs/chexnet.py:phantom"))
    trainer = assembly.make_trainer(config, configs.build(config.task), films=10_000)
    rng, rows = np.random.default_rng(0), config.train.batch_size
    batch = Batch(
        image=rng.integers(0, 256, (rows, 64, 64, 1), np.uint8),
        labels=rng.integers(0, 2, (rows, len(config.task.classes))).astype(np.float32),
        mask=np.ones(rows, bool),
        position=np.arange(rows, dtype=np.uint32),
        index=np.arange(rows, dtype=np.int32),
    )
    batch = sharding.to_global(batch, trainer.mesh)
    state, step = trainer.init(), trainer.step(0)
    for _ in range(5):
        state, _ = step(state, batch)
    jax.block_until_ready(state.params)
    start, faults = time.perf_counter(), page_faults()
    for _ in range(count):
        state, _ = step(state, batch)
    jax.block_until_ready(state.params)
    spent = (time.perf_counter() - start) / count
    print(spent, (page_faults() - faults) / count)


def page_faults() -> int:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=["kept", "given back"], help="one process")
    arguments = parser.parse_args()
    if arguments.child:
        from cxr_jax import memory

        if arguments.child == "kept" and not memory.keep_freed_memory():
            raise SystemExit("this C library is not glibc: there is nothing to compare")
        steps(arguments.steps)
        return
    found: dict[str, list[tuple[float, ...]]] = {"kept": [], "given back": []}
    for _ in range(arguments.rounds):
        for way, values in found.items():
            command = [sys.executable, __file__, "--steps", str(arguments.steps)]
            done = subprocess.run(
                [*command, "--child", way],
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
                check=True,
                capture_output=True,
                text=True,
            )
            values.append(tuple(map(float, done.stdout.split())))
    medians = {
        w: [statistics.median(c) for c in zip(*v, strict=True)]
        for w, v in found.items()
    }
    for way, (seconds, faults) in medians.items():
        print(f"{way:10s} {1e3 * seconds:6.1f} ms a step, {faults:8,.0f} page faults")
    print(f"given back / kept: {medians['given back'][0] / medians['kept'][0]:.2f}")


if __name__ == "__main__":
    main()
