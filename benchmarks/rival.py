"""What the network is timed against: the same DenseNet in PyTorch, and fair timing.

torchvision has no build everywhere, so its layout is written out here.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
from torch import nn

DEPTHS = {
    "121": ((6, 12, 24, 16), 32, 64),
    "169": ((6, 12, 32, 32), 32, 64),
    "201": ((6, 12, 48, 32), 32, 64),
    "161": ((6, 12, 36, 24), 48, 96),
}
MEAN, STD = 0.5, 0.25


class DenseLayer(nn.Module):
    """Norm, ReLU, 1×1; norm, ReLU, 3×3; joined to the input."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.new = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.new(x)], 1)


def densenet(depth: str, channels: int, classes: int) -> nn.Module:
    """torchvision's DenseNet: uint8 films → logits."""
    blocks, growth, width = DEPTHS[depth]
    layers = [
        nn.Conv2d(channels, width, 7, 2, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    for number, layers_in_block in enumerate(blocks):
        if number:
            layers += [
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width // 2, 1, bias=False),
                nn.AvgPool2d(2, 2),
            ]
            width //= 2
        for _ in range(layers_in_block):
            layers.append(DenseLayer(width, growth))
            width += growth
    layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(*layers)


def prepare(films: np.ndarray, channels: int, device: str) -> torch.Tensor:
    """uint8 ``[B, H, W, 1]`` → normalised ``[B, K, H, W]`` on the device, as ours does."""
    x = torch.from_numpy(films).to(device).permute(0, 3, 1, 2).float() / 255
    x = ((x - MEAN) / STD).expand(-1, channels, -1, -1)
    return x.contiguous(memory_format=torch.channels_last)


def options(description: str) -> argparse.ArgumentParser:
    """The options that both benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--depth", choices=sorted(DEPTHS), default="121")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def task_options(args: argparse.Namespace) -> dict:
    """Arguments of ``Classify`` for the network that the options ask for."""
    return {
        "model": {
            "name": f"cxr_jax.models.densenet.densenet{args.depth}",
            "dtype": args.dtype,
        },
        "head": {"name": "cxr_jax.models.heads.PoolThenClassify"},
        "terms": (
            {
                "name": "bce",
                "fn": {"name": "cxr_jax.losses.bce"},
                "reduce": {"batch": "mean", "classes": "sum"},
            },
        ),
        "classes": tuple(f"class {k}" for k in range(args.classes)),
        "mean": (MEAN,) * args.channels,
        "std": (STD,) * args.channels,
        "channels": args.channels,
    }


def torch_device() -> str:
    """Where PyTorch runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronize() -> None:
    """Waits for what PyTorch has queued."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleave(ours: Callable[[], object], theirs: Callable[[], object], repeats: int):
    """Times both in turn, so that a busy machine slows both alike.

    Returns:
        The first calls (with compilation) and the medians of the others, in seconds:
        ``(ours first, theirs first, ours, theirs)``.
    """
    times = {ours: [], theirs: []}
    for _ in range(repeats + 1):
        for call, seen in times.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            synchronize()
            seen.append(time.perf_counter() - start)
    first = [seen[0] for seen in times.values()]
    return *first, *(statistics.median(seen[1:]) for seen in times.values())


def report(what: str, args: argparse.Namespace, times: tuple[float, ...]) -> None:
    """Prints both times and their ratio."""
    first, _, ours, theirs = times
    where = jax.devices()[0].device_kind
    print(
        f"{what}, DenseNet-{args.depth}, {args.dtype}, batch {args.batch} at"
        f" {args.size}×{args.size}×{args.channels}, median of {args.repeats}"
    )
    print(f"cxr_jax on {where}: {1e3 * ours:.1f} ms, first call {first:.1f} s")
    print(f"torch {torch.__version__} on {torch_device()}: {1e3 * theirs:.1f} ms")
    if (torch_device() == "cuda") != (jax.default_backend() == "gpu"):
        print("the two run on different devices: the ratio says nothing about the code")
    print(f"speed relative to torch eager channels_last: {theirs / ours:.2f}")
