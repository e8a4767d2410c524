"""Path lengths against closed forms and against integration by brute force."""

import dataclasses

import numpy as np
import pytest

from cxr_jax.labels import NIH14
from data_builders.phantom_chest import anatomy, detector, film, physics, vessels
from data_builders.phantom_chest import findings as findings_
from data_builders.phantom_chest.findings import Findings
from data_builders.phantom_chest.site import Site, ball_path


def make_chest():
    return anatomy.draw_chest(np.random.default_rng(3), female=False, age=50)


def site_of(chest, **kwargs):
    grid = physics.make_grid(128, centre=(0, 140), **kwargs)
    index = anatomy.row_index(grid)
    air = anatomy.make_air(chest, grid, index)
    return Site(chest=chest, grid=grid, air=air, index=index)


@pytest.mark.parametrize("angle", [0.0, 0.3])
def test_ellipsoid_holds_its_volume_and_its_path(angle):
    grid = physics.make_grid(256, angle=0.1, over=2)
    axes = (60.0, 35.0, 22.0)
    solid = physics.ellipsoid(grid, (10, -20, 5), axes, angle=angle)
    step = grid.pixel / grid.over
    volume = solid.length.sum(dtype=np.float64) * step**2
    assert volume == pytest.approx(4 / 3 * np.pi * np.prod(axes), rel=2e-3)
    # Count voxels along a few rays, in float64.
    depth = np.linspace(-40, 50, 9001)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = grid.x[solid.window][::31, ::37], grid.y[solid.window][::31, ::37]
    for px, py, path in zip(
        x.ravel(), y.ravel(), solid.length[::31, ::37].ravel(), strict=True
    ):
        dx, dy = px - 10.0, py + 20.0
        u = (cos * dx + sin * dy) / axes[0], (cos * dy - sin * dx) / axes[1]
        inside = u[0] ** 2 + u[1] ** 2 + ((depth - 5) / axes[2]) ** 2 < 1
        assert path == pytest.approx(inside.sum() * 0.01, abs=0.05)


@pytest.mark.parametrize("radius", [0.4, 2.0, 9.0])
@pytest.mark.parametrize("way", [0.0, 0.7, 1.5])
def test_tube_keeps_its_mass_whatever_the_pixels(radius, way):
    ends = 90 * np.array([np.cos(way), np.sin(way)])
    tube = physics.polyline([-ends, ends], radius, mu=2.0)
    for size in (64, 256):
        grid = physics.make_grid(size, over=1)
        total = physics.draw_tubes(grid, tube).sum(dtype=np.float64) * grid.pixel**2
        assert total == pytest.approx(2.0 * np.pi * radius**2 * 180, rel=0.03)


def test_tube_profile_is_the_chord():
    grid = physics.make_grid(400, over=1)
    tube = physics.polyline([[-150, 0.5], [150, 0.5]], 20.0, mu=1.0)
    column = physics.draw_tubes(grid, tube)[:, 200].astype(np.float64)
    y = np.arange(400) + 0.5 - 200
    fine = y[:, None] + (np.arange(200) + 0.5)[None] / 200 - 0.5
    chord = 2 * np.sqrt(np.maximum(400 - (fine - 0.5) ** 2, 0)).mean(1)
    np.testing.assert_allclose(column, chord, atol=2e-3)


def test_tube_with_a_shell_is_outer_less_inner():
    grid = physics.make_grid(128, over=1)
    ends = [[-100, 3], [100, 3]]
    whole = physics.polyline(ends, 6.0, mu=0.2, wall=1.5, wall_mu=0.9)
    outer = physics.draw_tubes(grid, physics.polyline(ends, 6.0, mu=0.9))
    inner = physics.draw_tubes(grid, physics.polyline(ends, 4.5, mu=0.9 - 0.2))
    np.testing.assert_allclose(
        physics.draw_tubes(grid, whole), outer - inner, atol=1e-4
    )


def test_lung_path_is_inclusion_and_exclusion_of_intervals():
    rng = np.random.default_rng(0)
    ends = np.sort(rng.uniform(-50, 50, (4, 300, 2)), -1).astype(np.float32)
    found = anatomy.lung_path(*(e for k in ends for e in (k[:, 0], k[:, 1])))
    z = np.linspace(-50, 50, 20001)[:, None]
    x, t, c, d = ((k[:, 0] < z) & (z < k[:, 1]) for k in ends)
    counted = (x & t & ~(c | d)).sum(0) * 0.005
    np.testing.assert_allclose(found, counted, atol=0.03)


@pytest.mark.parametrize("radius", [2.5, 6.0, 30.0])
def test_a_ball_in_the_lung_changes_t_by_its_mass(radius):
    chest = make_chest()
    site = site_of(chest, angle=0.05)
    x, y = site.place(0, 0.55, 0.45)
    _, path = ball_path(site, (x, y, 0.0), (radius,) * 3)
    step = site.grid.pixel / site.grid.over
    volume = path.sum(dtype=np.float64) * step**2
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)


def test_a_ball_behind_the_heart_replaces_only_lung():
    chest = make_chest()
    site = site_of(chest)
    centre, radius = (chest.heart_left - 5, chest.heart_y, 0.0), 35.0
    window, path = ball_path(site, centre, (radius,) * 3)
    rng = np.random.default_rng(1)
    rows, cols = np.mgrid[window]
    pick = rng.integers(0, rows.size, 400)
    z = np.linspace(-120, 120, 4801)[:, None]
    at = rows.ravel()[pick], cols.ravel()[pick]
    air = site.air

    def within(low, high):
        return (low[at] < z) & (z < high[at])

    flat = (site.grid.x[at] - centre[0]) ** 2 + (site.grid.y[at] - centre[1]) ** 2
    ball = flat + z**2 < radius**2
    lung = within(air.low, air.high)
    lung &= ~within(air.centre_low, air.centre_high)
    lung &= ~within(air.dome_low, air.dome_high)
    counted = (ball & lung).sum(0) * 0.05
    np.testing.assert_allclose(path.ravel()[pick], counted, atol=0.25)
    assert 0 < path.sum() < 0.9 * 4 / 3 * np.pi * radius**3


@pytest.mark.parametrize("name", ["Mass", "Effusion", "Consolidation", "Edema"])
def test_a_finding_changes_t_by_attenuation_times_replaced_lung(name):
    chest = make_chest()
    numbers = {name: np.random.default_rng(5).random(findings_.NUMBERS)}
    found = Findings(severity={name: 0.2}, numbers=numbers)
    seen = {}

    def paint(site):
        changes = findings_.paint(site, found)
        seen["paths"] = [dataclasses.replace(c, lines=None) for c in changes]
        seen["site"] = site
        return seen["paths"]

    grid = physics.make_grid(128, centre=(0, 140), over=2)
    tree = vessels.draw_tree(np.random.default_rng(0))
    made = film.line_integrals(grid, chest, tree, changes=paint)
    air, expected = seen["site"].air, 0.0
    lung_mu = chest.lung_mu * (0.85 + grid.y.astype(np.float64) * 0.3 / 270)
    left = np.ones(air.path.shape)
    for change in seen["paths"]:
        path = np.minimum(change.path, air.path[change.window]) * left[change.window]
        left[change.window] -= path / np.maximum(air.path[change.window], 1e-3)
        expected += np.sum((change.mu - lung_mu[change.window]) * path)
    expected *= (grid.pixel / grid.over) ** 2
    changed = sum(d.sum(dtype=np.float64) for _, _, d in made.changes)
    assert changed * grid.pixel**2 == pytest.approx(expected, rel=5e-3)
    # ... and what is painted is what is added to t.
    without = film.line_integrals(grid, chest, tree).t
    dense = made.t - without - sum(d for _, _, d in made.changes)
    assert abs(dense).max() < 1e-3


def test_display_shows_dense_as_white_and_uses_eight_bits():
    t = np.tile(np.linspace(0.5, 5, 64, dtype=np.float32), (64, 1))
    exposure = detector.Exposure(
        quanta=1e5, scatter=0.2, blur=0.1, low=5, high=98, slope=3, shift=0.5, gamma=1
    )
    clean = detector.detect(t, exposure=exposure, pixel=6.25, rng=None)
    shown = detector.display(clean, exposure=exposure)
    assert shown.dtype == np.uint8
    assert np.all(np.diff(shown[32].astype(int)) >= 0)
    assert shown[32, -1] > 200
    assert shown[32, 0] < 80


def test_noise_is_poisson():
    t = np.full((256, 256), 1.0, np.float32)
    exposure = detector.Exposure(
        quanta=1e4, scatter=0.0, blur=0.0, low=5, high=98, slope=3, shift=0.5, gamma=1
    )
    rng = np.random.default_rng(0)
    noisy = np.exp(-detector.detect(t, exposure=exposure, pixel=1.5, rng=rng))
    mean = np.exp(-1.0)
    assert noisy.mean() == pytest.approx(mean, rel=1e-3)
    assert noisy.var() == pytest.approx(mean / 1e4, rel=0.03)


def test_every_class_has_a_painter_or_changes_the_anatomy():
    deforming = {"Cardiomegaly", "Emphysema"}
    assert set(findings_.PAINTERS) | deforming == set(NIH14)
