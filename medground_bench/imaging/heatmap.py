"""From heat map to boxes: the protocol that all saliency methods share (paper, section 3.2; spec section 5)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medground_bench.core.errors import GeometryError

__all__ = ["heatmap_to_boxes", "is_degenerate", "resize_heatmap"]


def heatmap_to_boxes(
    heatmap: np.ndarray,
    *,
    quantile: float = 0.9,
    min_area: int = 16,
    max_boxes: int = 10,
    connectivity: int = 8,
    ignore_zeros: bool = True,
) -> list[list[float]]:
    """Boxes around the hottest regions of a heat map, ranked by mean heat.

    The map is min-max normalised; the threshold is the ``quantile`` of its values (of those above 0 with
    ``ignore_zeros``), linearly interpolated; values at or above it are kept; connected components of at least
    ``min_area`` pixels are ranked by their mean value, ties in raster order. The defaults are the paper's.

    Parameters
    ----------
    heatmap : ndarray, shape (height, width)
        Real values of any scale and resolution, native-size maps included.
    quantile : float
        Quantile of the threshold, 0 to 1.
    min_area : int
        Least number of pixels of a component.
    max_boxes : int
        Greatest number of boxes.
    connectivity : {8, 4}
        Whether pixels that touch at a corner belong together.
    ignore_zeros : bool
        Leave the normalised zeros, that is the pixels at the map's minimum, out of the quantile. They are where
        a method has no opinion (padding, rectified gradients) and would otherwise pull the threshold down.

    Returns
    -------
    list of [x1, y1, x2, y2]
        Half-open, in pixels of the map. Empty when no component is large enough. A degenerate map (constant,
        zero or with a value that is not finite) names no evidence: it gives the whole map (see
        :func:`is_degenerate`).

    Raises
    ------
    GeometryError
        If the map is not a 2-D array of real numbers with at least one pixel, or an option is out of range.
    """
    values = _as_map(heatmap)
    if not 0.0 <= quantile <= 1.0:
        raise GeometryError(f"quantile {quantile} is out of range", expected="0 to 1")
    if connectivity not in (4, 8):
        raise GeometryError(f"connectivity {connectivity} does not exist", expected="4 or 8")
    if min_area < 1 or max_boxes < 1:
        raise GeometryError("min_area and max_boxes must be at least 1")
    height, width = values.shape
    low, high = values.min(), values.max()
    if not _spread(low, high):
        return [[0.0, 0.0, float(width), float(height)]]

    # Normalisation is affine and increasing: it moves neither the order of the values nor which of them are
    # kept, so it is left out, and with it a rounding that depends on the map's scale.
    kept = values >= _least_kept(values.ravel(), quantile, int(np.count_nonzero(values == low)) if ignore_zeros else 0)
    row, left, right, component = _runs(kept, corners=connectivity == 8)
    area = np.bincount(component, right - left)
    heat = np.bincount(np.repeat(component, right - left), values[kept].astype(np.float64) - float(low))
    large = np.flatnonzero(area >= min_area)
    ranked = large[np.argsort(-heat[large] / area[large], kind="stable")][:max_boxes]
    x1, x2, y2 = left.copy(), right.copy(), row.copy()
    np.minimum.at(x1, component, left)
    np.maximum.at(x2, component, right)
    np.maximum.at(y2, component, row)
    boxes: list[list[float]] = np.stack([x1, row, x2, y2 + 1], 1)[ranked].astype(float).tolist()
    return boxes


def _runs(kept: np.ndarray, *, corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Kept pixels as runs along the rows: row, first column, last column + 1, and the first run of their component.

    Runs are in raster order and far fewer than pixels, so joining them costs less than labelling pixels.
    """
    height, width = kept.shape
    stride = width + 1  # one pixel that is not kept after every row, so that no run goes on in the next one
    line = np.zeros(height * stride + 1, bool)
    line[1:].reshape(height, stride)[:, :width] = kept
    edges = np.flatnonzero(line[1:] != line[:-1])
    start, end = edges[::2], edges[1::2]
    # Those in the row below that touch a run are neighbours of one another.
    first = np.searchsorted(end, start + stride, "left" if corners else "right")
    count = np.searchsorted(start, end + stride, "right" if corners else "left") - first
    above = np.repeat(np.arange(len(start)), count)
    below = np.arange(len(above)) + np.repeat(first - np.cumsum(count) + count, count)
    root = np.arange(len(start))
    while ((one := root[above]) != (two := root[below])).any():
        np.minimum.at(root, np.maximum(one, two), np.minimum(one, two))
        while ((further := root[root]) != root).any():
            root = further
    row, left = np.divmod(start, stride)
    return row, left, left + end - start, root


def is_degenerate(heatmap: np.ndarray) -> bool:
    """Whether a heat map names no evidence: constant, zero, or with a value that is not finite.

    Raises
    ------
    GeometryError
        If it is not a 2-D array of real numbers with at least one pixel.
    """
    values = _as_map(heatmap)
    return not _spread(values.min(), values.max())


def resize_heatmap(heatmap: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A heat map at another resolution, bilinear (averaging when it shrinks).

    Parameters
    ----------
    heatmap : ndarray, shape (h, w)
        Real values; cell (i, j) covers its share of the frame, so that cell centres are interpolated.
    size : (height, width)
        New shape, in pixels.

    Returns
    -------
    ndarray, shape (height, width), float32
        float64 where the values' scale does not fit float32.

    Raises
    ------
    GeometryError
        If the map is not a 2-D array of real numbers, or the size is not positive.
    """
    from PIL import Image

    values = _as_map(heatmap)
    height, width = int(size[0]), int(size[1])
    if height < 1 or width < 1:
        raise GeometryError(f"cannot resize a heat map to {width}x{height}: sizes must be at least 1 pixel")
    peak = float(np.abs(values.astype(np.float64)).max())
    # Gradients can be smaller than float32 can hold; a power of two brings them back without rounding.
    extreme = math.isfinite(peak) and peak > 0 and not 1e-30 < peak < 1e30
    exponent = math.frexp(peak)[1] if extreme else 0
    small = np.ldexp(values.astype(np.float64), -exponent) if extreme else values
    image = Image.fromarray(np.ascontiguousarray(small, np.float32))
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    return np.ldexp(resized.astype(np.float64), exponent) if extreme else resized


def _as_map(heatmap: np.ndarray) -> np.ndarray:
    try:
        values = np.asarray(heatmap)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GeometryError(f"the heat map is not an array: {error}", expected="a 2-D array of numbers") from error
    if values.dtype == bool:
        values = values.view(np.uint8)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "fiu":
        raise GeometryError(
            f"a heat map of shape {values.shape} and type {values.dtype}",
            expected="a 2-D array of real numbers with at least one pixel",
        )
    return values


def _spread(low: Any, high: Any) -> bool:
    """Whether the extremes are finite and differ (a NaN anywhere makes both NaN)."""
    return bool(np.isfinite(low) and np.isfinite(high) and high > low)


def _least_kept(values: np.ndarray, quantile: float, lowest: int) -> Any:
    """The smallest value at or above the linearly interpolated quantile of all but the ``lowest`` smallest values.

    Keeping what is at or above it is the same as keeping what is at or above the threshold itself, but exact
    in the map's own precision (NumPy's quantile of float32 values also rounds the position to float32, which
    for maps of native size is a wrong pixel).
    """
    position = (len(values) - lowest - 1) * float(quantile)
    nearest = round(position)
    if math.isclose(position, nearest, rel_tol=1e-12):  # 0.7 of 10 steps is step 7, not just above or below
        position = nearest
    place = lowest + math.ceil(position)
    return np.partition(values, place)[place]
