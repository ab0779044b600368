from __future__ import annotations

import numpy as np
import pytest

from medground_bench.imaging.masks import PolygonMask


def test_a_rectangle_covers_the_pixels_of_the_same_box() -> None:
    mask = PolygonMask(((2, 1), (5, 1), (5, 3), (2, 3)), (8, 4)).raster()
    expected = np.zeros((4, 8), bool)
    expected[1:3, 2:5] = True
    assert (mask == expected).all()


def test_a_triangle_by_hand() -> None:
    mask = PolygonMask(((0, 0), (4.2, 0), (0, 4.2)), (5, 5)).raster()
    assert mask.astype(int).tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5]


def test_what_lies_outside_the_image_is_cut() -> None:
    assert PolygonMask(((-9, -9), (99, -9), (99, 99), (-9, 99)), (6, 4)).raster().all()
    assert not PolygonMask(((20, 20), (30, 20), (30, 30)), (6, 4)).raster().any()


def test_what_is_enclosed_twice_is_outside() -> None:
    star = ((0, 0), (6, 0), (6, 6), (0, 6), (0, 0), (2, 2), (4, 2), (4, 4), (2, 4), (2, 2))
    mask = PolygonMask(star, (6, 6)).raster()
    assert mask.sum() == 36 - 4
    assert not mask[2:4, 2:4].any()


@pytest.mark.parametrize("seed", range(20))
def test_against_points_in_a_polygon(seed: int) -> None:
    from matplotlib.path import Path as Outline

    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    points = 20 + rng.uniform(5, 19, (9, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    y, x = np.mgrid[:40, :40] + 0.5
    expected = Outline(points).contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(40, 40)
    assert (PolygonMask(tuple(map(tuple, points.tolist())), (40, 40)).raster() == expected).all()
