"""Which film stands at which position of the endless training stream.

The stream is epoch after epoch; everything is a function of (seed, position), so the
state of the data is one integer and any process can read any part of it.
"""

import dataclasses
import functools
from typing import Protocol

import numpy as np

from cxr_jax.errors import DataError


class Order(Protocol):
    """An order of films: ``length`` draws an epoch, ``epoch(number)`` says which.

    Sampling with weights is another such object: its length may differ from the number
    of films, and an epoch may name a film twice.
    """

    @property
    def length(self) -> int: ...

    def epoch(self, number: int) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Every film once an epoch, in a fresh order.

    The order sorts random bits of Philox, which NumPy keeps the same for ever; the
    methods of its generators (``permutation``) may change between versions.

    Attributes:
        length: number of films, at least 1.
        seed: any non-negative integer.
    """

    length: int
    seed: int

    def __post_init__(self):
        if self.length < 1:
            raise DataError(
                "0 films to train on, at least 1 is needed: look at the split's counts"
                " in split.json"
            )

    def epoch(self, number: int) -> np.ndarray:
        """A permutation of 0 .. length - 1, of (seed, number) alone."""
        return _permutation(self.length, self.seed, number)


# A pure function; two epochs meet in one batch, and several threads read ahead.
@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, number: int) -> np.ndarray:
    bits = np.random.Philox(np.random.SeedSequence((seed, number)))
    order = np.argsort(bits.random_raw(length), kind="stable")
    order.setflags(write=False)
    return order


def draw(order: Order, positions: np.ndarray) -> np.ndarray:
    """The films at some positions of the stream.

    Position k is draw k mod length of epoch k // length.

    Args:
        order: what an epoch looks like.
        positions: int64 ``[B]``, at least 0.

    Returns:
        int64 ``[B]``, each in 0 .. number of films - 1.
    """
    epochs, within = np.divmod(np.asarray(positions, np.int64), order.length)
    films = np.empty_like(within)
    for number in np.unique(epochs):
        chosen = epochs == number
        films[chosen] = order.epoch(int(number))[within[chosen]]
    return films
