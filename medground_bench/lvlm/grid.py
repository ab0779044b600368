"""Where the image tokens lie in the frame: the only converter between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medground_bench.core.errors import GeometryError
from medground_bench.core.schema import Box

__all__ = ["TokenGrid"]


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """A row-major grid of image tokens over the frame.

    Token ``i`` is the ``i``-th image token of the sequence, in reading order: row ``i // cols``, column
    ``i % cols``. The LVLM's own processor may resize the frame before it cuts patches; cells are given in
    pixels of the frame, so they can have fractional edges.

    Attributes
    ----------
    rows, cols : int
        Tokens down and across.
    frame_size : tuple of int
        ``(width, height)`` of the frame in pixels.
    """

    rows: int
    cols: int
    frame_size: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.rows, self.cols, *self.frame_size) < 1:
            raise GeometryError(f"a grid of {self.rows}x{self.cols} tokens over {self.frame_size} pixels has no cells")

    def __len__(self) -> int:
        return self.rows * self.cols

    @property
    def cell_size(self) -> tuple[float, float]:
        """``(width, height)`` of a cell in frame pixels."""
        return self.frame_size[0] / self.cols, self.frame_size[1] / self.rows

    def cell_box(self, index: int) -> Box:
        """Frame pixels of token ``index``: ``(x1, y1, x2, y2)``, half-open.

        Raises
        ------
        GeometryError
            If there is no such token.
        """
        if not 0 <= index < len(self):
            raise GeometryError(f"there is no image token {index}: the grid has {self.rows}x{self.cols}")
        row, col = divmod(int(index), self.cols)
        w, h = self.frame_size
        return (
            col * w / self.cols,
            row * h / self.rows,
            (col + 1) * w / self.cols,
            (row + 1) * h / self.rows,
        )

    def token_at(self, x: float, y: float) -> int:
        """Index of the token whose cell holds the frame point ``(x, y)``.

        Raises
        ------
        GeometryError
            If the point lies outside the frame.
        """
        w, h = self.frame_size
        if not (0 <= x < w and 0 <= y < h):
            raise GeometryError(f"({x}, {y}) lies outside the {w}x{h} frame")
        return int(y * self.rows / h) * self.cols + int(x * self.cols / w)

    def as_map(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Values of the tokens -> (rows, cols) float32 map.

        Raises
        ------
        GeometryError
            If there is not one value per token.
        """
        array = np.asarray(values, np.float32)
        if array.shape not in ((len(self),), (self.rows, self.cols)):
            raise GeometryError(f"values of shape {array.shape} do not fit {self.rows}x{self.cols} image tokens")
        return array.reshape(self.rows, self.cols)

    def to_frame(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Values of the tokens -> (height, width) float32 map over the frame, constant within a cell.

        A pixel takes the value of the token whose cell holds its centre.

        Raises
        ------
        GeometryError
            If there is not one value per token.
        """
        grid = self.as_map(values)
        w, h = self.frame_size
        ys = ((np.arange(h) + 0.5) * self.rows / h).astype(int)
        xs = ((np.arange(w) + 0.5) * self.cols / w).astype(int)
        return grid[np.ix_(ys, xs)]

    def from_frame(self, values: np.ndarray) -> np.ndarray:
        """A (height, width) map over the frame -> its mean in each cell, (rows * cols,) float32.

        Pixels cut by a cell's edge count by their share of area.

        Raises
        ------
        GeometryError
            If the map does not have the frame's size.
        """
        w, h = self.frame_size
        array = np.asarray(values, np.float64)
        if array.shape != (h, w):
            raise GeometryError(f"a map of shape {array.shape} does not fit a frame of {w}x{h} pixels")
        means = _overlap(self.rows, h) @ array @ _overlap(self.cols, w).T
        return means.reshape(-1).astype(np.float32)


def _overlap(cells: int, pixels: int) -> np.ndarray:
    """(cells, pixels) share of each cell's length that each pixel covers; rows add up to 1."""
    edges = np.arange(cells + 1) * pixels / cells
    starts = np.arange(pixels)
    cover = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.clip(cover, 0.0, None) * cells / pixels
