"""The random masks of RISE, as arrays over the frame."""

from __future__ import annotations

import numpy as np

__all__ = ["random_masks"]


def random_masks(
    rng: np.random.Generator, count: int, height: int, width: int, *, cells: int, keep: float
) -> np.ndarray:
    """RISE masks: random low-resolution grids, enlarged bilinearly and cut out at a random shift.

    A grid of ``cells + 1`` squared values, each 1 with probability ``keep``, is enlarged so that one cell measures
    ``ceil(size / cells)`` pixels, and a window of the frame's size is cut out at a shift uniform over one cell.

    Parameters
    ----------
    rng : Generator
        The only source of randomness: masks depend on its state alone, not on how many are asked for at once.
    count : int
        Masks wanted.
    height, width : int
        Frame size in pixels.
    cells : int
        Cells across and down.
    keep : float
        Probability that a cell is visible.

    Returns
    -------
    ndarray, shape (count, height, width), float32
        1 visible, 0 black.

    References
    ----------
    Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC 2018, section 3.2.
    """
    cell_h, cell_w = -(-height // cells), -(-width // cells)
    out = np.empty((count, height, width), np.float32)
    for n in range(count):
        grid = (rng.random((cells + 1, cells + 1)) < keep).astype(np.float32)
        top, left = int(rng.integers(cell_h)), int(rng.integers(cell_w))
        out[n] = (
            _interpolation(height, top, cell_h, cells + 1) @ grid @ _interpolation(width, left, cell_w, cells + 1).T
        )
    return out


def _interpolation(length: int, shift: int, cell: int, values: int) -> np.ndarray:
    """(length, values) bilinear weights of the pixels ``shift ...`` of ``values`` values enlarged by ``cell``."""
    centres = (shift + np.arange(length, dtype=np.float32) + 0.5) / cell - 0.5
    centres = np.clip(centres, 0, values - 1)
    return np.clip(1 - np.abs(centres[:, None] - np.arange(values, dtype=np.float32)), 0, None).astype(np.float32)
