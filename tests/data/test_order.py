"""Oversampling: how often each film comes, whatever the step, the process, the epoch."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.data import order as orders
from cxr_jax.data.order import Balanced, draw, order_of
from cxr_jax.data.pipeline import train_records
from cxr_jax.data.records import Records
from cxr_jax.errors import ConfigError, DataError


def flags(positives, others):
    """Positives spread among the others."""
    found = np.zeros(positives + others, bool)
    found[np.linspace(0, len(found) - 1, positives).astype(int)] = True
    return found


@settings(max_examples=60, deadline=None)
@given(
    positives=st.integers(1, 12),
    others=st.integers(12, 60),
    share=st.sampled_from([0.5, 0.5, 0.6, 0.75]),
    seed=st.integers(0, 2**40),
)
def test_each_epoch_holds_the_share_and_favours_no_film(positives, others, share, seed):
    positive = flags(positives, others)
    order = Balanced(positive=positive, share=share, seed=seed)
    assert order.length == others + round(others * share / (1 - share))
    total = np.zeros(len(positive), int)
    for number in range(5):
        epoch = order.epoch(number)
        assert len(epoch) == order.length
        counts = np.bincount(epoch, minlength=len(positive))
        assert (counts[~positive] == 1).all()
        assert np.ptp(counts[positive]) <= 1 and counts[positive].min() >= 1
        assert abs(counts[positive].sum() / len(epoch) - share) <= 1 / len(epoch)
        total += counts
    assert np.ptp(total[positive]) <= 1  # over epochs too
    again = Balanced(positive=positive, share=share, seed=seed)
    np.testing.assert_array_equal(again.epoch(3), order.epoch(3))


def test_epochs_and_seeds_are_in_different_orders():
    order = Balanced(positive=flags(5, 40), share=0.5, seed=1)
    other = Balanced(positive=flags(5, 40), share=0.5, seed=2)
    seen = {o.epoch(k).tobytes() for o in (order, other) for k in range(20)}
    assert len(seen) == 40


def test_positives_stand_anywhere_in_an_epoch():
    """Mean place of the positives over 200 epochs: (n - 1) / 2 within 5 sd."""
    order = Balanced(positive=flags(3, 30), share=0.5, seed=0)
    positive = np.isin(np.stack([order.epoch(k) for k in range(200)]), [0, 16, 32])
    assert positive.sum() == 200 * 30
    place = np.argwhere(positive)[:, 1].mean()
    sd = np.sqrt(60**2 / 12 / (200 * 30))
    assert abs(place - 29.5) < 5 * sd


def test_the_stream_is_the_same_from_any_step_on_and_over_processes():
    """An epoch of 32 draws in batches of 6: they run across its ends."""
    positive, indices = flags(2, 16), np.arange(100, 118)
    order = Balanced(positive=positive, share=0.5, seed=4)
    whole = np.concatenate(
        [
            train_records(indices, batch_size=6, seed=4, step=s, order=order)
            for s in range(16)
        ]
    )
    np.testing.assert_array_equal(
        whole, 100 + np.concatenate([order.epoch(k) for k in range(3)])
    )
    fresh = Balanced(positive=positive, share=0.5, seed=4)
    for start in (11, 5, 0):  # a resumed process has read nothing before
        for process in range(3):
            rows = start * 6 + process * 2 + np.arange(2)
            np.testing.assert_array_equal(100 + draw(fresh, rows), whole[rows])
    # Three epochs: every other film 3 times, each of the two positives 24 times.
    counts = collections.Counter(whole.tolist())
    assert [counts[100 + k] for k in range(18)] == [24, *[3] * 16, 24]


def test_the_order_is_pinned():
    """Changing this changes every resumed run: Philox bits, put together by hand."""

    def sort(count, *entropy):
        bits = np.random.Philox(np.random.SeedSequence(entropy)).random_raw(count)
        return sorted(range(count), key=lambda k: int(bits[k]))

    positive = np.array([False, True, False, False, True, False])
    order = Balanced(positive=positive, share=0.5, seed=9)
    # Epoch 1 takes turns 4 to 7 of the two positives.
    queue = [(1, 4)[k] for k in sort(2, 9, 0, 1)] * 2
    films = [0, 2, 3, 5, *queue]
    assert order.epoch(1).tolist() == [films[k] for k in sort(8, 9, 1)]


def records_with(labels):
    count = len(labels)
    words, nothing = np.full(count, ""), np.full(count, np.nan, np.float32)
    return Records(
        classes=("Mass", "Pneumonia"),
        id=np.array([f"{k}.png" for k in range(count)]),
        patient=words,
        study=words,
        follow_up=nothing,
        age=nothing,
        sex=words,
        view=words,
        labels=np.stack([nothing, np.array(labels, np.float32)], axis=1),
    )


def test_labels_of_the_part_decide():
    """Positives outside the part do not count; an unknown label is one of the others."""
    records = records_with([1, 0, np.nan, 1, 0, 0, 0])
    order = order_of(records, np.array([1, 2, 3, 4, 5]), seed=0, label="Pneumonia")
    assert order.positive.tolist() == [False, False, True, False, False]
    assert np.bincount(order.epoch(0)).tolist() == [1, 1, 4, 1, 1]
    assert isinstance(order_of(records, np.arange(3), seed=0), orders.Shuffled)


@pytest.mark.parametrize(
    ("labels", "how", "error", "words"),
    [
        ([1, 0, 0], {"label": "Pneumonya"}, ConfigError, "has Mass, Pneumonia"),
        ([1, 0, 0], {"share": 1.0}, ConfigError, r"share=1.0: .* between 0 and 1"),
        ([1, 1, 0], {"share": 0.5}, ConfigError, r"2 of 3 films .* more than 0.667"),
        ([0, 0, 0], {}, DataError, "0 of 3 films to train on are positive"),
        ([1, 1, 1], {}, DataError, "3 of 3 films to train on are positive"),
    ],
)
def test_what_cannot_be_balanced_is_refused(labels, how, error, words):
    how = {"seed": 0, "label": "Pneumonia"} | how
    with pytest.raises(error, match=words):
        order_of(records_with(labels), np.arange(3), **how)
