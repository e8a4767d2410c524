"""Numbers of a loss that are counted on the training part, not chosen.

A config names them by word, in the arguments of a term's ``fn``::

    {"name": "cxr_jax.losses.weighted_bce",
     "w_pos": "negative_share", "w_neg": "positive_share"}

so that a recipe fits whatever data it is trained on. With these words the term is equation
1 of CheXNet's later version (v3): w₊ = |N| / (|P| + |N|), w₋ = |P| / (|P| + |N|).

A term that names such arguments in ``by_group`` has them counted within each group of films
(``data.group``): with ``"by_group": ("w_pos", "w_neg")`` and the body part as the group it
is the loss of MURA, w_T,1 = |N_T| / (|A_T| + |N_T|), w_T,0 = |A_T| / (|A_T| + |N_T|).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_jax import config
from cxr_jax.data.groups import Categories
from cxr_jax.errors import ConfigError, DataError

POSITIVE, NEGATIVE = "positive_share", "negative_share"


def count_terms(
    terms: Sequence[Mapping[str, Any]],
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    groups: Categories | None = None,
) -> tuple[dict[str, Any], ...]:
    """Terms with numbers for words.

    Args:
        terms: of a config.
        labels: of the training part, ``[n, C]`` in {0, 1}, NaN where unknown.
        classes: names of the columns.
        groups: of the training films, for terms with ``by_group``.

    Returns:
        The terms, ``positive_share`` and ``negative_share`` replaced by one number per
        class: of the films whose label is known, those that are positive or negative;
        by one row of such numbers per group where the term says so.

    Raises:
        DataError: a class without positives or without negatives, in a group where that
            matters: one of its weights would be 0.
        ConfigError: a term by group where films have none.
    """
    found = []
    for term in config.plain(terms):
        fn = term["fn"]
        words = {k: v for k, v in fn.items() if v in (POSITIVE, NEGATIVE)}
        grouped = term.get("by_group", ())
        if grouped and groups is None:
            raise ConfigError(
                f"task.terms: {term['name']!r} weighs by group, but data.group is empty;"
                " name an attribute of the films there, such as body_part"
            )
        for key, word in words.items():
            shares = _by_group if key in grouped else _shares
            fn = fn | {key: shares(labels, classes, groups)[word]}
        found.append(term | {"fn": fn})
    return tuple(found)


def _by_group(
    labels: np.ndarray, classes: Sequence[str], groups: Categories
) -> dict[str, tuple[tuple[float, ...], ...]]:
    rows = [
        _shares(labels[groups.code == k], [f"{c}, {name}" for c in classes])
        for k, name in enumerate(groups.names)
    ]
    return {word: tuple(row[word] for row in rows) for word in (POSITIVE, NEGATIVE)}


def _shares(
    labels: np.ndarray, classes: Sequence[str], groups: Categories | None = None
) -> dict[str, tuple[float, ...]]:
    del groups  # All films together.
    positives, negatives = (np.sum(labels == value, axis=0) for value in (1, 0))
    for name, p, n in zip(classes, positives, negatives, strict=True):
        if not p or not n:
            raise DataError(
                f"{name}: {p} positive and {n} negative films to train on, so one of its"
                " weights would be 0; choose another split, or a loss without weights"
            )
    share = positives / (positives + negatives)
    return {POSITIVE: tuple(share.tolist()), NEGATIVE: tuple((1 - share).tolist())}
