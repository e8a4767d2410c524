"""Three seeds each of Loc-ADPD, MIL-ADPD and the boxes of CheXNet's maps, on the phantom.

    make measure NAME=adpd_order

The paper's order is Loc, MIL, maps (Table 1: mAP 10.89, 7.84, 5.80). Here all three have
the same training films, backbone, batch, epochs and rates, labels without a report's errors
(of regions; of films, any of their regions; of films), and the epoch with the best mAP on
the same validation films. Each augments films as its paper does. Restartable: a run lies
under runs/adpd_order, and a finished one is read, not repeated.

Prints, on the test part: mAP (IoU 0.1 to 0.7, ×100) with its patient-level interval, beside
no box and the usual box; the same on films with a box of the class; the mean IoU of regions
beside their usual place; the mean AUROC over the eight classes; minutes of this call.
"""

import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA, RUNS = ROOT / "data", ROOT / "runs" / "adpd_order"
SEEDS = (0, 1, 2)
RECIPES = {
    "loc": "configs/adpd.py:loc,phantom",
    "mil": "configs/adpd.py:mil,phantom",
    "maps": "configs/detectors.py:chexnet,phantom,true_labels",
}
USUAL = "mean box of the validation part"


def trained(name: str, seed: int) -> tuple[dict, float]:
    """The test result of one run, and seconds of this call."""
    workdir, start = RUNS / f"{name}{seed}", time.monotonic()
    command = [sys.executable, "-m", "cxr_jax.main", f"--workdir={workdir}"]
    command += [f"--config={RECIPES[name]}", f"--config.seed={seed}"]
    subprocess.run([*command, f"--data_dir={DATA}"], cwd=ROOT, check=True)
    result = json.loads((workdir / "evaluation/test/result.json").read_text())
    return result, time.monotonic() - start


def words(found: dict, times: float = 1.0) -> str:
    """``11.4 [10.5, 12.8]``."""
    value, low, high = (times * found[key] for key in ("value", "low", "high"))
    digits = 1 if times > 1 else 3
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def line(name: str, seed: int, result: dict, seconds: float) -> str:
    """One row."""
    metrics, found = result["metrics"], result["detection"]
    auroc = metrics.get("auroc@truth", metrics["auroc"])["per_class"]
    eight = [auroc[c]["value"] for c in found["boxed"]]
    parts = [
        f"{name} seed {seed}: mAP {words(metrics['map']['mean'], 100)}",
        f"usual box {100 * found['rows'][USUAL]['map']:.1f}",
        f"films with a box {100 * found['restricted']['map']:.1f}",
        f"AUROC of the eight {sum(eight) / len(eight):.3f}",
    ]
    if regions := result.get("regions"):
        iou, usual = (regions["mean"][key] for key in ("iou", "usual"))
        parts.append(f"region IoU {words(iou)}, usual place {usual['value']:.3f}")
    return ", ".join([*parts, f"{seconds / 60:.1f} min"])


def main() -> None:
    for seed in SEEDS:
        for name in RECIPES:
            print(line(name, seed, *trained(name, seed)), flush=True)


if __name__ == "__main__":
    main()
