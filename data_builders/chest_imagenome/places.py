"""Where the files of Chest ImaGenome, MIMIC-CXR-JPG and MS-CXR lie below one folder.

As they were downloaded, unpacked or linked: in the folder itself or at most five folders
below it. Folders of films (``p10`` …) and of scene graphs are not searched.

- Chest ImaGenome: where ``scene_graph.zip`` or a folder ``scene_graph`` lies
  (``silver_dataset``), with ``splits`` in it and ``gold_dataset`` beside it.
- MIMIC-CXR-JPG: where ``mimic-cxr-2.*-metadata.csv.gz`` lies, with its other tables and
  ``files``.
- MS-CXR: ``MS_CXR_Local_Alignment_*.csv``.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

from cxr_jax.errors import DataError

DEPTH = 5
GRAPHS = "scene_graph"
ARCHIVE = f"{GRAPHS}.zip"
METADATA, SPLIT, CHEXPERT = "metadata", "split", "chexpert"
MIMIC = re.compile(r"mimic-cxr-2\.[0-9.]+-(metadata|split|chexpert)\.csv(\.gz)?")
MS_CXR = re.compile(r"MS_CXR_Local_Alignment_[\w.-]*\.csv(\.gz)?")
LISTS = {"train": "train.csv", "val": "valid.csv", "test": "test.csv"}
AVOID = "images_to_avoid.csv"
_FILMS = re.compile(r"p[0-9]{2,}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """What was found.

    Attributes:
        root: the folder that was searched.
        graphs: ``scene_graph.zip``, or the folder ``scene_graph`` where there is none.
        lists: part → list of Chest ImaGenome; all three or none.
        avoid: ``images_to_avoid.csv``, or None.
        gold: tables of the gold set.
        tables: ``metadata``, ``split`` and ``chexpert`` → table of MIMIC-CXR-JPG.
        films: folder of ``pXX/pXXXXXXXX/sXXXXXXXX/DICOM.jpg``.
        ms_cxr: the table of MS-CXR, or None.
    """

    root: pathlib.Path
    graphs: pathlib.Path
    lists: Mapping[str, pathlib.Path]
    avoid: pathlib.Path | None
    gold: tuple[pathlib.Path, ...]
    tables: Mapping[str, pathlib.Path]
    films: pathlib.Path
    ms_cxr: pathlib.Path | None


def find(manual_dir: str | None, *, images: str | None = None) -> Places:
    """Looks for the files of the releases; reads none.

    Args:
        manual_dir: folder that holds the releases.
        images: sub-folder of it with the films; None: ``files`` beside the metadata.

    Raises:
        DataError: no folder, nothing of a release in it, or something twice.
    """
    root = _folder(manual_dir)
    graphs, tables, ms_cxr = [], {}, []
    for folder, entries in _searched(root):
        if ARCHIVE in entries or entries.get(GRAPHS):
            graphs.append(folder / (ARCHIVE if ARCHIVE in entries else GRAPHS))
        for name in sorted(entries):
            if found := MIMIC.fullmatch(name):
                tables.setdefault(found[1], []).append(folder / name)
            elif MS_CXR.fullmatch(name):
                ms_cxr.append(folder / name)
    source = _one(root, graphs, f"Chest ImaGenome ({ARCHIVE} or a folder {GRAPHS})")
    chosen = {
        kind: _one(root, tables.get(kind, []), f"mimic-cxr-2.*-{kind}.csv.gz")
        for kind in (METADATA, SPLIT, CHEXPERT)
    }
    silver = source.parent
    return Places(
        root=root,
        graphs=source,
        lists=_lists(silver),
        avoid=_either(silver / "splits", AVOID),
        gold=_gold(silver.parent / "gold_dataset"),
        tables=chosen,
        films=_films(root, chosen[METADATA].parent, images),
        ms_cxr=_one(root, ms_cxr, "") if ms_cxr else None,
    )


def _folder(manual_dir: str | None) -> pathlib.Path:
    if manual_dir is None:
        raise DataError(
            "chest_imagenome is made of released files: give the folder that holds Chest"
            " ImaGenome and MIMIC-CXR-JPG with --manual_dir"
        )
    root = pathlib.Path(manual_dir).expanduser()
    if not root.is_dir():
        raise DataError(f"manual_dir {root}: no such folder; give that of the releases")
    return root


def _searched(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, dict[str, bool]]]:
    """Folders, nearest first, and their entries: name → whether it is a folder."""
    level = [root]
    for _ in range(DEPTH + 1):
        below = []
        for folder in level:
            entries = _entries(folder)
            yield folder, entries
            below += [folder / n for n in sorted(entries) if entries[n] and _inner(n)]
        level = below


def _entries(folder: pathlib.Path) -> dict[str, bool]:
    try:
        with os.scandir(folder) as found:
            return {e.name: e.is_dir() for e in found if e.name[0] != "."}
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be searched ({error.strerror}); make it readable, or give"
            " another --manual_dir"
        ) from None


def _inner(name: str) -> bool:
    return name != GRAPHS and not _FILMS.fullmatch(name)


def _one(root: pathlib.Path, paths: list[pathlib.Path], what: str) -> pathlib.Path:
    # A table that was unpacked beside its archive is still one table.
    kept = [p for p in paths if p.suffix != ".gz" or p.with_suffix("") not in paths]
    if not kept:
        raise DataError(
            f"manual_dir {root}: no {what} there, nor in {DEPTH} levels of folders below;"
            " put or link the release there"
        )
    if len(kept) > 1:
        raise DataError(
            f"manual_dir {root}: both {kept[0]} and {kept[1]} are there; keep one"
        )
    return kept[0]


def _either(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def _lists(silver: pathlib.Path) -> dict[str, pathlib.Path]:
    found = {part: _either(silver / "splits", name) for part, name in LISTS.items()}
    absent = [LISTS[part] for part, path in found.items() if path is None]
    if len(absent) == len(LISTS):
        return {}
    if absent:
        raise DataError(
            f"{silver / 'splits'}: {', '.join(absent)} is missing, but other lists of the"
            " split 'imagenome' are there; all or none are allowed"
        )
    return found


def _gold(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    tables = (path for kind in ("*.txt", "*.csv") for path in folder.glob(kind))
    return tuple(sorted(path for path in tables if path.name[0] != "."))


def _films(root: pathlib.Path, mimic: pathlib.Path, images: str | None) -> pathlib.Path:
    folder = mimic if images is None else root / images
    if not folder.is_dir():
        raise DataError(f"images {images!r}: no such folder in {root}")
    return folder / "files" if (folder / "files").is_dir() else folder
