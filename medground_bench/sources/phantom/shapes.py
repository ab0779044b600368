"""Small soft shapes on a pixel grid: the pencils the phantom is drawn with. All edges have compact support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Field", "Grid", "Mask", "resize_field", "smooth_row", "step"]

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Array = NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """Pixel centres of an image in the anatomical plane.

    Attributes
    ----------
    width, height : int
        Pixels.
    x : array, shape (1, W)
        Abscissae of the pixel centres in plane units.
    y : array, shape (H, 1)
        Ordinates.
    unit : float
        Pixels in one plane unit.
    centre : (float, float)
        Point of the plane in the middle of the image.
    """

    width: int
    height: int
    x: Field
    y: Field
    unit: float
    centre: tuple[float, float]

    @classmethod
    def of(cls, width: int, height: int, unit: float, centre: tuple[float, float]) -> Grid:
        """Grid of a ``width`` x ``height`` image of which one plane unit takes ``unit`` pixels."""
        x = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) / unit + centre[0]
        y = ((np.arange(height, dtype=np.float32) + 0.5) - height / 2) / unit + centre[1]
        return cls(width, height, x[None, :].astype(np.float32), y[:, None].astype(np.float32), unit, centre)

    def pixels(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Point of the planes -> column and row, continuous (a pixel's centre is at half)."""
        return (x - self.centre[0]) * self.unit + self.width / 2, (y - self.centre[1]) * self.unit + self.height / 2

    def window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
        """Rows and columns that hold the rectangle given in plane units (empty slices where it is outside)."""
        columns, lines = self.pixels(np.array([x0, x1]), np.array([y0, y1]))
        (c0, c1), (r0, r1) = np.floor(columns).astype(int), np.floor(lines).astype(int)
        rows = slice(int(np.clip(r0 - 1, 0, self.height)), int(np.clip(r1 + 2, 0, self.height)))
        cols = slice(int(np.clip(c0 - 1, 0, self.width)), int(np.clip(c1 + 2, 0, self.width)))
        return rows, cols

    def zeros(self) -> Field:
        return np.zeros((self.height, self.width), np.float32)


def step(value: Field, edge: float) -> Field:
    """Smooth step: 0 below ``-edge``, 1 above ``+edge``, 0.5 at 0."""
    t = np.clip(value * np.float32(0.5 / edge) + np.float32(0.5), 0.0, 1.0)
    return t * t * (np.float32(3.0) - np.float32(2.0) * t)


def resize_field(field: Field, width: int, height: int) -> Field:
    """Bicubic resize of a smooth field computed at low resolution."""
    if field.shape == (height, width):
        return field
    return np.array(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC), np.float32)


def smooth_row(line: Field, radius: int) -> Field:
    """Running mean of a (1, W) line."""
    from scipy.ndimage import uniform_filter1d

    return np.asarray(uniform_filter1d(line.astype(np.float32), 2 * radius + 1, axis=1, mode="nearest"), np.float32)
