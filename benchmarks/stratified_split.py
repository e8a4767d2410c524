"""Evenness of the stratified split beside random patient-disjoint ones, on real patients.

    python benchmarks/stratified_split.py [--manual_dir=RAW] [--share 0.5 1.0] [--seeds=20]

Reads the label table of ChestX-ray14 (no film): of the folder given, or of the one beside
the checkout that tests use. Printed is the mean absolute relative deviation of the 14 label
shares from 70/10/20 (``cxr_jax.data.balance``), in percent of films and of patients:

- random:     scheme random_patient, mean over the seeds;
- union:      iterative stratification of the union of each patient's labels alone;
- stratified: the scheme, of seed 0, and its largest over the seeds.

The ratio is stratified of seed 0 by random; one fifth is asked for. A share is of a label's
films (patients) that fall into a part, against the part's target; "of the part's size" is
against the share of all films (patients) that the part has.
"""

import argparse
import pathlib
import time

import numpy as np
from iterstrat.ml_stratifiers import IterativeStratification

from cxr_jax.data import balance, draws, labelled, splits
from cxr_jax.data.records import Records

BESIDE = pathlib.Path(__file__).resolve().parents[2] / "shared" / "real" / "nih"


def drawn(records: Records, scheme: str, seed: int, share: float) -> splits.Split:
    """A split by the scheme."""
    how = {"dataset": "chestxray14", "version": "table", "patients": share}
    return splits.split_records(records, scheme, seed=seed, **how)


def by_union(records: Records, seed: int, share: float) -> dict[str, np.ndarray]:
    """Parts by what the package is usually given, one draw."""
    used = draws.used(records.patient, seed, share)
    patients = records.patient[used]
    rank = {p: k for k, p in enumerate(draws.in_order(patients.tolist(), seed))}
    code = np.array([rank[p] for p in patients.tolist()])
    union = balance.films_by_patient(records.labels[used], code)[:, :-1] > 0
    ties = np.random.RandomState(seed)
    part = IterativeStratification(union, np.array(splits.FRACTIONS), ties)[code]
    return {name: used[part == k] for k, name in enumerate(splits.PARTS)}


def deviations(records: Records, parts: dict[str, np.ndarray]) -> np.ndarray:
    """In percent: films and patients against the target, films and patients against size."""
    told = balance.balance(records, parts, splits.FRACTIONS)
    sizes = [len(index) for index in parts.values()]
    people = [len(set(records.patient[index].tolist())) for index in parts.values()]
    found = [told[unit]["deviation"] for unit in balance.UNITS]
    for unit, size in zip(balance.UNITS, (sizes, people), strict=True):
        classes = list(told[unit]["classes"].values())[:-1]
        counts = [[part["count"] for part in parts.values()] for parts in classes]
        shares = np.divide(size, sum(size)).tolist()
        found.append(balance.deviation(np.array(counts).T, shares))
    return 100 * np.array(found)


def compare(records: Records, share: float, seeds: int) -> None:
    """Prints the figures of one share of the patients."""
    start = time.perf_counter()
    ours = drawn(records, "stratified", 0, share)
    seconds = time.perf_counter() - start
    if drawn(records, "stratified", 0, share).passport != ours.passport:
        raise SystemExit("the same seed gave two splits")

    def over(parts_of):
        return np.array([deviations(records, parts_of(s)) for s in range(seeds)])

    chance = over(lambda s: drawn(records, "random_patient", s, share).parts)
    union = over(lambda s: by_union(records, s, share))
    every = over(lambda s: drawn(records, "stratified", s, share).parts)
    passport, mean = ours.passport, chance.mean(axis=0)
    patients = sum(part["patients"] for part in passport["parts"].values())
    print(
        f"share {share:g}: {patients:,} patients, {seeds} seeds; stratified in"
        f" {seconds:.1f} s, overlap {passport['patient_overlap']}, twice the same"
    )
    names = [f"{u}{of}" for of in ("", ", of the part's size") for u in balance.UNITS]
    for k, name in enumerate(names):
        print(
            f"  {name}: random {mean[k]:.2f}, union {union[:, k].mean():.2f}, stratified"
            f" {every[0, k]:.2f} (largest {every[:, k].max():.2f});"
            f" ratio {every[0, k] / mean[k]:.3f}"
            f" (largest {every[:, k].max() / mean[k]:.3f})"
        )


def main() -> None:
    """Reads the table once and compares at each share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manual_dir", default=str(BESIDE), help="released tables")
    parser.add_argument("--share", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    source = labelled.read_source("chestxray14", manual_dir=args.manual_dir)
    for share in args.share:
        compare(source.records, share, args.seeds)


if __name__ == "__main__":
    main()
