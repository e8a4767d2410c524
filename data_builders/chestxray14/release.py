"""Where the files of the ChestX-ray14 release lie on a disk.

Films: ``images_001/images`` … ``images_012/images`` as downloaded, or all in ``images``,
or beside the tables. Tables and lists: beside the films, in ``labels`` or in ``splits``,
plain or gzipped.
"""

import dataclasses
import pathlib

from cxr_jax.data import tables
from cxr_jax.errors import DataError

# Where several are there, the first is taken; the manifest says which.
ENTRY_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOX_FILE = "BBox_List_2017.csv"
# scheme → part → list. The release has the first; the second is the widely used
# patient-disjoint 70/10/20 split.
LISTS = {
    "official": {"train_val": "train_val_list.txt", "test": "test_list.txt"},
    "patient_disjoint": {
        part: f"patient_disjoint_{part}.txt" for part in ("train", "val", "test")
    },
}
FOLDERS = ("", "labels", "splits")
FILM_FOLDERS = ("images_[0-9][0-9][0-9]/images", "images_[0-9][0-9][0-9]", "images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """What was found.

    Attributes:
        table: the label table.
        entries: file name → row of it.
        boxes: file name → its boxes; empty without a box table.
        box_table: the box table, or None.
        parts: scheme → file name → part, for the schemes whose lists are there.
        films: file name → file, for every film on disk.
    """

    table: pathlib.Path
    entries: dict[str, tables.Entry]
    boxes: dict[str, list[tables.ReleasedBox]]
    box_table: pathlib.Path | None
    parts: dict[str, dict[str, str]]
    films: dict[str, pathlib.Path]


def read_release(manual_dir: str | None, *, images: str | None = None) -> Release:
    """Finds and reads everything but pixels.

    Args:
        manual_dir: folder of the release.
        images: sub-folder that holds the films; None: found.

    Raises:
        DataError: no folder, no label table, no film, or a file that cannot be used.
    """
    root = _folder(manual_dir)
    table = _first(root, ENTRY_FILES)
    if table is None:
        raise DataError(
            f"manual_dir {root}: no label table; {' or '.join(ENTRY_FILES)} (or .gz) is"
            " needed there, or in labels/"
        )
    entries = tables.read_entries(table)
    box_table = _first(root, (BOX_FILE,))
    boxes: dict[str, list[tables.ReleasedBox]] = {}
    for box in tables.read_boxes(box_table) if box_table else ():
        boxes.setdefault(box.image, []).append(box)
    return Release(
        table=table,
        entries=entries,
        boxes=boxes,
        box_table=box_table,
        parts=_parts(root, entries),
        films=_films(root, images),
    )


def _folder(manual_dir: str | None) -> pathlib.Path:
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


def _first(root: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path | None:
    for name in names:
        for folder in FOLDERS:
            for suffix in ("", ".gz"):
                path = root / folder / (name + suffix)
                if path.is_file():
                    return path
    return None


def _parts(
    root: pathlib.Path, entries: dict[str, tables.Entry]
) -> dict[str, dict[str, str]]:
    found = {}
    for scheme, lists in LISTS.items():
        paths = {part: _first(root, (name,)) for part, name in lists.items()}
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


def _assigned(
    paths: dict[str, pathlib.Path], entries: dict[str, tables.Entry]
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


def _films(root: pathlib.Path, images: str | None) -> dict[str, pathlib.Path]:
    if images is not None and not (root / images).is_dir():
        raise DataError(f"images {images!r}: no such folder in {root}")
    if images is None:
        folders = [f for p in FILM_FOLDERS for f in sorted(root.glob(p))] + [root]
    else:
        folders = [root / images]
    found: dict[str, pathlib.Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.png")):
            if path.name.startswith("."):
                continue  # Left by archives made on a Mac.
            if path.name in found:
                raise DataError(
                    f"film {path.name} is both in {found[path.name].parent} and in"
                    f" {folder}; keep one, or choose a folder with --images"
                )
            found[path.name] = path
    if not found:
        raise DataError(
            f"manual_dir {root}: no film; PNG files are looked for in images_001/images"
            " to images_012/images, in images, and beside the tables (or in --images)"
        )
    return found
