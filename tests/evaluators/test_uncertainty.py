"""What a spread is worth: flags counted by hand, and spreads that are known to help or not."""

import dataclasses
import json

import numpy as np
import pytest

from cxr_jax import evaluate
from cxr_jax.errors import ConfigError
from cxr_jax.evaluators.base import check_requirements, plain
from cxr_jax.evaluators.uncertainty import Uncertainty
from cxr_jax.metrics import selective
from cxr_jax.predictions import Predictions

CLASSES = ("Mass", "Nodule", "Hernia")


def make_table(films=600, *, helps=True, seed=0):
    """Films whose labels are drawn from their probabilities, or inverted where in doubt.

    Where the spread helps, it is large on the films whose labels are coin flips.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(films, 3)).astype(np.float32) * 2 - [0, 1, 2]
    probs = (1 / (1 + np.exp(-logits))).astype(np.float32)
    labels = (rng.random((films, 3)) < probs).astype(np.float32)
    torn = rng.random((films, 3)) < 0.3
    labels = np.where(torn, rng.integers(0, 2, (films, 3)), labels)
    std = 0.02 + 0.05 * rng.random((films, 3))
    std = np.where(torn if helps else np.roll(torn, 7, axis=0), std + 0.1, std)
    return Predictions(
        classes=CLASSES,
        ids=np.asarray([f"{k:05d}.png" for k in range(films)]),
        patients=np.asarray([f"p{k // 3}" for k in range(films)]),
        studies=np.asarray([""] * films),
        index=np.arange(films),
        probs=probs,
        logits=logits.astype(np.float32),
        labels=labels.astype(np.float32),
        std=std.astype(np.float32),
        information=(std**2).astype(np.float32),
    )


def judged(table, frozen=None, **options):
    found = Uncertainty(**options)(table, frozen)
    assert set(found) == {"uncertainty"}
    return json.loads(json.dumps(plain(found["uncertainty"]), allow_nan=False))


def test_flagged_findings_are_counted_as_by_hand():
    table = make_table()
    frozen = {"operating_points": {"Mass": {"youden": {"threshold": 0.3}}}}
    block = judged(table, frozen, threshold=0.1)
    for c, name in enumerate(CLASSES):
        one = block["per_class"][name]
        bar = 0.3 if name == "Mass" else 0.5
        assert one["called_at"] == bar
        flagged = table.std[:, c] > 0.1
        assert one["share_flagged"] == pytest.approx(flagged.mean())
        for side, rows in (("flagged", flagged), ("unflagged", ~flagged)):
            p, y = np.float64(table.probs[rows, c]), table.labels[rows, c]
            assert one[side]["n"] == one[side]["labelled"] == rows.sum()
            assert one[side]["prevalence"] == pytest.approx(y.mean())
            assert one[side]["error"] == pytest.approx(((p >= bar) != y).mean())
            assert one[side]["brier"] == pytest.approx(((p - y) ** 2).mean())
            loss = -np.where(y == 1, np.log(p), np.log(1 - p)).mean()
            assert one[side]["log_loss"] == pytest.approx(loss, rel=1e-5)
        assert one["flagged"]["brier"] > one["unflagged"]["brier"]
        assert one["mean_std"] == pytest.approx(table.std[:, c].mean(), rel=1e-6)
    any_flag = (table.std > 0.1).any(axis=1)
    assert block["films_flagged"] == any_flag.sum() and block["n"] == 600
    assert block["mean_std"] == pytest.approx(table.std.mean(), rel=1e-6)
    assert "low spread does not mean correct" in " ".join(block["notes"])
    nobody = judged(table, threshold=1.0)["per_class"]["Mass"]["flagged"]
    assert nobody["n"] == 0 and nobody["brier"] is None


def test_a_spread_that_helps_is_told_from_one_that_does_not():
    helps, idle = (
        judged(make_table(helps=helps), resamples=200) for helps in (True, False)
    )
    for risk in ("brier", "log_loss"):
        gaps = [
            next(
                gap
                for gap in block["mean"]["differences"][risk]
                if (gap["of"], gap["minus"]) == ("std", "random")
            )
            for block in (helps, idle)
        ]
        assert gaps[0]["high"] < 0
        assert gaps[1]["low"] < 0 < gaps[1]["high"]
        for gap, block in zip(gaps, (helps, idle), strict=True):
            areas = block["mean"]["area"][risk]
            assert gap["value"] == pytest.approx(areas["std"] - areas["random"])
            assert gap["low"] < gap["value"] < gap["high"]


def test_verdicts_wait_for_holm_and_for_enough_resamples():
    helps = judged(make_table(), resamples=200)
    for one in (*helps["per_class"].values(), helps["mean"]):
        gap = one["differences"]["brier"][2]
        assert (gap["of"], gap["minus"]) == ("std", "random")
        assert gap["verdict"] == "std better"
    idle = judged(make_table(helps=False), resamples=200)
    assert (
        idle["mean"]["differences"]["brier"][2]["verdict"] == "no difference detected"
    )
    for risk in ("brier", "log_loss"):
        for k in range(4):
            gaps = [one["differences"][risk][k] for one in idle["per_class"].values()]
            # Holm by hand: the smallest p thrice, then the next twice.
            least, middle, most = sorted(gap["p"] for gap in gaps)
            want = [min(1, 3 * least)]
            want.append(max(want[-1], min(1, 2 * middle)))
            want.append(max(want[-1], most))
            found = sorted(gap["p_holm"] for gap in gaps)
            np.testing.assert_allclose(found, want)
            for gap in gaps:
                said = gap["verdict"] == "no difference detected"
                assert said == (gap["p_holm"] > 0.05)
    few = judged(make_table(), resamples=30)["per_class"]["Mass"]
    assert few["differences"]["brier"][0]["verdict"] == "too few resamples to tell"
    none = judged(make_table())["per_class"]["Mass"]
    assert none["differences"]["brier"][0]["verdict"] == "no interval, no verdict"


def test_areas_are_bounded_and_means_run_over_the_list():
    table = make_table()
    block = judged(table, mean_classes=("Hernia", "Mass"))
    assert block["mean"]["classes"] == ["Hernia", "Mass"]
    for risk in ("brier", "log_loss"):
        for one in block["per_class"].values():
            areas = one["area"][risk]
            assert areas["oracle"] == min(areas.values())
            assert areas["entropy"] == pytest.approx(areas["max_probability"])
            # Information is the square of the spread here: the same order.
            assert areas["information"] == pytest.approx(areas["std"])
            curve = one["curves"][risk]
            assert set(curve) == {"std", "information", "max_probability", "oracle"}
            ends = {values[-1] for values in curve.values()}
            assert ends == {round(areas["random"], 6)}
        mean = block["mean"]["area"][risk]["std"]
        parts = [block["per_class"][n]["area"][risk]["std"] for n in ("Hernia", "Mass")]
        assert mean == pytest.approx(np.mean(parts))
    assert block["per_class"]["Mass"]["differences"]["brier"][0]["low"] is None
    kept = block["per_class"]["Mass"]["curves"]["prevalence"]["std"]
    assert kept[-1] == pytest.approx(table.labels[:, 0].mean(), abs=1e-6)


def test_all_equal_spreads_are_random_rejection():
    table = make_table()
    table = dataclasses.replace(table, std=np.full((600, 3), 0.2, np.float32))
    for one in judged(table)["per_class"].values():
        for areas in one["area"].values():
            assert areas["std"] == pytest.approx(areas["random"], rel=1e-9)


def test_a_class_with_one_label_has_no_curve_and_is_named():
    table = make_table()
    table.labels[:, 2] = 0
    table.labels[:50, 1] = np.nan
    block = judged(table, resamples=20)
    hernia = block["per_class"]["Hernia"]
    assert "area" not in hernia and hernia["reason"] == "undefined: no positive film"
    assert hernia["unflagged"]["prevalence"] == 0
    assert block["mean"]["left_out"] == {"Hernia": "undefined: no positive film"}
    nodule = block["per_class"]["Nodule"]
    assert nodule["n"] == 550
    known = np.isfinite(table.labels[:, 1])
    loss = selective.brier(table.probs[known, 1], table.labels[known, 1])
    want = selective.area(table.std[known, 1], loss)
    assert nodule["area"]["brier"]["std"] == pytest.approx(want)
    table.labels[:] = 0
    assert "no class" in judged(table)["mean"]["reason"]


def test_it_stands_in_a_result_and_wants_a_spread():
    one = Uncertainty(resamples=10)
    result = evaluate.evaluate_table(
        make_table(),
        dataset="d",
        split="test",
        split_sha256="ab" * 32,
        checkpoint_step=1,
        weights_sha256=None,
        evaluators=[one],
    )
    assert result["uncertainty"]["resamples"] == 10
    json.dumps(result, allow_nan=False)
    with pytest.raises(ConfigError, match="Uncertainty needs std, information"):
        check_requirements([one], ["labels", "probs"])
    with pytest.raises(ConfigError, match="threshold=-1"):
        Uncertainty(threshold=-1)
