"""Which film stands at which position of the endless training stream.

The stream is epoch after epoch; everything is a function of (seed, position), so the
state of the data is one integer and any process can read any part of it.
"""

import dataclasses
import functools
from typing import Protocol

import numpy as np

from cxr_jax.data.records import Records
from cxr_jax.errors import ConfigError, DataError


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
        return _permutation(self.length, (self.seed, number))


# Compared by identity: it holds an array, and its epochs are kept by who it is.
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Balanced:
    """Positives of one class repeated until they fill a share of each epoch.

    An epoch holds every other film once and ``K = round(N·share / (1 - share))``
    positives, N being the number of the others, in a fresh order: it is longer than the
    training part. The positives take turns in an order of their own, in which an epoch
    goes on where the one before it ended: their counts differ by at most 1 within an
    epoch, and by at most 1 over any number of epochs.

    Attributes:
        positive: bool ``[n]``, the films that are repeated; films whose label is unknown
            are not among them.
        share: of positives in an epoch, in (0, 1).
        seed: any non-negative integer.

    Raises:
        ConfigError: a share outside (0, 1), or one that the positives exceed as it is.
        DataError: no positive, or nothing but positives.

    Reference: Buda et al., A systematic study of the class imbalance problem in
    convolutional neural networks, 2017, section 2.1, as CheXNet cites it.
    """

    positive: np.ndarray
    share: float
    seed: int

    def __post_init__(self):
        positives, n = int(np.sum(self.positive)), len(self.positive)
        if not 0 < self.share < 1:
            raise ConfigError(
                f"data.oversample.share={self.share}: give a number between 0 and 1"
            )
        if not 0 < positives < n:
            raise DataError(
                f"{positives} of {n} films to train on are positive; oversampling needs"
                " positives and others: choose another class or split"
            )
        if positives > self._drawn:
            raise ConfigError(
                f"data.oversample.share={self.share}: {positives} of {n} films to train on"
                f" are positive as it is; give more than {positives / n:.3f}, or no class"
            )

    @property
    def _drawn(self) -> int:
        others = len(self.positive) - int(np.sum(self.positive))
        return round(others * self.share / (1 - self.share))

    @property
    def length(self) -> int:
        """Draws an epoch: others and repeated positives."""
        return len(self.positive) - int(np.sum(self.positive)) + self._drawn

    def epoch(self, number: int) -> np.ndarray:
        """int64 ``[length]``, of (seed, number) alone."""
        return _balanced(self, number)


def order_of(
    records: Records,
    indices: np.ndarray,
    *,
    seed: int,
    label: str = "",
    share: float = 0.5,
) -> Order:
    """The order that a config asks for.

    Args:
        records: the table of the dataset.
        indices: record numbers of the training part, ``[n]``.
        seed: of the run.
        label: class whose positives are repeated; empty for none.
        share: of positives in an epoch, see ``Balanced``.

    Raises:
        ConfigError: a class that the dataset lacks, or a share that cannot be.
        DataError: nothing to train on, or nothing to balance.
    """
    if not label:
        return Shuffled(length=len(indices), seed=seed)
    if label not in records.classes:
        raise ConfigError(
            f"data.oversample.label={label!r}: the dataset has"
            f" {', '.join(records.classes)}"
        )
    column = records.labels[:, records.classes.index(label)]
    return Balanced(positive=column[indices] == 1, share=share, seed=seed)


# Pure functions; two epochs meet in one batch, and several threads read ahead.
@functools.lru_cache(maxsize=4)
def _permutation(length: int, entropy: tuple[int, ...]) -> np.ndarray:
    bits = np.random.Philox(np.random.SeedSequence(entropy))
    order = np.argsort(bits.random_raw(length), kind="stable")
    order.setflags(write=False)
    return order


@functools.lru_cache(maxsize=4)
def _balanced(order: Balanced, number: int) -> np.ndarray:
    positive = np.flatnonzero(order.positive)
    # 1 keeps this order apart from those of epochs.
    queue = positive[_permutation(len(positive), (order.seed, 0, 1))]
    turn = number * order._drawn + np.arange(order._drawn)
    repeated = queue[turn % len(queue)]
    films = np.concatenate([np.flatnonzero(~order.positive), repeated])
    films = films[_permutation(len(films), (order.seed, number))]
    films.setflags(write=False)
    return films


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
