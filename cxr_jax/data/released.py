"""Where tables and lists of the ChestX-ray14 release lie on a disk; no film is needed.

In the folder of the release, or in its ``labels`` or ``splits``, plain or gzipped.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from cxr_jax.data import tables
from cxr_jax.errors import DataError

# Where several are there, the first is taken; whoever reads them says which.
ENTRY_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOX_FILE = "BBox_List_2017.csv"
# The scheme whose test part are the films that the box table names.
BOXED = "cxr8"
# scheme → part → list. The release has the first; the second is the widely used
# patient-disjoint 70/10/20 split.
LISTS = {
    "official": {"train_val": "train_val_list.txt", "test": "test_list.txt"},
    "patient_disjoint": {
        part: f"patient_disjoint_{part}.txt" for part in ("train", "val", "test")
    },
}
FOLDERS = ("", "labels", "splits")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleasedLabels:
    """What was found.

    Attributes:
        table: the label table.
        entries: file name → row of it.
        parts: scheme → file name → part, for the schemes whose lists are there; ``BOXED``
            where the box table is.
    """

    table: pathlib.Path
    entries: Mapping[str, tables.Entry]
    parts: Mapping[str, Mapping[str, str]]


def folder(manual_dir: str | None) -> pathlib.Path:
    """The folder of the release.

    Raises:
        DataError: none is given, it is not there, or empty.
    """
    if manual_dir is None:
        raise DataError(
            "chestxray14 is made of released files: give their folder with --manual_dir"
        )
    root = pathlib.Path(manual_dir).expanduser()
    if not root.is_dir():
        raise DataError(f"manual_dir {root}: no such folder; give that of the release")
    if not any(root.iterdir()):
        raise DataError(
            f"manual_dir {root}: empty; put {ENTRY_FILES[0]} and the films there"
        )
    return root


def read_labels(root: pathlib.Path) -> ReleasedLabels:
    """Reads the label table and the lists of splits.

    Args:
        root: from ``folder``.

    Raises:
        DataError: no label table, or a file that cannot be used.
    """
    table = first(root, ENTRY_FILES)
    if table is None:
        raise DataError(
            f"manual_dir {root}: no label table; {' or '.join(ENTRY_FILES)} (or .gz) is"
            " needed there, or in labels/"
        )
    entries = tables.read_entries(table)
    parts = _parts(root, entries) | _boxed(root)
    return ReleasedLabels(table=table, entries=entries, parts=parts)


def first(root: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
    """The first of these files that is there."""
    for name in names:
        for place in FOLDERS:
            for suffix in ("", ".gz"):
                path = root / place / (name + suffix)
                if path.is_file():
                    return path
    return None


def _parts(
    root: pathlib.Path, entries: Mapping[str, tables.Entry]
) -> dict[str, dict[str, str]]:
    found = {}
    for scheme, lists in LISTS.items():
        paths = {part: first(root, (name,)) for part, name in lists.items()}
        absent = [lists[part] for part, path in paths.items() if path is None]
        if len(absent) == len(lists):
            continue
        if absent:
            raise DataError(
                f"manual_dir {root}: {', '.join(absent)} is missing, but the other"
                f" lists of the split {scheme!r} are there; all or none are allowed"
            )
        found[scheme] = _assigned(paths, entries)
    return found


def _boxed(root: pathlib.Path) -> dict[str, dict[str, str]]:
    path = first(root, (BOX_FILE,))
    if path is None:
        return {}
    return {BOXED: {box.image: "test" for box in tables.read_boxes(path)}}


def _assigned(
    paths: dict[str, pathlib.Path], entries: Mapping[str, tables.Entry]
) -> dict[str, str]:
    part_of: dict[str, str] = {}
    patients: dict[str, str] = {}
    for part, path in paths.items():
        for name in tables.read_list(path).names:
            if name not in entries:
                raise DataError(f"{path}: film {name} is not in the label table")
            if part_of.setdefault(name, part) != part:
                raise DataError(f"{path}: film {name} is also in {part_of[name]}")
            patient = entries[name].patient
            if patients.setdefault(patient, part) != part:
                raise DataError(
                    f"{path}: patient {patient} is also in {patients[patient]}; the"
                    " lists must not share a patient"
                )
    return part_of
