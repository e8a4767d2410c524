"""What a run says about the weights it made: how they are built, how scores are read.

It travels with an export, and may have been altered on its way. So it is plain JSON with
known keys, and a name in it is resolved only to a part of this package that is of the
kind it stands for.
"""

import dataclasses
import functools
import json
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from cxr_jax import config
from cxr_jax.errors import CheckpointError, ConfigError

# Of what evaluators freeze on validation films, what a reader of films needs.
FROZEN = ("operating_points", "platt", "chosen_on")
NETWORK = ("model", "head", "size", "maps")
FITS = ("pad", "stretch", "crop")  # those of data.image
# Sum of a part's numbers: a file shall not ask for a network that takes hours to build.
_MOST = 4096
_MC = ("samples", "probs", "seed")
_PLATT_NUMBERS = ("slope", "intercept", "prevalence")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """A run, as far as its weights are concerned.

    Attributes:
        dataset: that it was trained on.
        step: at which the weights were taken.
        weights_sha256: digest of their values, as ``checkpoint.sha256`` gives it.
        network: ``model`` and ``head`` (a ``name`` and arguments each), ``size`` (pixels
            of the middle that is read of a film; 0 for all) and ``maps``.
        tta: the test-time augmentation of its evaluation, a ``name`` and arguments;
            empty for none.
        mc: passes with dropout of its evaluation, ``samples``, ``probs`` (``mean`` or
            ``plain``) and ``seed``; empty for none.
        frozen: per class, what was chosen on validation films: ``operating_points`` on
            raw probabilities and ``platt``; ``chosen_on`` says which films. Empty where
            nothing belongs to these weights.
        missing: why there is no calibration; "" where there is one.
        fit: how a film that is not square became one, see ``image.reduce_film``.
        enlarge: whether smaller films were enlarged, likewise.

    Raises:
        CheckpointError: a field of another type or range.
    """

    dataset: str
    step: int
    weights_sha256: str
    network: Mapping[str, Any]
    tta: Mapping[str, Any]
    frozen: Mapping[str, Any]
    missing: str
    # Files of before they were written down are of stretched films.
    fit: str = "stretch"
    enlarge: bool = False
    mc: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name, (right, allowed) in _RULES.items():
            value = getattr(self, name)
            if not right(value):
                told = reprlib.repr(value)  # repr itself may nest too deep
                raise CheckpointError(
                    f"run: {name}={told}, allowed is {allowed}: export the run again"
                )

    def to_json(self) -> str:
        """As JSON text; the same for the same run."""
        content = dataclasses.asdict(self)
        return json.dumps(content, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Origin":
        """What ``to_json`` wrote.

        Raises:
            CheckpointError: not JSON, a key too many or too few, or a wrong value.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"run: not JSON: {error}") from error
        known = {field.name for field in dataclasses.fields(cls)}
        needed = known - {"fit", "enlarge", "mc"}
        if not isinstance(fields, dict) or not needed <= fields.keys() <= known:
            raise CheckpointError(
                f"run: its keys must be {', '.join(sorted(known))}: export the run again"
            )
        return cls(**fields)


def check_part(spec: Mapping[str, Any], *, under: str, kind: type) -> None:
    """Refuses to resolve anything but a part of the package, with plain arguments.

    Args:
        spec: a ``name`` and its arguments.
        under: what the name must begin with, such as ``cxr_jax.models.``.
        kind: class that the part, or what it is a partial of, derives from.

    Raises:
        CheckpointError: another name, another kind.
    """
    name, part = spec["name"], None
    if name.startswith(under):
        try:
            part = config.resolve(name)
        except ConfigError as error:
            raise CheckpointError(f"run: {error}") from error
    while isinstance(part, functools.partial):
        part = part.func
    ours = isinstance(part, type) and issubclass(part, kind)
    if not ours or not part.__module__.startswith(under.rstrip(".")):
        raise CheckpointError(
            f"run: {name!r} is no {kind.__name__} of {under.rstrip('.')}; nothing else is"
            " built from a file"
        )


def _number(value: Any) -> bool:
    # Not isfinite: JSON has integers that no float can hold.
    return type(value) in (int, float) and -1e30 < value < 1e30


def _maybe_number(value: Any) -> bool:
    return value is None or _number(value)


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool) or _number(value)


def _part(value: Any) -> bool:
    """A dotted path and arguments: scalars, or lists of them."""
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        return False
    lists = [v if isinstance(v, list | tuple) else (v,) for v in value.values()]
    path = re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", value["name"], re.ASCII)
    plain = all(_scalar(x) for several in lists for x in several)
    numbers = [x for several in lists for x in several if _number(x)] if plain else []
    return path is not None and plain and sum(map(abs, numbers)) <= _MOST


def _network(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == set(NETWORK)
        and _part(value["model"])
        and _part(value["head"])
        and type(value["size"]) is int
        and value["size"] >= 0
        and isinstance(value["maps"], str)
    )


def _frozen(value: Any) -> bool:
    if not isinstance(value, Mapping) or not set(value) <= set(FROZEN):
        return False
    points, platt = (value.get(key, {}) for key in ("operating_points", "platt"))
    return (
        _nested(points, depth=2)
        and _nested(platt, depth=1)
        and _nested(value.get("chosen_on", {}), depth=0)
        and all(
            _maybe_number(point.get("threshold"))
            for per_class in points.values()
            for point in per_class.values()
        )
        and all(_scaling(one) for one in platt.values())
    )


def _nested(value: Any, *, depth: int) -> bool:
    """Mappings of mappings, ``depth`` deep, of mappings of scalars."""
    if not isinstance(value, Mapping):
        return False
    if not depth:
        return all(_scalar(leaf) for leaf in value.values())
    return all(_nested(inner, depth=depth - 1) for inner in value.values())


def _scaling(platt: Mapping[str, Any]) -> bool:
    slope, intercept, share = (platt.get(key) for key in _PLATT_NUMBERS)
    if slope is None:
        return isinstance(platt.get("reason"), str)
    return all(map(_number, (slope, intercept, share))) and 0 < share < 1


def _passes(value: Any) -> bool:
    """Of Monte-Carlo dropout; few enough that reading a film does not take hours."""
    if not isinstance(value, Mapping) or set(value) not in (set(), set(_MC)):
        return False
    return not value or (
        type(value["samples"]) is int
        and 0 < value["samples"] <= _MOST
        and value["probs"] in ("mean", "plain")
        and type(value["seed"]) is int
        and -(2**63) <= value["seed"] < 2**63
    )


_RULES = {
    "dataset": (lambda v: isinstance(v, str), "text"),
    "step": (lambda v: type(v) is int and v >= 0, "a number of steps"),
    "weights_sha256": (
        lambda v: isinstance(v, str) and re.fullmatch(r"[0-9a-f]{64}", v),
        "the 64 lower-case hex digits of a SHA-256",
    ),
    "network": (
        _network,
        f"{', '.join(NETWORK)} of a network, with a name and plain arguments each",
    ),
    "tta": (lambda v: v == {} or _part(v), "a name and plain arguments, or nothing"),
    "mc": (_passes, f"{', '.join(_MC)}, or nothing"),
    "frozen": (_frozen, f"{', '.join(FROZEN)} per class, in finite numbers"),
    "missing": (lambda v: isinstance(v, str), "text"),
    "fit": (lambda v: v in FITS, f"one of {', '.join(FITS)}"),
    "enlarge": (lambda v: isinstance(v, bool), "true or false"),
}
