"""Boxes ``(x1, y1, x2, y2)``: float, half-open, as arrays of shape (n, 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from medground_bench.core.errors import GeometryError
from medground_bench.core.schema import Box

__all__ = [
    "as_boxes",
    "box_areas",
    "clip_boxes",
    "intersection_area",
    "mask_box",
    "scale_boxes",
    "union_area",
    "union_box",
    "valid_boxes",
    "whole_image",
]

Boxes = Iterable[Sequence[float]] | np.ndarray


def as_boxes(boxes: Boxes) -> np.ndarray:
    """Boxes as a float64 array of shape (n, 4); an empty list has shape (0, 4).

    Raises
    ------
    GeometryError
        If a box does not have four numbers, or one of them is not finite.
    """
    boxes = boxes if isinstance(boxes, np.ndarray) else list(boxes)
    try:
        array = np.asarray(boxes, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise GeometryError("boxes are not a list of four numbers each", expected="[[x1, y1, x2, y2], ...]") from error
    if array.size == 0 and array.ndim <= 2:
        return np.empty((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise GeometryError(f"boxes have shape {array.shape}", expected="[[x1, y1, x2, y2], ...]: shape (n, 4)")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise GeometryError(f"box {int(np.argmax(bad))} is not finite: {array[np.argmax(bad)].tolist()}")
    return array


def valid_boxes(boxes: Boxes) -> np.ndarray:
    """The boxes that have an area, (m, 4): reversed and zero-area ones are dropped (spec section 5).

    Raises
    ------
    GeometryError
        If a box does not have four finite numbers.
    """
    array = as_boxes(boxes)
    return array[(array[:, 2] > array[:, 0]) & (array[:, 3] > array[:, 1])]


def whole_image(width: float, height: float) -> Box:
    """The box of the whole image."""
    return (0.0, 0.0, float(width), float(height))


def box_areas(boxes: Boxes) -> np.ndarray:
    """Area of every box, (n,); 0 for reversed ones."""
    array = as_boxes(boxes)
    return np.maximum(array[:, 2] - array[:, 0], 0.0) * np.maximum(array[:, 3] - array[:, 1], 0.0)


def clip_boxes(boxes: Boxes, width: float, height: float) -> np.ndarray:
    """Boxes cut to an image of ``width`` x ``height`` pixels; what lies wholly outside is dropped."""
    array = as_boxes(boxes)
    limits = np.array([width, height, width, height], np.float64)
    return valid_boxes(np.clip(array, 0.0, limits))


def scale_boxes(boxes: Boxes, factor: float | tuple[float, float]) -> np.ndarray:
    """Boxes enlarged about their own centres by ``factor`` (one number, or one for x and one for y)."""
    array = as_boxes(boxes)
    fx, fy = (factor, factor) if np.isscalar(factor) else factor  # type: ignore[misc]
    half = (array[:, 2:] - array[:, :2]) / 2 * np.array([fx, fy], np.float64)
    centre = (array[:, 2:] + array[:, :2]) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def union_box(boxes: Boxes) -> Box | None:
    """The smallest box around all valid boxes, None when there is none."""
    array = valid_boxes(boxes)
    if not len(array):
        return None
    (x1, y1), (x2, y2) = array[:, :2].min(axis=0), array[:, 2:].max(axis=0)
    return (float(x1), float(y1), float(x2), float(y2))


def mask_box(mask: np.ndarray) -> Box | None:
    """The tight half-open box of a mask's true pixels, shape (height, width); None when it is empty."""
    mask = np.asarray(mask, bool)
    if mask.ndim != 2:
        raise GeometryError(f"a mask of shape {mask.shape}", expected="shape (height, width)")
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return (float(cols[0]), float(rows[0]), float(cols[-1] + 1), float(rows[-1] + 1))


def union_area(boxes: Boxes) -> float:
    """Exact area of the union of boxes, in square pixels, by coordinate compression (no raster)."""
    array = valid_boxes(boxes)
    return _covered(array, np.unique(array[:, [0, 2]]), np.unique(array[:, [1, 3]]))[1]


def intersection_area(first: Boxes, second: Boxes) -> float:
    """Exact area common to the union of ``first`` and the union of ``second``, in square pixels."""
    a, b = valid_boxes(first), valid_boxes(second)
    both = np.concatenate([a, b])
    xs, ys = np.unique(both[:, [0, 2]]), np.unique(both[:, [1, 3]])
    cells = _covered(a, xs, ys)[0] & _covered(b, xs, ys)[0]
    return float(np.diff(ys) @ cells @ np.diff(xs)) if cells.size else 0.0


def _covered(boxes: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, float]:
    """Which cells of the grid of box edges the boxes cover, (len(ys) - 1, len(xs) - 1), and their area."""
    cells = np.zeros((max(len(ys) - 1, 0), max(len(xs) - 1, 0)), bool)
    left, right = np.searchsorted(xs, boxes[:, 0]), np.searchsorted(xs, boxes[:, 2])
    top, bottom = np.searchsorted(ys, boxes[:, 1]), np.searchsorted(ys, boxes[:, 3])
    for t, b, lo, hi in zip(top, bottom, left, right, strict=True):
        cells[t:b, lo:hi] = True
    return cells, float(np.diff(ys) @ cells @ np.diff(xs)) if cells.size else 0.0
