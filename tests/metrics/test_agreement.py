"""Reader protocols against plain enumerations, scikit-learn and figures in print."""

import collections
import itertools

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn import metrics as sk

from cxr_jax.errors import ConfigError
from cxr_jax.metrics import agreement, confusion, fleiss, probit
from cxr_jax.metrics.agreement import Votes


def panel(*, films=120, readers=4, classes=2, missing=0.0, seed=0):
    """Correlated calls of readers and a model, with the truth."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((films, classes)) < 0.3).astype(float)
    right = rng.random((films, readers, classes)) < 0.8
    calls = np.where(right, truth[:, None], 1 - truth[:, None])
    calls[rng.random((films, readers)) < missing] = np.nan
    model = np.where(rng.random(truth.shape) < 0.85, truth, 1 - truth)
    return calls, model, truth


# One film, one class, one reader at a time, in words rather than arrays.


def vote(said, tie, least):
    """Majority of a list of 0, 1 and None; None where there is none."""
    said = collections.Counter(k for k in said if k is not None)
    if said.total() < least:
        return None
    if said[0] == said[1]:
        return {"negative": 0, "positive": 1, "left_out": None}[tie]
    return max(said, key=said.get)


def ratio(a, b):
    return a / b if b else np.nan


def mean_of(rows, name):
    return np.mean([row[name] for row in rows])


def figures(calls, reference):
    """Sensitivity, specificity, F1 and kappa of two lists, by counting."""
    pairs = [
        (int(a), int(b))
        for a, b in zip(calls, reference, strict=True)
        if a is not None and b is not None
    ]
    n = collections.Counter(pairs)
    agree = ratio(n[0, 0] + n[1, 1], len(pairs))
    yes = [ratio(sum(p[k] for p in pairs), len(pairs)) for k in (0, 1)]
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    return {
        "sensitivity": ratio(n[1, 1], n[1, 1] + n[0, 1]),
        "specificity": ratio(n[0, 0], n[0, 0] + n[1, 0]),
        "f1": ratio(2 * n[1, 1], 2 * n[1, 1] + n[1, 0] + n[0, 1]),
        "kappa": ratio(agree - chance, 1 - chance),
    }


def column(values):
    return [None if np.isnan(v) else int(v) for v in values]


def enumerate_protocol(protocol, calls, model, truth, tie="negative", least=3):
    """Per class: figures of each reader, their mean, the model's, the difference."""
    _, readers, classes = calls.shape
    found = []
    for c in range(classes):
        said = [column(calls[:, r, c]) for r in range(readers)]
        machine, known = column(model[:, c]), column(truth[:, c])
        each, own, paired = [], [], []
        for r in range(readers):
            others = [said[k] for k in range(readers) if k != r]
            if protocol == "each_other":
                each.append([figures(said[r], ref) for ref in [*others, machine]])
                own.append(figures(machine, said[r]))
                paired.append(own[-1])
                continue
            reference = known
            if protocol == "majority":
                reference = [vote(row, tie, least) for row in zip(*others, strict=True)]
            each.append([figures(said[r], reference)])
            own.append(figures(machine, reference))
            seen = [
                m if s is not None else None
                for m, s in zip(machine, said[r], strict=True)
            ]
            paired.append(figures(seen, reference))
        found.append(
            {
                m: {
                    "readers": [mean_of(rows, m) for rows in each],
                    "average": np.mean([mean_of(rows, m) for rows in each]),
                    "model": mean_of(own, m),
                    "difference": mean_of(paired, m)
                    - np.mean([mean_of(rows, m) for rows in each]),
                }
                for m in confusion.METRICS
            }
        )
    return found


def measured(protocol, calls, model, truth, **votes):
    comparison = agreement.compare(
        protocol, calls, model, truth=truth, votes=Votes(**votes)
    )
    sums = [getattr(comparison, k).sum(axis=0) for k in ("readers", "model", "paired")]
    return {
        name: agreement.average(*map(metric, sums))
        for name, metric in confusion.METRICS.items()
    }


@pytest.mark.parametrize(
    ("protocol", "readers", "missing", "votes"),
    [
        ("majority", 4, 0, {}),
        ("majority", 6, 0, {}),  # five of six
        ("majority", 5, 0, {}),  # votes of four: ties
        ("majority", 5, 0, {"tie": "positive"}),
        ("majority", 5, 0, {"tie": "left_out"}),
        ("majority", 4, 0.1, {}),
        ("majority", 4, 0.1, {"least": 2}),
        ("majority", 6, 0.2, {"tie": "left_out", "least": 4}),
        ("majority", 3, 0, {"least": 2}),
        ("each_other", 4, 0, {}),
        ("each_other", 6, 0, {}),
        ("truth", 4, 0, {}),
        ("truth", 4, 0.2, {}),
        ("truth", 2, 0, {}),
    ],
)
def test_protocols_equal_an_enumeration_film_by_film(protocol, readers, missing, votes):
    calls, model, truth = panel(readers=readers, missing=missing)
    model[:7, 1] = np.nan  # no call for some films
    if protocol == "truth":
        truth[5:9, 0] = np.nan
    got = measured(protocol, calls, model, truth, **votes)
    want = enumerate_protocol(protocol, calls, model, truth, **votes)
    for c, name in itertools.product(range(2), confusion.METRICS):
        for part, value in want[c][name].items():
            np.testing.assert_allclose(
                getattr(got[name], part)[..., c], value, atol=1e-12, err_msg=part
            )


def test_counts_give_what_scikit_learn_gives():
    _, model, truth = panel(films=300)
    for c in range(2):
        counts = confusion.outcomes(model[:, c], truth[:, c]).sum(axis=0)
        y, x = truth[:, c], model[:, c]
        assert confusion.sensitivity(counts) == pytest.approx(sk.recall_score(y, x))
        got = confusion.specificity(counts)
        assert got == pytest.approx(sk.recall_score(y, x, pos_label=0))
        assert confusion.f1(counts) == pytest.approx(sk.f1_score(y, x))
        assert confusion.kappa(counts) == pytest.approx(sk.cohen_kappa_score(y, x))


def test_what_is_undefined_is_not_a_number():
    nothing = np.array([0, 0, 0, 9])
    assert np.isnan(confusion.f1(nothing)) and np.isnan(confusion.kappa(nothing))
    assert np.isnan(confusion.sensitivity(nothing))
    assert confusion.specificity(nothing) == 1
    assert confusion.f1(np.array([0, 1, 0, 9])) == 0  # a false alarm is defined
    assert confusion.f1(np.array([0, 0, 1, 9])) == 0  # so is a miss
    assert np.isnan(confusion.specificity(np.array([3, 0, 1, 0])))
    one = agreement.average(  # one undefined reader leaves no average
        np.array([0.5, np.nan]).reshape(2, 1, 1), np.ones((1, 1)), np.ones((2, 1))
    )
    assert np.isnan(one.average[0]) and np.isnan(one.difference[0])
    assert one.model[0] == 1


def test_readers_who_agree_are_perfect_by_every_protocol_but_truth():
    calls, model, truth = panel()
    calls[:] = calls[:, :1]
    for protocol in ("majority", "each_other"):
        got = measured(protocol, calls, calls[:, 0], truth)
        for name in confusion.METRICS:
            np.testing.assert_array_equal(got[name].average, 1)
            np.testing.assert_array_equal(got[name].difference, 0)
    assert (measured("truth", calls, model, truth)["f1"].average < 1).all()


@pytest.mark.parametrize("protocol", agreement.NAMES)
def test_order_of_readers_and_films_does_not_matter(protocol):
    calls, model, truth = panel(readers=5)
    films = np.random.default_rng(1).permutation(len(calls))
    turn = np.array([3, 1, 0, 4, 2])
    one = measured(protocol, calls, model, truth)
    two = measured(protocol, calls[films][:, turn], model[films], truth[films])
    for name in confusion.METRICS:
        np.testing.assert_allclose(
            one[name].readers[turn], two[name].readers, atol=1e-12
        )
        np.testing.assert_allclose(
            one[name].difference, two[name].difference, atol=1e-12
        )


def test_exchanging_positive_and_negative_exchanges_sensitivity_and_specificity():
    calls, model, truth = panel()
    one = measured("majority", calls, model, truth)
    two = measured("majority", 1 - calls, 1 - model, 1 - truth)
    np.testing.assert_allclose(one["sensitivity"].average, two["specificity"].average)
    np.testing.assert_allclose(one["specificity"].model, two["sensitivity"].model)
    np.testing.assert_allclose(one["kappa"].readers, two["kappa"].readers)


def test_a_reader_drawn_twice_counts_twice_and_never_meets_its_copy():
    calls, model, _ = panel()
    comparison = agreement.compare("each_other", calls, model)
    sums = [getattr(comparison, k).sum(axis=0) for k in ("readers", "model", "paired")]
    parts = [confusion.f1(x) for x in sums]
    got = agreement.average(*parts, drawn=np.array([2, 0, 1, 1]))

    def pair(a, b):
        return sk.f1_score(b, a)

    for c in range(2):
        said = [calls[:, r, c] for r in range(4)] + [model[:, c]]
        own = [
            # Reader 0 meets reader 2, reader 3 and the model; never its copy.
            np.mean([pair(said[0], said[k]) for k in (2, 3, 4)]),
            np.mean([pair(said[0], said[k]) for k in (2, 3, 4)]),
            np.mean([pair(said[2], said[k]) for k in (0, 0, 3, 4)]),
            np.mean([pair(said[3], said[k]) for k in (0, 0, 2, 4)]),
        ]
        machine = np.mean([pair(said[4], said[k]) for k in (0, 0, 2, 3)])
        assert got.average[c] == pytest.approx(np.mean(own))
        assert got.model[c] == pytest.approx(machine)
        assert got.difference[c] == pytest.approx(machine - np.mean(own))


def test_readers_are_judged_by_each_other_where_the_model_makes_no_call():
    calls, model, _ = panel()
    whole = measured("each_other", calls, model, None)
    model[:, 1] = np.nan  # no threshold for this class
    got = measured("each_other", calls, model, None)
    said = [calls[:, r, 1] for r in range(4)]
    own = [
        np.mean([sk.f1_score(said[k], said[r]) for k in range(4) if k != r])
        for r in range(4)
    ]
    np.testing.assert_allclose(got["f1"].readers[:, 1], own)
    assert got["f1"].average[1] == pytest.approx(np.mean(own))
    for name, found in got.items():
        assert np.isfinite(found.average[1]), name
        assert np.isnan(found.model[1]) and np.isnan(found.difference[1])
        # The other class is what it was.
        np.testing.assert_array_equal(found.readers[:, 0], whole[name].readers[:, 0])
        assert found.difference[0] == whole[name].difference[0]


def test_a_reader_drawn_alone_has_nobody_to_be_judged_by():
    calls, model, _ = panel()
    model[:, 1] = np.nan
    comparison = agreement.compare("each_other", calls, model)
    sums = [getattr(comparison, k).sum(axis=0) for k in ("readers", "model", "paired")]
    parts = [confusion.f1(x) for x in sums]
    drawn = np.array([[4, 0, 0, 0], [2, 2, 0, 0]])
    got = agreement.average(*[np.stack([x, x]) for x in parts], drawn=drawn)
    assert np.isfinite(got.average[:, 0]).all()  # the model is there
    assert np.isnan(got.average[0, 1])
    pair = sk.f1_score(calls[:, 1, 1], calls[:, 0, 1])
    assert got.average[1, 1] == pytest.approx(pair)


def test_findings_that_nobody_calls_leave_f1_undefined():
    calls, model, _ = panel()
    calls[..., 1] = model[:, 1] = 0
    got = measured("each_other", calls, model, None)
    assert np.isnan(got["f1"].average[1]) and np.isnan(got["f1"].model[1])
    assert got["specificity"].average[1] == 1


def test_a_ratio_with_nothing_below_is_undefined_and_exact_elsewhere():
    got = confusion.ratio(np.float32([1, 0, 2]), np.float32([3, 0, np.nan]))
    np.testing.assert_array_equal(got, [1 / 3, np.nan, np.nan])
    assert got.dtype == np.float64
    assert confusion.ratio(np.ones((2, 1)), np.full(3, 4.0)).shape == (2, 3)
    assert np.isnan(confusion.ratio(0.0, 0.0))


def test_what_a_protocol_cannot_do_is_refused():
    calls, model, _ = panel(readers=3)
    with pytest.raises(ConfigError, match="3 readers leave votes of 2.*least"):
        agreement.compare("majority", calls, model)
    with pytest.raises(ConfigError, match="without a known truth"):
        agreement.compare("truth", calls, model)
    with pytest.raises(ConfigError, match="'minority'.*majority, each_other, truth"):
        agreement.compare("minority", calls, model)
    calls[0, 0] = np.nan
    with pytest.raises(ConfigError, match="every call"):
        agreement.compare("each_other", calls, model)
    with pytest.raises(ConfigError, match="tie='coin'"):
        Votes(tie="coin")


# The bias of the majority of the others.


def test_the_published_bias_of_the_majority_comes_out():
    """Readers of .70 and .95 measure .60 at a prevalence of 5%, and .43 at 1.28%."""
    readers = np.array([0.70] * 4), np.array([0.95] * 4)
    for prevalence, value in ((0.05, 0.60), (0.0128, 0.43)):
        got = agreement.expected_against_votes(*readers, prevalence)
        np.testing.assert_allclose(got.sensitivity, value, atol=0.005)
        assert (got.specificity < 0.95).all()


def test_expected_votes_follow_the_binomial_distribution():
    from scipy.stats import binom

    for voters, tie in ((3, "negative"), (5, "negative"), (4, "negative")):
        most = voters // 2  # a positive vote needs more
        v1, v0 = binom.sf(most, voters, 0.8), binom.sf(most, voters, 0.1)
        above = 0.2 * 0.8 * v1 + 0.8 * 0.1 * v0
        got = agreement.expected_against_votes(
            np.full(voters + 1, 0.8), np.full(voters + 1, 0.9), 0.2, tie=tie
        )
        want = above / (0.2 * v1 + 0.8 * v0)
        np.testing.assert_allclose(got.sensitivity, want, rtol=1e-12)


@pytest.mark.parametrize("tie", agreement.TIES)
@pytest.mark.parametrize("readers", [4, 5])
def test_independent_readers_measure_what_is_expected_of_them(readers, tie):
    rng = np.random.default_rng(3)
    sensitivity, specificity = rng.uniform(0.5, 0.9, (2, readers, 2))
    prevalence, films = np.array([0.1, 0.4]), 200_000
    truth = rng.random((films, 2)) < prevalence
    chance = np.where(truth[:, None], sensitivity, 1 - specificity)
    calls = (rng.random((films, readers, 2)) < chance).astype(float)
    comparison = agreement.compare(
        "majority", calls, truth.astype(float), votes=Votes(tie=tie)
    )
    want = agreement.expected_against_votes(
        sensitivity, specificity, prevalence, tie=tie
    )
    counts = comparison.readers[:, :, 0].sum(axis=0)
    for metric, expected, n in (
        (confusion.sensitivity, want.sensitivity, counts[..., [0, 2]].sum(-1)),
        (confusion.specificity, want.specificity, counts[..., [1, 3]].sum(-1)),
    ):
        z = (metric(counts) - expected) / np.sqrt(expected * (1 - expected) / n)
        assert np.abs(z).max() < 4


def test_a_majority_of_perfect_voters_is_the_truth():
    sensitivity, specificity = np.array([0.7, 1, 1, 1]), np.array([0.8, 1, 1, 1])
    got = agreement.expected_against_votes(sensitivity, specificity, 0.02)
    assert got.sensitivity[0] == pytest.approx(0.7)
    assert got.specificity[0] == pytest.approx(0.8)


# Fleiss' kappa.

# Fourteen raters put ten subjects into five categories; the worked example of Wikipedia,
# "Fleiss' kappa": 0.210.
WORKED = """0 0 0 0 14
0 2 6 4 2
0 0 3 5 6
0 3 9 2 0
2 2 8 1 1
7 7 0 0 0
3 2 6 3 0
2 5 3 2 2
6 5 2 1 0
0 2 2 3 7"""


def kappa_of(counts):
    return fleiss.kappa(fleiss.terms(counts).sum(axis=0))


def test_fleiss_kappa_of_the_worked_example():
    counts = np.array([line.split() for line in WORKED.splitlines()], dtype=int)
    assert (counts.sum(axis=1) == 14).all()
    assert kappa_of(counts) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_by_hand():
    """Films 3:0, 0:3, 2:1: P = (1 + 1 + 1/3)/3 = 7/9, p = 5/9, P_e = 41/81: 22/40."""
    counts = np.array([[3, 0], [0, 3], [2, 1]])
    assert kappa_of(counts) == pytest.approx(22 / 40)
    # A missing reader: 2:0, 0:3, 2:1. P is the same; p = (1 + 0 + 2/3)/3 is, too.
    counts[0, 0] = 2
    assert kappa_of(counts) == pytest.approx(22 / 40)
    # 1:0 has no pair: it does not count. P = 2/3, p = (0 + 2/3)/2 = 1/3, P_e = 5/9.
    counts[0, 0] = 1
    assert kappa_of(counts) == pytest.approx((2 / 3 - 5 / 9) / (4 / 9))


def test_laws_of_fleiss_kappa():
    calls, _, _ = panel(films=500, readers=5)
    counts = fleiss.binary_counts(calls)[:, 0]
    assert counts.sum() == 5 * 500
    assert kappa_of(counts[:, ::-1]) == pytest.approx(kappa_of(counts))
    assert kappa_of(np.tile(counts, (3, 1))) == pytest.approx(kappa_of(counts))
    assert kappa_of(np.array([[4, 0], [0, 4]])) == pytest.approx(1)
    assert np.isnan(kappa_of(np.array([[4, 0], [4, 0]])))
    assert np.isnan(kappa_of(np.array([[1, 0], [0, 1]])))
    chance = np.random.default_rng(0).random((20_000, 4, 1)) < 0.3
    assert abs(kappa_of(fleiss.binary_counts(chance.astype(float))[:, 0])) < 0.02


def test_two_readers_have_the_kappa_of_scott():
    """Scott's pi: chance is that of the readers' common rate."""
    calls, _, _ = panel(readers=2)
    a, b = calls[:, 0, 0], calls[:, 1, 0]
    rate = (a.mean() + b.mean()) / 2
    chance = rate**2 + (1 - rate) ** 2
    want = ((a == b).mean() - chance) / (1 - chance)
    assert kappa_of(fleiss.binary_counts(calls)[:, 0]) == pytest.approx(want)


# The reader curve.


def test_readers_on_one_curve_stay_on_it_and_their_mean_falls_below():
    """Equal-variance binormal readers who differ in threshold alone."""
    thresholds, positives, negatives = np.linspace(-0.5, 2.0, 4), 10**8, 10**8
    hits = np.round(ndtr(1.7 - thresholds) * positives)
    alarms = np.round(ndtr(-thresholds) * negatives)
    counts = np.stack([hits, alarms, positives - hits, negatives - alarms], -1)
    found = probit.separation(counts[:, None])[0]
    assert found == pytest.approx(1.7, abs=1e-5)
    x, y = alarms / negatives, hits / positives
    np.testing.assert_allclose(probit.sensitivity_at(found, x), y, atol=1e-5)
    assert probit.sensitivity_at(found, x.mean()) > y.mean() + 0.02
    assert probit.area(found) == pytest.approx(ndtr(1.7 / np.sqrt(2)), abs=1e-5)


def test_the_area_under_the_curve_is_its_integral():
    x = np.linspace(0, 1, 200_001)
    area = np.trapezoid(probit.sensitivity_at(1.2, x), x)
    assert probit.area(1.2) == pytest.approx(area, abs=1e-5)
    np.testing.assert_allclose(probit.sensitivity_at(0.0, x), x, atol=1e-12)
    assert probit.area(0.0) == 0.5


def test_rates_of_0_and_1_stay_finite_and_no_label_is_undefined():
    extreme = np.array([[[10, 0, 0, 20]]])  # a perfect reader
    want = 2 * 1.959964  # at 19/20; the other rate is 1/40
    got = probit.separation(extreme)[0]
    assert got == pytest.approx(1.644854 + 1.959964, abs=1e-5) and got < want
    assert np.isnan(probit.separation(np.array([[[0, 1, 0, 20]]]))[0])
