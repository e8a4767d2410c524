"""The films that labels are scored on: a part of a split, of any source of labels."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from cxr_jax.data import splits
from cxr_jax.data.labelled import LabelSource
from cxr_jax.errors import DataError

VALIDATION = "val"
SET_APART = tuple(name for name in splits.SCHEMES if name.startswith("set_apart"))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Films of one part of a split.

    Attributes:
        name: of the part.
        index: int ``[n]``, rows of the source's records.
        passport: of the whole split.
    """

    name: str
    index: np.ndarray
    passport: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Of the sorted ids."""
        return self.passport["parts"][self.name]["sha256"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """How the schemes that draw are drawn, by the names of a config's ``data``.

    Attributes:
        split_seed: of everything that is drawn.
        fractions: shares of train, val and test.
        holdout: films that are set apart; None where nobody said.
        holdout_from: a listed part to draw them from; empty for all films.
        patients: share of patients that is used; of the schemes that take one.
    """

    split_seed: int = 0
    fractions: tuple[float, ...] = splits.FRACTIONS
    holdout: int | None = None
    holdout_from: str = ""
    patients: float = 1.0


def take_part(
    source: LabelSource, split: str | None, *, drawing: Drawing | None = None
) -> Part:
    """The films of ``SCHEME/PART``.

    Args:
        source: of labels.
        split: ``SCHEME/PART``; a file of labels needs no scheme, and is one part whole.
        drawing: of the schemes that draw, as the run that they stand for.

    Raises:
        DataError: not of that form, an unknown scheme or part, an empty one, or films to
            be set apart without a word on how many and whence.
    """
    scheme, _, name = (split or "test").rpartition("/")
    if name not in splits.PARTS:
        raise DataError(
            f"--split={split}: SCHEME/PART is allowed, with PART one of"
            f" {', '.join(splits.PARTS)}, and SCHEME one of {', '.join(splits.SCHEMES)}"
        )
    if not scheme and source.version:
        raise DataError(
            f"--split={split}: {source.name} needs a scheme, such as"
            f" --split=patient_disjoint/{name}; allowed: {', '.join(splits.SCHEMES)}"
        )
    records, drawing = source.records, drawing or Drawing()
    if scheme in SET_APART and drawing.holdout is None:
        raise DataError(
            f"--split={split}: which films {scheme} sets apart depends on the config of"
            " the run; give --config=FILE.py:VARIANT, or --trained_on=RUN"
        )
    if scheme:
        shares = dataclasses.asdict(drawing)
        if scheme not in splits.SAMPLING:
            del shares["patients"]
        found = splits.split_records(
            records,
            scheme,
            dataset=source.name,
            version=source.version,
            seed=shares.pop("split_seed"),
            required=(name,),
            **{key: value for key, value in shares.items() if value is not None},
        )
        return Part(name=name, index=found.parts[name], passport=found.passport)
    index = np.arange(len(records))
    return Part(name=name, index=index, passport=_whole(source, name))


def validation_of(part: Part, split: str, take: Callable[[str], Part]) -> Part | None:
    """The validation part of the same split, if there is one, and it is another one.

    Args:
        part: of the split.
        split: its name, ``SCHEME/PART``.
        take: from such a name to the part.
    """
    told = part.passport["parts"].get(VALIDATION)
    if part.name == VALIDATION or not told or not told["images"]:
        return None
    return take(f"{split.rpartition('/')[0]}/{VALIDATION}")


def _whole(source: LabelSource, name: str) -> dict[str, Any]:
    """The passport of a file that is one part."""
    records = source.records
    part = {
        "images": len(records),
        "patients": len(set(records.patient.tolist()) - {""}),
        "sha256": splits.ids_sha256(records.id.tolist()),
    }
    return {
        "dataset": source.name,
        "version": source.version,
        "scheme": "none: a file of labels, whole",
        "seed": None,
        "fractions": None,
        "parts": {name: part},
        "patient_overlap": 0,
        "left_out": 0,
    }
