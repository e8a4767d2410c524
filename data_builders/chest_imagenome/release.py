"""The tables of the releases: which films there are, and which of them may be used.

A film is a row of MIMIC-CXR-JPG's metadata. It is used if it is frontal, its study has
CheXpert labels, it has a scene graph, and no list of a config leaves it out. Of the others
every one is kept with its reason.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence

from cxr_jax.errors import DataError
from data_builders.chest_imagenome import places
from data_builders.chest_imagenome.columns import (
    read_columns,
    read_names,
    refuse,
    whole,
)
from data_builders.chest_imagenome.graphs import Graph, Source
from data_builders.quarantine import said
from data_builders.reduction import Refused

METADATA = ("dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns")
FRONTAL = ("PA", "AP")
PARTS = {"train": "train", "validate": "val", "test": "test"}
RELEASED, IMAGENOME = "released", "imagenome"
BOXES_MIN = 5
# What a config may leave out.
GOLD, TO_AVOID, MS_CXR, REPEATED = "gold", "to_avoid", "ms_cxr", "duplicated_boxes"
GOLD_COLUMNS = ("image_id", "current_image_id", "previous_image_id")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One film that the tables let in.

    Attributes:
        id: ``dicom_id``.
        patient, study: numbers, as text.
        view: ``PA`` or ``AP``.
        height, width: in pixels.
        parts: scheme → part, or ``""``.
    """

    id: str
    patient: str
    study: str
    view: str
    height: int
    width: int
    parts: Mapping[str, str]

    @property
    def file(self) -> str:
        """Below the folder of films."""
        return f"p{self.patient[:2]}/p{self.patient}/s{self.study}/{self.id}.jpg"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """What the tables say.

    Attributes:
        places: where everything lies.
        films: number of rows of the metadata.
        entries: name → film, in the order of the metadata.
        refused: name of a film that is left out → why.
        graphs: name of a film → file of its scene graph, of all that are there.
        lists: scheme → part → number of films that a list names.
        gold, ms_cxr: numbers of films that these releases name.
    """

    places: places.Places
    films: int
    entries: Mapping[str, Entry]
    refused: Mapping[str, Refused]
    graphs: Mapping[str, str]
    lists: Mapping[str, Mapping[str, int]]
    gold: int
    ms_cxr: int


def read_release(
    manual_dir: str | None, *, images: str | None = None, without: Collection[str]
) -> Release:
    """Finds and reads the tables; scene graphs are listed, films are not looked for.

    Args:
        manual_dir: folder that holds the releases.
        images: sub-folder of it with the films; None: found.
        without: what is left out, of ``GOLD``, ``TO_AVOID``, ``MS_CXR``.

    Raises:
        DataError: something is not there, or a line cannot be used.
    """
    found = places.find(manual_dir, images=images)
    names = _Names.read(found, without)
    graphs = Source(path=found.graphs).members()
    films = _films(found.tables[places.METADATA], names, graphs)
    refused = {n: film for n, film in films.items() if isinstance(film, Refused)}
    refused |= {name: _STRANGER for name in graphs if name not in films}
    entries = {n: film for n, film in films.items() if isinstance(film, Entry)}
    if not entries:
        raise DataError(
            f"manual_dir {manual_dir}: none of its {len(films)} films can be used"
            f" ({said(refused)}); tables and scene graphs must be of the same films"
        )
    return Release(
        places=found,
        films=len(films),
        entries=entries,
        refused=refused,
        graphs=graphs,
        lists={
            s: dict(collections.Counter(p.values())) for s, p in names.lists.items()
        },
        gold=len(names.gold),
        ms_cxr=len(names.ms_cxr),
    )


def reason_in_graph(graph: Graph, without: Collection[str]) -> Refused | None:
    """Why a film is left out that has this scene graph; None where it is used."""
    if graph.viewpoint not in FRONTAL:
        return Refused(code="viewpoint", reason="its scene graph is not PA or AP")
    if graph.boxes < BOXES_MIN:
        return Refused(code="few_boxes", reason=f"fewer than {BOXES_MIN} valid boxes")
    if graph.repeated and REPEATED in without:
        names = ", ".join(graph.repeated)
        return Refused(code=REPEATED, reason=f"several boxes of {names}")
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Names:
    """What the tables beside the metadata say of films.

    Attributes:
        lists: scheme → name of a film → part.
        studies: patient and study of those with CheXpert labels.
        gold, avoid, ms_cxr: names of films.
        without: lists that leave films out.
    """

    lists: Mapping[str, Mapping[str, str]]
    studies: Collection[tuple[str, str]]
    gold: Collection[str]
    avoid: Collection[str]
    ms_cxr: Collection[str]
    without: Collection[str]

    @classmethod
    def read(cls, found: places.Places, without: Collection[str]) -> "_Names":
        """Reads them.

        Raises:
            DataError: a list that is wanted is not there.
        """
        if TO_AVOID in without and not found.avoid:
            raise DataError(
                f"{found.graphs.parent / 'splits'}: no {places.AVOID}, whose films are"
                " left out; put it there, or build the config that ends in _all"
            )
        if MS_CXR in without and not found.ms_cxr:
            raise DataError(
                f"manual_dir {found.root}: no MS_CXR_Local_Alignment_*.csv, whose films"
                " are left out of training; put it there, or build the config that ends"
                " in _with_ms_cxr"
            )
        lists = {RELEASED: _official(found.tables[places.SPLIT])}
        if found.lists:
            lists[IMAGENOME] = _silver(found.lists)
        avoid, ms_cxr = (
            {row[0] for _, row in read_columns(path, ("dicom_id",))} if path else set()
            for path in (found.avoid, found.ms_cxr)
        )
        gold = [read_names(path, GOLD_COLUMNS) for path in found.gold]
        return cls(
            lists=lists,
            studies=_studies(found.tables[places.CHEXPERT]),
            gold=set().union(*gold),
            avoid=avoid,
            ms_cxr=ms_cxr,
            without=without,
        )

    def reason(
        self, name: str, study: tuple[str, str], view: str, graphs: Collection[str]
    ) -> Refused | None:
        """Why a film is left out; the first reason that holds."""
        part = self.lists[RELEASED].get(name)
        kept_of_ms_cxr = name not in self.ms_cxr or part == "test"
        for code, fine in (
            ("not_frontal", view in FRONTAL),
            ("no_part", part is not None),
            ("no_chexpert", study in self.studies),
            (GOLD, GOLD not in self.without or name not in self.gold),
            (TO_AVOID, TO_AVOID not in self.without or name not in self.avoid),
            (MS_CXR, MS_CXR not in self.without or kept_of_ms_cxr),
            ("no_scene_graph", name in graphs),
        ):
            if not fine:
                return _REASONS[code]
        return None

    def parts(self, name: str) -> dict[str, str]:
        """Scheme → part; where MS-CXR is left out, its films may be tested on only."""
        found = {scheme: parts.get(name, "") for scheme, parts in self.lists.items()}
        if MS_CXR in self.without and name in self.ms_cxr:
            return {s: part if part == "test" else "" for s, part in found.items()}
        return found


def _films(
    path: pathlib.Path, names: _Names, graphs: Collection[str]
) -> dict[str, Entry | Refused]:
    """Every row of the metadata."""
    found: dict[str, Entry | Refused] = {}
    for line, row in read_columns(path, METADATA):
        name = row[0]
        _check_name(name, path, line)
        if name in found:
            refuse(path, line, f"film {name} is there twice; once is allowed")
        found[name] = _film(row, names, graphs, path, line)
    return found


def _film(
    row: list[str],
    names: _Names,
    graphs: Collection[str],
    path: pathlib.Path,
    line: int,
) -> Entry | Refused:
    name, patient, study, view, height, width = row
    patient, study = _numbers((patient, study), METADATA[1:3], path, line)
    why = names.reason(name, (patient, study), view, graphs)
    if why:  # The shape of other films may be unknown.
        return why
    height, width = _numbers((height, width), METADATA[4:], path, line)
    return Entry(
        id=name,
        patient=patient,
        study=study,
        view=view,
        height=int(height),
        width=int(width),
        parts=names.parts(name),
    )


def _numbers(
    cells: Sequence[str], columns: Sequence[str], path: pathlib.Path, line: int
) -> tuple[str, ...]:
    """Whole numbers, as every table would write them."""
    pairs = zip(cells, columns, strict=True)
    return tuple(str(whole(cell, column, path, line)) for cell, column in pairs)


def _official(path: pathlib.Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line, (name, part) in read_columns(path, ("dicom_id", "split")):
        if part not in PARTS:
            refuse(path, line, f"split {part!r}; {', '.join(PARTS)} are allowed")
        if found.setdefault(name, PARTS[part]) != PARTS[part]:
            refuse(path, line, f"film {name} is in two parts; one is allowed")
    return found


def _silver(lists: Mapping[str, pathlib.Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part, path in lists.items():
        for line, (name,) in read_columns(path, ("dicom_id",)):
            if found.setdefault(name, part) != part:
                refuse(path, line, f"film {name} is also in {lists[found[name]].name}")
    return found


def _studies(path: pathlib.Path) -> set[tuple[str, ...]]:
    columns = ("subject_id", "study_id")
    rows = read_columns(path, columns)
    return {_numbers(row, columns, path, line) for line, row in rows}


def _check_name(name: str, path: pathlib.Path, line: int) -> None:
    # Files are opened by it.
    plain = name.replace("-", "").replace("_", "")
    if not (plain.isascii() and plain.isalnum()):
        refuse(path, line, f"dicom_id {name[:80]!r}; letters, digits, - are allowed")


_REASONS = {
    code: Refused(code=code, reason=reason)
    for code, reason in {
        "not_frontal": "its view is not PA or AP",
        "no_part": "not in the split table",
        "no_chexpert": "its study has no CheXpert labels",
        GOLD: "of the gold set of Chest ImaGenome",
        TO_AVOID: f"in {places.AVOID}",
        MS_CXR: "in MS-CXR, and not in the test part",
        "no_scene_graph": "no scene graph of that name",
    }.items()
}
_STRANGER = Refused(code="unlisted", reason="a scene graph of no film of the metadata")
