"""Builds a dataset whole or not at all, once, however many processes ask for it."""

import contextlib
import fcntl
import importlib
import io
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from etils import epath

from cxr_jax import endings
from cxr_jax.data import manifest as manifests
from cxr_jax.errors import DataError
from data_builders.options import Options

SUFFIX = "_dataset_builder"


def available() -> tuple[str, ...]:
    """Names of the builders in this package."""
    root = pathlib.Path(__file__).parent
    files = sorted(root.glob(f"*/*{SUFFIX}.py"))
    return tuple(f.parent.name for f in files if f.stem == f.parent.name + SUFFIX)


def build(
    name: str,
    *,
    data_dir: str | os.PathLike,
    **options: Any,
) -> pathlib.Path:
    """Builds a dataset unless it is finished already.

    Safe when several processes ask at once: one builds, the others wait and find it.

    Args:
        name: ``NAME`` or ``NAME/CONFIG``, such as ``phantom_chest/tiny``.
        data_dir: where prepared datasets live, a local folder.
        **options: fields of ``Options``: ``manual_dir``, ``num_shards``, ...

    Returns:
        The version directory, ``DATA/NAME/CONFIG/VERSION``.

    Raises:
        DataError: unknown name, unusable data or folder; nothing is installed then.
        OSError: the disk is full; likewise.
    """
    folder = finished(name, data_dir=data_dir)
    if folder is not None:
        return folder
    builder_class, config = find(name)
    if "://" in os.fspath(data_dir):
        raise DataError(
            f"--data_dir={data_dir} is not on this machine and holds no {name}: build it"
            " on a local disk, then copy the folder there"
        )
    root = pathlib.Path(data_dir).expanduser()
    staging = root / ".building" / f"{builder_class.name}-{config}"
    with _usable(root), _locked(root / ".building" / f"{staging.name}.lock"):
        folder = finished(name, data_dir=root)  # Another process may have built it.
        if folder is not None:
            return folder
        shutil.rmtree(staging, ignore_errors=True)  # What a killed build left.
        try:
            builder = builder_class(
                data_dir=staging,
                config=config,
                options=Options(**options, data_dir=str(root)),
            )
            _pack(builder)
            packed = pathlib.Path(builder.data_path)
            return _install(packed, root / packed.relative_to(staging))
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def finished(name: str, *, data_dir: str | os.PathLike) -> epath.Path | None:
    """The folder of a finished dataset of the builder's version, or None.

    Raises:
        DataError: the name is unknown.
    """
    builder_class, config = find(name)
    version = str(builder_class.VERSION)
    root = epath.Path(data_dir).expanduser()
    folder = root / builder_class.name / config / version
    return folder if (folder / manifests.NAME).exists() else None


def find(name: str) -> tuple[type, str]:
    """The builder class and the config's name that ``NAME[/CONFIG]`` stands for.

    Raises:
        DataError: there is no such builder or config; lists those there are.
    """
    dataset, _, config = name.partition("/")
    if dataset not in available():
        raise DataError(
            f"dataset {dataset!r} is unknown; allowed: {', '.join(available())}"
        )
    module = importlib.import_module(f"data_builders.{dataset}.{dataset}{SUFFIX}")
    names = [c.name for c in module.Builder.BUILDER_CONFIGS]
    config = config or module.Builder.DEFAULT_BUILDER_CONFIG_NAME or names[0]
    if config not in names:
        raise DataError(
            f"{dataset} has no config {config!r}; allowed: {', '.join(names)}"
        )
    return module.Builder, config


def _pack(builder: Any) -> None:
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(
        num_shards=builder.options.num_shards, try_download_gcs=False
    )
    tfds.disable_progress_bar()
    # TFDS announces a download on stdout, but nothing is downloaded.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config, file_format="array_record")


def _install(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    for path in (*source.iterdir(), source):
        _sync(path)
    if target.exists():
        raise DataError(
            f"{target}: exists without {manifests.NAME}, so it is not a finished"
            " dataset; delete it and build again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, target)
    _sync(target.parent)
    return target


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _usable(root: pathlib.Path) -> Iterator[None]:
    """Names the folder where it cannot be written, or where its disk is full.

    Raises:
        DataError: the folder cannot be used.
        OSError: the disk is full, whichever library met that.
    """
    try:
        (root / ".building").mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError) as error:
        full = _full(error)
        if full is not None:
            raise OSError(full, os.strerror(full), str(root)) from error
        if not isinstance(error, OSError):
            raise
        raise DataError(
            f"data_dir {root}: {error.strerror or error}; a writable folder is needed:"
            " choose one with --data_dir"
        ) from error


def _full(error: OSError | RuntimeError) -> int | None:
    """The system's number for what filled the disk, if that is what happened."""
    # ArrayRecord's writer reports the system's words in a RuntimeError, without a number.
    return next((n for n in endings.FULL if os.strerror(n) in str(error)), None)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    # The kernel frees the lock when the process dies, however it dies.
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another build ({path.stem})", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
