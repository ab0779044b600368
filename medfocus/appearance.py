"""What two radiographs are compared by: a working view around the exposed field, and its local contrast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from medground_bench.core.errors import ImageError
from medground_bench.core.schema import Box
from medground_bench.imaging.letterbox import Letterbox

__all__ = ["SIDE", "View", "as_uint8", "local_contrast", "shrink", "view_of"]

SIDE = 112
"""Side of the working view in pixels; registration runs on 28 and 56 cells, transport on 56."""

_SPREAD = 0.12  # of the view: the scale beyond which brightness differences are ignored
_FLOOR = 0.05  # equalised contrast below which a neighbourhood counts as flat
_BORDER_RANGE = 12  # grey levels within which a border row still counts as empty (JPEG noise)
_MAX_TRIM = 0.4


@dataclass(frozen=True, eq=False)
class View:
    """A radiograph in the working view.

    Attributes
    ----------
    contrast : ndarray, (SIDE, SIDE) float32
        Local contrast, about -2 ... 2, 0 outside the content.
    valid : ndarray, (SIDE, SIDE) float32
        1 on the content, 0 on the padding.
    offset : tuple of int
        Native position (x, y) of the trimmed content.
    letterbox : Letterbox
        Trimmed content <-> working view.
    """

    contrast: np.ndarray
    valid: np.ndarray
    offset: tuple[int, int]
    letterbox: Letterbox

    def to_native(self, box: Box) -> Box:
        """working-view box -> native box, cut to the content."""
        x1, y1, x2, y2 = self.letterbox.to_native([box], clip=False)[0]
        width, height = self.letterbox.width, self.letterbox.height
        x1, x2 = (float(np.clip(v, 0, width)) + self.offset[0] for v in (x1, x2))
        y1, y2 = (float(np.clip(v, 0, height)) + self.offset[1] for v in (y1, y2))
        return x1, y1, x2, y2

    def from_native(self, box: Box) -> Box:
        """Native box -> working-view box."""
        x, y = self.offset
        return self.letterbox.to_frame([(box[0] - x, box[1] - y, box[2] - x, box[3] - y)])[0]

    def region(self, values: np.ndarray) -> np.ndarray:
        """A native (h, w) map -> its area average over the working view, (SIDE, SIDE) float32."""
        return _place(values, self.offset, self.letterbox)


def view_of(image: np.ndarray) -> View:
    """The working view of a grey radiograph.

    Empty borders (collimation, letterbox bars) are trimmed, the rest is scaled to the view, its histogram is
    equalised and the local mean and deviation are taken out, so that exposure, windowing and markers matter little.

    Parameters
    ----------
    image : ndarray, (h, w)
        Grey values, any scale.

    Raises
    ------
    ImageError
        If the array is not a grey image or holds non-finite values.
    """
    values = np.asarray(image)
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
        raise ImageError(f"an array of shape {values.shape} is not a grey radiograph", expected="finite, (h, w)")
    left, top, right, bottom = _content(values)
    offset = (left, top)
    letterbox = Letterbox.fit(right - left, bottom - top, SIDE)
    valid = _place(np.ones(values.shape, np.float32), offset, letterbox)
    grey = _place(values, offset, letterbox)
    contrast = local_contrast(_equalise(grey, valid > 0), valid)
    return View(contrast, valid, offset, letterbox)


def as_uint8(image: np.ndarray) -> np.ndarray:
    """8-bit grey; what is deeper is scaled by its extremes."""
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.rint((image - low) * scale).astype(np.uint8)


def shrink(values: np.ndarray, cells: int) -> np.ndarray:
    """(..., SIDE, SIDE) -> (..., cells, cells) block means."""
    step = values.shape[-1] // cells
    return values.reshape(*values.shape[:-2], cells, step, cells, step).mean((-3, -1))


def local_contrast(equalised: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Deviation from the Gaussian neighbourhood's mean in units of its spread; 0 off the valid cells."""
    kernel = _gaussian(len(valid))

    def blur(values: np.ndarray) -> np.ndarray:
        out: np.ndarray = kernel @ values @ kernel
        return out

    weight = blur(valid) + 1e-6
    deviation = (equalised - blur(equalised * valid) / weight) * valid
    spread = np.sqrt(blur(deviation * deviation) / weight)
    return (deviation / (spread + _FLOOR) * valid).astype(np.float32)


@cache
def _gaussian(side: int) -> np.ndarray:
    """Gaussian blur along one axis as a matrix, zero outside: the kernel is wide, so this is faster than a filter."""
    sigma = _SPREAD * side
    away = np.arange(side)[:, None] - np.arange(side)
    reach = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    weights = np.exp(-0.5 * (away / sigma) ** 2) * (np.abs(away) <= reach[-1])
    return (weights / np.exp(-0.5 * (reach / sigma) ** 2).sum()).astype(np.float32)


def _equalise(grey: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Each valid value -> the share of valid values below it (ties in the middle): free of any monotone windowing."""
    out = np.zeros(grey.shape, np.float32)
    if not valid.any():
        return out
    levels, inverse, counts = np.unique(np.round(grey[valid], 1), return_inverse=True, return_counts=True)
    if len(levels) > 1:
        out[valid] = ((np.cumsum(counts) - counts / 2) / counts.sum())[inverse.ravel()]
    return out


def _place(values: np.ndarray, offset: tuple[int, int], letterbox: Letterbox) -> np.ndarray:
    from PIL import Image

    x, y = offset
    part = np.asarray(values[y : y + letterbox.height, x : x + letterbox.width], np.float32)
    x1, y1, x2, y2 = letterbox.content
    shrinking = part.shape[0] > y2 - y1 or part.shape[1] > x2 - x1
    scaled = Image.fromarray(part).resize(
        (x2 - x1, y2 - y1), Image.Resampling.BOX if shrinking else Image.Resampling.BILINEAR
    )
    view = np.zeros((letterbox.frame_height, letterbox.frame_width), np.float32)
    view[y1:y2, x1:x2] = np.asarray(scaled, np.float32)
    return view


def _content(values: np.ndarray) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what lies inside rows and columns of one shade."""
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        values = ((values - low) * (255.0 / (high - low))) if high > low else np.zeros(values.shape)
    top, bottom = _trim(values)
    left, right = _trim(values[top:bottom].T)
    return left, top, right, bottom


def _trim(values: np.ndarray) -> tuple[int, int]:
    """First and last + 1 row that is more than one shade (98 % of its pixels, so that a marker does not count)."""
    low, high = np.percentile(values[:, :: max(1, values.shape[1] // 256)], (1, 99), axis=1)
    busy = np.flatnonzero(high - low > _BORDER_RANGE)
    size = len(values)
    if not len(busy):
        return 0, size
    first, last = int(busy[0]), int(busy[-1]) + 1
    # A cut this deep is not a border: the image is mostly flat, and guessing would lose anatomy.
    return (first if first <= _MAX_TRIM * size else 0), (last if last >= (1 - _MAX_TRIM) * size else size)
