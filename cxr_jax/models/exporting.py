"""Our weights as a file that others read: safetensors, in torchvision's names and axes.

The passport travels twice: in the file's metadata, where no copy can lose it, and as JSON
beside the file, where people and other programs read it. So does what a run says about
the weights that it made, an ``Origin``, under the key ``run``.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from cxr_jax.errors import CheckpointError
from cxr_jax.models import torch_names
from cxr_jax.models.archives import Archive
from cxr_jax.models.origin import Origin
from cxr_jax.models.passport import Passport

RUN = "run"  # key of the origin, in the metadata and beside the passport's own


def export(
    path: str | pathlib.Path,
    params: Mapping[str, np.ndarray],
    rest: Mapping[str, np.ndarray],
    passport: Passport,
    *,
    origin: Origin | None = None,
) -> Passport:
    """Writes weights and their passport; an import of the file is bit-identical.

    Args:
        path: ends in ``.safetensors``; its folder exists.
        params: trainable arrays by name, all of them.
        rest: batch statistics by name.
        passport: of these arrays; its digest is replaced by that of the file.
        origin: what the run that made them says, if one did.

    Returns:
        The passport that lies beside the file, see ``sidecar``.

    Raises:
        CheckpointError: another ending, or an array that no DenseNet of torchvision has.
    """
    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: exports are .safetensors, name it so")
    arrays = {name: _stored(array) for name, array in {**params, **rest}.items()}
    inside = dataclasses.replace(passport, sha256="")
    metadata = {"format": "pt", "passport": inside.to_json()}
    content: dict[str, Any] = {}
    if origin is not None:
        metadata[RUN] = origin.to_json()
        content[RUN] = json.loads(metadata[RUN])
    raw = safetensors.numpy.save(torch_names.write(arrays), metadata)
    beside = dataclasses.replace(passport, sha256=hashlib.sha256(raw).hexdigest())
    content = dataclasses.asdict(beside) | content
    text = json.dumps(content, indent=2, ensure_ascii=False)
    _write(path, raw)
    _write(sidecar(path), text.encode() + b"\n")
    return beside


def sidecar(path: pathlib.Path) -> pathlib.Path:
    """Where the passport of a file of weights lies: ``NAME.passport.json`` beside it."""
    return path.with_name(f"{path.name}.passport.json")


def stated(path: pathlib.Path, archive: Archive) -> Passport | None:
    """The passport that a file states itself, in it or beside it; None without one.

    Raises:
        CheckpointError: a passport of another file, or two that differ.
    """
    beside = sidecar(path)
    texts = [archive.metadata["passport"]] if "passport" in archive.metadata else []
    texts += [text for text in (_beside(path)[0],) if text]
    passports = [Passport.from_json(text) for text in texts]
    wrong = [p.sha256 for p in passports if p.sha256 not in ("", archive.sha256)]
    if wrong:
        raise CheckpointError(
            f"{beside.name}: is the passport of a file with sha256 {wrong[0]}, this one"
            f" has {archive.sha256}: put the right one beside it"
        )
    same = {dataclasses.replace(p, sha256=archive.sha256) for p in passports}
    if len(same) > 1:
        raise CheckpointError(f"{beside.name}: differs from the passport in the file")
    return same.pop() if same else None


def made_by(path: pathlib.Path, archive: Archive) -> Origin | None:
    """What the run that made a file says, in it or beside it; None where none did.

    Raises:
        CheckpointError: it says what cannot be, or differs in the two places.
    """
    texts = [archive.metadata[RUN]] if RUN in archive.metadata else []
    texts += [text for text in (_beside(path)[1],) if text]
    found = [Origin.from_json(text) for text in texts]
    if any(origin != found[0] for origin in found):
        raise CheckpointError(
            f"{sidecar(path).name}: its {RUN} differs from that in the file: export the"
            " run again"
        )
    return found[0] if found else None


def _beside(path: pathlib.Path) -> tuple[str, str]:
    """The texts of the passport and of the origin beside a file; "" for none."""
    beside = sidecar(path)
    if not beside.is_file():
        return "", ""
    text = beside.read_bytes().decode(errors="replace")
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or RUN not in content:
            return text, ""
        run = json.dumps(content.pop(RUN))
        return json.dumps(content), run
    except (ValueError, RecursionError):
        return text, ""  # refused as a passport


def _stored(array: np.ndarray) -> np.ndarray:
    # Readers of safetensors agree on these two; a narrower float fits in without loss.
    array = np.asarray(array)
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _write(path: pathlib.Path, raw: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(raw)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
