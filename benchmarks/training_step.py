"""One training step: ``Trainer.step``, jitted, against torch eager channels_last.

    python benchmarks/training_step.py [--batch=8] [--size=224] [--depth=121]

Both take the same uint8 films and labels from host memory, sum 14 binary
cross-entropies, and update with Adam, in turn, in one process. No augmentation.
"""

import jax
import numpy as np
import rival
import torch

from cxr_jax import sharding
from cxr_jax.step import Trainer
from cxr_jax.tasks.classify import Classify
from cxr_jax.types import Batch

PHASE = {
    "epochs": 1.0,
    "freeze": (),
    "thaw": (),
    "begin": "last",
    "optimizer": {"name": "cxr_jax.optim.adam"},
    "optimizer_at_switch": "reset",
    "schedule": {"name": "cxr_jax.optim.constant"},
    "learning_rate": 1e-3,
    "clip_norm": 0.0,
    "stop_after": 0,
}


def main() -> None:
    """Times both and prints the ratio."""
    args = rival.options(__doc__.splitlines()[0]).parse_args()
    rng = np.random.default_rng(args.seed)
    films = rng.integers(0, 256, (args.batch, args.size, args.size, 1), np.uint8)
    labels = rng.integers(0, 2, (args.batch, args.classes)).astype(np.float32)

    mesh = sharding.make_mesh(jax.devices()[:1])
    trainer = Trainer(
        task=Classify(**rival.task_options(args)),
        mesh=mesh,
        phases=(PHASE,),
        plateau={"factor": 0.1, "patience": 1, "rtol": 1e-4, "min_scale": 1e-6},
        augment=lambda batch, seed: batch,
        seed=args.seed,
        batch_size=args.batch,
        steps_per_epoch=100,
    )
    batch = Batch(
        image=films,
        labels=labels,
        mask=np.ones(args.batch, bool),
        position=np.arange(args.batch, dtype=np.uint32),
        index=np.arange(args.batch, dtype=np.int32),
    )
    step, state = trainer.step(0), trainer.init()

    device = rival.torch_device()
    model = rival.densenet(args.depth, args.channels, args.classes)
    model = model.to(device, memory_format=torch.channels_last).train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    half = torch.autocast(device, torch.bfloat16, enabled=args.dtype == "bfloat16")

    def ours():
        nonlocal state
        state, metrics = step(state, sharding.to_global(batch, mesh))
        # The whole state, not the loss alone: the update is part of the step.
        return state, metrics

    def theirs():
        with half:
            logits = model(rival.prepare(films, args.channels, device)).float()
        target = torch.from_numpy(labels).to(device)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, target, reduction="sum"
        )
        adam.zero_grad()
        (loss / args.batch).backward()
        adam.step()

    rival.report("training step", args, rival.interleave(ours, theirs, args.repeats))


if __name__ == "__main__":
    main()
