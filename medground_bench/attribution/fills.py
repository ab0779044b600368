"""What takes the place of removed pixels. Results of perturbation methods depend on it more than on the method.

A fill is a frame of which nothing is left: :func:`fill_frame` makes it, :func:`compose` puts parts of it over the
original. Bars of the letterbox carry no image and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    from medground_bench.imaging import Letterbox
    from medground_bench.lvlm import Episode

__all__ = ["FILLS", "compose", "fill_frame"]

_BLUR = 0.09  # of the frame's longer side: 20 pixels at 224


def _black(frame: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Grey level 0, which on a radiograph is air."""
    return np.zeros_like(frame)


def _mean(frame: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """The image's mean grey level."""
    x1, y1, x2, y2 = letterbox.content
    level = np.rint(frame[y1:y2, x1:x2].mean((0, 1)))
    return np.broadcast_to(level.astype(np.uint8), frame.shape)


def _blur(frame: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """The image without detail: a Gaussian of 0.09 of the frame's longer side; beyond the image it is mirrored."""
    from scipy.ndimage import gaussian_filter

    x1, y1, x2, y2 = letterbox.content
    sigma = _BLUR * max(frame.shape[:2])
    out = frame.astype(float)
    out[y1:y2, x1:x2] = gaussian_filter(out[y1:y2, x1:x2], (sigma, sigma, 0)[: frame.ndim], mode="reflect")
    return np.rint(out).astype(np.uint8)


FILLS: dict[str, Callable[[np.ndarray, Letterbox], np.ndarray]] = {"black": _black, "mean": _mean, "blur": _blur}
"""Name -> (frame (H, W) or (H, W, 3) uint8, letterbox) -> the frame with nothing left, same shape."""


def fill_frame(name: str, episode: Episode) -> np.ndarray:
    """The episode's frame with nothing left, (H, W) or (H, W, 3) uint8; the letterbox's bars are unchanged.

    Raises
    ------
    MethodError
        If the fill is unknown.
    """
    if name not in FILLS:
        raise MethodError(f"unknown fill {name!r}", expected=", ".join(FILLS))
    frame, (x1, y1, x2, y2) = episode.frame_array, episode.letterbox.content
    out = frame.copy()
    out[y1:y2, x1:x2] = FILLS[name](frame, episode.letterbox)[y1:y2, x1:x2]
    return out


def compose(frame: np.ndarray, removed: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """Variants of a frame, ``(1 - m) * frame + m * fill``, rounded once.

    Parameters
    ----------
    frame, fill : ndarray, (H, W) or (H, W, 3) uint8
        From the episode and from :func:`fill_frame`.
    removed : ndarray, (N, H, W), bool or float in [0, 1]
        How much of each pixel is removed in each variant.

    Returns
    -------
    ndarray, (N, H, W) or (N, H, W, 3) uint8
    """
    mask = removed[..., None] if frame.ndim == 3 else removed
    if mask.dtype == bool:
        return np.where(mask, fill, frame)
    return np.rint((1.0 - mask) * frame + mask * fill).astype(np.uint8)
