"""The files of a run that describe it: written once, compared when it goes on."""

import json
import os
from typing import Any

import jax
from etils import epath
from ml_collections import config_dict

from cxr_jax import config as configs
from cxr_jax import sharding
from cxr_jax.errors import ConfigError

CONFIG, SPLIT = "config.json", "split.json"


def prepare(
    workdir: epath.PathLike, config: config_dict.ConfigDict, split: dict[str, Any]
) -> epath.Path:
    """Makes the folder of a run, or checks that this run may go on in it.

    Args:
        workdir: local or remote folder.
        config: the resolved config; written to ``config.json``.
        split: the split passport; written to ``split.json``.

    Returns:
        The folder.

    Raises:
        ConfigError: the folder cannot be written, or holds a run with another config or
            split (the differences are named; resumable keys may differ). A run that
            saved nothing yet binds nobody: a mistake may be mended in place.
    """
    workdir = epath.Path(workdir).expanduser()
    if "://" not in str(workdir):
        workdir = workdir.resolve()  # Orbax takes absolute paths alone
    new = json.loads(configs.to_json(config))
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        begun = any(workdir.glob("checkpoints/*/*"))
        old = read_json(workdir / CONFIG)
        if begun and old is not None:
            _compare(workdir, configs.differences(old, new), "config")
        passport = read_json(workdir / SPLIT)
        if begun and passport is not None and passport != json.loads(json.dumps(split)):
            changed = [k for k in split if passport.get(k) != split[k]]
            _compare(workdir, changed, "split passport")
        if jax.process_index() == 0:
            write_json(workdir / CONFIG, new)
            write_json(workdir / SPLIT, split)
    except OSError as error:
        raise ConfigError(
            f"--workdir={workdir} cannot be written: {error.strerror or error}; give a "
            "folder that you may write to"
        ) from error
    sharding.wait_for_peers("workdir")
    return workdir


def has_checkpoint(workdir: epath.PathLike) -> bool:
    """Whether anything was saved in a folder."""
    return any(epath.Path(workdir).expanduser().glob("checkpoints/*/*"))


def begun(workdir: epath.PathLike) -> None:
    """Refuses a folder in which nothing was saved yet, before films are built for it.

    Raises:
        ConfigError: there is no checkpoint.
    """
    if not epath.Path(workdir).expanduser().exists():
        raise ConfigError(
            f"--workdir={workdir} does not exist; give the folder of a run that was trained"
        )
    if not has_checkpoint(workdir):
        raise ConfigError(
            f"--workdir={workdir} holds no best checkpoint; train first (--mode=train)"
        )


def _compare(workdir: epath.Path, changed: list[str], what: str) -> None:
    if changed:
        raise ConfigError(
            f"{workdir} holds a run with another {what}: {'; '.join(changed[:5])}"
            f"{' …' if len(changed) > 5 else ''}; use its values or a new --workdir"
        )


def read_json(path: epath.Path) -> Any:
    """The content of a JSON file, or None where there is none.

    Raises:
        ConfigError: it is not JSON.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON ({error}); remove it") from error


def write_json(path: epath.Path, content: Any) -> None:
    """Writes a JSON file under a temporary name, then renames it."""
    partial = path.with_name(path.name + f".tmp{os.getpid()}")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    partial.replace(path)
