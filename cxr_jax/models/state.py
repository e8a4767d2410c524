"""A model as flat dictionaries of named arrays, and back.

Everything that trains, saves or compares a model sees ``{"backbone/stem/kernel": array}``:
checkpoints, digests, freezing and decay masks then speak of parameters by name, and
nothing outside this file depends on how ``nnx`` nests its state.
"""

import dataclasses
import pathlib
import traceback
import types
from collections.abc import Callable, Collection
from typing import Any

import jax
from flax import nnx

import cxr_jax
from cxr_jax.errors import ConfigError
from cxr_jax.models.layers import BatchNorm

Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class ModelDef:
    """The static half of a model: its graph, and the names of its arrays.

    Attributes:
        graphdef: what ``nnx.merge`` needs besides arrays.
        params: abstract trainable state.
        rest: abstract other state (batch statistics).
    """

    graphdef: Any
    params: Any
    rest: Any

    @classmethod
    def of(cls, create: Callable[[jax.Array], nnx.Module]) -> "ModelDef":
        """The definition of ``create(key)``, found without computing a single weight.

        Raises:
            ConfigError: sizes that no network has (a width of 0, no blocks).
        """
        key = jax.eval_shape(lambda: jax.random.key(0))
        try:
            model = nnx.eval_shape(create, key)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if _in(frame, cxr_jax)][-1]
            if isinstance(error, TypeError) and not _in(frames[-1], jax):
                raise  # A wrong call; what JAX says of sizes below 0 is a TypeError too.
            raise ConfigError(
                "no network has the sizes of task.model and task.head:"
                f" {str(error).splitlines()[0]} (in {ours.name} of"
                f" {pathlib.Path(ours.filename).name}, line {ours.lineno})"
            ) from error
        return cls(*nnx.split(model, nnx.Param, ...))

    @property
    def shapes(self) -> tuple[Arrays, Arrays]:
        """What ``init`` gives, by shape and type; nothing is traced again."""
        return flatten(self.params), flatten(self.rest)

    def epsilon(self, under: str = "") -> float:
        """What the batch norms below a name add to variances; 0 where there are none.

        Raises:
            ConfigError: they do not agree.
        """
        model = nnx.merge(self.graphdef, self.params, self.rest)
        found = {
            module.epsilon
            for path, module in nnx.iter_modules(model)
            if isinstance(module, BatchNorm) and _path(path).startswith(under)
        }
        if len(found) > 1:
            raise ConfigError(
                f"epsilon={sorted(found)} of the batch norms of {under!r}"
            )
        return found.pop() if found else 0.0

    def init(
        self, create: Callable[[jax.Array], nnx.Module], key: jax.Array
    ) -> tuple[Arrays, Arrays]:
        """Parameters and other state of ``create(key)``; call it under ``jax.jit``."""
        return self.split(create(key))

    def split(self, model: nnx.Module) -> tuple[Arrays, Arrays]:
        """The named parameters and the named other state of a model."""
        _, params, rest = nnx.split(model, nnx.Param, ...)
        return flatten(params), flatten(rest)

    def merge(
        self, params: Arrays, rest: Arrays, *, frozen: Collection[str] = ()
    ) -> nnx.Module:
        """The model that holds these arrays.

        The copy keeps the arrays apart from the tracers of an enclosing ``jax.grad``:
        batch norm could otherwise not write its statistics.

        Args:
            params: name → parameter.
            rest: name → other state.
            frozen: names of parameters that do not train. A batch norm whose scale is
                among them reads its statistics whatever the mode, and keeps them.
        """
        states = _unflatten(self.params, params), _unflatten(self.rest, rest)
        model = nnx.merge(self.graphdef, *states, copy=True)
        for path, module in nnx.iter_modules(model) if frozen else ():
            if isinstance(module, BatchNorm):
                name = "/".join(map(str, (*path, "scale")))
                module.frozen = name in frozen
        return model


def flatten(tree: Any) -> Arrays:
    """``{"a/b/0": leaf}`` for every leaf of a tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {name_of(path): leaf for path, leaf in leaves}


def name_of(path: tuple[Any, ...]) -> str:
    """``a/b/0`` for a key path; the variable wrapper of ``nnx`` leaves no trace."""
    text = jax.tree_util.keystr(path, simple=True, separator="/")
    return text.removesuffix("/value")


def _in(frame: traceback.FrameSummary, package: types.ModuleType) -> bool:
    return pathlib.Path(frame.filename).is_relative_to(package.__path__[0])


def _path(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))


def _unflatten(like: Any, arrays: Arrays) -> Any:
    paths, treedef = jax.tree_util.tree_flatten_with_path(like)
    return treedef.unflatten([arrays[name_of(path)] for path, _ in paths])
