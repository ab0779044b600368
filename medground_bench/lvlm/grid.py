"""Where the image tokens lie in the frame: the only converter between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medground_bench.core.errors import GeometryError
from medground_bench.core.schema import Box

__all__ = ["TokenBoxes", "TokenGrid"]

_SAME = 0.25
"""Pixels within which two edges are one: what a measurement through a resizing processor is off by."""


@dataclass(frozen=True)
class TokenBoxes:
    """Image tokens as boxes of the frame, in the order of the sequence.

    Attributes
    ----------
    boxes : tuple of (Box or None)
        Half-open, in frame pixels; None for a token that sees nothing of the image. Boxes of tiles and of a thumbnail
        overlap.
    tiles : tuple of int
        For each token the number of the regular grid it belongs to; -1 where it sees nothing.
    frame_size : tuple of int
        ``(width, height)`` of the frame.
    """

    boxes: tuple[Box | None, ...]
    tiles: tuple[int, ...]
    frame_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    @cached_property
    def lattice(self) -> tuple[int, int] | None:
        """``(rows, columns)`` of the coarsest regular grid over the frame whose lines hold every edge of the boxes.

        Of tiles and their thumbnail it is the grid of the tiles. None where there is none, or none coarser than the
        pixels.
        """
        width, height = self.frame_size
        edges = np.array([box for box in self.boxes if box is not None], np.float64).reshape(-1, 4)
        rows, cols = _cells(edges[:, [1, 3]], height), _cells(edges[:, [0, 2]], width)
        return None if rows is None or cols is None else (rows, cols)

    @property
    def map_shape(self) -> tuple[int, int]:
        """Shape of :meth:`as_map`: the lattice, or (height, width) of the frame where there is none."""
        return self.lattice or self.frame_size[::-1]

    def cell_box(self, index: int) -> Box | None:
        """Frame pixels of token ``index``: ``(x1, y1, x2, y2)``, half-open; None for one that sees nothing.

        Raises
        ------
        GeometryError
            If there is no such token.
        """
        if not 0 <= index < len(self):
            raise GeometryError(f"there is no image token {index}: there are {len(self)}")
        return self.boxes[int(index)]

    def as_map(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Values of the tokens -> map of :attr:`map_shape` over the frame.

        A token's value is spread evenly over the cells of its box and what overlaps is added up; the scale is such that
        a single regular grid over the frame gives each cell its token's value. A map of that shape is given back.

        Raises
        ------
        GeometryError
            If there is not one value per token.
        """
        array = _floating(values)
        if array.shape == self.map_shape:
            return array
        if array.shape != (len(self),):
            raise GeometryError(f"values of shape {array.shape} do not fit {len(self)} image tokens")
        height, width = self.map_shape
        scale_x, scale_y = width / self.frame_size[0], height / self.frame_size[1]
        heat = np.zeros((height, width))
        seen = [(value, box) for value, box in zip(array, self.boxes, strict=True) if box is not None]
        for value, (x1, y1, x2, y2) in seen:
            cells = heat[_centres(y1 * scale_y, y2 * scale_y, height), _centres(x1 * scale_x, x2 * scale_x, width)]
            cells += value / cells.size
        return (heat * (heat.size / max(1, len(seen)))).astype(array.dtype)

    def to_frame(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """As :meth:`as_map`, (height, width) of the frame: a pixel takes the value at its centre.

        Raises
        ------
        GeometryError
            If there is not one value per token.
        """
        cells = self.as_map(values)
        w, h = self.frame_size
        ys = ((np.arange(h) + 0.5) * cells.shape[0] / h).astype(int)
        xs = ((np.arange(w) + 0.5) * cells.shape[1] / w).astype(int)
        return cells[np.ix_(ys, xs)]

    def from_frame(self, values: np.ndarray) -> np.ndarray:
        """A (height, width) map over the frame -> its mean in each token's box, (tokens,) float32.

        Pixels cut by a box's edge count by their share of area. A token that sees nothing gets 0.

        Raises
        ------
        GeometryError
            If the map does not have the frame's size.
        """
        w, h = self.frame_size
        array = np.asarray(values, np.float64)
        if array.shape != (h, w):
            raise GeometryError(f"a map of shape {array.shape} does not fit a frame of {w}x{h} pixels")
        edges = np.array([box or (0, 0, 0, 0) for box in self.boxes], np.float64).reshape(-1, 4)
        down, across = _overlap(edges[:, [1, 3]], h), _overlap(edges[:, [0, 2]], w)
        return np.asarray(((down @ array) * across).sum(axis=1), np.float32)


@dataclass(frozen=True, init=False, repr=False)
class TokenGrid(TokenBoxes):
    """A row-major grid of image tokens over the frame: the boxes of most families.

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

    def __init__(self, rows: int, cols: int, frame_size: tuple[int, int]) -> None:
        if min(rows, cols, *frame_size) < 1:
            raise GeometryError(f"a grid of {rows}x{cols} tokens over {frame_size} pixels has no cells")
        w, h = frame_size
        xs, ys = [c * w / cols for c in range(cols + 1)], [r * h / rows for r in range(rows + 1)]
        boxes = tuple((xs[c], ys[r], xs[c + 1], ys[r + 1]) for r in range(rows) for c in range(cols))
        fields = {"boxes": boxes, "tiles": (0,) * len(boxes), "frame_size": frame_size, "rows": rows, "cols": cols}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"TokenGrid(rows={self.rows}, cols={self.cols}, frame_size={self.frame_size})"

    @property
    def cell_size(self) -> tuple[float, float]:
        """``(width, height)`` of a cell in frame pixels."""
        return self.frame_size[0] / self.cols, self.frame_size[1] / self.rows

    @property
    def lattice(self) -> tuple[int, int]:
        """``(rows, cols)``."""
        return self.rows, self.cols

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
        """Values of the tokens -> (rows, cols) map.

        Raises
        ------
        GeometryError
            If there is not one value per token.
        """
        array = _floating(values)
        if array.shape not in ((len(self),), (self.rows, self.cols)):
            raise GeometryError(f"values of shape {array.shape} do not fit {self.rows}x{self.cols} image tokens")
        return array.reshape(self.rows, self.cols)


def _floating(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The values as they are where they are double, else in single precision."""
    array = np.asarray(values)
    return array if array.dtype == np.float64 and isinstance(values, np.ndarray) else array.astype(np.float32)


def _centres(low: float, high: float, size: int) -> slice:
    """Cells of a line whose centre lies in [low, high); the one in its middle where it holds no centre."""
    first, last = max(0, int(np.ceil(low - 0.5))), min(size, int(np.ceil(high - 0.5)))
    if first >= last:
        first = min(size - 1, max(0, int((low + high) / 2)))
    return slice(first, max(last, first + 1))


def _cells(edges: np.ndarray, size: int) -> int | None:
    """Into how many equal cells the length is cut, if each edge lies on a line between two; None if into none."""
    if not edges.size:
        return None
    shortest = float((edges[:, 1] - edges[:, 0]).min())
    least = max(1, round(size / max(shortest, 1.0)))
    for count in range(least, min(size, 4 * least)):
        place = edges * count / size
        if np.abs(place - np.round(place)).max() * size / count <= _SAME:
            return count
    return None


def _overlap(edges: np.ndarray, pixels: int) -> np.ndarray:
    """(boxes, pixels) share of each box's length that each pixel covers; rows add up to 1, or to 0 for no length."""
    starts = np.arange(pixels)
    cover = np.clip(np.minimum(edges[:, 1:], starts + 1) - np.maximum(edges[:, :1], starts), 0.0, None)
    length = edges[:, 1:] - edges[:, :1]
    return np.divide(cover, length, out=np.zeros_like(cover), where=length > 0)
