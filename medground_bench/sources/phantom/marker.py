"""The marker that ``toy_shortcut`` answers from: a bright square with a dark rim in a corner of the radiograph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medground_bench.core.schema import Box

__all__ = ["CORNERS", "stamp_marker"]

CORNERS: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")
"""Where a marker can be."""

_SIDE, _RIM, _GAP = 0.085, 0.012, 0.02  # of the shorter side of the image


def stamp_marker(image: NDArray[np.uint8], corner: str = "top left") -> tuple[NDArray[np.uint8], Box]:
    """A copy of a radiograph with the marker, and the marker's box.

    Parameters
    ----------
    image : uint8 array, shape (H, W)
        Grey.
    corner : str
        One of :data:`CORNERS`.

    Returns
    -------
    image : uint8 array, shape (H, W)
    box : tuple of float
        Half-open ``(x1, y1, x2, y2)`` in pixels, rim included.

    Raises
    ------
    ValueError
        If there is no such corner.
    """
    if corner not in CORNERS:
        raise ValueError(f"no corner {corner!r}: one of {', '.join(CORNERS)}")
    height, width = image.shape
    unit = min(height, width)
    side, rim, gap = (max(1, round(part * unit)) for part in (_SIDE, _RIM, _GAP))
    x = gap if corner.endswith("left") else width - gap - side
    y = gap if corner.startswith("top") else height - gap - side
    out = image.copy()
    out[y : y + side, x : x + side] = 0
    out[y + rim : y + side - rim, x + rim : x + side - rim] = 255
    return out, (float(x), float(y), float(x + side), float(y + side))
