"""Evidence boxes as a mask of native pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from medground_bench.core.errors import EditorError
from medground_bench.core.schema import Box

__all__ = ["box_mask"]


def box_mask(boxes: Sequence[Box], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels that any of the boxes touches.

    Parameters
    ----------
    boxes : sequence of Box
        Half-open, native pixels; what reaches beyond the image is cut.
    size : (width, height)
        Of the image.

    Returns
    -------
    bool array, shape (height, width)

    Raises
    ------
    EditorError
        If no box touches the image.
    """
    width, height = size
    mask = np.zeros((height, width), np.bool_)
    for x1, y1, x2, y2 in boxes:
        if x2 > x1 and y2 > y1:
            mask[max(0, floor(y1)) : max(0, ceil(y2)), max(0, floor(x1)) : max(0, ceil(x2))] = True
    if not mask.any():
        raise EditorError(f"no evidence box lies in the image of {width}x{height}", expected="at least one box")
    return mask
