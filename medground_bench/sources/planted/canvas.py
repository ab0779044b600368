"""A radiograph as attenuation, and windows of it at native resolution.

A display value is taken for the film's logistic response to log exposure (the Hurter-Driffield curve), so that
attenuation is its logit. What is drawn is added there: ribs and vessels stay visible through an opacity, and dense
regions saturate as they do on film.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medground_bench.core.errors import SourceError
from medground_bench.sources.planted.anatomy import SIDES, CanvasAnatomy, Field

__all__ = ["CONFIDENCE", "VISIBLE", "Canvas", "Window", "attenuation", "display"]

VISIBLE = 2
"""Grey levels from which a change counts as visible."""

CONFIDENCE = 0.58
"""Least confidence of the localiser: an upside-down chest reaches 0.56, one in twenty real chests less than 0.60."""

_AERATED = 0.4  # attenuation by which aerated lung lies below the heart
_AERATED_SHARE = 0.6

_LEVELS = (np.arange(256, dtype=np.float64) + 2.0) / 260.0
_DEPTH = np.log(_LEVELS / (1.0 - _LEVELS)).astype(np.float32)


def attenuation(pixels: NDArray[np.uint8]) -> Field:
    """Grey levels -> attenuation."""
    return _DEPTH[pixels]


def display(depth: Field) -> NDArray[np.uint8]:
    """Attenuation -> grey levels: the inverse of :func:`attenuation`."""
    share = np.float32(1.0) / (np.float32(1.0) + np.exp(-depth))
    return np.clip(np.rint(share * np.float32(260.0) - np.float32(2.0)), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Window:
    """A rectangle of native pixels, with the geometry's coordinates of their centres.

    Attributes
    ----------
    rows, columns : slice
        Native pixels.
    y, x : float array, shapes (h, 1) and (1, w)
        Their centres on the geometry's grid.
    scale : tuple of float
        Cells of the geometry per native pixel, (across, down).
    """

    rows: slice
    columns: slice
    y: Field
    x: Field
    scale: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def sample(self, field: NDArray[np.generic]) -> Field:
        """A field on the geometry's grid, interpolated at the window's pixels."""
        (sx, sy), (h, w) = self.scale, field.shape
        box = (self.columns.start * sx, self.rows.start * sy, self.columns.stop * sx, self.rows.stop * sy)
        inside = (box[0], box[1], min(box[2], float(w)), min(box[3], float(h)))
        image = Image.fromarray(np.asarray(field, np.float32))
        height, width = self.shape
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=inside))

    def rows_of(self, values: Field) -> Field:
        """A value per row of the geometry's grid, interpolated at the window's rows, shape (h, 1)."""
        return np.interp(self.y[:, 0] - 0.5, np.arange(len(values)), values).astype(np.float32)[:, None]

    def noise(self, rng: np.random.Generator, cell: float) -> Field:
        """Smooth noise of unit variance whose grains are about ``cell`` cells of the geometry wide."""
        height, width = self.shape
        grid = (
            int(np.clip(height * self.scale[1] / cell, 2, 256)) + 1,
            int(np.clip(width * self.scale[0] / cell, 2, 256)) + 1,
        )
        white = Image.fromarray(rng.standard_normal(grid).astype(np.float32))
        return np.asarray(white.resize((width, height), Image.Resampling.BICUBIC)) * np.float32(1.35)


class Canvas:
    """A radiograph to draw on.

    Parameters
    ----------
    pixels : uint8 array, shape (H, W)
        Grey, dense tissue bright.
    anatomy : CanvasAnatomy
        Of this radiograph, at any resolution.

    Raises
    ------
    SourceError
        If the pixels are not such an array or the anatomy has another aspect ratio.
    """

    def __init__(self, pixels: NDArray[np.uint8], anatomy: CanvasAnatomy) -> None:
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
            what = (
                f"{pixels.dtype} of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
            )
            raise SourceError(f"a canvas is {what}", expected="a uint8 array of shape (height, width)")
        height, width = pixels.shape
        if abs(width / height / anatomy.aspect - 1.0) > 0.02:
            raise SourceError(
                f"the canvas is {width}x{height}, its anatomy {anatomy.aspect:.3f} times as wide as high",
                expected="the anatomy of this radiograph",
            )
        self.pixels = pixels
        self.anatomy = anatomy
        self.scale = (anatomy.shape[1] / width, anatomy.shape[0] / height)

    @cached_property
    def coarse(self) -> Field:
        """Attenuation on the geometry's grid."""
        rows, columns = self.anatomy.shape
        small = Image.fromarray(self.pixels).resize((columns, rows), Image.Resampling.BOX)
        return attenuation(np.asarray(small))

    @cached_property
    def smooth(self) -> Field:
        """Attenuation without ribs and vessels, on the geometry's grid."""
        return ndimage.gaussian_filter(self.coarse, 0.035 * self.anatomy.width)

    @cached_property
    def lung_level(self) -> float:
        """Attenuation of aerated lung."""
        deep = (self.anatomy.depth[0] > 4) | (self.anatomy.depth[1] > 4)
        return float(np.median(self.coarse[deep] if deep.any() else self.coarse))

    @cached_property
    def soft_level(self) -> float:
        """Attenuation of the heart."""
        return float(np.median(self.coarse[self.anatomy.masks["cardiac silhouette"]]))

    @property
    def contrast(self) -> float:
        """How far soft tissue stands out from lung, within the range in which it can be drawn."""
        return float(np.clip(self.soft_level - self.lung_level, 0.8, 2.6))

    def refusal(self) -> str | None:
        """Why nothing can be planted on this image, None when something can.

        The image must look like a frontal chest radiograph on which both lungs are found with confidence and are
        aerated: what is planted in a dense lung is not seen.
        """
        if problem := self.anatomy.implausible():
            return f"the lungs were not found with confidence: {problem}"
        if self.anatomy.confidence < CONFIDENCE:
            return (
                "the lungs were not found with confidence: the image correlates with no reference radiograph "
                f"({self.anatomy.confidence:.2f}, at least {CONFIDENCE} is asked for)"
            )
        for side, depth in zip(SIDES, self.anatomy.depth, strict=True):
            deep = depth > 3
            aerated = float((self.coarse[deep] < self.soft_level - _AERATED).mean()) if deep.any() else 0.0
            if aerated < _AERATED_SHARE:
                return (
                    f"only {aerated:.0%} of the {side} lung is darker than the heart: it is not aerated, or not found"
                )
        return None

    def window(self, x1: float, y1: float, x2: float, y2: float) -> Window:
        """Native pixels whose centres lie in a box of the geometry's grid; at least one pixel."""
        (sx, sy), (height, width) = self.scale, self.pixels.shape
        c1, c2 = int(np.clip(np.floor(x1 / sx), 0, width - 1)), int(np.clip(np.ceil(x2 / sx), 1, width))
        r1, r2 = int(np.clip(np.floor(y1 / sy), 0, height - 1)), int(np.clip(np.ceil(y2 / sy), 1, height))
        c2, r2 = max(c2, c1 + 1), max(r2, r1 + 1)
        y = ((np.arange(r1, r2) + 0.5) * sy).astype(np.float32)[:, None]
        x = ((np.arange(c1, c2) + 0.5) * sx).astype(np.float32)[None, :]
        return Window(slice(r1, r2), slice(c1, c2), y, x, self.scale)

    def depth(self, window: Window) -> Field:
        """Attenuation of a window at native resolution."""
        return attenuation(self.pixels[window.rows, window.columns])
