"""Colours over films: one formula, checked against its own words in float64."""

import io

import matplotlib
import numpy as np
from PIL import Image

from cxr_jax import plots
from cxr_jax.pages import overlays


def formula(film, share):
    """The film, covered the more the higher the map is."""
    color = 255 * np.asarray(matplotlib.colormaps["inferno"](share))[..., :3]
    opacity = 0.65 * np.sqrt(share)[..., None]
    return film[..., None] * (1 - opacity) + color * opacity


def test_a_blend_follows_its_formula():
    rng = np.random.default_rng(0)
    film = rng.integers(0, 256, (6, 9)).astype(np.uint8)
    heat = rng.normal(size=(6, 9))
    found = plots.blend(film, heat, limit=0.7)
    want = formula(film.astype(np.float64), np.clip(heat / 0.7, 0, 1))
    np.testing.assert_allclose(found, want, atol=0.51)


def test_a_page_draws_a_film_as_a_notebook_does():
    rng = np.random.default_rng(1)
    film = rng.integers(0, 256, (80, 80)).astype(np.uint8)
    heat = rng.normal(size=(8, 8)).astype(np.float32)
    png = overlays.film_with_map(film, heat, np.empty((0, 4)), limit=1.0, side=80)
    page = np.asarray(Image.open(io.BytesIO(png)))
    np.testing.assert_array_equal(page[:80, :80], film[..., None].repeat(3, axis=-1))
    np.testing.assert_array_equal(page[:80, 84:], plots.blend(film, heat, limit=1.0))


def test_both_scales_run_from_no_colour_to_the_last():
    scale = plots.scale(64)
    want = formula(np.full(64, 128.0), np.linspace(0, 1, 64))
    # Half a level, and a colour of the map that float32 rounds to its neighbour.
    np.testing.assert_allclose(scale, want, atol=4)
    assert scale[0].tolist() == [128, 128, 128]
    bar = np.asarray(Image.open(io.BytesIO(overlays.color_bar(width=64, height=3))))
    np.testing.assert_array_equal(bar, scale[None].repeat(3, axis=0))


def test_boxes_are_drawn_without_maps():
    film = np.zeros((64, 64), np.uint8)
    panels = [
        plots.Panel(title="Mass", heat=None, boxes=[(0.25, 0.25, 0.75, 0.5)]),
        plots.Panel(title="Nodule", heat=None),
    ]
    given = {"title": "film", "shape": (64, 64), "unit": "", "side": 2.0}
    figure = plots.draw(film, panels, **given)
    _, first, second = figure.axes  # the film, two classes, no scale
    (frame,) = first.patches
    drawn = film.repeat(5, axis=0).repeat(5, axis=1)
    assert frame.get_width() == 0.5 * len(drawn)
    assert frame.get_height() == 0.25 * len(drawn) and not second.patches
    assert plots.BOXES_SHOW in figure.get_supxlabel()
    assert plots.MAPS_SHOW not in figure.get_supxlabel()
    mapped = [plots.Panel(title="Mass", heat=np.ones((4, 4), np.float32))]
    words = plots.draw(film, mapped, **given).get_supxlabel()
    assert plots.MAPS_SHOW in words and plots.BOXES_SHOW not in words
