"""Reading films: ``Classify.predict``, jitted, against torch eager channels_last.

    python benchmarks/inference.py [--batch=8] [--size=224] [--depth=121] [--maps]

Both start from the same uint8 films in host memory and end with probabilities on the
host, in turn, in one process. The weights are the same numbers' worth, not the same
numbers: only time is compared here, logits are in the tests.
"""

import jax
import numpy as np
import rival
import torch
from flax import nnx

from cxr_jax.tasks.classify import Classify
from cxr_jax.types import Batch


def main() -> None:
    """Times both and prints the ratio."""
    parser = rival.options(__doc__.splitlines()[0])
    parser.add_argument("--maps", action="store_true", help="class maps as well")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    films = rng.integers(0, 256, (args.batch, args.size, args.size, 1), np.uint8)

    task = Classify(**rival.task_options(args), maps=args.maps)
    batch = Batch(
        image=films,
        labels=np.full((args.batch, args.classes), np.nan, np.float32),
        mask=np.ones(args.batch, bool),
        position=np.arange(args.batch, dtype=np.uint32),
        index=np.arange(args.batch, dtype=np.int32),
    )
    graphdef = nnx.split(nnx.eval_shape(task.create, jax.random.key(0)))[0]
    state = jax.jit(lambda key: nnx.state(task.create(key)))(jax.random.key(args.seed))
    predict = jax.jit(lambda state, b: task.predict(nnx.merge(graphdef, state), b))

    device = rival.torch_device()
    model = rival.densenet(args.depth, args.channels, args.classes)
    model = model.to(device, memory_format=torch.channels_last).eval()
    half = torch.autocast(device, torch.bfloat16, enabled=args.dtype == "bfloat16")

    def ours():
        return jax.device_get(predict(state, batch))

    def theirs():
        with torch.inference_mode(), half:
            logits = model(rival.prepare(films, args.channels, device))
            return torch.sigmoid(logits).float().cpu().numpy()

    rival.report("reading", args, rival.interleave(ours, theirs, args.repeats))


if __name__ == "__main__":
    main()
