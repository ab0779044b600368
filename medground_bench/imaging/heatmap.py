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
    flat = values.ravel()
    kept = flat >= _least_kept(flat, quantile, int(np.count_nonzero(flat == low)) if ignore_zeros else 0)

    from scipy import ndimage

    structure = np.ones((3, 3), bool) if connectivity == 8 else None
    labels, count = ndimage.label(kept.reshape(values.shape), structure)
    where = np.flatnonzero(kept)
    component = labels.ravel()[where]
    area = np.bincount(component, minlength=count + 1)
    heat = np.bincount(component, flat[where].astype(np.float64) - float(low), minlength=count + 1)
    large = np.flatnonzero(area >= min_area)
    large = large[large > 0]
    ranked = large[np.argsort(-heat[large] / area[large], kind="stable")][:max_boxes]
    places = ndimage.find_objects(labels)
    return [
        [float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)]
        for rows, columns in (places[k - 1] for k in ranked)
    ]


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
