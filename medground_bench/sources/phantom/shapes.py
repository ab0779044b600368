"""Small soft shapes on a pixel grid: the pencils the phantom is drawn with. All edges have compact support."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Field", "Grid", "Mask", "resize_field", "smooth_row", "step"]

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """Pixel centres of an image in the anatomical frame.

    Attributes
    ----------
    width, height : int
        Pixels.
    x : array, shape (1, W)
        Abscissae in shorter sides, 0 on the vertical axis.
    y : array, shape (H, 1)
        Ordinates in shorter sides, 0 at the top of the central square.
    """

    width: int
    height: int
    x: Field
    y: Field

    @classmethod
    def of(cls, width: int, height: int, scale: float | None = None) -> Grid:
        """Grid of a ``width`` x ``height`` image; ``scale`` is the pixels of one frame unit (default: shorter side)."""
        unit = scale if scale is not None else float(min(width, height))
        x = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) / unit
        y = ((np.arange(height, dtype=np.float32) + 0.5) - height / 2) / unit + 0.5
        return cls(width, height, x[None, :].astype(np.float32), y[:, None].astype(np.float32))

    @property
    def unit(self) -> float:
        """Pixels in one unit of the frame."""
        return float(1.0 / (self.x[0, 1] - self.x[0, 0]))

    def window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
        """Rows and columns that hold the rectangle given in frame units (empty slices where it is outside)."""
        unit = self.unit
        c0, c1 = (int(np.floor(v * unit + self.width / 2)) for v in (x0, x1))
        r0, r1 = (int(np.floor((v - 0.5) * unit + self.height / 2)) for v in (y0, y1))
        rows = slice(min(max(r0 - 1, 0), self.height), min(max(r1 + 2, 0), self.height))
        cols = slice(min(max(c0 - 1, 0), self.width), min(max(c1 + 2, 0), self.width))
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
