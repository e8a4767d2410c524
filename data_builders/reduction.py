"""Stage one of a build: every film reduced once, into a cache that survives a kill.

A reduced film is kept under the SHA-256 of its source's bytes, so that a moved or copied
release finds its films again; the folder carries the size and ``VERSION``. An index
remembers path, size and time of change of each source, so that a second run does not even
read them. Files appear by renaming and end with a checksum: a torn one is made again.
Films fitted to the square in another way lie in another folder.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import struct
import zlib
from collections.abc import Mapping

import numpy as np

from cxr_jax.data.image import (
    Fit,
    read_bytes,
    read_film,
    reduce_film,
    shape_in_square,
)
from cxr_jax.errors import InputRejected
from cxr_jax.progress import track
from data_builders.workers import ordered_map

# Raise it whenever the pixels of a reduced film change.
VERSION = 1
INDEX = "sources.jsonl"
# Height and width of the source, after the pixels.
SHAPE = struct.Struct(">II")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reduced:
    """A film in the cache: SHA-256 of its source, and the source's height and width."""

    key: str
    height: int
    width: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refused:
    """A film that cannot be used, with a short code and one sentence."""

    code: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
    """Films of one size, in one folder.

    Attributes:
        folder: of this size, fit and version.
        size: height and width of the reduced films, in pixels.
        fit: ``stretch`` fills the square, so that boxes relative to the film stay right;
            ``pad`` keeps the aspect ratio, in the middle of black; ``crop`` keeps it and
            the square in the film's middle.
        enlarge: sides that are shorter than in the square are enlarged linearly;
            otherwise such films are refused.
    """

    folder: pathlib.Path
    size: int
    fit: Fit = "stretch"
    enlarge: bool = False

    def path(self, key: str) -> pathlib.Path:
        """Where the reduced film of a source lies."""
        return self.folder / key[:2] / f"{key}.gray"

    def load(self, key: str) -> np.ndarray | None:
        """The reduced film, uint8 ``[size, size]``; None where absent or damaged."""
        data = self._sound(key)
        if data is None:
            return None
        return np.frombuffer(data, np.uint8, self.size**2).reshape(self.size, -1)

    def reduce(self, source: str) -> Reduced | Refused:
        """Reads one film and keeps it reduced, unless it is kept already."""
        try:
            data = read_bytes(source)
            key = hashlib.sha256(data).hexdigest()
            kept = self._sound(key)
            if kept is None:
                film = read_film(data)
                how = {"fit": self.fit, "enlarge": self.enlarge}
                small = reduce_film(film, self.size, **how)
                kept = self._store(key, small.tobytes() + SHAPE.pack(*film.shape))
        except InputRejected as error:
            return Refused(code=error.code, reason=error.hint)
        height, width = SHAPE.unpack(kept[self.size**2 :])
        return Reduced(key=key, height=height, width=width)

    def _sound(self, key: str) -> bytes | None:
        """Pixels and the source's shape, if the checksum agrees."""
        try:
            data = self.path(key).read_bytes()
        except FileNotFoundError:
            return None
        body, check = data[:-4], data[-4:]
        whole = len(body) == self.size**2 + SHAPE.size
        return body if whole and zlib.crc32(body).to_bytes(4, "big") == check else None

    def _store(self, key: str, body: bytes) -> bytes:
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".tmp-{os.getpid()}")
        temporary.write_bytes(body + zlib.crc32(body).to_bytes(4, "big"))
        os.replace(temporary, path)
        return body


def is_enlarged(shape: tuple[int, int], size: int, *, fit: Fit) -> bool:
    """Whether a film of this height and width has a side shorter than in the square."""
    wanted = shape_in_square(shape, size, fit=fit)
    return any(side < new for side, new in zip(shape, wanted, strict=True))


def open_cache(
    root: str | os.PathLike,
    *,
    dataset: str,
    size: int,
    fit: Fit = "stretch",
    enlarge: bool = False,
) -> Cache:
    """The cache of a dataset's films at one size and fit; made where absent."""
    how = ("" if fit == "stretch" else f"-{fit}") + ("-enlarge" if enlarge else "")
    folder = pathlib.Path(root) / f"{dataset}-{size}px{how}-v{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    for torn in folder.glob("*/*.tmp-*"):
        torn.unlink()  # What a killed build left; a lock keeps others away.
    return Cache(folder=folder, size=size, fit=fit, enlarge=enlarge)


def reduce_all(
    sources: Mapping[str, pathlib.Path], cache: Cache, *, workers: int
) -> dict[str, Reduced | Refused]:
    """Reduces every film that the cache does not hold.

    Args:
        sources: name of a film → its file.
        cache: where to keep them.
        workers: processes; 0: in this one.

    Returns:
        Name → where it is, or why it was refused; in the order of ``sources``.
    """
    known = _read_index(cache)
    stamps = {name: _stamp(path) for name, path in sources.items()}
    found = {name: known.get(stamp) for name, stamp in stamps.items()}
    todo = [
        name
        for name, entry in found.items()
        if entry is None or not cache.path(entry.key).exists()
    ]
    paths = [str(sources[name]) for name in todo]
    results = ordered_map(cache.reduce, paths, workers=workers)
    with open(cache.folder / INDEX, "a") as index:
        for name, result in zip(
            todo, track(results, total=len(todo), what="films reduced"), strict=True
        ):
            found[name] = result
            if isinstance(result, Reduced):
                line = [*stamps[name], dataclasses.asdict(result)]
                index.write(json.dumps(line) + "\n")
                index.flush()
    return found


def _stamp(path: pathlib.Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _read_index(cache: Cache) -> dict[tuple[str, int, int], Reduced]:
    path = cache.folder / INDEX
    if not path.exists():
        return {}
    known = {}
    lines = path.read_text().split("\n")
    for line in lines[:-1]:
        try:
            source, size, changed, entry = json.loads(line)
            known[source, size, changed] = Reduced(**entry)
        except (ValueError, TypeError):
            continue  # Torn by a kill: that film is looked at again.
    if lines[-1]:  # The next line must not join the torn one.
        path.write_text("".join(f"{line}\n" for line in lines[:-1]))
    return known
