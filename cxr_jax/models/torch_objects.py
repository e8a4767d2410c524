"""What a pickle of torch is made of, and the names it may mention.

Nothing here is torch: a tensor is where its numbers lie in the file, a class is its name.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np

from cxr_jax.errors import CheckpointError


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """Bytes of one tensor or of several, somewhere else in the file.

    Attributes:
        key: its name there.
        dtype: of its elements, little-endian.
        size: how many elements.
        offset: first element, where it is a window of another storage.
    """

    key: str
    dtype: np.dtype
    size: int
    offset: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage, not read yet; shape and strides in elements.

    Raises:
        CheckpointError: a view that leaves its storage, or that is larger than it.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self):
        counts = (self.offset, *self.shape, *self.strides)
        whole = len(self.shape) == len(self.strides) <= 8
        if not whole or not all(type(n) is int and 0 <= n < 2**48 for n in counts):
            kinds = sorted({type(n).__name__ for n in counts})
            raise CheckpointError(
                f"a tensor of no possible shape, made of {', '.join(kinds)}"
            )
        size, last = 1, self.offset
        for n, stride in zip(self.shape, self.strides, strict=True):
            size *= n
            last += (n - 1) * stride
        if size and (size > self.storage.size or last >= self.storage.size):
            raise CheckpointError(
                f"a tensor of shape {self.shape} over {self.storage.size} stored numbers"
            )

    def view(self, elements: np.ndarray) -> np.ndarray:
        """This tensor of the elements of its storage."""
        if 0 in self.shape:
            return np.zeros(self.shape, elements.dtype)
        steps = [stride * elements.itemsize for stride in self.strides]
        start = elements[self.offset :]
        return np.lib.stride_tricks.as_strided(start, self.shape, steps).copy()


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that the pickle names. It is never looked up."""

    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(eq=False)
class Inert:
    """Stands where an object would be: its name, its arguments, its state."""

    name: Name
    args: tuple = ()
    state: Any = None


# More tensors, modules or entries of them than any network has.
MOST = 50_000
# What is longer is no name; a pickle may show the same one a million times.
_LONGEST_KEY, _LONGEST_NAME = 1000, 200
_MOST_ARGUMENTS = 8

_FLOATS = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
STORAGES = {
    Name(module, name): dtype
    for name, dtype in _FLOATS.items()
    for module in ("torch", "torch.cuda")
}


# No function below copies what it is given: a pickle may call it a million times.
def _rebuild(storage, offset, size, stride, *_) -> Tensor:
    views = (
        isinstance(axes, tuple | list) and len(axes) <= 8 for axes in (size, stride)
    )
    if not isinstance(storage, Storage) or not all(views):
        raise CheckpointError("a tensor without a storage, or of more than 8 axes")
    return Tensor(storage, offset, tuple(size), tuple(stride))


def _first(value, *_):
    return value


def _itself(values=()):
    return values


def _ordered(pairs=None) -> dict:
    if pairs is None:
        return {}
    made = ordered(pairs)
    pairs.clear()
    return made


def ordered(pairs: Iterable) -> dict:
    """A dict of pairs."""
    return {plain_key(key): value for key, value in pairs}


# What torch and its users put around weights. A tensor is built, a parameter is its
# tensor, a mapping is a dict, a set is a list; the rest stands inert.
CALLS: dict[Name, Callable] = {
    Name("torch._utils", "_rebuild_tensor"): _rebuild,
    Name("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    Name("torch._utils", "_rebuild_parameter"): _first,
    Name("torch._utils", "_rebuild_parameter_with_state"): _first,
    Name("torch.nn.parameter", "Parameter"): _first,
    Name("torch.autograd.variable", "Variable"): _first,
    Name("torch", "Size"): _itself,
    Name("collections", "OrderedDict"): _ordered,
    **{
        Name(module, name): _itself
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset")
    },
}
_INERT = {
    Name("collections", "defaultdict"),
    Name("_codecs", "encode"),
    Name("numpy", "dtype"),
    Name("numpy.core.multiarray", "scalar"),
    Name("numpy._core.multiarray", "scalar"),
    Name("torch", "device"),
    Name("torch.serialization", "_get_layout"),
    Name("torch.nn.functional", "relu"),
    *(Name("torch", f"{kind}{bits}") for kind in ("int", "float") for bits in (16, 32)),
    *(Name("torch", f"{kind}64") for kind in ("int", "float")),
    *(Name("torch", name) for name in ("bfloat16", "uint8", "int8", "bool", "strided")),
}
# Layers of pickled models: some projects save whole modules as objects.
_LAYERS = re.compile(
    r"(torch\.nn|torchvision\.models|timm\.models|timm\.layers)(\.[a-z_0-9]+)*"
    r"|torchxrayvision\.models"
)


def call(name: Name, args: tuple) -> Any:
    """What a function of ``CALLS`` gives, or an ``Inert`` of the arguments."""
    if name not in CALLS:
        return Inert(name, args)
    if len(args) > _MOST_ARGUMENTS:  # each call would copy them
        raise CheckpointError(f"{name} of {len(args)} arguments")
    return CALLS[name](*args)


def plain_key(key: Any) -> Any:
    """The key of a mapping, if it is text or a number that is quick to hash."""
    # Nothing nested: hashing a tuple of tuples of tuples may take for ever.
    if not isinstance(key, str | int | float | bytes | None):
        raise CheckpointError(f"a {type(key).__name__} as a key")
    # From 2^61 - 1 on, whole families of integers have one hash.
    if isinstance(key, int) and not -(2**60) < key < 2**60:
        raise CheckpointError("an integer of more than 60 bits as a key")
    if isinstance(key, str | bytes) and len(key) > _LONGEST_KEY:
        raise CheckpointError(f"a key of {len(key)} characters")
    return key


def known(name: Name) -> Name:
    """The name, if weights may need it.

    Raises:
        CheckpointError: any other name.
    """
    if len(name.module) + len(name.name) > _LONGEST_NAME:
        raise CheckpointError(f"its pickle asks for {str(name)[:40]!r}…: refused")
    layer = _LAYERS.fullmatch(name.module) and re.fullmatch("_?[A-Z]\\w*", name.name)
    if not layer and not any(name in names for names in (CALLS, _INERT, STORAGES)):
        raise CheckpointError(
            f"its pickle asks for {str(name)[:120]!r}, which weights do not need:"
            " refused, and nothing in it was run"
        )
    return name


_PARTS = ("_parameters", "_buffers", "_modules")


def module_weights(root: Inert) -> dict[str, Any]:
    """``{"features.conv0.weight": Tensor}`` of a pickled ``torch.nn.Module``.

    What ``state_dict()`` would give: parameters and persistent buffers, by full name.

    Raises:
        CheckpointError: an object that is no module, or modules inside themselves.
    """
    found, todo, seen = {}, [("", root)], 0
    while todo:
        prefix, module = todo.pop()
        state = _module_state(module)
        temporary = state.get("_non_persistent_buffers_set", [])
        if not isinstance(temporary, list | tuple):
            raise CheckpointError("an object is pickled that is no module of torch")
        # Before anything is walked: modules may share what they hold.
        seen += 1 + len(temporary) + sum(len(state[part]) for part in _PARTS)
        if seen > MOST:
            raise CheckpointError(f"{root.name} holds more modules than any network")
        temporary = {name for name in temporary if isinstance(name, str)}
        for part in ("_parameters", "_buffers"):
            for name, tensor in state[part].items():
                if tensor is not None and name not in temporary:
                    found[f"{prefix}{name}"] = tensor
        for name, child in state["_modules"].items():
            if child is not None:
                todo.append((f"{prefix}{name}."[:1000], child))
    return found


def _module_state(module: Any) -> dict:
    state = module.state if isinstance(module, Inert) else None
    if not isinstance(state, dict) or not all(
        isinstance(state.get(part), dict) for part in _PARTS
    ):
        raise CheckpointError("an object is pickled that is no module of torch")
    return state
