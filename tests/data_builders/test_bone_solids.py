"""Path lengths through bones against ray marching, and what turning must not change."""

import dataclasses

import numpy as np
import pytest

from data_builders.phantom_bone import arm, effects, film, hand, shapes, slices, solids
from data_builders.phantom_bone import shoulder as shoulders
from data_builders.phantom_bone.effects import Crack, Lesion
from data_builders.phantom_chest import physics

AXIS = np.array([0.35, 0.9, 0.25])


def tube(a=9.0, b=5.0, wall=2.0):
    """A straight tube of elliptical section, long enough to have no ends in the field."""
    points = np.outer(np.linspace(-60, 60, 5), AXIS / np.linalg.norm(AXIS))
    return solids.Bone(
        name="tube",
        points=points,
        across=np.full(5, a),
        deep=np.full(5, b),
        side=np.array([1.0, 0.2, 0.4]),
        wall=np.full(5, wall),
        core=np.full(5, solids.TRABECULAR),
    )


def marched(bone, turn, x, y):
    """Line integral along one ray, by points in the bone's own coordinates."""
    d = (bone.points[-1] - bone.points[0]) / np.linalg.norm(
        bone.points[-1] - bone.points[0]
    )
    e1 = bone.side - (bone.side @ d) * d
    e1 /= np.linalg.norm(e1)
    e2 = np.cross(d, e1)
    z = np.linspace(-60, 60, 24001)
    points = np.stack([np.full_like(z, x), np.full_like(z, y), z], -1) @ turn
    u, v = points @ e1, points @ e2
    a, b, w = bone.across[0], bone.deep[0], bone.wall[0]
    outer = (u / a) ** 2 + (v / b) ** 2 < 1
    inner = (u / (a - w)) ** 2 + (v / (b - w)) ** 2 < 1
    mu = np.where(inner, bone.core[0], bone.shell) - solids.SOFT
    return np.sum(mu * outer) * (z[1] - z[0])


@pytest.mark.parametrize("angle", [0.0, 0.8, 1.6, -2.5])
def test_a_tube_crossed_by_rays_is_what_marching_along_them_finds(angle):
    bone, turn = tube(), solids.turn_about_y(angle)
    grid = physics.make_grid(400, field=40.0, over=1)
    image = solids.draw([bone], turn, grid)
    rng = np.random.default_rng(0)
    for row, col in rng.integers(60, 340, (40, 2)):
        x, y = float(grid.x[row, col]), float(grid.y[row, col])
        expected = marched(bone, turn, x, y)
        # At the edge a pixel is a mean: compare where the path is not steep.
        if expected > 0.2:
            assert image[row, col] == pytest.approx(expected, rel=0.02)


def test_a_circular_tube_has_the_closed_form_of_its_chord():
    bone = dataclasses.replace(tube(a=8, b=8, wall=1.5), side=np.array([1.0, 0, 0]))
    tilt = np.hypot(*AXIS[:2]) / np.linalg.norm(AXIS)
    grid = physics.make_grid(600, field=30.0, over=1)
    image = solids.draw([bone], np.eye(3), grid)
    way = AXIS[:2] / np.linalg.norm(AXIS[:2])
    s = np.abs(grid.y * way[0] - grid.x * way[1])[::7, ::7]
    outer, inner = (2 * np.sqrt(np.maximum(r**2 - s**2, 0)) for r in (8.0, 6.5))
    expected = (solids.CORTICAL - solids.SOFT) * (outer - inner)
    expected += (solids.TRABECULAR - solids.SOFT) * inner
    smooth = (np.abs(s - 8) > 0.2) & (np.abs(s - 6.5) > 0.2)
    np.testing.assert_allclose(
        image[::7, ::7][smooth], expected[smooth] / tilt, rtol=0.01, atol=2e-3
    )


SKELETONS = {
    "hand": lambda: hand.hand(hand.Pose()),
    "finger": lambda: hand.finger(hand.Pose(), which=2, neighbours=True),
    "elbow": lambda: arm.elbow(flex=0.4),
    "forearm": arm.forearm,
    "humerus": lambda: shoulders.humerus(turned=0.0),
    "shoulder": shoulders.shoulder,
}


def mass(bones, angle, *, size=256, lean=0.0):
    grid = physics.make_grid(size, field=700.0, angle=lean, over=1)
    image = solids.draw(bones, solids.turn_about_y(angle), grid)
    return image.sum(dtype=np.float64) * grid.pixel**2


@pytest.mark.parametrize("name", SKELETONS)
def test_bones_keep_their_mass_in_every_view_and_at_every_pixel_size(name):
    bones = SKELETONS[name]().bones
    first = mass(bones, 0.0)
    for angle in (0.4, 0.8, 1.57, -0.7):
        assert mass(bones, angle) == pytest.approx(first, rel=0.02)
    assert mass(bones, 0.0, size=64) == pytest.approx(first, rel=0.03)
    assert mass(bones, 0.0, lean=2.6) == pytest.approx(first, rel=0.02)


def test_a_shaft_has_the_volume_of_its_sections():
    bone = shapes.long_bone(
        "bone", (0, -100, 0), (20, 100, 30), radii=(15, 8, 12), wall=(3, 1)
    )
    d = bone.points[-1] - bone.points[0]
    s = bone.points @ (d / np.linalg.norm(d))
    area = np.pi * bone.across * bone.deep
    inner = np.maximum(bone.across - bone.wall, 0) * np.maximum(
        bone.deep - bone.wall, 0
    )
    profile = (bone.shell - solids.SOFT) * area
    profile += (bone.core - bone.shell) * np.pi * inner
    expected = np.trapezoid(profile, s)
    assert mass([bone], 0.9) == pytest.approx(expected, rel=0.02)


def test_a_bend_leaves_neither_gap_nor_overlap():
    """A wide tube that bends sideways: its image changes smoothly along it."""
    points = np.array([(0, -80, 0), (0, 0, 0), (25, 80, 0)], float)
    bone = solids.rod("bend", points, 30.0, mu=1.0)
    grid = physics.make_grid(128, field=120.0, over=1)
    image = slices.draw(grid, solids.project([bone], np.eye(3), around=0.0))
    middle = [
        image[row, 64 + max(0, round((row - 64) * 25 / 80))] for row in range(20, 108)
    ]
    np.testing.assert_allclose(middle, 60.0, rtol=0.02)


@pytest.mark.parametrize("angle", [0.0, 1.5707])
def test_a_rod_seen_end_on_keeps_its_mass(angle):
    bone = solids.rod("pin", [(-20, 3, 0.0), (20, 3, 0.0)], 1.0, side=solids.Y, mu=0.6)
    expected = (0.6 - solids.SOFT) * np.pi * 40
    assert mass([bone], angle, size=512) == pytest.approx(expected, rel=0.05)


def test_a_crack_is_dark_along_the_rays_and_hidden_across_them():
    """The same gap, seen from two sides: sharp where its plane holds the ray."""
    shaft = shapes.long_bone(
        "shaft", (0, -60, 0), (0, 60, 0), radii=(9, 9, 9), wall=(3, 3)
    )
    tilt = np.radians(45)
    crack = Crack(
        point=np.zeros(3),
        normal=np.array([np.sin(tilt), np.cos(tilt), 0.0]),
        width=1.0,
        radius=9.0,
        jag=0.0,
        phase=0.0,
        share=1.0,
    )
    broken = dataclasses.replace(shaft, effects=(crack,))
    grid = physics.make_grid(200, field=60.0, over=1)
    depth, lost = [], []
    for angle in (0.0, np.pi / 2):
        turn = solids.turn_about_y(angle)
        whole, cut = (
            solids.draw([shaft], turn, grid),
            effects.draw_bone(broken, turn, grid),
        )
        depth.append(np.max((whole - cut) / np.maximum(whole, 1e-3)))
        lost.append((whole - cut).sum(dtype=np.float64) * grid.pixel**2)
    assert depth[0] > 0.95
    assert depth[1] < 0.15
    # What is gone is the bone in a slab of that width, in both views.
    per_mm = mass([shaft], 0.0) / 120
    expected = per_mm * 1.0 / np.cos(tilt)
    np.testing.assert_allclose(lost, expected, rtol=0.12)


def test_share_of_a_slab_against_counting():
    rng = np.random.default_rng(0)
    place, deep = rng.uniform(-0.5, 0.5, (2, 400_000))
    for u, width, pixel, depth in (
        (0.3, 1.0, 0.8, 3.0),
        (0.0, 0.2, 2.0, 0.0),
        (2.0, 1.5, 0.5, 4.0),
    ):
        counted = np.mean(np.abs(u + pixel * place + depth * deep) < width / 2)
        found = effects.blurred_slab(np.array([u]), width, pixel=pixel, depth=depth)
        assert found[0] == pytest.approx(counted, abs=0.004)


@pytest.mark.parametrize("lytic", [True, False])
def test_a_lesion_takes_or_adds_its_volume_of_bone(lytic):
    shaft = solids.rod("shaft", [(0, -60, 0), (0, 60, 0)], 12.0, mu=0.1)
    ball = Lesion(
        centre=np.array([1.0, 5.0, -2.0]),
        radius=7.0,
        amount=-1.0 if lytic else 0.0,
        added=0.0 if lytic else 0.05,
    )
    grid = physics.make_grid(256, field=80.0, over=1)
    ill = dataclasses.replace(shaft, effects=(ball,))
    for angle in (0.0, 1.0):
        turn = solids.turn_about_y(angle)
        change = effects.draw_bone(ill, turn, grid) - solids.draw([shaft], turn, grid)
        volume = 4 / 3 * np.pi * 7**3
        expected = -(0.1 - solids.SOFT) * volume if lytic else 0.05 * volume
        assert change.sum(dtype=np.float64) * grid.pixel**2 == pytest.approx(
            expected, rel=0.02
        )


def test_the_left_limb_is_the_mirror_of_the_right_in_every_view():
    right = shoulders.shoulder()
    left = film.skeleton.mirror(right)
    grid = physics.make_grid(96, field=300.0, over=1)
    for angle in (0.0, 0.6):
        a = solids.draw(right.bones, solids.turn_about_y(angle), grid)
        b = solids.draw(left.bones, solids.turn_about_y(-angle), grid)
        np.testing.assert_allclose(a, b[:, ::-1], atol=1e-3)
    flip = np.array([-1, 1, 1])
    np.testing.assert_array_equal(np.multiply(right.centre, flip), left.centre)
