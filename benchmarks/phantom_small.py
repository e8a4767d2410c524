"""DenseNet-121 on the phantom `small` (128 px), beside the ceiling of each class.

    make measure NAME=phantom_small

Restartable: the run lies in runs/phantom_small and goes on where it stopped. On a GPU
minutes; on two CPU cores hours. Prints the mean AUROC against the true labels over the
findings whose ceiling is at least 0.9, the mean of the ceilings, and their difference per class.
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUN = ROOT / "runs" / "phantom_small"


def main() -> None:
    command = [sys.executable, "-m", "cxr_jax.main", f"--workdir={RUN}"]
    command += ["--config=configs/chexnet.py:phantom,small", *sys.argv[1:]]
    subprocess.run([*command, f"--data_dir={ROOT / 'data'}"], cwd=ROOT, check=True)
    result = json.loads((RUN / "evaluation/test/result.json").read_text())
    ceilings = json.loads((RUN / "config.json").read_text())["report"]["ceilings"]
    found = result["metrics"]["auroc@truth"]
    for name, block in found["per_class"].items():
        below = ceilings[name] - block["value"]
        print(
            f"{name:20} {block['value']:.4f} [{block['low']:.4f}, {block['high']:.4f}],"
            f" ceiling {ceilings[name]:.4f}, {below:+.4f} below"
        )
    mean, listed = found["mean"], found["mean"]["classes"]
    ceiling = sum(ceilings[name] for name in listed) / len(listed)
    print(
        f"mean of {len(listed)} classes {mean['value']:.4f} [{mean['low']:.4f},"
        f" {mean['high']:.4f}], ceiling {ceiling:.4f}:"
        f" {ceiling - mean['value']:.4f} below"
    )


if __name__ == "__main__":
    main()
