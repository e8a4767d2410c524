"""Readers and a model, judged by each other: protocols of reader studies as named options.

``majority``    each reader against the majority of the others; the model against the
                majority of each group of R - 1, R times (CheXNet v1: 3 of 4 readers; MURA:
                5 of 6).
``each_other``  each reader against each other label, the model's labels among them; the
                model against each reader (CheXNet v3, where the figure is F1). Where the
                model makes no call, readers are judged by the other readers alone.
``truth``       each reader and the model against what is known to be so.

Axes: ``N`` films, ``R`` readers, ``C`` classes; NaN where a reader read no film.
"""

import dataclasses
import itertools

import numpy as np

from cxr_jax.errors import ConfigError
from cxr_jax.metrics import confusion

NAMES = ("majority", "each_other", "truth")
TIES = ("negative", "positive", "left_out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Votes:
    """How readers vote.

    Attributes:
        tie: what an even vote is: ``negative`` (a positive needs a strict majority),
            ``positive``, or ``left_out``.
        least: voters that a vote needs; a film with fewer has no majority.
    """

    tie: str = "negative"
    least: int = 3

    def __post_init__(self) -> None:
        if self.tie not in TIES or self.least < 1:
            raise ConfigError(
                f"votes with tie={self.tie!r} and least={self.least}; allowed:"
                f" {', '.join(TIES)}, and at least 1 voter"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Who is compared with whom by one protocol, film by film.

    Attributes:
        readers: bool ``[N, R, O, C, 4]``, outcomes of each reader against each of its O
            references: one, or by ``each_other`` R of them (number r of reader r is the
            model, without an outcome where it makes no call; the others are readers).
        model: bool ``[N, G, C, 4]``, outcomes of the model against each of G references.
        paired: bool ``[N, R, C, 4]``, outcomes of the model where reader r has one too:
            what the readers' are subtracted from.
        references: float ``[N, G', C]``, all references, for counting.
    """

    readers: np.ndarray
    model: np.ndarray
    paired: np.ndarray
    references: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Averages:
    """One figure by one protocol; any leading axes before those named.

    Attributes:
        readers: ``[…, R, C]``, of each reader; by ``each_other`` the mean over its R
            references, or R - 1 of a class of which the model makes no call.
        average: ``[…, C]``, mean over the readers.
        model: ``[…, C]``, mean over the model's references.
        difference: ``[…, C]``, model minus readers' average on the same films.
    """

    readers: np.ndarray
    average: np.ndarray
    model: np.ndarray
    difference: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Expected figures of each reader against the others' votes, ``[R, …]``."""

    sensitivity: np.ndarray
    specificity: np.ndarray


def votes_of_others(calls: np.ndarray, votes: Votes | None = None) -> np.ndarray:
    """The majority of all readers but one.

    Args:
        calls: ``[N, R, C]`` in {0, 1} or NaN.
        votes: tie rule and least number of voters.

    Returns:
        float ``[N, R, C]``: entry r is the vote of the others who read the film; NaN
        where they are fewer than ``votes.least``, or even and ties are left out.

    Raises:
        ConfigError: the panel itself is too small for such a vote.
    """
    votes = votes or Votes()
    if calls.shape[1] - 1 < votes.least:
        raise ConfigError(
            f"{calls.shape[1]} readers leave votes of {calls.shape[1] - 1}, but"
            f" {votes.least} voters are needed: set `least` lower, or leave out"
            " the protocol 'majority'"
        )
    present = np.isfinite(calls)
    positive = calls == 1
    voters = present.sum(axis=1, keepdims=True) - present
    in_favour = positive.sum(axis=1, keepdims=True) - positive
    return _decide(in_favour, voters, votes)


def vote(calls: np.ndarray, votes: Votes | None = None) -> np.ndarray:
    """The majority of all readers.

    Args:
        calls: ``[N, R, C]`` in {0, 1} or NaN.
        votes: tie rule and least number of voters.

    Returns:
        float ``[N, C]``; NaN where fewer than ``votes.least`` read the film, or the vote
        is even and ties are left out.
    """
    present = np.isfinite(calls).sum(axis=1)
    return _decide((calls == 1).sum(axis=1), present, votes or Votes())


def _decide(in_favour: np.ndarray, voters: np.ndarray, votes: Votes) -> np.ndarray:
    ahead = 2 * in_favour - voters
    even = {"negative": 0.0, "positive": 1.0, "left_out": np.nan}[votes.tie]
    decided = np.where(ahead == 0, even, (ahead > 0).astype(np.float64))
    return np.where(voters >= votes.least, decided, np.nan)


def compare(
    protocol: str,
    calls: np.ndarray,
    model: np.ndarray,
    *,
    truth: np.ndarray | None = None,
    votes: Votes | None = None,
) -> Comparison:
    """Sets readers and model against the references of a protocol.

    Args:
        protocol: one of ``NAMES``.
        calls: ``[N, R, C]`` in {0, 1} or NaN; without NaN for ``each_other``.
        model: ``[N, C]`` in {0, 1}, NaN where it makes no call.
        truth: ``[N, C]`` in {0, 1} or NaN; for ``truth``.
        votes: of ``majority``.

    Raises:
        ConfigError: an unknown protocol, a panel too small, calls or truth missing.
    """
    if protocol not in NAMES or (protocol == "truth" and truth is None):
        raise ConfigError(
            f"reader protocol {protocol!r}"
            f"{' without a known truth' if protocol in NAMES else ''}; allowed:"
            f" {', '.join(NAMES)}"
        )
    if protocol == "each_other":
        return _each_other(calls, model)
    if protocol == "truth":
        reference = model_reference = np.asarray(truth, dtype=np.float64)[:, None]
    else:
        reference = model_reference = votes_of_others(calls, votes)
    shared = np.where(np.isfinite(calls), model[:, None], np.nan)
    return Comparison(
        readers=confusion.outcomes(calls, reference)[:, :, None],
        model=confusion.outcomes(model[:, None], model_reference),
        paired=confusion.outcomes(shared, reference),
        references=reference,
    )


def _each_other(calls: np.ndarray, model: np.ndarray) -> Comparison:
    readers = calls.shape[1]
    if np.isnan(calls).any():
        raise ConfigError(
            "readers against each other need every call; complete the reader file, or"
            " leave out the protocol 'each_other'"
        )
    others = np.repeat(calls[:, None], readers, axis=1)
    own = np.arange(readers)
    others[:, own, own] = model[:, None]
    against_readers = confusion.outcomes(model[:, None], calls)
    return Comparison(
        readers=confusion.outcomes(calls[:, :, None], others),
        model=against_readers,
        paired=against_readers,
        references=np.concatenate([calls, model[:, None]], axis=1),
    )


def average(
    readers: np.ndarray,
    model: np.ndarray,
    paired: np.ndarray,
    *,
    drawn: np.ndarray | None = None,
) -> Averages:
    """Means over references, readers and groups; undefined if any part is.

    A reader drawn twice counts twice, each time with the reference it had in the whole
    panel: its own copy never votes on it, and is never compared with it.

    By ``each_other`` a model without a call of a class is no reference of it: readers are
    judged by the others alone, and the model and the difference stay undefined. Drawn
    without any other, a reader is undefined as well.

    Args:
        readers: a metric of ``Comparison.readers``, ``[…, R, O, C]``.
        model: of ``Comparison.model``, ``[…, G, C]``.
        paired: of ``Comparison.paired``, ``[…, R, C]``.
        drawn: ``[…, R]``, how often each reader was drawn; once each where None.
    """
    count = readers.shape[-3]
    drawn = np.ones(count) if drawn is None else drawn
    if readers.shape[-2] == 1:
        each = readers[..., 0, :]
    else:
        # A model with calls is undefined against every reader only where all calls of all
        # are equal: then readers are undefined against each other, too.
        called = ~np.isnan(model).all(axis=-2)[..., None, None, :]
        # The others as often as drawn, and the model once.
        itself = np.eye(count, dtype=bool)[..., None]
        against = np.where(itself, called, drawn[..., None, :, None])
        each = _mean_over_references(readers, against)
    own = model[..., 0, :] if model.shape[-2] == 1 else weighted_mean(model, drawn)
    mean = weighted_mean(each, drawn)
    return Averages(
        readers=each,
        average=mean,
        model=own,
        difference=weighted_mean(paired, drawn) - mean,
    )


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the last axis but one.

    Args:
        values: ``[…, R, C]``; NaN where undefined.
        weights: ``[…, R]``; what has weight 0 may be undefined.

    Returns:
        ``[…, C]``, NaN where a value with weight is NaN.
    """
    return _mean_over_references(values, weights[..., None])


def _mean_over_references(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """As ``weighted_mean``, weights ``[…, R, C]``; NaN where there is no weight at all."""
    total = np.where(weights > 0, values * weights, 0).sum(axis=-2)
    return confusion.ratio(total, weights.sum(axis=-2))


def expected_against_votes(
    sensitivity: np.ndarray,
    specificity: np.ndarray,
    prevalence: np.ndarray | float,
    *,
    tie: str = "negative",
) -> Measured:
    """What independent readers would measure against the majority of the others.

    Readers are independent given the true state. With v(d) the chance that the others'
    vote is positive in state d, and π the prevalence, reader r's measured sensitivity is
    ``(π Se v(1) + (1-π)(1-Sp) v(0)) / (π v(1) + (1-π) v(0))``, its measured specificity
    likewise; v is summed over all 2^(R-1) ways to vote.

    Four readers of .70 and .95 measure .60 at a prevalence of 5% and .43 at 1.28%: the
    rarer a finding, the more of the positive votes are common errors.

    Args:
        sensitivity: ``[R, …]`` in [0, 1], true.
        specificity: ``[R, …]`` in [0, 1], true.
        prevalence: ``[…]`` in [0, 1].
        tie: see ``Votes``.

    Returns:
        ``[R, …]``; NaN where no vote is positive, or none negative.
    """
    # Chance of a positive call in state 0 and in state 1, [2, R, …].
    chance = np.stack([1 - np.asarray(specificity), np.asarray(sensitivity)])
    share = np.stack([1 - np.asarray(prevalence), np.asarray(prevalence)])
    readers = chance.shape[1]
    measured = []
    for r in range(readers):
        others = np.delete(chance, r, axis=1)
        positive = np.zeros_like(chance[:, 0])
        negative = np.zeros_like(positive)
        for pattern in itertools.product((0, 1), repeat=readers - 1):
            said = np.asarray(pattern).reshape(1, -1, *(1,) * (chance.ndim - 2))
            likely = np.where(said == 1, others, 1 - others).prod(axis=1)
            ahead = 2 * sum(pattern) - (readers - 1)
            positive += likely * (ahead > 0 or (ahead == 0 and tie == "positive"))
            negative += likely * (ahead < 0 or (ahead == 0 and tie == "negative"))
        positive, negative = share * positive, share * negative
        measured.append(
            [
                confusion.ratio((positive * chance[:, r]).sum(0), positive.sum(0)),
                confusion.ratio(
                    (negative * (1 - chance[:, r])).sum(0), negative.sum(0)
                ),
            ]
        )
    found = np.moveaxis(np.asarray(measured), 1, 0)
    return Measured(sensitivity=found[0], specificity=found[1])
