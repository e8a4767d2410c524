"""Reads the pickles that torch writes around its tensors, and calls nothing they name.

A pickle is a program: with the standard reader a file of weights may run any command.
This machine knows the instructions that build lists, dictionaries and tensors. A name
of a class or function is only ever compared with those of ``torch_objects``; nothing is
imported, no attribute is set, no method is called. Any other name is refused.
"""

import pickletools
from typing import Any, BinaryIO

import numpy as np

from cxr_jax.errors import CheckpointError
from cxr_jax.models.torch_objects import (
    STORAGES,
    Inert,
    Name,
    Storage,
    Tensor,
    call,
    known,
    ordered,
)


def read(file: BinaryIO, types: dict[str, np.dtype] | None = None) -> Any:
    """The object of one pickle, tensors unread; the file stands behind it afterwards.

    Args:
        file: bytes that cannot grow, such as a ``BytesIO`` or an ``mmap``: a plain file
            would reserve whatever length the pickle declares.
        types: filled with the type of every storage that is met, by key.

    Returns:
        Numbers, text, tuples, lists, dicts, ``Tensor``, ``Name``, ``Inert``.

    Raises:
        CheckpointError: a global that weights do not need, an instruction of another
            kind, or bytes that are no pickle.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode.name, argument)
        if types is not None:
            types |= machine.types
        return machine.stack[-1]
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        told = " ".join(str(error)[:200].split())
        raise CheckpointError(f"not a whole pickle of torch: {told}") from error


_VALUES = {
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
_EMPTY["EMPTY_SET"] = list
_NOTHING = ("PROTO", "FRAME", "STOP")


class _Machine:
    """A stack, marks in it, and a memo. A mark puts the stack aside."""

    def __init__(self):
        self.stack: list = []
        self.aside: list[list] = []
        self.memo: dict[int, Any] = {}
        self.types: dict[str, np.dtype] = {}
        self.special = {
            name.removeprefix("_on_").upper(): getattr(self, name)
            for name in dir(self)
            if name.startswith("_on_")
        }

    def step(self, name: str, argument: Any) -> None:
        """One instruction."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in self.special:
            self.special[name](argument)
        elif name.endswith("PUT"):
            self._put(argument)
        elif name.endswith("GET"):
            self.stack.append(self.memo[argument])
        elif name not in _NOTHING:
            raise CheckpointError(
                f"the pickle instruction {name}, which weights do not need: refused"
            )

    def _put(self, number: int) -> None:
        # Written as text it may be any number: many of one hash take for ever.
        if not 0 <= number < 2**32:
            raise CheckpointError("a pickle that counts its objects strangely")
        self.memo[number] = self.stack[-1]

    def _marked(self) -> list:
        items, self.stack = self.stack, self.aside.pop()
        return items

    def _on_mark(self, _):
        self.aside.append(self.stack)
        self.stack = []

    def _on_pop(self, _):
        self.stack.pop()

    def _on_pop_mark(self, _):
        self._marked()

    def _on_dup(self, _):
        self.stack.append(self.stack[-1])

    def _on_memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def _on_tuple(self, _):
        items = self._marked()
        self.stack.append(tuple(items))

    def _on_tuple1(self, _):
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _on_tuple2(self, _):
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _on_tuple3(self, _):
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _on_list(self, _):
        items = self._marked()
        self.stack.append(items)

    _on_frozenset = _on_list

    def _on_append(self, _):
        item = self.stack.pop()
        _of(self.stack[-1], list).append(item)

    def _on_appends(self, _):
        items = self._marked()
        _of(self.stack[-1], list).extend(items)

    _on_additems = _on_appends

    def _on_dict(self, _):
        items = self._marked()
        self.stack.append(ordered(zip(items[::2], items[1::2], strict=True)))

    def _on_setitem(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _on_setitems(self, _):
        items = self._marked()
        self._set(items)

    def _set(self, items: list) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):  # a defaultdict of somebody's own
            return
        _of(target, dict).update(ordered(zip(items[::2], items[1::2], strict=True)))

    def _on_global(self, argument):
        module, _, name = argument.partition(" ")
        self.stack.append(known(Name(module, name)))

    def _on_stack_global(self, _):
        name, module = _of(self.stack.pop(), str), _of(self.stack.pop(), str)
        self.stack.append(known(Name(module, name)))

    def _on_reduce(self, _):
        args, name = _of(self.stack.pop(), tuple), _of(self.stack.pop(), Name)
        self.stack.append(call(name, args))

    _on_newobj = _on_reduce

    def _on_build(self, _):
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, dict | Tensor):
            raise CheckpointError(f"state of a {type(target).__name__}: refused")

    def _on_binpersid(self, _):
        place = _of(self.stack.pop(), tuple)
        if len(place) > 8:  # the same one may come back a million times
            raise CheckpointError(f"a storage told in {len(place)} values: refused")
        kind, *rest = place
        if kind == "module":  # (class, file, source text) of older torch
            self.stack.append(_of(rest[0], Name))
            return
        name, key, _, size, *window = rest
        # Nothing of the file is hashed or printed before its type is known: tuples of
        # tuples, made by doubling, would take for ever.
        if kind != "storage":
            raise CheckpointError("a persistent object that is no storage: refused")
        if _of(name, Name) not in STORAGES or not isinstance(key, str):
            raise CheckpointError(f"a storage of type {name}: refused")
        offset = 0
        if window and window[0] is not None:
            _, offset, size = _of(window[0], tuple)
        if not all(type(n) is int and 0 <= n < 2**48 for n in (size, offset)):
            raise CheckpointError("a storage of no possible size")
        if self.types.setdefault(key, STORAGES[name]) != STORAGES[name]:
            raise CheckpointError(f"storage {key[:80]!r} has two types")
        self.stack.append(Storage(key, STORAGES[name], size, offset))


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise CheckpointError(
            f"a {type(value).__name__} where a pickle of weights has a {kind.__name__}"
        )
    return value
