"""Films on disk → a folder of findings: what ``--mode=predict`` does."""

import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from cxr_jax.data import box_files
from cxr_jax.errors import ConfigError, InputRejected
from cxr_jax.finding import Finding
from cxr_jax.intake import Reduced
from cxr_jax.plots import BOXES_SHOW, MAPS_SHOW
from cxr_jax.predict import Predictor, Prevalence
from cxr_jax.predictions import (
    MAX_STD,
    RESEARCH_USE,
    SPREAD,
    Predictions,
    format_predictions,
    format_uncertainty,
    write_atomically,
)
from cxr_jax.progress import say, track

# What is taken from a folder; other files there are counted, and left alone.
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
DONE, REJECTED = 0, 1
THREADS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Films to be read.

    Attributes:
        paths: one per film.
        ids: one per film, all different: file names, or the paths where names repeat.
        ignored: files of the folders given that are no films by their names.
    """

    paths: tuple[pathlib.Path, ...]
    ids: tuple[str, ...]
    ignored: int


def predict_files(
    reader: Predictor,
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    prevalence: Prevalence | None = None,
    overlays: bool = False,
    samples: int = 0,
    max_std: float = MAX_STD,
) -> int:
    """Reads films and writes what was found.

    The folder then holds ``predictions.csv`` (probabilities as shown: calibrated where
    possible), ``scores.csv`` (as the model gives them: what thresholds act on),
    ``predictions.txt`` (what the columns are), ``findings.jsonl`` (one line per film,
    refused ones too) and, if asked for, ``overlays/ID.png``; where dropout was sampled,
    ``uncertainty.csv`` (the spread of scores); where the task finds boxes, ``boxes.csv``,
    relative to the whole film. Each file is there whole or not at all.

    Args:
        reader: from ``loading.load``.
        inputs: PNG and JPEG files, and folders, whose files are taken at any depth.
        output: the folder; made where absent.
        prevalence: of another site; see ``Predictor.predict``.
        overlays: whether films are drawn under the maps of their foremost classes.
        samples: passes with a dropout mask each; see ``Predictor.predict``.
        max_std: above this spread a finding is flagged.

    Returns:
        0, or 1 where a film was refused; those are named on stderr.

    Raises:
        ConfigError: no films, a prevalence or samples that cannot be used, or a folder
            that cannot be written.
    """
    films = find_films(inputs)
    options = {"maps": overlays, "prevalence": prevalence}
    read = _read(reader, films, **options, samples=samples, max_std=max_std)
    output = pathlib.Path(output).expanduser()
    drawings = output / "overlays"
    try:
        (drawings if overlays else output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output={output} cannot be written: {error.strerror}; give a folder that"
            " you may write to"
        ) from error
    rows: list[Finding] = []
    ids: list[str] = []
    lines: list[str] = []
    for film, found in track(read, total=len(films.paths), what="films"):
        about: dict[str, Any] = {"id": film, "note": RESEARCH_USE}
        if isinstance(found, InputRejected):
            say(f"rejected: {film}: {found}")
            about |= {"rejected": {"code": found.code, "hint": found.hint}}
        else:
            about |= found.to_dict()
            ids.append(film)
            rows.append(dataclasses.replace(found, maps=None))
            if overlays:
                name = film.strip("/").replace("/", "__")
                write_atomically(drawings / f"{name}.png", found.plot().to_png())
        lines.append(json.dumps(about, allow_nan=False, ensure_ascii=False) + "\n")
    write_atomically(output / "findings.jsonl", "".join(lines))
    _write_tables(output, reader, ids, rows)
    write_atomically(output / "predictions.txt", _sidecar(reader, rows, films, samples))
    rejected = len(films.paths) - len(rows)
    say(
        f"{len(rows)} of {len(films.paths)} films read, {rejected} rejected,"
        f" {films.ignored} other files ignored: {output}"
    )
    return REJECTED if rejected else DONE


def find_films(inputs: Sequence[str | os.PathLike]) -> Inputs:
    """Files as given, and the films in the folders given, in the order of their names.

    Raises:
        ConfigError: nothing was given, or a folder holds no films.
    """
    paths: list[pathlib.Path] = []
    ignored = 0
    for given in inputs:
        path = pathlib.Path(given).expanduser()
        if not path.is_dir():
            paths.append(path)  # One that is missing is rejected when it is read.
            continue
        files = sorted(p for p in path.rglob("*") if p.is_file())
        films = [p for p in files if p.suffix.lower() in SUFFIXES]
        if not films:
            raise ConfigError(
                f"--inputs={given}: no {', '.join(SUFFIXES)} among its {len(files)}"
                " files; give films, or a folder of films"
            )
        paths += films
        ignored += len(files) - len(films)
    paths = list(dict.fromkeys(paths))
    if not paths:
        raise ConfigError("--inputs: no films; give files, or folders of films")
    names = [path.name for path in paths]
    unique = len(set(names)) == len(names)
    return Inputs(
        paths=tuple(paths),
        ids=tuple(names if unique else map(str, paths)),
        ignored=ignored,
    )


def parse_prevalence(text: str) -> Prevalence:
    """``0.0128``, or ``CLASS=0.0128,CLASS=0.05``.

    Raises:
        ConfigError: not a number, or a class twice.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise ConfigError(
                f"--prevalence={text}: {number!r} is not a number; write 0.0128 or"
                " CLASS=0.0128,CLASS=0.05"
            ) from None
        if name in shares or (not name and "," in text):
            raise ConfigError(f"--prevalence={text}: give each class once, by its name")
        shares[name] = value
    return shares.get("", shares)


def _read(
    reader: Predictor, films: Inputs, **options: Any
) -> Iterator[tuple[str, Finding | InputRejected]]:
    """Every film with what was found, in order; refused ones in their places.

    What is asked for is checked at once. Films are decoded ahead in threads. A refusal
    passes the network by, so what waits for a batch to fill up is put back into order.
    """
    waiting: collections.deque[InputRejected | None] = collections.deque()
    names = iter(films.ids)

    def sound() -> Iterator[Reduced]:
        for film in _ahead(reader, films.paths):
            refused = isinstance(film, InputRejected)
            waiting.append(film if refused else None)
            if not refused:
                yield film

    def passed() -> Iterator[tuple[str, InputRejected]]:
        while waiting and waiting[0] is not None:
            yield next(names), waiting.popleft()

    def in_order(
        stream: Iterator[Finding],
    ) -> Iterator[tuple[str, Finding | InputRejected]]:
        for found in stream:
            yield from passed()
            waiting.popleft()
            yield next(names), found
        yield from passed()

    return in_order(reader.stream(sound(), **options))


def _ahead(
    reader: Predictor, paths: Iterable[pathlib.Path]
) -> Iterator[Reduced | InputRejected]:
    """Reduced films in order, a few of them decoded ahead."""

    def reduce(path: pathlib.Path) -> Reduced | InputRejected:
        try:
            return reader.reduce(path)
        except InputRejected as error:
            return error

    coming: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        try:
            for path in paths:
                coming.append(pool.submit(reduce, path))
                if len(coming) > 2 * THREADS:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def _write_tables(
    output: pathlib.Path, reader: Predictor, ids: Sequence[str], rows: Sequence[Finding]
) -> None:
    """One row per film, or per box; what is not of this reading goes."""
    for name, which in (("predictions", "probs"), ("scores", "raw")):
        table = _table(reader, ids, [getattr(row, which) for row in rows])
        write_atomically(output / f"{name}.csv", format_predictions(table))
    spread, boxes = output / "uncertainty.csv", output / "boxes.csv"
    for file in (spread, boxes):
        file.unlink(missing_ok=True)
    if rows and rows[0].std is not None:
        write_atomically(spread, format_uncertainty(_spread(table, rows)))
    if any(row.boxes is not None for row in rows):
        lines = _boxes(reader, ids, rows)
        write_atomically(boxes, box_files.format_lines(lines))


def _table(
    reader: Predictor, ids: Sequence[str], probs: Sequence[np.ndarray]
) -> Predictions:
    shape = (len(ids), len(reader.classes))
    unknown = np.full(len(ids), "", dtype=str)
    return Predictions(
        classes=reader.classes,
        ids=np.array(ids, dtype=str),
        patients=unknown,
        studies=unknown,
        index=np.full(len(ids), -1),
        probs=np.array(probs, np.float64).reshape(shape),
        labels=np.full(shape, np.nan, np.float32),
    )


def _spread(table: Predictions, rows: Sequence[Finding]) -> Predictions:
    return dataclasses.replace(
        table,
        std=np.stack([row.std for row in rows]),
        information=np.stack([row.information for row in rows]),
    )


def _boxes(
    reader: Predictor, ids: Sequence[str], rows: Sequence[Finding]
) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """Every box, on the film as it was given: the network's square is in its middle."""
    for film, row in zip(ids, rows, strict=True):
        height, width = row.shape
        side = (min if reader.fit == "crop" else max)(height, width)
        scale = (1.0, 1.0) if reader.fit == "stretch" else (side / width, side / height)
        for name, score, corners in row.boxes or ():
            placed = 0.5 + (np.reshape(corners, (2, 2)) - 0.5) * scale
            yield film, name, (score, *np.clip(placed, 0.0, 1.0).ravel())


def _sidecar(
    reader: Predictor, rows: Sequence[Finding], films: Inputs, samples: int
) -> str:
    """What the columns are, in words."""
    about = [f"{key}: {value}" for key, value in reader.about.items()]
    lines = [RESEARCH_USE, *about, f"films: {len(rows)} of {len(films.paths)}"]
    lines.append("scores.csv: as the model gives them; thresholds act on these.")
    lines.append("predictions.csv, by column:")
    for column, name in enumerate(reader.classes if rows else ()):
        row = rows[0]
        word = f"score, uncalibrated: {row.reasons[column]}"
        if row.calibrated[column]:
            kind = "asked for" if row.site[column] else "of the calibration films"
            share = row.prevalence[column]
            word = f"calibrated probability at a prevalence of {share:.6g} ({kind})"
        bar = row.thresholds[column]
        point = f"; threshold {bar:.9g} on the score" if np.isfinite(bar) else ""
        lines.append(f"  {name}: {word}{point}")
    if rows and rows[0].std is not None:
        asked = f" over {samples} passes, masks of seed 0" if samples else ""
        lines.append(f"uncertainty.csv: of the scores, {SPREAD}{asked}.")
        flags = sum(int(row.flagged.sum()) for row in rows)
        bar = rows[0].max_std
        lines.append(f"{flags} findings are flagged: their spread is above {bar:g}.")
    shows = MAPS_SHOW
    if any(row.boxes is not None for row in rows):
        lines.append(
            "boxes.csv: corners in [0, 1], relative to the whole film, y downwards; the"
            " score of a box is that of its regions, not the film's in scores.csv."
        )
        shows = BOXES_SHOW
    lines.append("Below a threshold is not the same as normal. " + shows)
    return "\n".join(lines) + "\n"
