"""What weights must say about themselves before anybody feeds them a film.

A network is more than its arrays: the same film scaled otherwise, or its outputs read in
another order, gives numbers that look right and are not. The passport travels with the
arrays (inside the file and beside it) and decides the preprocessing.
"""

import dataclasses
import json
import re
import reprlib

from cxr_jax.errors import CheckpointError

# How logits become what the network was trained to say; "none": it has no classifier.
OUTPUTS = ("sigmoid", "softmax", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passport:
    """Where weights come from, and what they take and give.

    Attributes:
        architecture: such as ``densenet121``.
        source: a name of the hub, an address, a file name, or the run that made them.
        licence: SPDX name, or what is known; ``unknown`` if nothing is.
        mean: one number per channel, of films in [0, 1].
        std: one positive number per channel, of films in [0, 1].
        channels: what the stem takes, 1 or 3; a gray film is repeated over three.
        size: side in pixels that the film is resized to, 16 to 4096: detectors have
            about 4,300, and a larger side would only fill the memory.
        classes: name of each logit, in order; ``()`` where nobody names them, such as
            the 1,000 of ImageNet.
        outputs: one of ``OUTPUTS``.
        sha256: of the file that was read, lower-case hex; "" when there was no file.
        notes: one line that a reader of the numbers must know.

    Raises:
        CheckpointError: a field of another type or range.
    """

    architecture: str
    source: str
    licence: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    size: int
    classes: tuple[str, ...] = ()
    outputs: str = "sigmoid"
    sha256: str = ""
    notes: str = ""

    def __post_init__(self):
        for name in ("mean", "std", "classes"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, (right, allowed) in _RULES.items():
            value = getattr(self, name)
            if not right(value):
                raise CheckpointError(
                    f"passport: {name}={reprlib.repr(value)}, allowed is {allowed}"
                )
        if not len(self.mean) == len(self.std) == self.channels:
            raise CheckpointError(
                f"passport: {len(self.mean)} means and {len(self.std)} stds for"
                f" channels={self.channels}: give one of each per channel"
            )

    def to_json(self) -> str:
        """The passport as JSON text, keys in the order of the fields."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Passport":
        """A passport from the text that ``to_json`` gave.

        Raises:
            CheckpointError: not JSON, a key too many or too few, or a wrong value.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"passport: not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise CheckpointError("passport: give a JSON object with one key per field")
        known = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() != known:
            unknown = reprlib.repr(sorted(fields.keys() - known))
            raise CheckpointError(
                f"passport: unknown keys {unknown}, missing keys"
                f" {sorted(known - fields.keys())}: write it with Passport.to_json"
            )
        return cls(**fields)


def _number(value) -> bool:
    # Not isfinite: JSON has integers that no float can hold.
    return type(value) in (int, float) and -1e30 < value < 1e30


def _text(value) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _unique_names(value) -> bool:
    names = isinstance(value, tuple) and all(_text(name) for name in value)
    return names and len(set(value)) == len(value)


_SOME_TEXT = (_text, "text that is not empty")
_RULES = {
    "architecture": _SOME_TEXT,
    "source": _SOME_TEXT,
    "licence": _SOME_TEXT,
    "mean": (
        lambda v: isinstance(v, tuple) and all(map(_number, v)),
        "one finite number per channel",
    ),
    "std": (
        lambda v: isinstance(v, tuple) and all(_number(x) and x > 0 for x in v),
        "one positive finite number per channel",
    ),
    "channels": (lambda v: type(v) is int and v in (1, 3), "1 or 3"),
    "size": (
        lambda v: type(v) is int and 16 <= v <= 4096,
        "a side of 16 to 4096 pixels",
    ),
    "classes": (_unique_names, "a sequence of different names"),
    "outputs": (lambda v: v in OUTPUTS, f"one of {', '.join(OUTPUTS)}"),
    "sha256": (
        lambda v: isinstance(v, str) and re.fullmatch(r"([0-9a-f]{64})?", v),
        'the 64 lower-case hex digits of a SHA-256, or ""',
    ),
    "notes": (lambda v: isinstance(v, str), "text"),
}
