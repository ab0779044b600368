"""From a map over a grid to a cell set and a box."""

from __future__ import annotations

import numpy as np

from medground_bench.core.schema import Box

__all__ = ["covered", "crossing_box", "mass_set", "tight_box"]

_BLOCK = 64  # cells


def mass_set(mass: np.ndarray, share: float = 0.75) -> np.ndarray:
    """The smallest cell set that holds ``share`` of the mass (spec section 8); empty where there is none.

    Parameters
    ----------
    mass : ndarray, (..., h, w)
        Non-negative.

    Returns
    -------
    ndarray of bool, same shape
    """
    flat = mass.reshape(-1, mass.shape[-2] * mass.shape[-1])
    ordered, row = np.sort(flat, axis=-1)[:, ::-1], np.arange(len(flat))
    count = _reaching(ordered, share)
    least = ordered[row, np.maximum(count - 1, 0)]
    out = (flat >= least[:, None]) & (count > 0)[:, None]
    beyond = (count > 0) & (count < flat.shape[1]) & (ordered[row, np.minimum(count, flat.shape[1] - 1)] == least)
    for k in np.flatnonzero(beyond):  # equal cells at the edge of the set: the first ones
        equal = np.flatnonzero(flat[k] == least[k])
        out[k, equal[len(equal) - int(out[k].sum() - count[k]) :]] = False
    return out.reshape(mass.shape)


def _reaching(ordered: np.ndarray, share: float) -> np.ndarray:
    """How many of the (n, cells) largest masses reach the share of all, 0 of nothing.

    The block of cells in which it is reached is found by the blocks' sums: a running sum over all cells is slow.
    """
    n, size = ordered.shape
    total = np.cumsum(np.add.reduceat(ordered, np.arange(0, size, _BLOCK), axis=-1), -1)
    goal, row = share * total[:, -1:], np.arange(n)
    block = np.minimum((total < goal).sum(-1), total.shape[1] - 1)
    before = np.where(block > 0, total[row, block - 1], 0.0)
    cells = np.minimum(block[:, None] * _BLOCK + np.arange(_BLOCK), size - 1)
    inside = before[:, None] + np.cumsum(ordered[row[:, None], cells], -1)
    # One cell more than those that together do not reach the share.
    count = np.minimum(block * _BLOCK + (inside < goal).sum(-1) + 1, size)
    return np.where(total[:, -1] > 0, count, 0)


def tight_box(cells: np.ndarray) -> Box | None:
    """Tight half-open box (x1, y1, x2, y2) of a cell set, None where it is empty."""
    rows, columns = np.flatnonzero(cells.any(1)), np.flatnonzero(cells.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def crossing_box(values: np.ndarray, level: float) -> Box | None:
    """Box of where a smooth map exceeds a level, in fractions of a cell.

    The edges are where the map's row and column maxima cross the level, interpolated between cell centres; None where
    the level is not reached.
    """
    columns, rows = _span(values.max(0), level), _span(values.max(1), level)
    return (columns[0], rows[0], columns[1], rows[1]) if columns and rows else None


def _span(profile: np.ndarray, level: float) -> tuple[float, float] | None:
    above = np.flatnonzero(profile >= level)
    if not len(above):
        return None
    first, last, size = int(above[0]), int(above[-1]), len(profile)
    start, end = float(first), float(last + 1)
    if first > 0:
        start = first + 0.5 - float((profile[first] - level) / (profile[first] - profile[first - 1]))
    if last < size - 1:
        end = last + 0.5 + float((profile[last] - level) / (profile[last] - profile[last + 1]))
    return start, end


def covered(box: Box, cells: int) -> np.ndarray:
    """Share of every cell of a (cells, cells) grid that a box covers."""
    x1, y1, x2, y2 = box
    edge = np.arange(cells)
    columns = np.clip(np.minimum(x2, edge + 1) - np.maximum(x1, edge), 0, 1)
    rows = np.clip(np.minimum(y2, edge + 1) - np.maximum(y1, edge), 0, 1)
    return (rows[:, None] * columns[None]).astype(np.float32)
