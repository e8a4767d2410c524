"""The first convolution, for another scaling of the film or for one channel of three.

A film x is normalised, (x - mean) / std, and then padded with zeros. Per tap and output
feature the stem therefore adds ``Σ_c w_c / s_c · x - Σ_c w_c m_c / s_c`` where the tap
lies on the film, and nothing where it lies on the padding. Another stem is the same
function of the film if both sums agree tap by tap; the second one makes the difference
between exact and nearly exact, and it shows only along the edges.
"""

import dataclasses

import numpy as np

from cxr_jax.errors import CheckpointError
from cxr_jax.models.passport import Passport


@dataclasses.dataclass(frozen=True)
class Stem:
    """A first convolution and the scaling it expects.

    Attributes:
        kernel: ``[k, k, C, F]``.
        border: ``[k, k, 1, F]``, what ``gray.GrayStem`` adds per tap on the film; None
            for a plain convolution.
        mean: one per channel C, of films in [0, 1].
        std: likewise.
        change: a sentence, if it is not the stem that was given.
    """

    kernel: np.ndarray
    border: np.ndarray | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    change: str = ""


def fit(
    given: Stem,
    *,
    channels: int,
    border: bool,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Stem:
    """The stem of a model that computes the same function of a gray film.

    With w, m, s the given kernel, mean and std per channel and m', s' the new ones:
    three channels keep their kernel up to ``s'_c / s_c`` and need ``m' = m``. One channel
    has ``w' = s' Σ_c w_c / s_c``, and lacks ``Σ_c w_c (m' - m_c) / s_c`` per tap, which
    is its border. Without a border it is exact only where that is zero: if all m_c are
    equal, and m' is the same.

    Args:
        given: the stem of the file.
        channels: C of the model.
        border: whether the model's stem has a border.
        mean: m', one per channel of the model; by default m, or the mean over channels.
        std: s', likewise.

    Returns:
        Float64 where anything was computed, the given arrays where nothing was.

    Raises:
        CheckpointError: it cannot be exact.
    """
    taken = given.kernel.shape[2]
    if channels > taken:
        raise CheckpointError(
            f"the stem of the file takes {taken} channel, the model's {channels}: set"
            f" task.channels={taken}"
        )
    mean = tuple(mean or _default(given.mean, channels))
    std = tuple(std or _default(given.std, channels))
    if len(mean) != channels or len(std) != channels:
        raise CheckpointError(
            f"{len(mean)} means and {len(std)} stds for a stem of {channels} channels"
        )
    same = (mean, std) == (given.mean, given.std)
    if same and border == (given.border is not None):
        return given
    if channels > 1:
        return _rescaled(given, mean, std)
    return _gray(given, mean, std, border)


def keep(
    given: Stem,
    *,
    channels: int,
    border: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Stem:
    """The stem as it is, for a model whose films may be scaled otherwise.

    It then sees films in another brightness and contrast than those it learnt from.

    Args:
        given: the stem of the file.
        channels: of the model.
        border: whether the model's stem has a border.
        mean: what the model's films are normalised by.
        std: likewise.

    Raises:
        CheckpointError: it takes another number of channels, or a border.
    """
    theirs, has = given.kernel.shape[2], given.border is not None
    if theirs != channels or has != border:
        raise CheckpointError(
            f"pretrained.stem=keep: the stem of the file takes {theirs} channels and"
            f" {'has a' if has else 'no'} border, the model's {channels} and"
            f" {'has one' if border else 'none'}: set task.channels={theirs}, or"
            " pretrained.stem=fit"
        )
    if (mean, std) == (given.mean, given.std):
        return given
    change = (
        f"stem kept, made for films less mean={given.mean} over std={given.std}, given"
        f" films less mean={mean} over std={std}"
    )
    return dataclasses.replace(given, mean=mean, std=std, change=change)


def _default(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if len(values) == channels else (float(np.mean(values)),)


def _rescaled(given: Stem, mean: tuple[float, ...], std: tuple[float, ...]) -> Stem:
    if mean != given.mean or given.border is not None:
        raise CheckpointError(
            f"the weights expect films less mean={given.mean}, the model takes"
            f" mean={mean}: along the edges no kernel makes up for that; set task.mean"
            f"={given.mean} and task.std={given.std}, or pretrained.stem=keep for a"
            " stem that sees films scaled otherwise"
        )
    ratio = np.asarray(std, np.float64) / given.std
    kernel = given.kernel * ratio[:, None]
    change = f"stem refitted from std={given.std} to {std}"
    return Stem(kernel, None, mean, std, change)


def _gray(
    given: Stem, mean: tuple[float, ...], std: tuple[float, ...], border: bool
) -> Stem:
    channels = given.kernel.shape[2]
    scaled = given.kernel.astype(np.float64) / np.asarray(given.std)[:, None]
    away = (mean[0] - np.asarray(given.mean))[:, None]
    lacking = (scaled * away).sum(axis=2, keepdims=True)
    if given.border is not None:
        lacking = lacking + given.border
    if not border and np.any(lacking):
        raise CheckpointError(
            f"the weights expect films less mean={given.mean}, the model one channel"
            f" less mean={mean}: along the edges no plain kernel makes up for that; of"
            " DenseNets take one such as cxr_jax.models.gray.densenet121, whose stem can,"
            f" or set task.channels={channels} with task.mean={given.mean}"
        )
    kernel = scaled.sum(axis=2, keepdims=True) * std[0]
    said = f"stem of {channels} channels made gray exactly, mean={mean}, std={std}"
    return Stem(kernel, lacking if border else None, mean, std, said)


def of(arrays: dict[str, np.ndarray], passport: Passport) -> Stem | None:
    """The stem among the arrays of a file; None if there is none of that shape."""
    kernel = arrays.get("backbone/stem/kernel")
    if kernel is None or kernel.ndim != 4:
        return None
    if kernel.shape[2] != passport.channels:
        raise CheckpointError(
            f"its passport says {passport.channels} channels, its stem takes"
            f" {kernel.shape[2]}: name the right layout, or write a passport beside it"
        )
    border = arrays.get("backbone/stem/border")
    return Stem(kernel, border, passport.mean, passport.std)
