"""The grey image within the frame, without the letterbox's bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode

__all__ = ["image_area", "image_size"]


def image_area(episode: Episode) -> np.ndarray:
    """Grey levels of the frame's image area, (h, w) float64. A map of it is a map ``over="native"``."""
    x1, y1, x2, y2 = episode.letterbox.content
    return np.asarray(episode.frame.convert("L"), np.float64)[y1:y2, x1:x2]


def image_size(episode: Episode) -> tuple[int, int]:
    """Its (height, width) in pixels of the frame."""
    x1, y1, x2, y2 = episode.letterbox.content
    return y2 - y1, x2 - x1
