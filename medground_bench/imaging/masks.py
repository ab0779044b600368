"""Exact outlines of findings, drawn into pixels when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["PolygonMask"]


@dataclass(frozen=True, slots=True)
class PolygonMask:
    """A closed polygon in native pixels.

    A pixel belongs to it if its centre lies inside (even-odd rule; where the outline crosses itself, what is enclosed
    twice is outside). Pixel (column x, row y) covers ``[x, x + 1) x [y, y + 1)``, as boxes do.

    Attributes
    ----------
    points : tuple of (x, y)
        Corners in order; the last is joined to the first.
    size : (width, height)
        Of the image.
    """

    points: tuple[tuple[float, float], ...]
    size: tuple[int, int]

    def raster(self) -> np.ndarray:
        """(H, W) bool array over the native image."""
        width, height = self.size
        out = np.zeros((height, width), bool)
        x0, y0 = np.asarray(self.points, float).T
        x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
        top, bottom = (int(np.clip(v, 0, height)) for v in (np.floor(y0.min()), np.ceil(y0.max())))
        # Every edge is crossed by the centre lines of some rows; at each crossing the rest of the row changes sides.
        centres = np.arange(top, bottom) + 0.5
        edge, row = np.nonzero((y0[:, None] <= centres) != (y1[:, None] <= centres))
        x = x0[edge] + (centres[row] - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
        column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        cells = (bottom - top) * (width + 1)
        changes = np.bincount(row * (width + 1) + column, minlength=cells).reshape(bottom - top, width + 1)
        out[top:bottom] = np.cumsum(changes, axis=1)[:, :width] & 1
        return out
