"""Monte-Carlo dropout: what T passes cost beside one plain pass of the whole network.

    python benchmarks/mc_dropout.py [--model=densenet121] [--samples=100] [--batch=32]
        [--size=224] [--hidden=512] [--repeats=10]

Both are ``Classify.predict``, jitted, from uint8 films in host memory to probabilities on
the host, in turn, in one process. The passes give means and spreads as well. Goal: 1.05;
limit: 1.2.
"""

import argparse
import os
import statistics
import time

import jax
import numpy as np

from cxr_jax.models.state import ModelDef
from cxr_jax.tasks.classify import Classify
from cxr_jax.types import Batch

HEAD = "cxr_jax.models.heads"
HIDDEN = {"name": f"{HEAD}.PoolHiddenClassify", "dropout": 0.4}
NETWORKS = {
    "densenet121": ({"name": "cxr_jax.models.densenet.densenet121"}, HIDDEN),
    "densenet121-linear": (
        {"name": "cxr_jax.models.densenet.densenet121"},
        {"name": f"{HEAD}.PoolThenClassify", "dropout": 0.5},
    ),
    "efficientnet_b0": (
        {"name": "cxr_jax.models.efficientnet.efficientnet_b0"},
        HIDDEN,
    ),
    "fusion": (
        {"name": "cxr_jax.models.fusion.AttentionFusion"},
        {"name": f"{HEAD}.PoolThenClassify", "dropout": 0.5},
    ),
}


def main() -> None:
    """Times both in turn and prints the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=NETWORKS, default="densenet121")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    plain, drawn = readers(args)
    first = [timed(call) for call in (plain, drawn)]
    times = [[timed(call) for call in (plain, drawn)] for _ in range(args.repeats)]
    one, many = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = [after / before for before, after in times]
    print(
        f"{args.model}, {args.samples} passes, batch {args.batch} at {args.size} px, on"
        f" {jax.devices()[0].device_kind}; median of {args.repeats}; load {load:.1f}"
    )
    print(f"one plain pass: {1e3 * one:.1f} ms, first call {first[0]:.1f} s")
    print(f"with {args.samples} passes: {1e3 * many:.1f} ms, first {first[1]:.1f} s")
    print(
        f"ratio of medians: {many / one:.3f} (turn by turn {min(ratios):.3f} to"
        f" {max(ratios):.3f}, median {statistics.median(ratios):.3f})"
    )


def readers(args: argparse.Namespace):
    """The plain pass, and the passes; each reads the same films."""
    model, head = NETWORKS[args.model]
    if head is HIDDEN:
        head = head | {"hidden": args.hidden}
    task = Classify(
        model=model,
        head=head,
        terms=(
            {
                "name": "bce",
                "fn": {"name": "cxr_jax.losses.bce"},
                "reduce": {"batch": "mean", "classes": "sum"},
            },
        ),
        classes=tuple(f"class {k}" for k in range(14)),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        channels=3,
        maps="",
    )
    static = ModelDef.of(task.create)
    key = jax.random.key(args.seed)
    arrays = jax.jit(lambda key: static.init(task.create, key))(key)
    rng = np.random.default_rng(args.seed)
    shape = (args.batch, args.size, args.size, 1)
    batch = Batch(
        image=rng.integers(0, 256, shape, np.uint8),
        labels=np.full((args.batch, 14), np.nan, np.float32),
        mask=np.ones(args.batch, bool),
        position=np.arange(args.batch, dtype=np.uint32),
        index=np.arange(args.batch, dtype=np.int32),
    )

    def reader(samples: int):
        @jax.jit
        def read(arrays, batch):
            model = static.merge(*arrays)
            return task.predict(model, batch, key=key, samples=samples)

        return lambda: jax.device_get(read(arrays, batch))

    return reader(0), reader(args.samples)


def timed(call) -> float:
    """Seconds of one call, its result fetched."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
