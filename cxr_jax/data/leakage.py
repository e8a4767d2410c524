"""Which films a run was trained and chosen on, kept beside it, and asked before it is judged.

``split_ids.csv.gz`` beside ``split.json``: columns ``part,id,patient``, one row per film of
``train``, ``val`` and ``test``, sorted by part and id; ``patient`` is empty where unknown.
Its bytes are a function of the split alone.
"""

import csv
import dataclasses
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from cxr_jax.data.records import Records
from cxr_jax.errors import DataError

FILE = "split_ids.csv.gz"
COLUMNS = ("part", "id", "patient")
# Films of these decided what a run became: its weights, its checkpoint, its thresholds.
USED = ("train", "val")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Films:
    """Some films, by name.

    Attributes:
        ids: of the films.
        patients: of the films, in the same order; ``""`` where unknown.
    """

    ids: Sequence[str]
    patients: Sequence[str]

    @classmethod
    def of(cls, records: Records, index: np.ndarray) -> "Films":
        """The films of some record numbers."""
        return cls(
            ids=records.id[index].tolist(), patients=records.patient[index].tolist()
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """What evaluated films and a run's own have in common.

    Attributes:
        films: evaluated.
        seen: part of the run → evaluated films that are in it.
        related: part of the run → further evaluated films, of patients in it.
        examples: a few of either kind.
    """

    films: int
    seen: Mapping[str, int]
    related: Mapping[str, int]
    examples: tuple[str, ...]

    def __bool__(self) -> bool:
        return any(self.seen.values()) or any(self.related.values())

    def __str__(self) -> str:
        found = [
            f"{self.seen[part]} are films of this run's {part} part and"
            f" {self.related[part]} more are of its patients"
            for part in self.seen
            if self.seen[part] or self.related[part]
        ]
        return f"of {self.films} evaluated films " + ", ".join(
            found or ["none is known"]
        )


def format_ids(records: Records, parts: Mapping[str, np.ndarray]) -> bytes:
    """The content of ``split_ids.csv.gz``; ``read_ids`` is its inverse."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part in sorted(parts):
        films = Films.of(records, parts[part])
        rows = sorted(zip(films.ids, films.patients, strict=True))
        writer.writerows([part, *row] for row in rows)
    return gzip.compress(out.getvalue().encode(), mtime=0)


def read_ids(path: epath.PathLike) -> dict[str, Films]:
    """Part → its films, from ``split_ids.csv.gz``.

    Raises:
        DataError: it is missing, damaged, or another table.
    """
    path = epath.Path(path)
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except FileNotFoundError:
        raise DataError(
            f"{path}: not found, so nobody knows which films this run was trained on;"
            " run --mode=evaluate with its data to write it"
        ) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: damaged ({error}); run --mode=evaluate to write it again"
        ) from None
    header, *rows = [*csv.reader(io.StringIO(text))] or [[]]
    if tuple(header) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise DataError(
            f"{path}: the columns {','.join(COLUMNS)} are allowed; it has"
            f" {','.join(header)[:80]!r}, or a row of another length"
        )
    found: dict[str, list[tuple[str, str]]] = {}
    for part, *film in rows:
        found.setdefault(part, []).append(tuple(film))
    return {
        part: Films(ids=[i for i, _ in films], patients=[p for _, p in films])
        for part, films in found.items()
    }


def check_unseen(
    evaluated: Films,
    own: Mapping[str, Films],
    *,
    what: str,
    allowed: bool = False,
    against: Sequence[str] = USED,
) -> Overlap:
    """Refuses to judge a run by films, or patients, that it was made with.

    Args:
        evaluated: the films it is to be judged by.
        own: part → films of the run's own split.
        what: what is evaluated, for the message, such as ``official/test``.
        allowed: whether the user asked for it by name.
        against: parts of the run that count. The run's own validation part is compared
            with ``train`` alone: it is reported as model selection.

    Returns:
        What was found; nothing, unless it is allowed. Put it beside the figures.

    Raises:
        DataError: films or patients in common; counts and examples are named.
    """
    seen, related, examples = {}, {}, []
    for part in against:
        films = own.get(part, Films(ids=(), patients=()))
        ids, patients = set(films.ids), set(films.patients) - {""}
        pairs = list(zip(evaluated.ids, evaluated.patients, strict=True))
        same = [i for i, _ in pairs if i in ids]
        kin = [i for i, patient in pairs if i not in ids and patient in patients]
        seen[part], related[part] = len(same), len(kin)
        examples += [*same[:2], *kin[:2]]
    found = Overlap(
        films=len(evaluated.ids),
        seen=seen,
        related=related,
        examples=tuple(dict.fromkeys(examples))[:3],
    )
    if found and not allowed:
        raise DataError(
            f"{what}: {found}, such as {', '.join(found.examples)}; figures on them would"
            " flatter: evaluate another split, or set eval.allow_seen=True to have them"
            " anyway"
        )
    return found
