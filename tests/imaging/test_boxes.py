"""Boxes: areas of unions against shapely and a raster, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box as shape
from shapely.ops import unary_union

from medground_bench.core.errors import GeometryError
from medground_bench.imaging import (
    as_boxes,
    box_areas,
    clip_boxes,
    intersection_area,
    mask_box,
    scale_boxes,
    union_area,
    union_box,
    valid_boxes,
    whole_image,
)

GRID = 24


def boxes_of(numbers: bytes) -> list[tuple[int, ...]]:
    """Up to seven boxes with whole corners, some of them reversed or empty."""
    corners = [n % (GRID + 1) for n in numbers]
    return [tuple(corners[k : k + 4]) for k in range(0, len(corners) - 3, 4)]


whole_boxes = st.binary(max_size=28).map(boxes_of)  # bytes are much cheaper to draw than lists of tuples
real_boxes = st.lists(st.tuples(*[st.floats(-500, 3000, allow_nan=False, width=32)] * 4), max_size=6)


def raster(boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    mask = np.zeros((GRID, GRID), bool)
    for x1, y1, x2, y2 in boxes:
        if x2 > x1 and y2 > y1:
            mask[y1:y2, x1:x2] = True
    return mask


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(whole_boxes, whole_boxes)
def test_areas_are_those_of_a_raster(first: list, second: list) -> None:
    assert union_area(first) == raster(first).sum()
    assert intersection_area(first, second) == (raster(first) & raster(second)).sum()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(real_boxes, real_boxes)
def test_areas_are_those_of_shapely(first: list, second: list) -> None:
    a, b = (unary_union([shape(*box) for box in valid_boxes(side)]) for side in (first, second))
    assert union_area(first) == pytest.approx(a.area, rel=1e-9, abs=1e-6)
    assert intersection_area(first, second) == pytest.approx(a.intersection(b).area, rel=1e-9, abs=1e-5)


def test_reversed_and_empty_boxes_have_no_area() -> None:
    boxes = [[5, 5, 1, 9], [0, 0, 0, 9], [2, 2, 4, 5]]
    assert valid_boxes(boxes).tolist() == [[2, 2, 4, 5]]
    assert box_areas(boxes).tolist() == [0, 0, 6]
    assert union_area(boxes) == 6
    assert union_area([]) == 0
    assert union_box([]) is None
    assert union_box([[5, 6, 7, 8], [1, 2, 3, 4], [9, 9, 0, 0]]) == (1, 2, 7, 8)


@pytest.mark.parametrize("bad", [[[1, 2, 3]], [[1, 2, 3, "a"]], [1, 2, 3, 4], [[[1, 2, 3, 4]]], [[1, 2], [1, 2, 3, 4]]])
def test_what_is_not_a_list_of_boxes_is_refused(bad: list) -> None:
    with pytest.raises(GeometryError):
        as_boxes(bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_position(value: float) -> None:
    with pytest.raises(GeometryError, match="box 1 is not finite"):
        as_boxes([[0, 0, 1, 1], [0, 0, 1, value]])


def test_clipping_drops_what_is_outside() -> None:
    boxes = [[-5, 2, 3, 4], [8, 8, 20, 30], [12, 0, 14, 2]]
    assert clip_boxes(boxes, 10, 12).tolist() == [[0, 2, 3, 4], [8, 8, 10, 12]]
    assert whole_image(10, 12) == (0, 0, 10, 12)


def test_scaling_keeps_the_centre() -> None:
    assert scale_boxes([[10, 20, 20, 40]], 2).tolist() == [[5, 10, 25, 50]]
    assert scale_boxes([[10, 20, 20, 40]], (1, 0.5)).tolist() == [[10, 25, 20, 35]]


def test_a_masks_box_is_half_open() -> None:
    mask = np.zeros((6, 9), bool)
    mask[2:4, 3:8] = True
    assert mask_box(mask) == (3, 2, 8, 4)
    assert mask_box(np.zeros((3, 3), bool)) is None
    with pytest.raises(GeometryError):
        mask_box(np.zeros((2, 2, 2)))
