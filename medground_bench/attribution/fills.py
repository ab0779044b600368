"""What takes the place of removed pixels. Results of perturbation methods depend on it more than on the method.

A fill is a frame of which nothing is left: :func:`fill_frame` makes it, :func:`compose` puts parts of it over the
original. Bars of the letterbox carry no image and stay as they are. A continuation of what is around the removed pixels
depends on which are removed: :func:`remove` makes both kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    from medground_bench.imaging import Letterbox
    from medground_bench.lvlm import Episode

__all__ = ["AROUND", "FILLS", "around", "compose", "fill_frame", "remove"]

AROUND = "around"
"""The fill that continues what is around the removed pixels."""

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


def around(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """The image with its removed pixels continued smoothly from the others; nothing of what was there is left.

    Means of the pixels that are known, on coarser and coarser grids (pull) until every cell has one; then each grid
    takes what it lacks from the next coarser one, smoothed once (push). An image of which all is removed gets its mean.

    Parameters
    ----------
    image : ndarray, (H, W) or (H, W, C) uint8
    removed : ndarray of bool, (H, W)

    Returns
    -------
    ndarray
        Shape and type of ``image``; what is not removed is unchanged.

    References
    ----------
    .. [1] Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.4.
    """
    from scipy.ndimage import convolve1d

    if removed.all():
        return np.broadcast_to(np.rint(image.mean((0, 1))).astype(np.uint8), image.shape).copy()
    weight = (~removed).astype(np.float32)[..., None]
    values = image.reshape(*removed.shape, -1).astype(np.float32) * weight
    grids = []
    while not weight.all():
        grids.append((values, weight))
        even = [(0, side % 2) for side in weight.shape[:2]]
        both = np.pad(np.concatenate([values, weight], -1), [*even, (0, 0)])
        both = both.reshape(both.shape[0] // 2, 2, both.shape[1] // 2, 2, -1).sum((1, 3))
        both /= np.maximum(both[..., -1:], 1.0)  # a mean where there is a whole pixel or more
        values, weight = both[..., :-1], both[..., -1:]
    found = values / weight
    for values, weight in reversed(grids):
        coarse = found.repeat(2, 0).repeat(2, 1)[: weight.shape[0], : weight.shape[1]]
        for axis in (0, 1):
            coarse = convolve1d(coarse, [0.25, 0.5, 0.25], axis, mode="nearest")
        found = values + (1 - weight) * coarse
    out = image.copy()
    out[removed] = np.rint(found[removed]).reshape(-1, *image.shape[2:])
    return out


def remove(name: str, episode: Episode, removed: np.ndarray) -> np.ndarray:
    """Variants of the episode's frame without some pixels, by a fill or :data:`AROUND`; the bars stay as they are.

    Parameters
    ----------
    name : str
    episode : Episode
    removed : ndarray of bool, (N, H, W)

    Returns
    -------
    ndarray, (N, H, W) or (N, H, W, 3) uint8

    Raises
    ------
    MethodError
        If the fill is unknown.
    """
    frame = episode.frame_array
    if name != AROUND:
        return compose(frame, removed, fill_frame(name, episode))
    x1, y1, x2, y2 = episode.letterbox.content
    variants = np.repeat(frame[None], len(removed), 0)
    for variant, mask in zip(variants, removed, strict=True):
        variant[y1:y2, x1:x2] = around(frame[y1:y2, x1:x2], mask[y1:y2, x1:x2])
    return variants
