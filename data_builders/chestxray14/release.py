"""Where the files of the ChestX-ray14 release lie on a disk.

Films: ``images_001/images`` … ``images_012/images`` as downloaded, or all in ``images``,
or beside the tables. Tables and lists: beside the films, in ``labels`` or in ``splits``,
plain or gzipped.
"""

import dataclasses
import pathlib

from cxr_jax.data import released, tables
from cxr_jax.errors import DataError

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
    root = released.folder(manual_dir)
    labels = released.read_labels(root)
    box_table = released.first(root, (released.BOX_FILE,))
    boxes: dict[str, list[tables.ReleasedBox]] = {}
    for box in tables.read_boxes(box_table) if box_table else ():
        boxes.setdefault(box.image, []).append(box)
    return Release(
        table=labels.table,
        entries=labels.entries,
        boxes=boxes,
        box_table=box_table,
        parts=labels.parts,
        films=_films(root, images),
    )


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
