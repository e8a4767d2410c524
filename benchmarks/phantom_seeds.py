"""Three seeds of `configs/chexnet.py:phantom` beside a logistic regression on the pixels.

    make measure NAME=phantom_seeds

Restartable: each seed is a run of its own under runs/phantom_seeds, and a finished run is
read, not repeated. Prints the mean AUROC against the true labels over the classes whose
ceiling is at least 0.9, for the network, for the regression, and the ceilings' own mean.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA, RUNS = ROOT / "data", ROOT / "runs" / "phantom_seeds"
SEEDS = (0, 1, 2)


def network(seed: int) -> dict:
    """The test result of one seed; trains, goes on, or reads what is finished."""
    workdir = RUNS / str(seed)
    command = [sys.executable, "-m", "cxr_jax.main", f"--workdir={workdir}"]
    command += ["--config=configs/chexnet.py:phantom", f"--config.seed={seed}"]
    subprocess.run([*command, f"--data_dir={DATA}"], cwd=ROOT, check=True)
    return json.loads((workdir / "evaluation/test/result.json").read_text())


def regression(classes: list[str]) -> dict[str, float]:
    """AUROC against the truth of a logistic regression on the 64×64 pixels.

    Trained like the network on the mined labels of the training part, and given the
    L2 strength that does best on the validation part.
    """
    sys.path.insert(0, str(ROOT))
    from cxr_jax.data import pipeline, splits

    dataset = pipeline.open_dataset("phantom_chest/tiny", data_dir=DATA)
    version = dataset.manifest.version
    split = splits.split_records(
        dataset.records, "patient_disjoint", dataset="phantom", version=version
    )
    films = {part: load(dataset, index) for part, index in split.parts.items()}
    scale = StandardScaler().fit(films["train"][0])
    x = {part: scale.transform(value[0]) for part, value in films.items()}
    areas = {}
    for name in classes:
        column = dataset.records.classes.index(name)
        best = (-1.0, 0.0)
        for strength in (1e-4, 1e-3, 1e-2):
            model = LogisticRegression(C=strength, max_iter=200)
            model.fit(x["train"], films["train"][1][:, column])
            score = {p: model.decision_function(x[p]) for p in ("val", "test")}
            val = roc_auc_score(films["val"][1][:, column], score["val"])
            test = roc_auc_score(films["test"][2][:, column], score["test"])
            best = max(best, (val, test))
        areas[name] = best[1]
    return areas


def load(dataset, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels ``[N, 4096]``, mined labels and truth of a part."""
    from cxr_jax.data import pipeline

    fields = pipeline.Fields(truth=True)
    batch = next(
        pipeline.eval_batches(
            dataset, index, batch_size=len(index), fields=fields, threads=0
        )
    )
    pixels = batch.image.reshape(len(index), -1).astype(np.float32) / 255
    return pixels, batch.labels, batch.truth


def main() -> None:
    results = [network(seed) for seed in SEEDS]
    classes = results[0]["metrics"]["auroc@truth"]["mean"]["classes"]
    pixels = regression(classes)
    baseline = np.mean([pixels[name] for name in classes])
    ceilings = json.loads((RUNS / "0" / "config.json").read_text())["report"][
        "ceilings"
    ]
    ceiling = np.mean([ceilings[name] for name in classes])
    print(f"\n{len(classes)} classes: {', '.join(classes)}")
    print(f"ceiling {ceiling:.4f}; logistic regression on pixels {baseline:.4f}")
    for seed, result in zip(SEEDS, results, strict=True):
        mean = result["metrics"]["auroc@truth"]["mean"]
        print(
            f"seed {seed}: network {mean['value']:.4f} [{mean['low']:.4f},"
            f" {mean['high']:.4f}], {mean['value'] - baseline:+.4f} over the regression"
        )


if __name__ == "__main__":
    main()
