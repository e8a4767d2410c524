"""Weights that are counted: the paper's formula, on the films that are known."""

import numpy as np
import pytest

from cxr_jax import frequencies
from cxr_jax.errors import DataError
from cxr_jax.objective import Objective

TERM = {
    "name": "bce",
    "fn": {
        "name": "cxr_jax.losses.weighted_bce",
        "w_pos": "negative_share",
        "w_neg": "positive_share",
    },
    "reduce": {"classes": "sum", "batch": "mean"},
}
NAN = np.nan
LABELS = np.array([[1, 0], [0, 0], [0, 1], [0, NAN], [NAN, 1]], np.float32)


def test_words_become_the_numbers_of_the_paper():
    (term,) = frequencies.count_terms((TERM,), LABELS, classes=("a", "b"))
    # a: 1 positive, 3 negative; b: 2 and 2.
    assert term["fn"]["w_pos"] == (3 / 4, 2 / 4)
    assert term["fn"]["w_neg"] == (1 / 4, 2 / 4)
    assert TERM["fn"]["w_pos"] == "negative_share"  # nothing is changed in place


def test_positives_and_negatives_then_weigh_the_same():
    """Σ w₊ over positives equals Σ w₋ over negatives: |P||N| / n each."""
    (term,) = frequencies.count_terms((TERM,), LABELS[:4, :1], classes=("a",))
    objective = Objective.of((term,))
    mask = np.ones(4, bool)
    each = [
        objective(
            np.zeros((4, 1), np.float32), np.where(keep, LABELS[:4, :1], NAN), mask=mask
        ).numerators["bce"]
        for keep in (LABELS[:4, :1] == 1, LABELS[:4, :1] == 0)
    ]
    np.testing.assert_allclose(each, 3 / 4 * np.log(2), rtol=1e-6)


def test_other_terms_stay_as_they_are():
    plain = TERM | {"fn": {"name": "cxr_jax.losses.bce"}}
    never = np.zeros((2, 1), np.float32)
    assert frequencies.count_terms((plain,), never, classes=("a",)) == (plain,)


@pytest.mark.parametrize("value", [0, 1])
def test_a_weight_of_nothing_is_refused(value):
    labels = np.full((3, 1), value, np.float32)
    with pytest.raises(DataError, match="Hernia: .* one of its weights would be 0"):
        frequencies.count_terms((TERM,), labels, classes=("Hernia",))
