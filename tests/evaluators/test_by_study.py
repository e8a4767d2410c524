"""Studies judged by the recipe of MURA, beside a reader study written in NumPy."""

import collections
import dataclasses
import functools
import json
import pathlib
import types

import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from cxr_jax import config as configs
from cxr_jax import rehearsal
from cxr_jax.data import groups, kinds, readers, records
from cxr_jax.errors import ConfigError, DataError
from cxr_jax.evaluators.base import check_requirements, plain
from cxr_jax.evaluators.by_study import ByStudy
from cxr_jax.labels import BODY_PARTS, MURA
from cxr_jax.metrics import bootstrap, ranking
from cxr_jax.predictions import Predictions

ROOT = pathlib.Path(__file__).parents[2]
SPEC = configs.plain(configs.load(str(ROOT / "configs" / "mura.py")).eval.evaluators[0])
READERS = ("ann", "bob", "cid", "dan", "eve", "fay")
COLUMNS = (*BODY_PARTS, "All")
KINDS = ("fracture", "hardware", "degenerative", "other")


def made_up(seed, *, studies=24, gaps=0.15, unread=0.1):
    """Studies of seven types, some types without an abnormal one, and their films.

    Probabilities are multiples of 1/8, so that means, ties and halves are exact.
    """
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 7, studies)
    patient = rng.integers(0, max(2, studies // 2), studies)
    names = [
        f"XR_{BODY_PARTS[t].upper()}/patient{p:05d}/study{k}"
        for k, (t, p) in enumerate(zip(kind, patient, strict=True))
    ]
    without = rng.random(7) < 0.25
    abnormal = (rng.random(studies) < 0.45) & ~without[kind]
    views = rng.integers(1, 5, studies)
    film = np.repeat(np.arange(studies), views)
    lean = np.where(abnormal[film], 1, -1)
    probs = np.clip(rng.integers(0, 9, len(film)) + lean, 0, 8) / 8
    right = rng.random((studies, 6)) < rng.uniform(0.7, 0.95, 6)
    calls = np.where(right, abnormal[:, None], ~abnormal[:, None]).astype(float)
    # In some types nobody calls anything.
    calls[rng.random(7)[kind] < 0.15] = 0
    missing = rng.random((studies, 6)) < gaps
    missing[missing.sum(axis=1) > 3] = False  # three readers must be left
    calls[missing] = np.nan
    calls[rng.random(studies) < unread] = np.nan
    return types.SimpleNamespace(
        names=np.array(names),
        kind=kind,
        patient=np.array([f"patient{p:05d}" for p in patient]),
        abnormal=abnormal,
        film=film,
        ids=np.array([f"{names[s]}/image{k}.png" for k, s in enumerate(film)]),
        probs=probs,
        calls=calls,
        told=rng.random((studies, 4)) < 0.4,
    )


def write(case, directory, *, column="body_part"):
    """The files of a dataset that holds these films."""
    films = len(case.film)
    blank, unknown = np.array([""] * films), np.full(films, np.nan, np.float32)
    table = records.Records(
        classes=MURA,
        id=case.ids,
        patient=case.patient[case.film],
        study=case.names[case.film],
        follow_up=unknown,
        age=unknown,
        sex=blank,
        view=blank,
        labels=case.abnormal[case.film][:, None].astype(np.float32),
    )
    (directory / records.NAME).write_text(records.format_records(table))
    parts = [BODY_PARTS[t] for t in case.kind[case.film]]
    text = groups.format_groups(case.ids.tolist(), {column: parts})
    (directory / groups.NAME).write_text(text)
    ill = np.flatnonzero(case.abnormal)
    told = {name: case.told[ill, k] for k, name in enumerate(KINDS)}
    text = kinds.format_kinds(case.names[ill].tolist(), told)
    (directory / kinds.NAME).write_text(text)
    lines = [
        f"{case.names[s]},{name},{int(case.calls[s, r])}"
        for s in range(len(case.names))
        for r, name in enumerate(READERS)
        if np.isfinite(case.calls[s, r])
    ]
    text = "\n".join(["id,reader,Abnormality", *lines]) + "\n"
    (directory / readers.NAME).write_text(text)
    return directory


def films(case, order=None):
    """The table of films that a network gives."""
    order = np.arange(len(case.film)) if order is None else order
    film = case.film[order]
    labels = case.abnormal[film][:, None].astype(np.float32)
    return Predictions(
        classes=MURA,
        ids=case.ids[order],
        patients=case.patient[film],
        studies=case.names[film],
        index=order,
        probs=case.probs[order][:, None].astype(np.float32),
        labels=labels,
        truth=labels,
    )


def evaluator(directory, *, resamples=0, seed=0, only=None, readers=None):
    """The evaluator of the recipe; ``only`` some of it, with changes to the readers."""
    of = [
        {**one, **(readers or {})} if one["name"].endswith(".Readers") else one
        for one in SPEC["of"]
        if only is None or one["name"].endswith(only)
    ]
    built = configs.build({**SPEC, "of": tuple(of)}, resamples=resamples, seed=seed)
    return dataclasses.replace(built, directory=str(directory))


def run(directory, table, frozen=None, **settings):
    found = plain(evaluator(directory, **settings)(table, frozen))
    return json.loads(json.dumps(found, allow_nan=False))


# An independent reader study: every reader, reference and resample in plain NumPy.


def means_of(case):
    """Mean probability of each study's films."""
    return np.array(
        [np.mean(case.probs[case.film == s]) for s in range(len(case.names))]
    )


def majority(calls):
    """Of each row; NaN below three votes; an even vote is negative."""
    votes = np.isfinite(calls).sum(axis=1)
    return np.where(votes < 3, np.nan, np.nansum(calls, axis=1) > votes / 2)


def share(above, below):
    return np.where(below > 1e-9, above / np.where(below > 1e-9, below, 1), np.nan)


def f1(said, true, weights):
    both = weights @ (said * true)
    return share(2 * both, weights @ said + weights @ true)


def kappa(said, true, weights):
    n = weights.sum(axis=-1)
    agree, said, true = (
        share(weights @ x, n) for x in (1.0 * (said == true), said, true)
    )
    chance = said * true + (1 - said) * (1 - true)
    return share(agree - chance, 1 - chance)


METRICS = {"f1": f1, "kappa": kappa}


def reference(case, column, *, gold=(), weights=None, drawn=None):
    """F1 and kappa of each reader, of their mean, the model, and their difference.

    Args:
        case: studies.
        column: the type whose studies take part, or All.
        gold: readers whose majority is the reference of the rest; none: each reader is
            judged by the other five, and the model by each five.
        weights: ``[D, studies]``, of every resample; once each where None.
        drawn: ``[D, 6]``, how often each reader counts; once each where None.

    Returns:
        Metric → name → ``[D]``, NaN where undefined.
    """
    weights = np.ones((1, len(case.names))) if weights is None else weights
    drawn = np.ones((len(weights), 6)) if drawn is None else drawn
    part = np.array([column in ("All", BODY_PARTS[t]) for t in case.kind])
    model = 1.0 * (means_of(case) > 0.5)
    judged = [r for r, name in enumerate(READERS) if name not in gold]
    found = {name: {} for name in METRICS}
    groups_, paired = ({name: {} for name in METRICS} for _ in range(2))
    for r in judged:
        voters = [
            k for k, name in enumerate(READERS) if (name in gold if gold else k != r)
        ]
        true = majority(case.calls[:, voters])
        every = part & ~np.isnan(true)
        own = every & ~np.isnan(case.calls[:, r])
        for name, metric in METRICS.items():
            mine = case.calls[own, r], true[own], weights[:, own]
            found[name][READERS[r]] = metric(*mine)
            groups_[name][r] = metric(model[every], true[every], weights[:, every])
            paired[name][r] = metric(model[own], true[own], weights[:, own])

    def averaged(values):
        """Over the readers drawn; undefined if one of them is."""
        table = np.stack([*values], axis=1)
        times = drawn[:, judged]
        total = np.where(times > 0, table * times, 0).sum(axis=1)
        return total / np.where(times.any(axis=1), times.sum(axis=1), np.nan)

    for name in METRICS:
        average = averaged([found[name][READERS[r]] for r in judged])
        # Against the panel of the first three there is one reference.
        every = groups_[name]
        found[name] |= {
            "average": average,
            "model": every[judged[0]] if gold else averaged(every.values()),
            "difference": averaged(paired[name].values()) - average,
        }
    return found


def ours(block, metric):
    """The figures of a block by name, NaN where null."""
    found = block[metric]
    every = found["readers"] | {
        name: found[name] for name in ("average", "model", "difference")
    }
    return {
        name: np.nan if one["value"] is None else one["value"]
        for name, one in every.items()
    }


@pytest.fixture
def without_areas(monkeypatch):
    """Areas and curves have tests of their own, and would take most of the time."""
    monkeypatch.setattr(ranking, "auroc", lambda s, y: np.full(y.shape[1], np.nan))
    nothing = np.zeros(2)
    monkeypatch.setattr(
        ranking,
        "roc_curve",
        lambda *_, **__: ranking.RocCurve(fpr=nothing, tpr=nothing),
    )


@pytest.mark.long
def test_every_figure_of_200_random_cases_is_that_of_numpy(tmp_path, without_areas):
    """Seven types and all: readers against five, the model against each five, gold."""
    alone = {"protocols": ("majority",)}
    seen = dict.fromkeys(("defined", "null", "tie", "half", "one view", "barren"), 0)
    for seed in range(200):
        size = 8 + seed % 20
        case = made_up(seed, studies=size, gaps=(0, 0.1, 0.3)[seed % 3])
        one = evaluator(write(case, tmp_path), only="Readers", readers=alone)
        block = one(films(case))["readers"]
        for protocol in ("majority", "panel"):
            found = block["protocols"][protocol]
            assert tuple(found["per_class"]) == COLUMNS
            for column, figures in found["per_class"].items():
                wanted = reference(case, column, gold=found.get("gold", ()))
                for metric in METRICS:
                    want = {name: x[0] for name, x in wanted[metric].items()}
                    got = ours(figures, metric)
                    what = f"{seed} {protocol} {column} {metric}"
                    assert got == pytest.approx(want, abs=1e-12, nan_ok=True), what
                    seen["null" if np.isnan(want["model"]) else "defined"] += 1
        votes = np.isfinite(case.calls).sum(axis=1)
        read = votes >= 3
        seen["tie"] += (2 * np.nansum(case.calls, axis=1) == votes)[read].any()
        means = means_of(case)
        seen["half"] += (means[read] == 0.5).any()
        seen["one view"] += (np.bincount(case.film) == 1).any()
        ill = np.bincount(case.kind, case.abnormal, 7)
        seen["barren"] += ((ill == 0) & (np.bincount(case.kind, minlength=7) > 0)).any()
    # The cases are what they are said to be.
    assert min(seen["null"], seen["defined"]) > 500
    assert min(seen[k] for k in ("tie", "half", "one view", "barren")) > 50


def test_the_panel_is_the_first_three_names_of_the_file(tmp_path):
    """Where the first study has a gap, its reader comes later."""
    case = made_up(1, gaps=0, unread=0)
    found = run(write(case, tmp_path), films(case), only="Readers")["readers"]
    assert found["protocols"]["panel"]["gold"] == ["ann", "bob", "cid"]
    case.calls[0, 0] = np.nan
    found = run(write(case, tmp_path), films(case), only="Readers")["readers"]
    assert found["protocols"]["panel"]["gold"] == ["bob", "cid", "dan"]
    # Named, they are who they are wherever they stand.
    named = run(
        tmp_path, films(case), only="Readers", readers={"gold": ("fay", "ann", "dan")}
    )
    panel = named["readers"]["protocols"]["panel"]
    assert sorted(panel["gold"]) == ["ann", "dan", "fay"]
    wanted = reference(case, "All", gold=panel["gold"])
    got = panel["per_class"]["All"]
    for metric in METRICS:
        for name in ("bob", "cid", "eve", "model", "average"):
            assert ours(got, metric)[name] == pytest.approx(wanted[metric][name][0])


@pytest.mark.long
def test_the_bootstrap_of_200_random_cases_is_that_of_numpy(tmp_path, without_areas):
    """Every draw of every case: readers against five, and all against the panel."""
    seen = collections.Counter()
    for seed in range(200):
        # As many patients and studies in each, so that one program serves all.
        case = made_up(seed, unread=0)
        case.patient = np.array([f"patient{k % 15:05d}" for k in range(24)])
        found = run(
            write(case, tmp_path),
            films(case),
            only="Readers",
            resamples=1,
            seed=seed,
            readers={
                "draws": 20,
                "protocols": ("majority",),
                "gold": ("ann", "cid", "fay"),
            },
        )["readers"]
        weights, readers_ = draws(case, found["readers"], seed=seed, number=20)
        panel = found["protocols"]["panel"]["per_class"]["All"]
        for column in ("All", BODY_PARTS[seed % 7]):
            cases = reference(case, column, weights=weights)
            both = reference(case, column, weights=weights, drawn=readers_)
            got = found["protocols"]["majority"]["per_class"].get(column)
            if got is None:  # Nobody read a study of this type.
                assert not (case.kind == BODY_PARTS.index(column)).any()
                continue
            for metric in METRICS:
                for name in ("average", "model", "difference"):
                    check_interval(got[metric][name], cases[metric][name])
                    check_interval(got[metric][name], both[metric][name], "_readers")
                    seen[got[metric][name]["low"] is None] += 1
        cases = reference(case, "All", gold=("ann", "cid", "fay"), weights=weights)
        for metric in METRICS:
            for name in ("average", "model", "difference"):
                check_interval(panel[metric][name], cases[metric][name])
    assert seen[False] > 1_000 and seen[True] > 100


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """One test part, and the block of its reader study with 300 resamples."""
    case = made_up(7, studies=90, gaps=0.05, unread=0)
    folder = write(case, tmp_path_factory.mktemp("large"))
    found = run(
        folder,
        films(case),
        only="Readers",
        resamples=1,
        seed=3,
        readers={"draws": 300},
    )
    return case, found["readers"]


@pytest.fixture(scope="module")
def drawn(large):
    """Studies and readers of each resample, ``[300, 90]`` and ``[300, 6]``."""
    case, block = large
    return draws(case, block["readers"], seed=3, number=300)


@functools.partial(jax.jit, static_argnums=2)
def _draws(seed, numbers, units):
    def one(r):
        key = jax.random.fold_in(jax.random.key(seed), r)
        readers_ = bootstrap.draw_weights(jax.random.fold_in(key, 1), 6)
        return bootstrap.draw_weights(key, units), readers_

    return jax.vmap(one)(numbers)


def draws(case, order, *, seed, number):
    """How often each study and each of ``READERS`` counts in each resample."""
    names, unit = np.unique(case.patient, return_inverse=True)
    weights, beside = _draws(seed, np.arange(number), len(names))
    column = [order.index(name) for name in READERS]
    return np.asarray(weights, float)[:, unit], np.asarray(beside, float)[:, column]


def check_interval(got, values, suffix=""):
    if got["value"] is None:  # Nothing to put an interval around.
        assert got.get(f"low{suffix}") is got.get(f"high{suffix}") is None
        return
    defined = values[~np.isnan(values)]
    ends = got[f"low{suffix}"], got[f"high{suffix}"]
    assert ends == pytest.approx(tuple(np.percentile(defined, [2.5, 97.5])), abs=1e-6)
    assert got[f"discarded{suffix}"] == len(values) - len(defined)


@pytest.mark.parametrize("column", COLUMNS)
def test_the_bootstrap_is_that_of_the_same_patients_in_numpy(large, drawn, column):
    case, block = large
    weights, readers_ = drawn
    assert block["resamples"] == 300 and block["resampling_unit"] == "patient"
    cases = reference(case, column, weights=weights)
    both = reference(case, column, weights=weights, drawn=readers_)
    found = block["protocols"]["majority"]["per_class"][column]
    for metric in METRICS:
        for name in ("average", "model", "difference"):
            check_interval(found[metric][name], cases[metric][name])
            check_interval(found[metric][name], both[metric][name], "_readers")
        for name in READERS:
            check_interval(found[metric]["readers"][name], cases[metric][name])
        gap = found[metric]["difference"]
        if gap["value"] is None:
            said = "no interval, no verdict"
        elif gap["low"] <= 0 <= gap["high"]:
            said = "no difference detected"
        else:
            said = "model higher" if gap["low"] > 0 else "model lower"
        assert gap["verdict"].startswith(said)


def test_studies_are_drawn_where_the_recipe_says_so(large, tmp_path):
    """As in the paper: two studies of a patient come and go on their own."""
    case, _ = large
    folder = write(case, tmp_path)
    one = evaluator(folder, only="Readers", readers={"draws": 300}, resamples=1, seed=3)
    assert len(set(case.patient)) < len(case.names)
    found = plain(dataclasses.replace(one, unit="study")(films(case)))
    block = found["readers"]
    assert block["resampling_unit"] == "study"
    assert block["patients"] == len(set(case.patient))
    order = np.argsort(np.argsort(case.names))  # Units are numbered by their names.
    keys = [jax.random.fold_in(jax.random.key(3), r) for r in range(300)]
    weights = [bootstrap.draw_weights(key, len(order)) for key in keys]
    cases = reference(case, "All", weights=np.asarray(weights, float)[:, order])
    got = block["protocols"]["majority"]["per_class"]["All"]
    for metric in METRICS:
        check_interval(got[metric]["difference"], cases[metric]["difference"])


def test_what_reading_together_gains_is_paired(tmp_path):
    case = made_up(7, studies=90)
    table = films(case)
    block = run(write(case, tmp_path), table, only="Kinds", resamples=40, seed=3)
    gain = block["studies"]["gain"]
    names, unit = np.unique(case.patient, return_inverse=True)
    keys = [jax.random.fold_in(jax.random.key(3), r) for r in range(40)]
    drawn = np.array([bootstrap.draw_weights(key, len(names)) for key in keys], float)

    def area(scores, of, weights):
        true = case.abnormal[of]
        return sk.roc_auc_score(true, scores, sample_weight=weights[unit[of]])

    every = np.arange(90)
    gaps = [
        area(means_of(case), every, w) - area(case.probs, case.film, w)
        for w in [np.ones(len(names)), *drawn]
    ]
    assert gain["metric"] == "auroc@truth"
    assert gain["value"] == pytest.approx(gaps[0], abs=1e-6)
    ends = np.percentile(gaps[1:], [2.5, 97.5])
    assert (gain["low"], gain["high"]) == pytest.approx(tuple(ends), abs=1e-5)


def test_only_patients_and_studies_can_be_drawn():
    with pytest.raises(ConfigError, match="unit='film'; allowed are patient, study"):
        ByStudy(unit="film")


def test_the_bootstrap_of_the_panel_is_that_of_numpy(large, drawn):
    case, block = large
    panel = block["protocols"]["panel"]
    cases = reference(case, "All", gold=panel["gold"], weights=drawn[0])
    found = panel["per_class"]["All"]
    rest = [name for name in block["readers"] if name not in panel["gold"]]
    assert list(found["f1"]["readers"]) == rest
    for metric in METRICS:
        for name in ("average", "model", "difference"):
            check_interval(found[metric][name], cases[metric][name])


def by_hand(calls, probs):
    """One Hand study per row of calls; its only view has the probability beside it."""
    calls = np.asarray(calls, float)
    count = len(calls)
    return types.SimpleNamespace(
        names=np.array([f"XR_HAND/p{k}/study1" for k in range(count)]),
        kind=np.full(count, BODY_PARTS.index("Hand")),
        patient=np.array([f"p{k}" for k in range(count)]),
        abnormal=np.arange(count) % 2 == 0,
        film=np.arange(count),
        ids=np.array([f"XR_HAND/p{k}/study1/image1.png" for k in range(count)]),
        probs=np.asarray(probs, float),
        calls=calls,
        told=np.zeros((count, 4), bool),
    )


def test_an_even_vote_is_negative_and_three_voters_are_needed(tmp_path):
    nan = np.nan
    case = by_hand(
        [
            [1, 1, 0, 0, 0, nan],  # without ann 1:3, without fay 2:3
            [nan, 1, 1, 0, 0, nan],  # without ann or fay 2:2; without bob 1:2
            [1, 1, 1, nan, nan, nan],  # without ann two voters: no majority
            [1, 1, 1, 1, 1, 1],
        ],
        [0.9, 0.9, 0.9, 0.9],
    )
    block = run(write(case, tmp_path), films(case), only="Readers")["readers"]
    assert block["missing_pairs"] == 6 and block["tie"] == "negative"
    references = block["protocols"]["majority"]["per_class"]["Hand"]["references"]
    told = {n: (references[f"all but {n}"]["n"], references[f"all but {n}"]["positives"]) for n in ("ann", "bob", "fay")}  # fmt: skip
    # Without fay three are left of the third study, and all call it.
    assert told == {"ann": (3, 1), "bob": (3, 1), "fay": (4, 2)}


def test_a_half_is_not_abnormal(tmp_path):
    case = by_hand([[1] * 6, [1] * 6, [0] * 6, [0] * 6], [0.5, 0.75, 0.25, 0.5])
    folder = write(case, tmp_path)
    block = run(folder, films(case), only="Readers")["readers"]
    assert block["threshold"]["rule"] == "called where the raw score is above the threshold"  # fmt: skip
    found = block["protocols"]["majority"]["per_class"]["All"]
    assert found["sensitivity"]["model"]["value"] == 0.5
    assert found["specificity"]["model"]["value"] == 1
    lax = run(folder, films(case), only="Readers", readers={"strict": False})["readers"]
    found = lax["protocols"]["majority"]["per_class"]["All"]
    assert found["sensitivity"]["model"]["value"] == 1
    assert found["specificity"]["model"]["value"] == 0.5


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A dataset whose first 60 studies validate and whose others test."""
    case = made_up(11, studies=120, unread=0)
    case.abnormal[case.kind == 3] = False  # no abnormal hand
    folder = write(case, tmp_path_factory.mktemp("parts"))
    part = {"val": case.film < 60, "test": case.film >= 60}
    return case, folder, {k: films(case, np.flatnonzero(v)) for k, v in part.items()}


def test_what_is_frozen_on_studies_judges_studies(parts):
    case, folder, tables = parts
    whole = evaluator(folder)
    point = "sensitivity@0.95"
    assert point in whole.freezes()
    check_requirements([whole], ("labels", "probs"))
    frozen = json.loads(json.dumps(plain(whole.freeze(tables["val"]))))
    assert tuple(frozen["operating_points"]) == COLUMNS
    means = means_of(case)
    ill, well = case.abnormal[:60], ~case.abnormal[:60]
    reached = [
        t for t in np.unique(means[:60]) if (means[:60] >= t)[ill].mean() >= 0.95
    ]
    assert frozen["operating_points"]["All"][point]["threshold"] == max(reached)
    assert well.any() and (means[:60] >= max(reached))[well].mean() < 1
    assert frozen["chosen_on"]["n"] == 60
    found = plain(whole(tables["test"], frozen))
    at = found["operating_points"]["per_class"]["All"][point]
    above, ill = means[60:] >= max(reached), case.abnormal[60:]
    assert at["tp"] == (above & ill).sum() and at["fp"] == (above & ~ill).sum()
    assert found["triage"]["threshold"] == max(reached)
    assert found["triage"]["n"] == found["studies"]["n"] == 60
    assert found["studies"]["films"] == len(tables["test"])
    want = sk.roc_auc_score(ill, means[60:])
    got = found["metrics"]["auroc"]
    assert got["per_class"]["All"]["value"] == pytest.approx(want)
    assert got["mean"]["value"] == pytest.approx(want)
    assert got["mean"]["classes"] == ["All"]
    wrist = case.kind[60:] == 6
    assert got["per_class"]["Wrist"]["n"] == wrist.sum()
    want = sk.roc_auc_score(ill[wrist], means[60:][wrist])
    assert got["per_class"]["Wrist"]["value"] == pytest.approx(want)
    want = sk.roc_auc_score(tables["test"].labels[:, 0], tables["test"].probs[:, 0])
    of_films = found["studies"]["of_films"]["auroc"]["per_class"]["Abnormality"]
    assert of_films["value"] == pytest.approx(want)
    counts = np.bincount(np.bincount(case.film)[60:])
    views = {str(v): int(n) for v, n in enumerate(counts) if n}
    assert found["studies"]["views"] == views


def test_a_type_without_abnormal_studies_is_null_with_a_reason(parts):
    _, folder, tables = parts
    whole = evaluator(folder)
    found = plain(whole(tables["test"], plain(whole.freeze(tables["val"]))))
    hand = found["metrics"]["auroc"]["per_class"]["Hand"]
    assert hand["value"] is None and hand["reason"] == "undefined: no positive film"
    hand = found["metrics"]["average_precision"]["per_class"]["Hand"]
    assert hand["value"] is None and hand["reason"] == "undefined: no positive film"
    for point in found["operating_points"]["per_class"]["Hand"].values():
        assert point["threshold"] is None
        assert point["reason"] == "undefined: no positive film"
    truth = found["readers"]["protocols"]["truth"]["per_class"]["Hand"]
    assert truth["references"]["truth"]["positives"] == 0
    assert truth["sensitivity"]["model"]["value"] is None
    assert truth["roc"]["mean"]["value"] is None


def test_f1_is_null_only_where_nothing_is_there_and_nothing_is_called(tmp_path):
    """protocols.md: null without positives in truth and prediction; else 0 is a figure."""
    case = by_hand([[0] * 6] * 4, [0.1, 0.2, 0.3, 0.4])
    silent = run(write(case, tmp_path), films(case), only="Readers")["readers"]
    found = silent["protocols"]["majority"]["per_class"]["Hand"]
    assert found["f1"]["model"]["value"] is None
    assert found["f1"]["average"]["value"] is None
    assert found["kappa"]["model"]["value"] is None
    case.probs[0] = 0.9
    loud = run(write(case, tmp_path), films(case), only="Readers")["readers"]
    found = loud["protocols"]["majority"]["per_class"]["Hand"]
    assert (
        found["f1"]["model"]["value"] == 0 and found["f1"]["average"]["value"] is None
    )
    assert found["f1"]["difference"]["value"] is None


def test_a_study_that_falls_over_two_batches_is_read_whole(parts):
    """Films in another order, as batches and processes would give them."""
    case, folder, tables = parts
    whole = evaluator(folder)
    frozen = plain(whole.freeze(tables["val"]))
    apart = np.random.default_rng(0).permutation(np.flatnonzero(case.film >= 60))
    one = plain(whole(tables["test"], frozen))
    other = plain(whole(films(case, apart), frozen))
    # Reliability bins of films with equal scores follow the order of the films.
    one["studies"].pop("of_films"), other["studies"].pop("of_films")
    assert one == other
    assert plain(whole.freeze(tables["val"])) == frozen


def test_views_that_disagree_in_their_labels_are_one_abnormal_study(tmp_path):
    case = made_up(5)
    table = films(case)
    study = int(np.flatnonzero((np.bincount(case.film) > 1) & ~case.abnormal)[0])
    table.labels[np.flatnonzero(case.film == study)[0]] = 1
    found = run(write(case, tmp_path), dataclasses.replace(table, truth=None))
    assert found["studies"]["disagreeing"] == [case.names[study]]
    counted = found["metrics"]["auroc"]["per_class"]["All"]["positives"]
    assert counted == case.abnormal.sum() + 1


def test_the_reader_file_is_an_input_by_its_content(tmp_path):
    case = made_up(3)
    folder = write(case, tmp_path)
    before = evaluator(folder).inputs()
    (key,) = (k for k in before if k.endswith(".file"))
    path = folder / readers.NAME
    path.write_text(path.read_text() + "\n")
    after = evaluator(folder).inputs()
    assert after.keys() == before.keys() and after[key] != before[key]


def test_what_cannot_be_is_refused_before_training(tmp_path):
    case = made_up(2)
    other = write(case, tmp_path, column="device")
    with pytest.raises(DataError, match="tells no body_part .*it tells device"):
        evaluator(other).rehearse(films(case))
    (tmp_path / groups.NAME).unlink()
    with pytest.raises(DataError, match="tells no body_part .*it tells nothing"):
        evaluator(other).rehearse(films(case))
    folder = write(case, tmp_path)
    evaluator(folder).rehearse(films(case))
    with pytest.raises(ConfigError, match="7 readers leave|6 readers leave"):
        evaluator(folder, readers={"least": 6}).rehearse(films(case))
    with pytest.raises(ConfigError, match="gold is 6 of 6 readers"):
        evaluator(folder, readers={"gold": 6}).rehearse(films(case))
    with pytest.raises(ConfigError, match="gold names 'gus'; the file has"):
        evaluator(folder, readers={"gold": ("ann", "gus")}).rehearse(films(case))
    with pytest.raises(ConfigError, match="some must be left"):
        evaluator(folder, readers={"gold": READERS}).rehearse(films(case))
    with pytest.raises(ConfigError, match="one name comes twice"):
        dataclasses.replace(evaluator(folder), whole="Hand").rehearse(films(case))
    path = folder / readers.NAME
    path.write_text(path.read_text() + "XR_HAND/nobody/study1,ann,1\n")
    with pytest.raises(DataError, match="XR_HAND/nobody/study1' is unknown"):
        evaluator(folder).rehearse(films(case))
    # Calls of single films are no calls of studies.
    lines = (folder / readers.NAME).read_text().splitlines()[:1]
    lines += [f"{case.ids[0]},{name},1" for name in READERS]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match="line 2.* is unknown"):
        evaluator(folder).rehearse(films(case))


def test_studies_that_the_panel_cannot_settle_are_counted(tmp_path):
    case = made_up(1, gaps=0, unread=0)
    case.calls[5:9, 1] = np.nan  # bob's; the first study is whole
    found = run(write(case, tmp_path), films(case), only="Readers")["readers"]
    panel = found["protocols"]["panel"]
    assert panel["gold"] == ["ann", "bob", "cid"] and panel["without_majority"] == 4
    assert found["missing_pairs"] == 4


def test_what_would_only_go_wrong_after_training_is_refused_before_it(tmp_path):
    case = made_up(2, gaps=0)
    folder, two = write(case, tmp_path), films(case, np.arange(2))
    with pytest.raises(ConfigError, match="Triage calls films at 'sensitivity@0.95'"):
        of = [
            {**one, "sensitivity": 0.9} if "Probabilities" in one["name"] else one
            for one in SPEC["of"]
        ]
        dataclasses.replace(evaluator(folder), of=tuple(of)).rehearse(two)
    with pytest.raises(ConfigError, match="'each_other' needs every call"):
        other = {"protocols": ("each_other",)}
        evaluator(folder, readers=other).rehearse(two)
    few = tuple(n for n in BODY_PARTS if n != BODY_PARTS[case.kind[-1]])
    first = films(case, np.flatnonzero(case.kind[case.film] != case.kind[-1])[:2])
    with pytest.raises(DataError, match=r"film XR_.* allowed are a study, and one of"):
        dataclasses.replace(evaluator(folder), order=few).rehearse(first)
    path = folder / records.NAME
    path.write_text(path.read_text().replace(f",{case.names[-1]},", ",,"))
    with pytest.raises(DataError, match="has the study ''"):
        evaluator(folder).rehearse(two)


def test_a_study_of_two_body_parts_is_refused(tmp_path):
    case = made_up(4)
    folder = write(case, tmp_path)
    path = folder / groups.NAME
    film = case.ids[np.flatnonzero(np.bincount(case.film)[case.film] > 1)[0]]
    lines = [
        f"{film},{'Hand' if not line.endswith('Hand') else 'Wrist'}"
        if line.startswith(film)
        else line
        for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="films of several values of body_part"):
        evaluator(folder)(films(case))


def test_without_a_column_there_is_one_figure(tmp_path):
    case = made_up(6, studies=40)
    whole = dataclasses.replace(evaluator(write(case, tmp_path)), column="")
    found = plain(whole(films(case)))
    assert list(found["metrics"]["auroc"]["per_class"]) == list(MURA)
    by_part = plain(evaluator(tmp_path)(films(case)))
    one = found["readers"]["protocols"]["majority"]["per_class"]["Abnormality"]["f1"]
    assert one == by_part["readers"]["protocols"]["majority"]["per_class"]["All"]["f1"]


def test_a_run_is_rehearsed_with_films_of_its_dataset(tmp_path):
    """What opens a run asks every monitor once: it needs films that have a study."""
    case = made_up(8)
    table = records.read_records(write(case, tmp_path))
    one = evaluator(tmp_path)
    assert isinstance(one, ByStudy) and one.monitors
    made = rehearsal.two_films(table, MURA, truth=False)
    one.rehearse(made)
    assert {"auroc", "average_precision"} <= set(one(made)["metrics"])
