"""Training films with their labels for a sheet of the report, chosen by rule."""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath
from PIL import Image

from cxr_jax.data.records import Records
from cxr_jax.predictions import write_atomically
from cxr_jax.types import Batch

FILE = "training_films.npz"
SIDE = 160  # pixels; larger films are reduced
NONE = "No finding"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sheet:
    """K training films.

    Attributes:
        films: uint8 ``[K, H, W]``.
        titles: str ``[K]``, the label each stands for; ``NONE`` for films without one.
        labels: str ``[K]``, all its labels, one a line.
        ids: str ``[K]``.
    """

    films: np.ndarray
    titles: np.ndarray
    labels: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.films)


def choose_films(records: Records, index: np.ndarray) -> list[tuple[int, str]]:
    """A film for each label, and one without any: nobody picks them.

    Of each label, the first of its films by the SHA-256 of their ids that no other label
    took before; the first of all where there is no other.

    Args:
        records: of the dataset.
        index: record numbers of the part.

    Returns:
        Record number and label; labels that no film has are left out.
    """
    order = sorted(
        index.tolist(), key=lambda k: hashlib.sha256(records.id[k].encode()).digest()
    )
    labels = records.labels[order]
    wanted = [(name, labels[:, c] == 1) for c, name in enumerate(records.classes)]
    without = (labels != 1).all(axis=1) & (labels == 0).any(axis=1)
    chosen, taken = [], set()
    for name, has in [*wanted, (NONE, without)]:
        films = [order[k] for k in np.flatnonzero(has)]
        free = [film for film in films if film not in taken]
        if films:
            film = (free or films)[0]
            chosen.append((film, name))
            taken.add(film)
    return chosen


def collect(
    records: Records,
    chosen: Sequence[tuple[int, str]],
    *,
    load: Callable[[np.ndarray], Batch],
) -> Sheet | None:
    """Reads the chosen films; None where there are none.

    Args:
        records: of the dataset.
        chosen: from ``choose_films``.
        load: record numbers → a Batch of host arrays.
    """
    if not chosen:
        return None
    index = np.array([film for film, _ in chosen])
    films = np.asarray(load(index).image)[..., 0]
    names = np.array(records.classes)
    return Sheet(
        films=np.stack([_small(film) for film in films]),
        titles=np.array([name for _, name in chosen]),
        labels=np.array(["\n".join(names[row == 1]) for row in records.labels[index]]),
        ids=records.id[index],
    )


def write(workdir: epath.PathLike, sheet: Sheet | None) -> None:
    """Writes ``training_films.npz``; nothing where there is no film."""
    if sheet is None:
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **vars(sheet))
    write_atomically(epath.Path(workdir) / FILE, buffer.getvalue())


def read(workdir: epath.PathLike) -> Sheet | None:
    """Reads ``training_films.npz``; None where there is none."""
    path = epath.Path(workdir) / FILE
    if not path.exists():
        return None
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return Sheet(**arrays)


def _small(film: np.ndarray) -> np.ndarray:
    """At most ``SIDE`` pixels wide and high, the aspect kept."""
    image = Image.fromarray(film)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=None)
    return np.asarray(image)
