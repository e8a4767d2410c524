"""The MURA v1.1 release: four tables that name everything, and where they lie.

A film is ``MURA-v1.1/{train,valid}/XR_PART/patientN/studyK_{positive,negative}/imageM.png``.
For each of train and valid, one table lists films and one lists studies with 0 or 1, with
or without a header. Folders are never listed: archives leave files such as
``._image1.png`` in them.

Every name is checked against the others, and what does not fit is refused with its line.

Reference: Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in
Musculoskeletal Radiographs", 2017, and the tables of the release.
"""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import NoReturn

from cxr_jax.data.tables import read_text
from cxr_jax.errors import DataError
from cxr_jax.labels import BODY_PARTS

NAME = "MURA-v1.1"
PARTS = ("train", "valid")
IMAGES = "{}_image_paths.csv"
STUDIES = "{}_labeled_studies.csv"
TABLES = tuple(name.format(part) for part in PARTS for name in (IMAGES, STUDIES))
# As the release writes them → as this package does.
TYPES = {f"XR_{name.upper()}": name for name in BODY_PARTS}

_FOLDER = (
    rf"{re.escape(NAME)}/(?P<part>{'|'.join(PARTS)})/(?P<type>XR_[A-Za-z]+)"
    r"/(?P<patient>patient[0-9]+)/(?P<study>study[0-9]+)_(?P<sign>positive|negative)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Form:
    pattern: re.Pattern[str]
    words: str


_STUDY = _Form(
    pattern=re.compile(f"{_FOLDER}/?"),
    words=f"{NAME}/{{part}}/XR_PART/patientN/studyK_{{{{positive,negative}}}}/",
)
_IMAGE = _Form(
    pattern=re.compile(rf"{_FOLDER}/(?P<image>image[0-9]+\.png)"),
    words=_STUDY.words + "imageM.png",
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One row of a table of studies.

    Attributes:
        name: such as ``XR_WRIST/patient00006/study1``; it does not tell the label.
        patient: such as ``patient00006``; may have studies of several body parts.
        body_part: one of ``labels.BODY_PARTS``.
        part: ``train`` or ``valid``.
        folder: below the release, such as ``train/XR_WRIST/patient00006/study1_positive``.
        abnormal: its label.
        line: of the table.
    """

    name: str
    patient: str
    body_part: str
    part: str
    folder: str
    abnormal: bool
    line: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One film that a table lists.

    Attributes:
        id: ``STUDY/imageM.png`` with the study's name.
        study: the study it is a view of.
        file: below the release.
        line: of the table.
    """

    id: str
    study: Study
    file: str
    line: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """What the tables say.

    Attributes:
        tables: file name → file, all of ``TABLES``.
        headers: names of the tables that have a header.
        studies: name → study, in the order of the tables, train first.
        entries: id → film, likewise.
        root: folder that ``Entry.file`` is below.
    """

    tables: Mapping[str, pathlib.Path]
    headers: tuple[str, ...]
    studies: Mapping[str, Study]
    entries: Mapping[str, Entry]
    root: pathlib.Path


def read_release(manual_dir: str | None) -> Release:
    """Finds and reads the four tables; films are not looked for.

    Args:
        manual_dir: the folder ``MURA-v1.1``, or its parent.

    Raises:
        DataError: no folder, a table that is not there, or a line that cannot be used.
    """
    root = _folder(manual_dir)
    tables = _tables(root)
    headers, studies, entries = [], {}, {}
    patients: dict[str, Study] = {}
    for part in PARTS:
        rows = _Rows.read(tables[STUDIES.format(part)], width=2)
        _add_studies(rows, part, studies, patients)
        films = _Rows.read(tables[IMAGES.format(part)], width=1)
        _add_films(films, part, studies, entries)
        _refuse_empty(rows.path, films.path, part, studies, entries)
        headers += [r.path.name for r in (films, rows) if r.header]
    inner = root / NAME
    return Release(
        tables=tables,
        headers=tuple(headers),
        studies=studies,
        entries=entries,
        root=inner if inner.is_dir() else root,
    )


def _folder(manual_dir: str | None) -> pathlib.Path:
    if manual_dir is None:
        raise DataError(
            f"mura is made of released files: give the folder {NAME}, or its parent, with"
            " --manual_dir"
        )
    root = pathlib.Path(manual_dir).expanduser()
    if not root.is_dir():
        raise DataError(f"manual_dir {root}: no such folder; give that of the release")
    return root


def _tables(root: pathlib.Path) -> dict[str, pathlib.Path]:
    places = [{n: folder / n for n in TABLES} for folder in (root, root / NAME)]
    # The place with the most tables is the one that was meant.
    found = max(places, key=lambda files: sum(f.is_file() for f in files.values()))
    missing = [name for name, file in found.items() if not file.is_file()]
    if missing:
        raise DataError(
            f"manual_dir {root}: {', '.join(missing)} not found there, nor in {NAME}; all"
            f" of {', '.join(TABLES)} are needed: give the folder {NAME}, or its parent"
        )
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rows:
    """Line numbers and cells of a table, without its header."""

    path: pathlib.Path
    header: bool
    rows: list[tuple[int, list[str]]]

    @classmethod
    def read(cls, path: pathlib.Path, *, width: int) -> "_Rows":
        rows = []
        for line, text in enumerate(read_text(path).splitlines(), start=1):
            try:  # Line by line: a stray quote must not swallow the rest.
                cells = [
                    cell.strip() for cell in next(csv.reader([text], strict=True), [])
                ]
            except csv.Error as error:
                _refuse(path, line, f"not a table ({error})")
            if any(cells):
                rows.append((line, cells))
        # A path has slashes and dots, also a damaged one.
        header = bool(rows) and not re.search(r"[/\\.]", rows[0][1][0])
        rows = rows[header:]
        for line, cells in rows:
            if len(cells) != width:
                _refuse(path, line, f"number of cells {len(cells)}; {width} is allowed")
        if not rows:
            raise DataError(f"{path}: lists nothing; at least 1 line is needed")
        return cls(path=path, header=header, rows=rows)


def _add_studies(
    rows: _Rows, part: str, studies: dict[str, Study], patients: dict[str, Study]
) -> None:
    for line, (text, label) in rows.rows:
        found = _parsed(_STUDY, text, part, rows.path, line)
        if label not in ("0", "1"):
            _refuse(rows.path, line, f"label {label!r}; 0 or 1 is allowed")
        study = Study(
            name=_study_name(found),
            patient=found["patient"],
            body_part=TYPES[found["type"]],
            part=part,
            folder=_below(text).rstrip("/"),
            abnormal=label == "1",
            line=line,
        )
        first = patients.setdefault(study.patient, study)
        if first.part != part:
            _refuse(
                rows.path,
                line,
                f"{study.patient} is also in {STUDIES.format(first.part)}, line"
                f" {first.line}; a patient may be in one of them only",
            )
        _refuse_twin(rows.path, study, studies.get(study.name))
        if study.abnormal != (found["sign"] == "positive"):
            _refuse(
                rows.path,
                line,
                f"label {label} contradicts the folder {study.folder}; 1 and positive, or"
                " 0 and negative, is allowed",
            )
        studies[study.name] = study


def _refuse_twin(path: pathlib.Path, study: Study, other: Study | None) -> None:
    if other is None:
        return
    if other.folder == study.folder:
        labels = "the same" if other.abnormal == study.abnormal else "another"
        what = f"study {study.folder} is also in line {other.line}, with {labels} label"
    else:
        what = (
            f"{study.folder} and {other.folder} (line {other.line}) would be one study,"
            f" {study.name}, with views of both labels"
        )
    _refuse(path, study.line, f"{what}; every study is allowed once: remove one")


def _add_films(
    rows: _Rows, part: str, studies: Mapping[str, Study], entries: dict[str, Entry]
) -> None:
    for line, (text,) in rows.rows:
        found = _parsed(_IMAGE, text, part, rows.path, line)
        study = studies.get(_study_name(found))
        file = _below(text)
        folder = file.rpartition("/")[0]
        if study is None or study.folder != folder:
            instead = f", which has {study.folder}" if study else ""
            _refuse(
                rows.path,
                line,
                f"the study of {file} is not in {STUDIES.format(part)}{instead}; add it"
                " there, or remove the film",
            )
        name = f"{study.name}/{found['image']}"
        if name in entries:
            _refuse(rows.path, line, f"{file} is also in line {entries[name].line}")
        entries[name] = Entry(id=name, study=study, file=file, line=line)


def _refuse_empty(
    path: pathlib.Path,
    films: pathlib.Path,
    part: str,
    studies: Mapping[str, Study],
    entries: Mapping[str, Entry],
) -> None:
    filmed = {entry.study.name for entry in entries.values()}
    for study in studies.values():
        if study.part == part and study.name not in filmed:
            _refuse(
                path,
                study.line,
                f"study {study.folder} has no film in {films.name}; at least 1 is needed",
            )


def _parsed(
    form: _Form, text: str, part: str, path: pathlib.Path, line: int
) -> re.Match[str]:
    found = form.pattern.fullmatch(text)
    if found is None or found["part"] != part:
        allowed = form.words.format(part=part)
        _refuse(path, line, f"{text[:120]!r}; {allowed} is allowed")
    if found["type"] not in TYPES:
        _refuse(
            path,
            line,
            f"{found['type']} is no body part of this release; allowed:"
            f" {', '.join(TYPES)}",
        )
    return found


def _study_name(found: re.Match[str]) -> str:
    return f"{found['type']}/{found['patient']}/{found['study']}"


def _below(text: str) -> str:
    return text.removeprefix(f"{NAME}/")


def _refuse(path: pathlib.Path, line: int, what: str) -> NoReturn:
    raise DataError(f"{path}, line {line}: {what}")
