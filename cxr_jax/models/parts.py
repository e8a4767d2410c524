"""The modules that a network is told in, and a way to see them at work.

A backbone is one part with its stages; where a module holds several of them, and where a
backbone or a head is a list of plain layers, the modules in it are parts.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

CONTAINERS = (nnx.List, nnx.Dict)

Shape = tuple[int, ...]
Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Module:
    """A module that is a part: its place, its class, its stages by name."""

    path: Path
    kind: str
    stages: Mapping[str, "Module"] = dataclasses.field(default_factory=dict)


def parts_of(model: nnx.Module) -> dict[str, Module]:
    """The modules that are parts, by name."""
    found: dict[str, Module] = {}
    for path, module in _children(model, ()):
        found |= _opened(path, module, top=True)
    return found


def _opened(path: Path, module: nnx.Module, *, top: bool) -> dict[str, Module]:
    """A module, or those in it where they say more."""
    children = _children(module, path)
    backbones = any(hasattr(m, "features") for p, m in nnx.iter_modules(module) if p)
    plain = top and children and not any(_children(m, ()) for _, m in children)
    if backbones or plain:
        found: dict[str, Module] = {}
        for below, child in children:
            found |= _opened(below, child, top=False)
        return found
    stages = {_name(p): Module(path=p, kind=_kind(m)) for p, m in children}
    return {_name(path): Module(path=path, kind=_kind(module), stages=stages)}


def _children(module: nnx.Module, path: Path) -> list[tuple[Path, nnx.Module]]:
    """The modules right below one; containers are looked through."""
    found = []
    for key, child in nnx.iter_children(module):
        if isinstance(child, CONTAINERS):
            found += _children(child, (*path, key))
        elif isinstance(child, nnx.Module):
            found.append(((*path, key), child))
    return found


def _name(path: Path) -> str:
    return "/".join(map(str, path))


def _kind(module: nnx.Module) -> str:
    return type(module).__name__.lstrip("_")


class _Watched(nnx.Module):
    """A module that says its name to whoever traces it, and the shape of what it gives."""

    def __init__(self, part: nnx.Module, name: str, note: Callable[[str, Shape], Any]):
        self.part, self.name, self.note = part, name, note

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._watch(self.part, *args, **kwargs)

    def features(self, *args: Any, **kwargs: Any) -> Any:
        return self._watch(self.part.features, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "part":  # not there yet
            raise AttributeError(name)
        return getattr(self.part, name)

    def _watch(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(scope(self.name)):
            given = method(*args, **kwargs)
        self.note(self.name, jax.tree.leaves(given)[0].shape[1:])
        return given


def scope(name: str) -> str:
    """A name that is one step of a stack of names."""
    return name.replace("/", ".")


def watch(
    model: nnx.Module,
    modules: Mapping[str, Module],
    note: Callable[[str, Shape], Any],
) -> None:
    """Puts a watcher around every part and every stage of a model of ours alone."""
    watched = {name: module.path for name, module in modules.items()}
    for module in modules.values():
        watched |= {name: stage.path for name, stage in module.stages.items()}
    # The deepest come first: the way to the others is still as it was.
    for name, path in sorted(watched.items(), key=lambda item: -len(item[1])):
        parent: Any = model
        for key in path[:-1]:
            parent = _get(parent, key)
        watcher = _Watched(_get(parent, path[-1]), name, note)
        if isinstance(parent, CONTAINERS) and not isinstance(path[-1], str):
            parent[path[-1]] = watcher
        else:
            setattr(parent, path[-1], watcher)


def _get(parent: Any, key: Any) -> Any:
    return getattr(parent, key) if isinstance(key, str) else parent[key]
