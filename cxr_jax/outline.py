"""What a network is made of: its parts, what leaves each of them, and what they count.

Found by tracing one forward pass; no weight is computed. ``model.json`` holds it, the
summary of a config prints it, and the report draws it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from cxr_jax import optim
from cxr_jax.models import parts
from cxr_jax.models.state import Arrays, ModelDef, flatten
from cxr_jax.tasks.base import Task

FILE = "model.json"
SCHEMA = 1
INPUT = "input"
OTHER = "further arrays"

Shape = tuple[int, ...]


def outline(
    task: Task,
    definition: ModelDef,
    *,
    phases: Sequence[Mapping[str, Any]],
    size: int,
) -> dict[str, Any] | None:
    """The content of ``model.json``.

    A part is a module, or a function that says its name with ``jax.named_scope``. A
    backbone is one part with its stages; where a module holds several of them, and where
    a backbone or a head is a list of plain layers, the modules in it are parts.

    Args:
        task: has ``preprocess``; nothing is told of others.
        definition: of its model, which takes films and a key.
        phases: of training, which say what trains; see ``optim.partition``.
        size: pixels of a film's side, as stored.

    Returns:
        ``schema``; ``input``, the shape of a film as the network takes it; ``parts``, in
        the order of the pass, each with ``name``, ``kind`` (its class; empty for a
        function), ``inputs`` (names of parts, or ``"input"``), ``shape`` (of what leaves
        it, without the batch), ``parameters``, ``statistics`` (numbers that no gradient
        trains: batch statistics and constants), ``trainable`` (parameters, by phase) and
        ``stages`` (likewise, without ``inputs``); ``outputs``, the parts that logits come
        from; and the same three counts of the whole network. None where the task has no
        ``preprocess``.
    """
    if not hasattr(task, "preprocess"):
        return None
    film = jax.ShapeDtypeStruct((1, size, size, 1), jnp.uint8)
    film = jax.eval_shape(task.preprocess, film)
    count = _Count.of(flatten(definition.params), flatten(definition.rest), phases)
    shapes: dict[str, Shape] = {}
    modules: dict[str, parts.Module] = {}

    def forward(film: jax.Array, params: Arrays, rest: Arrays, key: jax.Array):
        model = nnx.view(
            definition.merge(params, rest),
            use_running_average=True,
            raise_if_not_found=False,
        )
        modules.update(parts.parts_of(model))
        parts.watch(model, modules, lambda name, shape: shapes.setdefault(name, shape))
        return model(film, key=key)

    key = jax.eval_shape(lambda: jax.random.key(0))
    arrays = flatten(definition.params), flatten(definition.rest)
    traced = jax.make_jaxpr(forward)(film, *arrays, key).jaxpr
    nodes, outputs = _flow(traced, modules)
    described = [_described(name, node, modules, shapes, count) for name, node in nodes]
    return {
        "schema": SCHEMA,
        "input": list(film.shape[1:]),
        "parts": described + count.others(described),
        "outputs": outputs,
    } | count.of_all()


def text(told: Mapping[str, Any]) -> str:
    """An outline for a terminal: parts, their stages below them, totals."""
    phases = len(told["trainable"])
    heads = ["part", "kind", "output", "parameters", "statistics"]
    heads += [
        f"trainable {k + 1}" if phases > 1 else "trainable" for k in range(phases)
    ]
    rows = [heads, [INPUT, "", times(told["input"]), *[""] * (2 + phases)]]
    for part in told["parts"]:
        rows.append(_row(part))
        rows += [
            _row(stage | {"name": f"  {stage['name']}"}) for stage in part["stages"]
        ]
    rows.append(_row({"name": "total", "kind": "", "shape": None, **told}))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = 2  # columns of words
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k < left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _row(part: Mapping[str, Any]) -> list[str]:
    numbers = [part["parameters"], part["statistics"], *part["trainable"]]
    shape = times(part["shape"] or ())
    return [part["name"], part["kind"], shape, *(f"{n:,}" for n in numbers)]


def times(shape: Sequence[int]) -> str:
    """``7 × 7 × 1024``."""
    return " × ".join(map(str, shape))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Count:
    """Sizes of arrays by name."""

    params: Mapping[str, int]
    rest: Mapping[str, int]
    trainable: Sequence[Mapping[str, Any]]

    @classmethod
    def of(
        cls, params: Arrays, rest: Arrays, phases: Sequence[Mapping[str, Any]]
    ) -> "_Count":
        return cls(
            params={name: leaf.size for name, leaf in params.items()},
            rest={name: leaf.size for name, leaf in rest.items()},
            trainable=[optim.partition(params, phase)[0] for phase in phases],
        )

    def within(self, name: str) -> dict[str, Any]:
        """Of the module of a name."""
        return self._where(lambda key: key.startswith(f"{name}/"))

    def of_all(self) -> dict[str, Any]:
        return self._where(lambda key: True)

    def none(self) -> dict[str, Any]:
        return self._where(lambda key: False)

    def others(self, told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Arrays that no part holds, as a part of their own, so that sums are right."""
        named = tuple(f"{part['name']}/" for part in told if part["kind"])
        left = self._where(lambda key: not key.startswith(named))
        about = {"name": OTHER, "kind": "", "inputs": [], "shape": None, "stages": []}
        return [about | left] if left["parameters"] + left["statistics"] else []

    def _where(self, holds: Callable[[str], bool]) -> dict[str, Any]:
        return {
            "parameters": sum(n for key, n in self.params.items() if holds(key)),
            "statistics": sum(n for key, n in self.rest.items() if holds(key)),
            "trainable": [
                sum(self.params[key] for key in phase if holds(key))
                for phase in self.trainable
            ],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Node:
    """A part of the pass: where it stands among the modules, and what it reads."""

    scope: str
    shape: Shape
    inputs: list[str]


def _flow(
    traced: Any, modules: Mapping[str, parts.Module]
) -> tuple[list[tuple[str, _Node]], list[str]]:
    """Which part reads which: equations in order, each of the part that it names.

    Equations of no part hand on what they read. Joining several parts is one of its own.

    Args:
        traced: a jaxpr whose first argument is the film.
        modules: parts by name.

    Returns:
        Parts by name, in order, and those that the first result comes from.
    """
    scopes = {parts.scope(name): name for name in modules}
    made: dict[Any, tuple[str, ...]] = {traced.invars[0]: (INPUT,)}
    nodes: dict[str, _Node] = {}
    last, name = "", ""
    for equation in traced.eqns:
        read = [v for v in equation.invars if not isinstance(v, core.Literal)]
        sources = _merged(made.get(v, ()) for v in read)
        scope = str(equation.source_info.name_stack).partition("/")[0]
        if equation.primitive.name == "concatenate" and len(sources) > 1:
            scope = scope or "concatenation"
        if scope and scope != last:
            known = scopes.get(scope, scope)
            same = sum(node.scope == known for node in nodes.values())
            name = f"{known} ({same + 1})" if same else known
            nodes[name] = _Node(scope=known, shape=(), inputs=[])
        last = scope
        if scope:
            new = [s for s in sources if s != name and s not in nodes[name].inputs]
            nodes[name].inputs.extend(new)
            shape = equation.outvars[0].aval.shape[1:]
            nodes[name] = dataclasses.replace(nodes[name], shape=shape)
            sources = (name,)
        made |= dict.fromkeys(equation.outvars, sources)
    return list(nodes.items()), list(made.get(traced.outvars[0], ()))


def _merged(sources: Any) -> tuple[str, ...]:
    """All names once, in order."""
    return tuple(dict.fromkeys(name for some in sources for name in some))


def _described(
    name: str,
    node: _Node,
    modules: Mapping[str, parts.Module],
    shapes: Mapping[str, Shape],
    count: _Count,
) -> dict[str, Any]:
    """One entry of ``parts``."""
    module = modules.get(name)
    about = {"name": name, "kind": "", "inputs": node.inputs, "shape": [*node.shape]}
    if module is None:
        return about | count.none() | {"stages": []}
    order = {below: place for place, below in enumerate(shapes)}
    stages = [
        {
            "name": below,
            "kind": module.stages[below].kind,
            "shape": [*shapes[below]] if below in shapes else None,
            **count.within(below),
        }
        for below in sorted(module.stages, key=lambda n: order.get(n, len(order)))
    ]
    about |= {"kind": module.kind, "shape": [*shapes[name]]}
    return about | count.within(name) | {"stages": stages}
