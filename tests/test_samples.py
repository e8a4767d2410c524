"""The gallery's films are chosen by rule, and failures are always among them."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from cxr_jax import samples, studies
from cxr_jax.pages import overlays
from cxr_jax.predictions import Predictions
from cxr_jax.types import Batch, Boxes, Prediction


def table(scores, labels, truth=None) -> Predictions:
    films, classes = np.shape(scores)
    return Predictions(
        classes=tuple("ABCDEFG"[:classes]),
        ids=np.asarray([f"film{k}" for k in range(films)]),
        patients=np.asarray([""] * films),
        studies=np.asarray([""] * films),
        index=np.arange(films) * 10,
        probs=np.asarray(scores, np.float32),
        labels=np.asarray(labels, np.float32),
        truth=None if truth is None else np.asarray(truth, np.float32),
    )


KINDS = (samples.HIT, samples.MISS, samples.ALARM)
SCORES = np.array([[0.9], [0.1], [0.8], [0.3], [0.5]])


def rows(predictions, count=3):
    choices = samples.choose_samples(predictions, count=count)
    return {choice.kind: choice.row for choice in choices}


def test_best_positive_worst_positive_and_worst_negative():
    labels = [[1], [1], [0], [0], [np.nan]]
    assert rows(table(SCORES, labels)) == {
        samples.HIT: 0,
        samples.MISS: 1,
        samples.ALARM: 2,
    }


def test_truth_outranks_labels():
    truth = [[0], [0], [1], [1], [0]]
    found = rows(table(SCORES, 1 - np.asarray(truth), truth))
    assert found == {samples.HIT: 2, samples.MISS: 3, samples.ALARM: 0}


def test_classes_shown_run_from_the_best_to_the_worst():
    labels = np.array([[1], [1], [0], [0]]).repeat(5, axis=1).astype(float)
    scores = np.empty((4, 5))
    scores[:, 0] = [1, 2, 3, 4]  # AUROC 0
    scores[:, 1] = [4, 3, 2, 1]  # 1
    scores[:, 2] = [4, 1, 3, 2]  # 1/2
    scores[:, 3] = [4, 2, 3, 1]  # 3/4
    labels[:, 4], scores[:, 4] = 0, 0  # undefined: never shown
    chosen = samples.choose_samples(table(scores, labels), count=9)
    assert [choice.column for choice in chosen] == [1] * 3 + [2] * 3 + [0] * 3
    every = samples.choose_samples(table(scores, labels), count=99)
    assert [choice.column for choice in every[::3]] == [1, 3, 2, 0]
    assert samples.choose_samples(table(scores, labels), count=0) == []


def test_studies_are_chosen_by_type_and_shown_view_by_view():
    """Scores of studies decide, not those of single films; the sum of all is no type."""
    views = np.array([2, 1, 6, 1, 1])
    study = np.repeat(np.arange(5), views)
    scores = np.array([0.9, 0.5, 0.8, *[0.3] * 6, 0.6, 0.1])
    films = dataclasses.replace(
        table(scores[:, None], (study < 3)[:, None]),
        ids=np.array([f"s{s}/{k}" for k, s in enumerate(study)]),
        studies=np.array([f"s{s}" for s in study]),
    )
    part = np.array(["Hand", "Hand", "Hand", "Hand", "Wrist"])  # one wrist: no ranking
    judged = studies.by_category(
        studies.by_study(films).table, part, names=("Hand", "Wrist"), whole="All"
    )
    chosen = samples.choose_samples(films, count=9, judged=judged)
    assert {(c.title, c.column) for c in chosen} == {("Hand", 0)}
    rows = {kind: [c.row for c in chosen if c.kind == kind] for kind in KINDS}
    # Study 1 (0.8) beats study 0 (0.7), whose first film alone scores higher.
    assert rows == {
        samples.HIT: [2],
        samples.MISS: [3, 4, 5, 6],  # the first four of six views
        samples.ALARM: [9],
    }
    assert chosen[1].view == "view 1 of 6 of a study that scores 0.300"


def load(index):
    size = len(index)
    films = np.broadcast_to(index[:, None, None, None], (size, 6, 6, 1))
    return Batch(
        image=films.astype(np.uint8),
        labels=None,
        mask=None,
        position=None,
        index=index,
        boxes=Boxes(
            xyxy=np.tile(
                np.float32([[0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]]), (size, 1, 1)
            ),
            label=np.tile([0, 1], (size, 1)),
            mask=np.tile([True, True], (size, 1)),
        ),
    )


def predict(batch):
    """The map of class c is the record number plus c everywhere."""
    maps = np.asarray(batch.image, np.float32)[:, ::3, ::3] + np.arange(2.0)
    return Prediction(logits=None, probs=None, maps=maps)


def test_samples_are_read_in_fixed_batches_and_kept_in_order(tmp_path):
    scores = np.array([[0.9, 0.2], [0.1, 0.4], [0.8, 0.3], [0.3, 0.7]])
    labels = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    predictions = table(scores, labels)
    choices = samples.choose_samples(predictions, count=6)
    sizes = []

    def seen(index):
        sizes.append(len(index))
        return load(index)

    found = samples.collect_samples(
        predictions, choices, load=seen, predict=predict, batch_size=4
    )
    assert sizes == [4, 4]
    records = [predictions.index[choice.row] for choice in choices]
    np.testing.assert_array_equal(found.films[:, 0, 0], records)
    columns = np.array([choice.column for choice in choices])
    np.testing.assert_array_equal(found.maps[:, 0, 0], records + columns)
    assert found.classes.tolist() == [predictions.classes[c] for c in columns]
    want = [[0, 0, 1, 1] if c == 0 else [0.1, 0.2, 0.3, 0.4] for c in columns]
    np.testing.assert_allclose(found.boxes[:, 0], want, rtol=1e-6)
    best = [choice.kind == samples.HIT for choice in choices]
    assert found.ranks[best].tolist() == [1, 1]
    samples.write_samples(tmp_path, found)
    again = samples.read_samples(tmp_path)
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_without_maps_or_choices_there_is_no_gallery(tmp_path):
    predictions = table(SCORES, [[1], [1], [0], [0], [0]])
    choices = samples.choose_samples(predictions, count=3)

    def blind(batch):
        return Prediction(logits=None, probs=None)

    arguments = {"load": load, "predict": blind}
    assert samples.collect_samples(predictions, choices, **arguments) is None
    assert samples.collect_samples(predictions, [], **arguments) is None
    assert samples.read_samples(tmp_path) is None


def overlay(heat, boxes=()):
    film = np.linspace(0, 250, 64, dtype=np.uint8).reshape(8, 8)
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    png = overlays.film_with_map(film, np.asarray(heat), boxes, limit=1.0, side=80)
    image = Image.open(io.BytesIO(png))
    assert image.info["Description"] == "Research use only. Not for diagnostic use."
    pixels = np.asarray(image, dtype=int)
    return pixels[:80, :80], pixels[:80, 84:]


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_what_does_not_speak_for_the_class_is_not_coloured(value):
    plain, mixed = overlay(np.full((4, 4), value))
    np.testing.assert_array_equal(plain, mixed)
    assert (plain.std(axis=-1) == 0).all()  # gray


def test_colour_lies_where_the_map_is_high_and_only_there():
    heat = np.zeros((4, 4))
    heat[0, 3] = 1  # upper right
    plain, mixed = overlay(heat)
    changed = np.abs(plain - mixed).sum(axis=-1)
    assert changed[5, 75] > 100
    assert changed[40:].max() == 0 and changed[:, :40].max() == 0


def test_boxes_are_drawn_in_place_and_padding_is_not():
    plain, _ = overlay(np.zeros((4, 4)), [[0.25, 0.5, 0.75, 1], [np.nan] * 4])
    colored = plain.std(axis=-1) > 0
    ys, xs = np.nonzero(colored)
    edges = [xs.min(), ys.min(), xs.max(), ys.max()]
    np.testing.assert_allclose(edges, [0.25 * 79, 0.5 * 79, 0.75 * 79, 79], atol=1)


def test_all_findings_of_a_film_are_kept_but_not_those_of_a_view():
    scores = np.array([[0.9, 0.2], [0.1, 0.4], [0.8, 0.3], [0.3, 0.7]])
    labels = np.array([[1, 0], [1, np.nan], [0, 0], [0, 1]])
    predictions = dataclasses.replace(
        table(scores, labels), std=np.asarray(scores / 10, np.float32)
    )
    choices = samples.choose_samples(predictions, count=3)
    found = samples.collect_samples(predictions, choices, load=load, predict=predict)
    rows = [choice.row for choice in choices]
    assert found.names.tolist() == ["A", "B"] and found.truths is None
    np.testing.assert_array_equal(found.scores, np.float32(scores)[rows])
    np.testing.assert_array_equal(found.labels, np.float32(labels)[rows])
    np.testing.assert_array_equal(found.spreads, np.float32(scores / 10)[rows])
    views = [dataclasses.replace(choice, case="s") for choice in choices]
    found = samples.collect_samples(predictions, views, load=load, predict=predict)
    assert found.scores is None and found.names is None
