"""The crop that holds all boxes, and what else ADPD does to films: boxes follow exactly."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import adpd
from cxr_jax import config
from cxr_jax.data.augment import Augment
from cxr_jax.errors import ConfigError
from cxr_jax.types import Batch, Boxes, Regions

SIZE = 96


def films(count, *, seed=0, absent=0.3):
    """White rectangles on black, one per film, and the same box as a region."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0.05, 0.55, (count, 2))
    xyxy = np.concatenate([low, low + rng.uniform(0.2, 0.4, (count, 2))], axis=1)
    edges = np.rint(xyxy * SIZE).astype(int)
    image = np.zeros((count, SIZE, SIZE, 1), np.uint8)
    for film, (x1, y1, x2, y2) in zip(image, edges, strict=True):
        film[y1:y2, x1:x2] = 255
    boxes = np.zeros((count, 2, 4), np.float32)
    boxes[:, 0] = edges / SIZE
    # A second box, which is not there, must not hold the crop.
    boxes[:, 1] = (0, 0, 1, 1)
    there = np.tile([True, False], (count, 1))
    return Batch(
        image=image,
        labels=np.zeros((count, 1), np.float32),
        mask=np.ones(count, bool),
        position=np.arange(count, dtype=np.uint32),
        index=np.arange(count, dtype=np.int32),
        regions=Regions(xyxy=boxes, presence=there, probs=np.zeros((count, 2, 1))),
    )


def recipe(**changes):
    """ADPD's own augmentation, of films of this size."""
    given = config.plain(config.load("configs/adpd.py").augment) | {"size": 0}
    given.pop("name")
    return Augment(**given | changes)


def drawn_box(image):
    """The box around what is white, in shares of the film; None where nothing is."""
    rows, columns = (np.flatnonzero((image > 0.5).any(axis=a)) for a in (1, 0))
    if not len(rows):
        return None
    ends = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return np.array(ends) / SIZE


def test_a_thousand_boxes_follow_their_drawings():
    """Within one pixel; what light does to films is left out.

    A turned rectangle whose corner leaves the film is drawn without that corner, while
    its box is cut at the film's edge: such a box may be larger by what the turn lifts.
    """
    quiet = recipe(gain=(1.0, 1.0), contrast=(1.0, 1.0), blur=0.0, blur_from=0.0)
    found = jax.jit(lambda b: quiet(b, 7))(films(1000))
    images, boxes = np.asarray(found.image)[..., 0], np.asarray(found.regions.xyxy)
    moved, whole, shown = 0, 0, np.asarray(found.regions.presence)[:, 0]
    assert shown.all()  # the crop holds four fifths of every box
    for image, box, before in zip(
        images, boxes[:, 0], films(1000).regions.xyxy[:, 0], strict=True
    ):
        drawn = drawn_box(image)
        outside = (box <= 0).any() or (box >= 1).any()
        lifted = np.tan(np.deg2rad(2.0)) * 0.4 if outside else 0.0
        np.testing.assert_allclose(drawn, box, atol=1.0 / SIZE + lifted)
        inward = np.concatenate([drawn[:2] - box[:2], box[2:] - drawn[2:]])
        assert (inward > -1.0 / SIZE).all()
        whole += not outside
        moved += np.abs(drawn - before).max() > 3 / SIZE
    assert moved > 900 and whole > 200


def test_the_crop_cuts_no_more_of_a_box_than_it_may():
    """Without anything else, every box keeps its middle 1 - 2e of each side."""
    only = Augment(safe_crop=0.2)
    batch = films(500)
    found = jax.jit(lambda b: only(b, 3))(batch)
    before = np.asarray(batch.regions.xyxy)[:, 0].astype(float)
    after = np.asarray(found.regions.xyxy)[:, 0].astype(float)
    # The crop is what maps onto the whole film: solve it from white and black edges.
    whole = jax.jit(lambda b: Augment(safe_crop=0.0)(b, 3))(batch)
    kept = np.asarray(whole.regions.xyxy)[:, 0].astype(float)
    # Nothing may be cut: no edge of a box is at the film's edge unless it fits exactly.
    side = before[:, 2:] - before[:, :2]
    assert ((kept[:, 2:] - kept[:, :2]) >= side - 1e-5).all()
    assert ((after[:, 2:] - after[:, :2]) >= 0.6 * side - 1e-5).all()
    assert np.ptp(after, axis=0).min() > 0.1  # crops differ


def test_films_without_regions_are_held_by_their_boxes():
    batch = films(300)
    bare = dataclasses.replace(
        batch,
        regions=None,
        boxes=Boxes(
            xyxy=np.tile(np.float32([0.4, 0.4, 0.6, 0.6]), (300, 1, 1)),
            label=np.zeros((300, 1), np.int32),
            mask=np.zeros((300, 1), bool),
        ),
    )
    # A mark that is not masked shows by how much films were enlarged.
    marked = dataclasses.replace(
        bare, boxes=dataclasses.replace(bare.boxes, mask=np.ones((300, 1), bool))
    )
    crop = Augment(safe_crop=0.2)
    images = jax.jit(lambda b: crop(b, 5))(bare).image
    assert images.shape == (300, SIZE, SIZE, 1)
    held = np.asarray(jax.jit(lambda b: crop(b, 5))(marked).boxes.xyxy)[:, 0]
    assert ((held[:, 2:] - held[:, :2]) >= 0.2 - 1e-5).all()
    none = dataclasses.replace(bare, boxes=None)
    again = jax.jit(lambda b: crop(b, 5))(none).image
    # Two programs: the compiler may round them apart.
    np.testing.assert_allclose(again, images, atol=1e-4)


def test_films_without_boxes_keep_80_to_100_percent_of_each_side():
    """Read from pixels: of a slope that is enlarged to the whole film, a part is left."""
    place = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
    crop = jax.jit(lambda b: Augment(safe_crop=0.2)(b, 5))
    first, last, begins, shares = SIZE // 4, 3 * SIZE // 4, [], []
    for axis, slope in enumerate(np.meshgrid(place, place, indexing="xy")):
        image = np.tile(slope[None, ..., None], (1000, 1, 1, 1))
        batch = dataclasses.replace(films(1000), image=image, regions=None)
        middle = np.asarray(crop(batch).image)[:, first:last, first:last, 0]
        found = middle.mean(axis=1 + axis)
        share = (found[:, -1] - found[:, 0]) / (place[last - 1] - place[first])
        begins.append(found[:, 0] - share * place[first])
        shares.append(share)
    begins, shares = np.array(begins), np.array(shares)
    assert (shares > 0.8 - 1e-4).all() and (shares < 1 + 1e-4).all()
    assert shares.min() < 0.802 and shares.max() > 0.998
    np.testing.assert_allclose(shares[0], shares[1], atol=1e-4)  # one shape
    ends = begins + shares
    assert (begins > -1e-4).all() and (ends < 1 + 1e-4).all()
    assert begins.max() > 0.18 and ends.min() < 0.82  # anywhere within the film
    assert abs(np.corrcoef(begins)[0, 1]) < 0.9  # places differ across and down


def test_width_and_height_are_stretched_apart():
    stretch = Augment(stretch=(0.8, 1.0))
    found = jax.jit(lambda b: stretch(b, 1))(films(200))
    before = np.asarray(films(200).regions.xyxy)[:, 0].astype(float)
    after = np.asarray(found.regions.xyxy)[:, 0].astype(float)
    ratio = (after[:, 2:] - after[:, :2]) / (before[:, 2:] - before[:, :2])
    assert (ratio > 0.8 - 1e-4).all() and (ratio < 1 + 1e-4).all()
    assert abs(np.corrcoef(ratio.T)[0, 1]) < 0.2
    np.testing.assert_allclose(ratio.mean(axis=0), 0.9, atol=0.02)


def test_gain_and_blur_touch_the_share_they_should():
    batch = films(400)
    bright = jax.jit(lambda b: Augment(gain=(0.5, 0.9))(b, 1))(batch).image
    highest = np.asarray(bright).max(axis=(1, 2, 3))
    assert (highest >= 0.5 - 1e-6).all() and (highest <= 0.9 + 1e-6).all()
    assert np.ptp(highest) > 0.3
    some = Augment(blur=1.0, blur_from=0.9, blur_share=0.5, blur_radius=1)
    soft = np.asarray(jax.jit(lambda b: some(b, 1))(batch).image)
    touched = (soft != np.asarray(batch.image) * np.float32(1 / 255)).any(
        axis=(1, 2, 3)
    )
    assert 0.4 < touched.mean() < 0.6


@pytest.mark.parametrize(
    "wrong",
    [
        {"safe_crop": 0.5},
        {"safe_crop": -0.5},
        {"stretch": (0.0, 1.0)},
        {"gain": (1.0, 0.5)},
        {"blur_share": 1.5},
        {"blur": 0.5, "blur_from": 0.6},
        {"blur_radius": -1},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(reversed(wrong))):
        Augment(**wrong)


def test_the_recipe_is_that_of_the_released_code():
    c = adpd.get_config().augment
    assert (c.safe_crop, c.size, c.rotation, c.translate) == (0.2, 224, 2.0, 0.02)
    assert tuple(c.stretch) == (0.95, 1.0)
    assert tuple(c.gain) == tuple(c.contrast) == (0.8, 1.2)
    assert (c.blur_from, c.blur, c.blur_share, c.blur_radius) == (0.1, 1.0, 0.5, 1)
    assert c.flip == 0
