"""Three seeds of `configs/mura.py:phantom`: studies beside their films.

    make measure NAME=bone_seeds

Restartable: each seed is a run of its own under runs/bone_seeds, and a finished run is
read, not repeated. Prints the AUROC of studies (mean over their views) and of films alone,
both with their patient-level intervals, their difference on the same resamples, and how
many minutes the run took.
"""

import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA, RUNS = ROOT / "data", ROOT / "runs" / "bone_seeds"
SEEDS = (0, 1, 2)


def network(seed: int) -> tuple[dict, float]:
    """The test result of one seed, and seconds of this call."""
    workdir, start = RUNS / str(seed), time.monotonic()
    command = [sys.executable, "-m", "cxr_jax.main", f"--workdir={workdir}"]
    command += ["--config=configs/mura.py:phantom", f"--config.seed={seed}"]
    subprocess.run([*command, f"--data_dir={DATA}"], cwd=ROOT, check=True)
    result = json.loads((workdir / "evaluation/test/result.json").read_text())
    return result, time.monotonic() - start


def words(found: dict) -> str:
    """``0.912 [0.890, 0.931]``."""
    return f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"


def main() -> None:
    for seed in SEEDS:
        result, seconds = network(seed)
        gain = result["studies"]["gain"]
        studies = result["metrics"]["auroc@truth"]["mean"]
        films = result["studies"]["of_films"]["auroc@truth"]["mean"]
        print(
            f"seed {seed}: {result['studies']['n']} studies {words(studies)},"
            f" {result['studies']['films']} films {words(films)}, difference"
            f" {words(gain)}; {seconds / 60:.1f} min"
        )


if __name__ == "__main__":
    main()
