"""Trains some steps on simulated devices and prints what happened. Used by the tests.

python tests/some_steps.py DEVICES STEPS CONFIG DATA_DIR WORKDIR
"""

import json
import os
import sys

devices, steps, config, data_dir, workdir = sys.argv[1:]
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"

import jax
import numpy as np

from cxr_jax import config as configs
from cxr_jax import run
from cxr_jax.preemption import Stopper

jax.config.update("jax_enable_x64", "double" in config)
this = run.open_run(
    configs.load(config), path=workdir, data_dir=data_dir, stopper=Stopper()
)
assert this.trainer.mesh.size == int(devices)
state, step = this.trainer.init(), this.trainer.step(0)
losses, order = [], []
for batch in run.train_batches(this, 0):
    order.append(np.asarray(batch.index).tolist())
    state, metrics = step(state, batch)
    losses.append(float(metrics["loss"]))
    if len(losses) == int(steps):
        break
weights = {
    k: np.asarray(v, np.float64).ravel().tolist() for k, v in state.params.items()
}
print(json.dumps({"losses": losses, "order": order, "weights": weights}))
