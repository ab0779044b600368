"""Registration: known affine maps are recovered, negatives are recognised, borders do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medfocus.appearance import SIDE, shrink, view_of
from medfocus.register import ReferenceStack, sample
from medground_bench.core.errors import ImageError


def warped(image: np.ndarray, scale_y: float, scale_x: float, shift_y: float, shift_x: float) -> np.ndarray:
    """The chest scaled about the centre and shifted, on a canvas of the same size."""
    height, width = image.shape
    x0 = width / 2 - (width / 2 + shift_x) / scale_x
    y0 = height / 2 - (height / 2 + shift_y) / scale_y
    box = Image.fromarray(image)
    return np.asarray(
        box.transform((width, height), Image.Transform.AFFINE, (1 / scale_x, 0, x0, 0, 1 / scale_y, y0),
                      Image.Resampling.BILINEAR)
    )  # fmt: skip


def central(chest: np.ndarray) -> tuple[float, float, float, float]:
    side = chest.shape[0]
    return 0.3 * side, 0.25 * side, 0.7 * side, 0.7 * side


@pytest.mark.parametrize("how", [(1.0, 1.0, 0, 0), (1.15, 1.05, 8, -10), (0.85, 0.95, -12, 6), (1.2, 1.3, 15, 15)])
def test_known_scale_and_shift_come_back(chest: np.ndarray, how: tuple[float, float, float, float]):
    scale_y, scale_x, shift_y, shift_x = how
    reference, target = view_of(chest), view_of(warped(chest, *how))
    alignment = ReferenceStack([reference]).align(target)
    half = chest.shape[0] / 2
    x1, y1, x2, y2 = central(chest)
    want = (
        (x1 - half) * scale_x + half + shift_x, (y1 - half) * scale_y + half + shift_y,
        (x2 - half) * scale_x + half + shift_x, (y2 - half) * scale_y + half + shift_y,
    )  # fmt: skip
    found = target.to_native(alignment.box(0, reference.from_native((x1, y1, x2, y2))))
    assert found == pytest.approx(want, abs=3.0)
    assert alignment.scores[0] > 0.9
    assert not alignment.inverted


def test_negative_is_compared_as_one(chest: np.ndarray, small_pool):
    stack = ReferenceStack([view_of(r.image) for r in small_pool])
    plain, negative = stack.align(view_of(chest)), stack.align(view_of(255 - chest))
    assert not plain.inverted
    assert negative.inverted
    np.testing.assert_allclose(negative.scores, plain.scores, atol=0.02)


def test_windowing_and_depth_hardly_matter(chest: np.ndarray):
    deep = (chest.astype(np.float64) / 255) ** 1.7 * 4000 + 90
    np.testing.assert_allclose(view_of(deep).contrast, view_of(chest).contrast, atol=0.3)
    assert np.abs(view_of(deep).contrast - view_of(chest).contrast).mean() < 0.03


@pytest.mark.parametrize("shade", [0, 255, 30])
def test_borders_are_trimmed(chest: np.ndarray, shade: int):
    height, width = chest.shape
    framed = np.full((height + 40, width + 90), shade, np.uint8)
    framed[10 : 10 + height, 60 : 60 + width] = chest
    framed[3:8, 70:80] = 200  # a marker in the border
    view = view_of(framed)
    inner = view.from_native((60, 10, 60 + width, 10 + height))
    assert inner == pytest.approx((0, 0, SIDE, SIDE), abs=3.0)
    assert view.to_native((0, 0, SIDE, SIDE))[0] >= 50


def test_view_boxes_there_and_back():
    rng = np.random.default_rng(0)
    view = view_of(rng.integers(0, 255, (300, 500)).astype(np.uint8))
    box = (100.0, 50.0, 400.0, 250.0)
    assert view.to_native(view.from_native(box)) == pytest.approx(box)
    region = np.zeros((300, 500), np.float32)
    region[50:250, 100:400] = 1
    placed = view.region(region)
    x1, y1, x2, y2 = view.from_native(box)
    np.testing.assert_allclose(placed.sum(), (x2 - x1) * (y2 - y1), rtol=0.02)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank_views_are_finite(value: int, small_pool):
    view = view_of(np.full((60, 80), value, np.uint8))
    assert np.abs(view.contrast).max() == 0
    alignment = ReferenceStack([view_of(r.image) for r in small_pool]).align(view)
    assert np.isfinite(alignment.maps).all()
    assert np.isfinite(alignment.scores).all()


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((0, 3)), np.array([[np.inf, 0.0]])])
def test_what_is_not_a_radiograph(image: np.ndarray):
    with pytest.raises(ImageError):
        view_of(image)


def test_sample_is_bilinear_and_zero_outside():
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    still = np.array([[[1.0, 0, 0], [0, 1, 0]]])
    np.testing.assert_allclose(sample(image, still, 4)[0, ..., 0], image[0, ..., 0])
    half = np.array([[[1.0, 0, 0.5], [0, 1, 0]]])
    np.testing.assert_allclose(sample(image, half, 4)[0, 0, :, 0], image[0, :2, :, 0].mean(0))
    away = np.array([[[1.0, 0, 40], [0, 1, 0]]])
    assert sample(image, away, 4).max() == 0


def test_shrink_averages():
    np.testing.assert_allclose(shrink(np.arange(4.0)[None].repeat(4, 0), 2), [[0.5, 2.5], [0.5, 2.5]])
