"""The localisation protocol: what is observed on the device, and what is made of it."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from cxr_jax import explain
from cxr_jax.errors import ConfigError
from cxr_jax.evaluators import base
from cxr_jax.evaluators.localization import Localization
from cxr_jax.predictions import Predictions
from cxr_jax.types import Batch, Boxes, Prediction

CLASSES = ("Mass", "Nodule", "Other")
SLOTS = 4
EVALUATOR = Localization(resamples=200, seed=1)


def spots(places, *, size=(8, 8)):
    """One map per place (x, y), highest in its cell."""
    h, w = size
    x, y = np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h)
    far = [(x - px) ** 2 + (y - py) ** 2 for px, py in places]
    return np.exp(-np.asarray(far) / 0.01).astype(np.float32)


def scene(films=60, *, seed=0, honest=(True, False, True)):
    """Boxes of every class, and maps of which some point at them and some do not."""
    rng = np.random.default_rng(seed)
    label = np.tile(np.arange(3), (films, 1))
    centre = rng.uniform(0.15, 0.85, (films, 3, 2))
    xyxy = np.concatenate([centre - 0.1, centre + 0.1], axis=2)
    aim = np.where(np.asarray(honest)[None, :, None], centre, rng.random(centre.shape))
    maps = spots(aim.reshape(-1, 2)).reshape(films, 3, 8, 8).transpose(0, 2, 3, 1)
    mask = rng.random((films, 3)) < 0.7
    mask[0] = False
    # The last slots are padding that lies about itself.
    pad = ((0, 0), (0, SLOTS - 3))
    boxes = Boxes(
        xyxy=np.pad(xyxy, (*pad, (0, 0)), constant_values=0.5).astype(np.float32),
        label=np.pad(label, pad),
        mask=np.pad(mask, pad),
    )
    batch = Batch(
        image=None,
        labels=None,
        mask=np.arange(films) < films - 2,
        position=None,
        index=np.arange(films),
        boxes=boxes,
    )
    zeros = np.zeros((films, 3), np.float32)
    return Prediction(logits=zeros, probs=zeros, maps=maps), batch


observe = jax.jit(EVALUATOR.observe)


def table(prediction, batch, *, random=None, patients=None):
    """The predictions that an evaluation would make of one batch."""
    found = jax.device_get(observe(prediction, batch))
    other = dataclasses.replace(prediction, maps=random)
    if random is None:
        other = dataclasses.replace(prediction, maps=np.ones_like(prediction.maps))
    fresh = jax.device_get(observe(other, batch))
    rows = np.flatnonzero(batch.mask)
    names = np.asarray([f"film{k}" for k in rows])
    every = found | {f"randomised/{k}": v for k, v in fresh.items()}
    return Predictions(
        classes=CLASSES,
        ids=names,
        patients=names if patients is None else np.asarray(patients)[rows],
        studies=np.full(len(rows), ""),
        index=rows,
        probs=np.zeros((len(rows), 3), np.float32),
        labels=np.zeros((len(rows), 3), np.float32),
        observed={k: v[rows] for k, v in every.items()},
    )


@pytest.fixture(scope="module")
def observed():
    prediction, batch = scene()
    return prediction, batch, jax.device_get(observe(prediction, batch))


def test_each_slot_holds_the_map_of_its_own_class(observed):
    prediction, batch, found = observed
    for n, s in np.argwhere(found["localization/mask"]):
        own = prediction.maps[n, :, :, batch.boxes.label[n, s]]
        row, col = np.unravel_index(own.argmax(), own.shape)
        np.testing.assert_allclose(
            found["localization/peak"][n, s], [(col + 0.5) / 8, (row + 0.5) / 8]
        )
        x1, y1, x2, y2 = found["localization/box"][n, s]
        assert x1 <= (col + 0.5) / 8 <= x2 and y1 <= (row + 0.5) / 8 <= y2
        assert 0 <= found["localization/energy"][n, s] <= 1


def test_padding_is_no_box(observed):
    _, batch, found = observed
    mask = found["localization/mask"]
    assert not mask[:, 3:].any() and not mask[-2:].any()
    np.testing.assert_array_equal(mask[:-2], batch.boxes.mask[:-2])


def test_energy_counts_all_boxes_of_the_class_on_the_film():
    maps = np.ones((1, 8, 8, 2), np.float32)
    boxes = Boxes(
        xyxy=np.float32([[[0, 0, 0.5, 1], [0.5, 0, 1, 0.5], [0, 0, 1, 1]]]),
        label=np.array([[1, 1, 0]]),
        mask=np.ones((1, 3), bool),
    )
    _, batch = scene(films=1)
    batch = dataclasses.replace(batch, boxes=boxes, mask=np.ones(1, bool))
    prediction = Prediction(logits=None, probs=None, maps=maps)
    found = jax.jit(EVALUATOR.observe)(prediction, batch)
    np.testing.assert_allclose(
        found["localization/energy"], [[0.75, 0.75, 1]], atol=1e-6
    )


def test_films_without_boxes_cost_no_look_at_their_maps():
    prediction, batch = scene(films=4)
    none = dataclasses.replace(batch.boxes, mask=np.zeros((4, SLOTS), bool))
    found = observe(prediction, dataclasses.replace(batch, boxes=none))
    assert not found["localization/peak"].any()


@pytest.mark.parametrize("filled", [0, 1, 3, SLOTS])
def test_as_many_slots_are_looked_at_as_are_filled(monkeypatch, filled):
    """Counted as the compiled step runs, not as it is traced."""
    looks, locate = [], explain.locate

    def counted(maps, *, share):
        jax.debug.callback(lambda: looks.append(1))
        return locate(maps, share=share)

    monkeypatch.setattr(explain, "locate", counted)
    prediction, batch = scene(films=4)
    mask = np.zeros((4, SLOTS), bool)
    mask[1, :filled] = mask[0, : filled // 2] = True
    mask[3] = True  # of a row that is padding
    boxes = dataclasses.replace(batch.boxes, mask=mask)
    step = jax.jit(lambda *given: EVALUATOR.observe(*given))
    step(prediction, dataclasses.replace(batch, boxes=boxes))
    jax.effects_barrier()
    assert len(looks) == filled


def test_maps_that_point_beat_chance_and_others_do_not():
    prediction, batch = scene(films=150)
    predictions = table(prediction, batch)
    frozen = EVALUATOR.freeze(predictions)
    assert set(frozen["mean_boxes"]) == {"Mass", "Nodule"}  # Other has no part in it
    np.testing.assert_allclose(
        frozen["mean_boxes"]["Mass"], [0.4, 0.4, 0.6, 0.6], atol=0.1
    )
    block = base.plain(EVALUATOR(predictions, base.plain(frozen)))["localization"]
    json.dumps(block, allow_nan=False)
    assert block["ahead_of_all"] == {"classes": ["Mass"], "of": ["Mass", "Nodule"]}
    mass, nodule = block["per_class"]["Mass"], block["per_class"]["Nodule"]
    assert mass["pointing"]["value"] > 0.95
    assert mass["iou"]["value"] > 3 * mass["iou"]["baselines"]["location"]["value"]
    assert mass["energy"]["value"] > 0.5
    for name, found in mass["pointing"]["differences"].items():
        chance = mass["pointing"]["baselines"][name]["value"]
        assert found["value"] == pytest.approx(mass["pointing"]["value"] - chance)
        assert 0 < found["low"] <= found["value"] <= found["high"]
    assert mass["pointing"]["baselines"]["area"]["value"] == pytest.approx(0.04)
    # Fresh weights whose map is flat point nowhere, and have the area's energy.
    assert mass["pointing"]["baselines"]["randomised"]["value"] == 0
    energy = mass["energy"]["baselines"]["randomised"]["value"]
    assert energy == pytest.approx(0.04, abs=1e-5)
    assert not nodule["ahead_of_all"]
    assert nodule["pointing"]["value"] < 0.15
    boxed = batch.boxes.mask & batch.mask[:, None]
    assert (
        mass["films"] == mass["boxes"] == mass["positive_patients"] == boxed[:, 0].sum()
    )
    assert mass["flag"] is None


def test_a_map_equal_to_that_of_fresh_weights_is_ahead_of_nothing():
    prediction, batch = scene(films=100)
    predictions = table(prediction, batch, random=prediction.maps)
    frozen = EVALUATOR.freeze(predictions)
    block = EVALUATOR(predictions, frozen)["localization"]
    difference = block["per_class"]["Mass"]["pointing"]["differences"]["randomised"]
    assert difference == {"value": 0, "low": 0, "high": 0}
    assert block["ahead_of_all"]["classes"] == []


def test_a_finding_that_is_always_in_one_place_is_no_merit_of_the_map():
    prediction, batch = scene(films=100)
    fixed = np.broadcast_to(np.float32([0.4, 0.5, 0.6, 0.7]), batch.boxes.xyxy.shape)
    boxes = dataclasses.replace(batch.boxes, xyxy=fixed)
    maps = np.broadcast_to(spots([(0.45, 0.55)])[0, :, :, None], prediction.maps.shape)
    prediction = dataclasses.replace(prediction, maps=maps)
    predictions = table(prediction, dataclasses.replace(batch, boxes=boxes))
    block = EVALUATOR(predictions, EVALUATOR.freeze(predictions))["localization"]
    mass = block["per_class"]["Mass"]["pointing"]
    assert mass["value"] == mass["baselines"]["location"]["value"] == 1
    assert mass["differences"]["location"]["low"] == 0
    assert not block["per_class"]["Mass"]["ahead_of_all"]


def test_without_a_validation_part_the_usual_place_is_unknown():
    predictions = table(*scene(films=100))
    block = EVALUATOR(predictions, {})["localization"]
    mass = block["per_class"]["Mass"]
    assert set(mass["pointing"]["baselines"]) == {"area", "randomised"}
    assert not mass["ahead_of_all"]  # not shown


def test_few_patients_and_no_boxes_are_said():
    prediction, batch = scene(films=60)
    batch.boxes.mask[:, 1] = False
    patients = [f"p{k % 7}" for k in range(60)]
    predictions = table(prediction, batch, patients=patients)
    block = base.plain(EVALUATOR(predictions, EVALUATOR.freeze(predictions)))
    block = block["localization"]
    json.dumps(block, allow_nan=False)
    assert block["resampling_unit"] == "patient"
    mass, nodule = block["per_class"]["Mass"], block["per_class"]["Nodule"]
    assert mass["positive_patients"] == 7
    assert mass["flag"] == "fewer than 20 positive patients"
    assert nodule["reason"] == "undefined: no film has a box"
    assert nodule["pointing"]["value"] is None and nodule["films"] == 0
    assert not nodule["ahead_of_all"]


def test_without_resamples_there_are_values_and_no_intervals():
    predictions = table(*scene(films=40))
    plain = dataclasses.replace(EVALUATOR, resamples=0)
    block = plain(predictions, plain.freeze(predictions))["localization"]
    mass = block["per_class"]["Mass"]["pointing"]
    assert mass["value"] > 0.9 and mass["low"] is None
    # Nothing is shown without them, neither way.
    assert block["ahead_of_all"]["classes"] is None
    assert block["per_class"]["Mass"]["ahead_of_all"] is None


def test_boxes_and_maps_are_asked_for():
    with pytest.raises(ConfigError, match="Localization needs boxes, maps"):
        base.check_requirements([EVALUATOR], ["labels", "probs"])
