"""Numbers of a loss that are counted on the training part, not chosen.

A config names them by word, in the arguments of a term's ``fn``::

    {"name": "cxr_jax.losses.weighted_bce",
     "w_pos": "negative_share", "w_neg": "positive_share"}

so that a recipe fits whatever data it is trained on. With these words the term is equation
1 of CheXNet's later version (v3): w₊ = |N| / (|P| + |N|), w₋ = |P| / (|P| + |N|).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_jax import config
from cxr_jax.errors import DataError

POSITIVE, NEGATIVE = "positive_share", "negative_share"


def count_terms(
    terms: Sequence[Mapping[str, Any]], labels: np.ndarray, *, classes: Sequence[str]
) -> tuple[dict[str, Any], ...]:
    """Terms with numbers for words.

    Args:
        terms: of a config.
        labels: of the training part, ``[n, C]`` in {0, 1}, NaN where unknown.
        classes: names of the columns.

    Returns:
        The terms, ``positive_share`` and ``negative_share`` replaced by one number per
        class: of the films whose label is known, those that are positive or negative.

    Raises:
        DataError: a class without positives or without negatives: one of its weights
            would be 0.
    """
    found = []
    for term in config.plain(terms):
        fn = term["fn"]
        words = {k: v for k, v in fn.items() if v in (POSITIVE, NEGATIVE)}
        if words:
            shares = _shares(labels, classes)
            fn = fn | {key: shares[word] for key, word in words.items()}
        found.append(term | {"fn": fn})
    return tuple(found)


def _shares(labels: np.ndarray, classes: Sequence[str]) -> dict[str, tuple[float, ...]]:
    positives, negatives = (np.sum(labels == value, axis=0) for value in (1, 0))
    for name, p, n in zip(classes, positives, negatives, strict=True):
        if not p or not n:
            raise DataError(
                f"{name}: {p} positive and {n} negative films to train on, so one of its"
                " weights would be 0; choose another split, or a loss without weights"
            )
    share = positives / (positives + negatives)
    return {POSITIVE: tuple(share.tolist()), NEGATIVE: tuple((1 - share).tolist())}
