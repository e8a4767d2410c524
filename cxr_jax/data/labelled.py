"""Where the labels come from that predictions are scored against; never a pixel is read.

A prepared dataset's ``records.csv``, the tables of a release, or a CSV file: each becomes
``Records``, so that splits and passports are made as for a run.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from cxr_jax.data import columns, released
from cxr_jax.data import manifest as manifests
from cxr_jax.data import records as tables
from cxr_jax.data.records import Records
from cxr_jax.errors import DataError
from cxr_jax.labels import NIH14

CHESTXRAY14 = "chestxray14"
ABOUT = ("patient", "study", "age", "sex", "view")
MINED, SIMULATED, GIVEN = "mined", "simulated", "given"
# A film of ChestX-ray14: eight digits of the patient, then the number of the film.
FILM_NAME = re.compile(r"(\d{8})_\d{3}\.png")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelSource:
    """Labels of films, with what is known about them.

    Attributes:
        records: one row per film.
        name: of the dataset, or of the file.
        version: of the dataset; empty for a file.
        file: the table that was read.
        sha256: of its bytes.
        kind: ``MINED`` from reports, ``SIMULATED``, or ``GIVEN`` by a file.
    """

    records: Records
    name: str
    version: str
    file: str
    sha256: str
    kind: str

    @property
    def dataset(self) -> str:
        """Name and version, as ``result.json`` has them."""
        return f"{self.name}/{self.version}" if self.version else self.name


def read_source(
    labels: str,
    *,
    data_dir: epath.PathLike | None = None,
    manual_dir: str | None = None,
    classes: Sequence[str] | None = None,
) -> LabelSource:
    """Reads labels.

    Args:
        labels: ``chestxray14``, ``NAME/CONFIG[/VERSION]``, or a CSV file: ``id``, one
            column of 0, 1 or nothing per class; ``patient``, ``study``, ``age``, ``sex``,
            ``view`` and ``split_SCHEME`` where known.
        data_dir: where datasets are prepared.
        manual_dir: folder of a release, for ``chestxray14``.
        classes: the classes of a CSV file that are wanted; all its columns where None.

    Raises:
        DataError: nothing of that name, or a table that cannot be used.
    """
    if re.search(r"\.(csv|txt)(\.gz)?$", labels, re.IGNORECASE):
        return _from_file(labels, classes)
    if manual_dir is not None:
        if labels.partition("/")[0] != CHESTXRAY14:
            raise DataError(
                f"--manual_dir goes with --labels={CHESTXRAY14}, not {labels}; give"
                " --data_dir for a prepared dataset"
            )
        return _from_release(manual_dir)
    if data_dir is None:
        raise DataError(
            f"--labels={labels} needs --data_dir=DATA (a prepared dataset) or"
            " --manual_dir=RAW (the released tables); a file of labels ends in .csv"
        )
    return _from_dataset(labels, epath.Path(data_dir))


def patients_of(ids: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Patients, of ChestX-ray14's names where the table says none.

    Args:
        ids: str ``[N]``.
        patients: str ``[N]``, empty where unknown.

    Returns:
        str ``[N]``: as given; where no film has one and all are named as ChestX-ray14
        names films, the first eight digits.
    """
    if len(ids) and not (patients != "").any():
        found = [FILM_NAME.fullmatch(name) for name in ids.tolist()]
        if all(found):
            return np.asarray([match[1] for match in found], dtype=str)
    return patients


def _from_dataset(labels: str, data_dir: epath.Path) -> LabelSource:
    name = labels if "/" in labels else _only_config(labels, data_dir)
    folder = manifests.locate(name, data_dir=data_dir)
    manifest, path = manifests.read_manifest(folder), folder / tables.NAME
    records = tables.read_records(folder)
    digest = manifests.sha256_of(path)
    kept = {sidecar.file: sidecar.sha256 for sidecar in manifest.sidecars}
    if kept.get(tables.NAME, digest) != digest or len(records) != manifest.records:
        raise DataError(
            f"{path}: not the table that {manifests.NAME} names (SHA-256 or number of"
            " rows); build the dataset again"
        )
    simulated = manifest.dataset.startswith("phantom")
    return LabelSource(
        records=records,
        name=manifest.name,
        version=manifest.version,
        file=str(path),
        sha256=digest,
        kind=SIMULATED if simulated else MINED,
    )


def _only_config(name: str, data_dir: epath.Path) -> str:
    """``NAME/CONFIG`` of a dataset that was prepared in one size, or alike in several."""
    root = data_dir / name
    configs = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    found = [c for c in configs if any((root / c).glob(f"*/{manifests.NAME}"))]
    if not found:
        raise DataError(
            f"--labels={name}: not prepared in {data_dir}; build it with `python -m"
            f" data_builders {name} --data_dir={data_dir}`, or give the released tables"
            " with --manual_dir=RAW"
        )
    if len(found) > 1:
        raise DataError(
            f"--labels={name}: {data_dir} holds {', '.join(found)}; say which, such as"
            f" --labels={name}/{found[0]}"
        )
    return f"{name}/{found[0]}"


def _from_release(manual_dir: str) -> LabelSource:
    found = released.read_labels(released.folder(manual_dir))
    entries = list(found.entries.values())
    ages = [np.nan if e.age is None else e.age for e in entries]
    records = Records(
        classes=NIH14,
        id=_words(e.image for e in entries),
        patient=_words(e.patient for e in entries),
        study=_words("" for _ in entries),
        follow_up=np.asarray([e.follow_up for e in entries], np.float32),
        age=np.asarray(ages, np.float32),
        sex=_words(e.sex for e in entries),
        view=_words(e.view for e in entries),
        labels=np.stack([e.labels for e in entries]),
        splits={
            scheme: _words(parts.get(e.image, "") for e in entries)
            for scheme, parts in found.parts.items()
        },
    )
    return LabelSource(
        records=records,
        name=CHESTXRAY14,
        version=found.table.name.partition(".")[0],
        file=str(found.table),
        sha256=manifests.sha256_of(found.table),
        kind=MINED,
    )


def _from_file(path: str, classes: Sequence[str] | None) -> LabelSource:
    table = columns.read_films(path, columns.LABEL, classes=classes)
    empty = _words("" for _ in table.id)
    about = {name: table.about.get(name, empty) for name in ABOUT}
    name = epath.Path(path).name
    records = Records(
        classes=table.classes,
        id=table.id,
        patient=patients_of(table.id, about["patient"]),
        study=about["study"],
        follow_up=np.full(len(table), np.nan, np.float32),
        age=_ages(table, about["age"]),
        sex=_checked(table, "sex", about["sex"], ("M", "F", "")),
        view=_checked(table, "view", about["view"], ("PA", "AP", "")),
        labels=table.values.astype(np.float32),
        splits={
            column.removeprefix(tables.SPLIT_PREFIX): _checked(
                table, column, cells, (*tables.PARTS, "")
            )
            for column, cells in table.about.items()
            if column.startswith(tables.SPLIT_PREFIX)
        },
    )
    return LabelSource(
        records=records,
        name=f"labels of {name}",
        version="",
        file=path,
        sha256=table.sha256,
        kind=GIVEN,
    )


def _words(cells: Any) -> np.ndarray:
    return np.asarray(list(cells), dtype=str)


def _checked(
    table: columns.FilmTable, column: str, cells: np.ndarray, allowed: tuple[str, ...]
) -> np.ndarray:
    for line, cell in zip(table.line, cells.tolist(), strict=True):
        if cell not in allowed:
            raise DataError(
                f"{table.path}, line {line}: {column} is {cell!r}; allowed:"
                f" {', '.join(allowed[:-1])} or nothing"
            )
    return cells


def _ages(table: columns.FilmTable, cells: np.ndarray) -> np.ndarray:
    ages = np.full(len(table), np.nan, np.float32)
    for k, cell in enumerate(cells.tolist()):
        if not cell:
            continue
        if not re.fullmatch(r"\d{1,3}(\.\d+)?", cell):
            raise DataError(
                f"{table.path}, line {table.line[k]}: age is {cell!r}; years or nothing"
                " is allowed"
            )
        ages[k] = float(cell)
    return ages
