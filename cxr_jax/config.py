"""From a config string to a checked, serialisable config; from a dotted path to a part.

A config file under ``configs/`` defines ``get_config() -> ConfigDict`` and
``VARIANTS``, a dict from word to a function that edits the config in place.
``configs/chexnet.py:phantom`` loads it and applies ``phantom``. Words combine; they
are applied in the order of ``VARIANTS``, so the order a user writes them in is free.
"""

import ast
import difflib
import importlib
import importlib.util
import json
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import config_dict

from cxr_jax.errors import ConfigError

# Keys that may differ between a run and its continuation: they do not touch the state.
RESUMABLE = (
    "checkpoint.every_steps",
    "checkpoint.keep",
    "data.threads",
    "eval.allow_seen",
    "eval.evaluators",
    "eval.mc",
    "eval.resamples",
    "eval.samples",
    "eval.splits",
    "eval.tta",
    "report",
    "train.log_every",
    "train.profile_steps",
)


def resolve(name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Returns what a dotted path under ``cxr_jax.`` names, called if arguments are given.

    Args:
        name: for example ``cxr_jax.models.densenet.densenet121``.
        *args: positional arguments; with none of either kind the object itself returns.
        **kwargs: keyword arguments.

    Raises:
        ConfigError: no such module, no such name (near misses are suggested), a path
            outside ``cxr_jax``, or arguments that the part does not take.
    """
    found = _lookup(name)
    if not args and not kwargs:
        return found
    try:
        return found(*args, **kwargs)
    except TypeError as error:
        # The call itself failed if no frame lies below this one; else the part did.
        if error.__traceback__.tb_next is None:
            raise ConfigError(f"{name} refused its arguments: {error}") from error
        raise


def build(spec: Any, /, **more: Any) -> Any:
    """Calls the part that ``spec["name"]`` names with the rest of ``spec`` and ``more``."""
    if "name" not in spec:
        raise ConfigError(f"a part needs a 'name'; given keys: {sorted(spec)}")
    arguments = {k: plain(v) for k, v in spec.items() if k != "name"}
    return resolve(spec["name"], **arguments, **more)


def _lookup(name: str) -> Any:
    module_name, _, attribute = name.rpartition(".")
    if not name.startswith("cxr_jax.") or not module_name:
        raise ConfigError(
            f"{name!r} is not a part of this package; give a dotted path under cxr_jax."
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigError(f"{name!r}: there is no module {error.name!r}") from error
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(
            f"{name!r}: {module_name} has no {attribute!r}{_near(attribute, public)}"
        )
    return getattr(module, attribute)


def load(
    spec: str, overrides: Sequence[str] = (), *, check: bool = True
) -> config_dict.ConfigDict:
    """Loads ``FILE.py[:WORD,WORD…]`` and applies ``KEY=VALUE`` overrides.

    Args:
        spec: path of a config file, then variant words after a colon.
        overrides: strings such as ``train.batch_size=32``; phases are reached by
            number: ``phases.0.learning_rate=1e-4``.
        check: whether values are validated (``finalize``).

    Returns:
        The locked config.

    Raises:
        ConfigError: unknown file, variant or key, or a value of another type.
    """
    path, _, words = spec.partition(":")
    module = _load_module(path)
    config = module.get_config()
    given = [word for word in words.split(",") if word]
    for word in given:
        if word not in module.VARIANTS:
            raise ConfigError(
                f"unknown variant {word!r} of {path}; known: "
                f"{', '.join(module.VARIANTS)}{_near(word, module.VARIANTS)}"
            )
    for group in getattr(module, "ONE_OF", ()):
        if len(both := [word for word in group if word in given]) > 1:
            raise ConfigError(
                f"variants {', '.join(both)} of {path} exclude each other: give one"
            )
    for word, edit in module.VARIANTS.items():
        if word in given:
            edit(config)
    config.variants = tuple(word for word in module.VARIANTS if word in given)
    for text in overrides:
        _override(config, text)
    if check:
        finalize(config)
    return config.lock()


def variants(path: str) -> tuple[str, ...]:
    """The variant words that a config file knows, in the order they are applied."""
    return tuple(_load_module(path).VARIANTS)


def finalize(config: config_dict.ConfigDict) -> None:
    """Checks what types cannot say, after all overrides.

    Raises:
        ConfigError: a value out of its range, named by its key.
    """
    positive = ("train.batch_size", "train.accumulate", "train.log_every")
    for key in (*positive, "checkpoint.every_steps", "checkpoint.keep"):
        if get(config, key) < 1:
            raise ConfigError(f"{key}={get(config, key)}: must be at least 1")
    for key in ("data.threads", "eval.resamples", "eval.samples", "eval.mc.samples"):
        if get(config, key) < 0:
            raise ConfigError(f"{key}={get(config, key)}: must be at least 0")
    if config.checkpoint.keep < 2:
        raise ConfigError(
            "checkpoint.keep=1: give at least 2; a damaged newest step needs another"
        )
    if config.train.batch_size % config.train.accumulate:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} is not divisible by "
            f"train.accumulate={config.train.accumulate}"
        )
    if not config.phases:
        raise ConfigError("phases=(): give at least one phase")
    for number, phase in enumerate(config.phases):
        if phase["epochs"] <= 0:
            raise ConfigError(f"phases.{number}.epochs={phase['epochs']}: must be > 0")
        if phase["begin"] not in ("last", "best")[: number + 1]:
            raise ConfigError(
                f"phases.{number}.begin={phase['begin']!r}: last or best; the first phase"
                " has no best before it"
            )
    if config.eval.mc.probs not in ("mean", "plain"):
        raise ConfigError(f"eval.mc.probs={config.eval.mc.probs!r}: mean or plain")
    if config.checkpoint.mode not in ("min", "max"):
        raise ConfigError(f"checkpoint.mode={config.checkpoint.mode!r}: min or max")


def get(config: config_dict.ConfigDict, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config


def plain(value: Any) -> Any:
    """The same value as plain dicts, tuples and scalars."""
    if isinstance(value, config_dict.ConfigDict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(plain(v) for v in value)
    return value


def to_json(config: config_dict.ConfigDict) -> str:
    """The resolved config as indented JSON, keys sorted."""
    return json.dumps(plain(config), indent=2, sort_keys=True) + "\n"


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines ``key: old → new`` for every key that may not change within a run.

    Args:
        old: a parsed ``config.json``.
        new: another one. Both as JSON gives them (lists, not tuples).
    """
    before, after = dict(_flat(old)), dict(_flat(new))
    lines = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key, "absent"), after.get(key, "absent")
        free = any(key == r or key.startswith(r + ".") for r in RESUMABLE)
        if was != now and not free:
            lines.append(f"{key}: {was!r} → {now!r}")
    return lines


def _flat(tree: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    items = (
        tree.items()
        if isinstance(tree, dict)
        else ((str(i), v) for i, v in enumerate(tree))
    )
    for key, value in items:
        if isinstance(value, (dict, list)) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _load_module(path: str) -> Any:
    file = pathlib.Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise ConfigError(
            f"no config file {path!r}; give one such as configs/chexnet.py"
        )
    root = str(file.resolve().parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)  # a config imports its neighbours as configs.NAME
    spec = importlib.util.spec_from_file_location(f"configs.{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for needed in ("get_config", "VARIANTS"):
        if not hasattr(module, needed):
            raise ConfigError(f"{path} is not a config file: it lacks {needed}")
    return module


def _override(config: config_dict.ConfigDict, text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--config.{text}: write --config.KEY=VALUE")
    *parents, leaf = key.split(".")
    node, path = config, ""
    for part in parents:
        node, path = _child(node, part, path, key), f"{path}{part}."
    old = _child(node, leaf, path, key)
    if isinstance(old, (dict, config_dict.ConfigDict)):
        raise ConfigError(f"{key} is a group of keys: {', '.join(sorted(old))}")
    kind = (
        node.get_type(leaf) if isinstance(node, config_dict.ConfigDict) else type(old)
    )
    node[leaf] = _parse(key, value, kind)


def _child(node: Any, part: str, path: str, key: str) -> Any:
    if isinstance(node, tuple):
        if not part.isdigit() or int(part) >= len(node):
            raise ConfigError(f"{key}: {path[:-1]} has entries 0 to {len(node) - 1}")
        return node[int(part)]
    if not isinstance(node, (dict, config_dict.ConfigDict)) or part not in node:
        known = list(node) if hasattr(node, "keys") else []
        raise ConfigError(f"unknown config key {key!r}{_near(part, known, path)}")
    return node[part]


def _parse(key: str, text: str, kind: type) -> Any:
    if kind is str:
        return text
    if text.lower() in ("true", "false"):
        value: Any = text.lower() == "true"
    else:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    # bool is an int in Python; a flag for a count is still a mistake.
    if value is not None and kind is not type(None) and type(value) is not kind:
        raise ConfigError(
            f"{key}={text}: expected {kind.__name__}, got {type(value).__name__}"
        )
    return value


def _near(word: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(prefix + c for c in close)}?" if close else ""
