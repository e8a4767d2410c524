"""The manifest beside every dataset: what must be there, checked before it is read.

A truncated or empty ArrayRecord file opens as zero records without an error, so counts
and byte sizes are compared with the manifest whenever a dataset is opened (cheap), and
SHA-256 digests when the user asks for it (``python -m data_builders NAME --verify``).
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from array_record.python import array_record_module
from etils import epath

from cxr_jax.errors import DataError

SCHEMA = 1
NAME = "manifest.json"
# The one TFDS split of a dataset. TFDS reserves the name "all" for "every split", so
# `as_data_source("all")` reads it, but no split may be called so.
SPLIT = "films"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One ArrayRecord file: name, number of records, size in bytes, SHA-256 in hex."""

    file: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sidecar:
    """One file beside the shards: name, size in bytes, SHA-256 in hex."""

    file: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a finished dataset consists of.

    Attributes:
        dataset: name, such as ``chestxray14``.
        config: size or variant, such as ``256px``.
        version: version of the builder, such as ``1.0.0``.
        records: number of records; record k is row k of ``records.csv``.
        image_size: height and width of every film, in pixels.
        classes: names of the label columns, in order.
        shards: the record files, in record order.
        sidecars: the other files whose digests are kept.
        extra: free notes of the builder: source table, quarantine counts, ...
        schema: version of this layout.
    """

    dataset: str
    config: str
    version: str
    records: int
    image_size: int
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    sidecars: tuple[Sidecar, ...] = ()
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def name(self) -> str:
        """``dataset/config``, as the builder command takes it."""
        return f"{self.dataset}/{self.config}"


def read_manifest(directory: epath.PathLike) -> Manifest:
    """Reads ``manifest.json`` of a dataset.

    Args:
        directory: the version directory, ``DATA/NAME/CONFIG/VERSION``.

    Raises:
        DataError: there is none, it is damaged, or of another schema.
    """
    path = epath.Path(directory) / NAME
    try:
        fields = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(
            f"{path}: not found; a finished dataset has one: build it with"
            " `python -m data_builders NAME --data_dir=DATA`"
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); {_REBUILD}") from None
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema != SCHEMA:
        raise DataError(f"{path}: schema {schema}, but {SCHEMA} is read; {_REBUILD}")
    try:
        fields["shards"] = tuple(Shard(**s) for s in fields["shards"])
        fields["sidecars"] = tuple(Sidecar(**s) for s in fields["sidecars"])
        fields["classes"] = tuple(fields["classes"])
        return Manifest(**fields)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); {_REBUILD}") from None


_REBUILD = "delete the dataset directory and build it again"


def write_manifest(manifest: Manifest, directory: epath.PathLike) -> None:
    """Writes ``manifest.json`` atomically; it is the last file of a dataset."""
    text = json.dumps(dataclasses.asdict(manifest), indent=1, sort_keys=True)
    write_atomically(os.path.join(os.fspath(directory), NAME), text + "\n")


def check_sizes(directory: epath.PathLike) -> Manifest:
    """Checks that every file is there with its size and its number of records.

    Reads footers only: milliseconds per shard. Run on every opening.

    Returns:
        The manifest.

    Raises:
        DataError: names the first file that differs.
    """
    root = epath.Path(directory)
    manifest = read_manifest(root)
    for part in (*manifest.shards, *manifest.sidecars):
        path = root / part.file
        if not path.exists():
            raise DataError(f"{path}: missing; {_REBUILD}")
        size = path.stat().length
        if size != part.bytes:
            raise DataError(
                f"{path}: {size} bytes, but the manifest says {part.bytes}; {_REBUILD}"
            )
    for shard in manifest.shards:
        count = count_records(root / shard.file)
        if count != shard.records:
            raise DataError(
                f"{root / shard.file}: {count} records, but the manifest says"
                f" {shard.records}; {_REBUILD}"
            )
    total = sum(shard.records for shard in manifest.shards)
    if total != manifest.records or total < 1:
        raise DataError(
            f"{root / NAME}: {total} records in the shards, {manifest.records} in all;"
            f" at least 1 and equal is allowed; {_REBUILD}"
        )
    return manifest


def verify_digests(directory: epath.PathLike) -> Manifest:
    """Checks sizes, counts and the SHA-256 of every shard and sidecar.

    Returns:
        The manifest.

    Raises:
        DataError: names every file that differs.
    """
    manifest = check_sizes(directory)
    damaged = [
        part.file
        for part in (*manifest.shards, *manifest.sidecars)
        if sha256_of(epath.Path(directory) / part.file) != part.sha256
    ]
    if damaged:
        raise DataError(
            f"{directory}: SHA-256 differs from the manifest in"
            f" {', '.join(damaged)}; {_REBUILD}"
        )
    return manifest


def count_records(path: epath.PathLike) -> int:
    """Number of records in one ArrayRecord file; 0 for a damaged one."""
    try:
        reader = array_record_module.ArrayRecordReader(os.fspath(path))
        count = reader.num_records()
        reader.close()  # Raises here when the footer is damaged; opening does not.
    except (ValueError, RuntimeError, IndexError):
        return 0
    return count


def sha256_of(path: epath.PathLike) -> str:
    """SHA-256 of a file, in hex, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a local file so that it is there whole or not at all.

    A temporary name, fsync, then a rename, which POSIX makes atomic.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = f"{os.fspath(path)}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def default_data_dir(given: str | None = None) -> str:
    """Where prepared datasets are, local or remote: as given, or TFDS's own default.

    Raises:
        DataError: it is remote, and what reads such folders is not installed.
    """
    found = given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    path = epath.Path(found).expanduser()  # pathlib would break gs://
    if "://" in str(path):
        try:
            path.exists()
        except ImportError as error:
            raise DataError(f"--data_dir={found} cannot be read: {error}") from error
    return str(path)


def locate(name: str, *, data_dir: epath.PathLike) -> epath.Path:
    """Finds a finished dataset under a data directory.

    Args:
        name: ``NAME/CONFIG``, or ``NAME/CONFIG/VERSION``; without a version, the newest
            finished one.
        data_dir: the directory given to the builder.

    Returns:
        The version directory, ``DATA/NAME/CONFIG/VERSION``.

    Raises:
        DataError: it is not prepared; the message names the command that builds it.
    """
    root = epath.Path(data_dir) / name
    if (root / NAME).exists():
        return root
    versions = _finished(root.iterdir()) if root.is_dir() else []
    if not versions:
        raise DataError(
            f"{name} is not prepared in {data_dir}; build it with `python -m"
            f" data_builders {name} --manual_dir=RAW --data_dir={data_dir}`,"
            " or use the built-in films of the config's variant 'phantom'"
        )
    return max(versions, key=lambda p: tuple(int(n) for n in p.name.split(".")))


def _finished(paths: Iterable[epath.Path]) -> list[epath.Path]:
    version = re.compile(r"\d+\.\d+\.\d+")
    return [p for p in paths if version.fullmatch(p.name) and (p / NAME).exists()]
