"""Terms of a loss and their sum: the one place for masks, reductions and weights.

A term keeps its numerator and denominator apart. Both add up over micro-batches, devices
and processes, so that whoever knows the whole global batch divides once, by the right
number.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cxr_jax import config
from cxr_jax.errors import ConfigError
from cxr_jax.types import Loss

Elementwise = Callable[..., jax.Array]
Weight = float | Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """One weighted loss.

    Elements count where the film is real (``mask``) and the label is known (not NaN).
    Axes are reduced from the last to the first: ``sum`` adds what is known, ``mean``
    divides by how much is known in that row. A row in which nothing is known is itself
    unknown to the axis before. With the usual ``{"batch": "mean", "classes": "sum"}``::

        numerator   = Σ_b Σ_c known_bc · fn(z_bc, y_bc)
        denominator = number of real films with at least one known label

    ``batch="sum"`` has no denominator: it is 0, which ``total`` reads as 1 (a count of 1
    would not add up over micro-batches).

    Attributes:
        name: of its entry in the log.
        fn: elementwise, ``fn(predicted, target)``.
        reduce: axis → ``sum`` or ``mean``.
        axes: the axes of the elements, in order.
        weight: a number, or a function of the step.
        by_group: arguments of ``fn`` that hold one row per group of films, ``[G, C]``; a
            film is given its own group's.
        balance: give ``fn`` weights ``w_pos`` = (N + 1)/(N₊ + 1) and ``w_neg`` =
            (N + 1)/(N₋ + 1), counted along the first axis of each batch where known.
            A micro-batch would count itself alone: ``assembly.make_trainer`` refuses
            ``train.accumulate`` above 1 beside it.
        quantity: which of a task's outputs it costs, where the task has several.

    Raises:
        ConfigError: an axis without a reduction, or an unknown one.
    """

    name: str
    fn: Elementwise
    reduce: Mapping[str, str]
    axes: tuple[str, ...] = ("batch", "classes")
    weight: Weight = 1.0
    by_group: tuple[str, ...] = ()
    balance: bool = False
    quantity: str = ""

    def __post_init__(self) -> None:
        if set(self.reduce) != set(self.axes):
            raise ConfigError(
                f"term {self.name!r}: reduce names {sorted(self.reduce)}; "
                f"it must name each of {sorted(self.axes)}"
            )
        for axis, how in self.reduce.items():
            if how not in ("sum", "mean"):
                raise ConfigError(
                    f"term {self.name!r}: reduce.{axis}={how!r}: sum or mean"
                )

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "Term":
        """A term from plain data.

        Args:
            spec: ``name``; ``fn``: a mapping whose ``name`` is a dotted path and whose
                other keys are its arguments; ``reduce``; ``weight``: a number, or a
                mapping that builds a schedule; ``axes`` where they differ; ``quantity``.

        Raises:
            ConfigError: a missing or unknown key.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        given = dict(config.plain(spec))
        if not {"name", "fn", "reduce"} <= given.keys() <= fields:
            raise ConfigError(
                f"a term has keys {sorted(fields)}, of which name, fn and reduce are "
                f"needed; given: {sorted(given)}"
            )
        fn = dict(given["fn"])
        given["fn"] = functools.partial(config.resolve(fn.pop("name")), **fn)
        given["by_group"] = tuple(given.get("by_group", ()))
        if strange := [name for name in given["by_group"] if name not in fn]:
            raise ConfigError(
                f"term {given['name']!r}: by_group names {', '.join(strange)}; its fn has"
                f" {', '.join(fn) or 'no arguments'}"
            )
        # Words are counted later; a row per group would be gathered from anything else.
        if flat := [
            name
            for name in given["by_group"]
            if not isinstance(fn[name], str) and np.ndim(fn[name]) != 2
        ]:
            raise ConfigError(
                f"term {given['name']!r}: by_group names {', '.join(flat)}, which has no"
                " row per group: give one for each, of one number per class, or a word"
                " that is counted"
            )
        if isinstance(given.get("weight"), Mapping):
            given["weight"] = config.build(given["weight"])
        return cls(**given)

    def __call__(
        self,
        predicted: jax.Array,
        target: jax.Array,
        *,
        mask: jax.Array,
        step: jax.typing.ArrayLike = 0,
        group: jax.Array | None = None,
    ) -> Loss:
        """Numerator, denominator and weight of this term.

        Args:
            predicted: logits, one axis per name in ``axes``.
            target: same shape; NaN where unknown.
            mask: bool, the shape of the first axis or axes; False for padding.
            step: of the training, for the weight.
            group: int32, the shape of the first axis, for ``by_group``.

        Raises:
            ConfigError: ``by_group`` without groups.
        """
        mask = jnp.expand_dims(mask, tuple(range(mask.ndim, target.ndim)))
        known = mask & ~jnp.isnan(target)
        # Replaced before the loss, not after it: 0 · NaN is NaN in a gradient.
        values = self.fn(
            jnp.where(known, predicted, 0.0),
            jnp.where(known, target, 0.0),
            **self._of_group(group),
            **(_balance(target, known) if self.balance else {}),
        )
        for axis in self.axes[:0:-1]:
            count = jnp.sum(known, axis=-1)
            values = jnp.sum(jnp.where(known, values, 0.0), axis=-1)
            if self.reduce[axis] == "mean":
                values = values / jnp.maximum(count, 1).astype(values.dtype)
            known = count > 0
        averaged = self.reduce[self.axes[0]] == "mean"
        count = jnp.sum(known) if averaged else jnp.zeros((), int)
        weight = self.weight(step) if callable(self.weight) else self.weight
        return Loss(
            numerators={self.name: jnp.sum(jnp.where(known, values, 0.0))},
            denominators={self.name: count.astype(values.dtype)},
            weights={self.name: jnp.asarray(weight, values.dtype)},
        )

    def _of_group(self, group: jax.Array | None) -> dict[str, jax.Array]:
        """Arguments of ``fn``, a row per film."""
        if self.by_group and group is None:
            raise ConfigError(
                f"term {self.name!r} weighs by group, but the films have none: set"
                " data.group"
            )
        held = getattr(self.fn, "keywords", {})
        return {name: jnp.asarray(held[name])[group] for name in self.by_group}


@dataclasses.dataclass(frozen=True)
class Objective:
    """Several terms of the same prediction.

    Attributes:
        terms: their names must differ.

    Raises:
        ConfigError: no term, or two of one name.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"terms need names of their own; given: {names}")

    @classmethod
    def of(cls, specs: Sequence[Mapping[str, Any]]) -> "Objective":
        """An objective from plain data, one mapping per term."""
        return cls(tuple(Term.of(spec) for spec in specs))

    def __call__(
        self,
        predicted: jax.Array,
        target: jax.Array,
        *,
        mask: jax.Array,
        step: jax.typing.ArrayLike = 0,
        group: jax.Array | None = None,
    ) -> Loss:
        """All terms; arguments as in ``Term``."""
        given = {"mask": mask, "step": step, "group": group}
        return merge(*(term(predicted, target, **given) for term in self.terms))


def _balance(target: jax.Array, known: jax.Array) -> dict[str, jax.Array]:
    """Weights of either side, as rare as it is among the rows of this batch."""
    sides = {"w_pos": target == 1, "w_neg": target == 0}

    def count(rows: jax.Array) -> jax.Array:
        return jnp.sum(rows, axis=0).astype(float) + 1.0

    return {name: count(known) / count(known & side) for name, side in sides.items()}


def merge(*losses: Loss) -> Loss:
    """The loss that has the terms of all of these."""
    return Loss(
        numerators={k: v for loss in losses for k, v in loss.numerators.items()},
        denominators={k: v for loss in losses for k, v in loss.denominators.items()},
        weights={k: v for loss in losses for k, v in loss.weights.items()},
    )


def total(loss: Loss) -> jax.Array:
    """``Σ_t weight_t · numerator_t / max(denominator_t, 1)``, a scalar.

    A term of which nothing is known, in the whole global batch, contributes 0.
    """
    parts = [loss.weights[name] * value for name, value in _means(loss).items()]
    return functools.reduce(jnp.add, parts)


def log_entries(loss: Loss) -> dict[str, jax.Array]:
    """``loss/NAME`` → the value of each term, before its weight."""
    return {f"loss/{name}": value for name, value in _means(loss).items()}


def _means(loss: Loss) -> dict[str, jax.Array]:
    return {
        name: numerator / jnp.maximum(loss.denominators[name], 1.0)
        for name, numerator in loss.numerators.items()
    }
