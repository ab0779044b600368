"""Regions of the frame that perturbation and search methods remove or keep: a registry of partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.errors import MethodError, MissingDependencyError

if TYPE_CHECKING:
    from medground_bench.core.schema import Box
    from medground_bench.lvlm import Episode

__all__ = ["box_masks", "region_labels", "region_masks", "tile_labels"]


def region_labels(spec: str, episode: Episode) -> np.ndarray:
    """A partition of the episode's frame.

    Parameters
    ----------
    spec : str
        ``"tiles:ROWSxCOLS"`` over the whole frame; ``"tokens"``, one region for each image token; ``"slic:N"``, about
        N superpixels of the image (zero-parameter SLIC of scikit-image; Achanta et al., 2012) and none on the bars.
    episode : Episode
        Its frame is divided.

    Returns
    -------
    ndarray, (H, W) int
        Number of the region of every pixel, from 0 and without gaps; -1 where there is none.

    Raises
    ------
    MethodError
        If the specification is not one of these.
    MissingDependencyError
        If it needs scikit-image, which is not installed.
    """
    height, width = episode.frame_array.shape[:2]
    kind, _, size = spec.partition(":")
    if kind == "tokens" and not size:
        return tile_labels(height, width, episode.grid.rows, episode.grid.cols)
    rows, _, cols = size.partition("x")
    if kind == "tiles" and _positive(rows) and _positive(cols):
        return tile_labels(height, width, int(rows), int(cols))
    if kind == "slic" and _positive(size):
        return _slic(episode, int(size))
    raise MethodError(f"unknown regions {spec!r}", expected="tiles:8x8, tokens or slic:64")


def region_masks(spec: str, episode: Episode) -> np.ndarray:
    """As :func:`region_labels`, one boolean mask a region: (regions, H, W)."""
    labels = region_labels(spec, episode)
    return labels == np.arange(labels.max() + 1)[:, None, None]


def box_masks(boxes: np.ndarray | list[Box], height: int, width: int) -> np.ndarray:
    """Masks of the pixels whose centres lie in boxes of the frame, (N, height, width) bool."""
    x1, y1, x2, y2 = (side[:, None] for side in np.asarray(boxes, float).reshape(-1, 4).T)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    return ((y >= y1) & (y < y2))[:, :, None] & ((x >= x1) & (x < x2))[:, None, :]


def tile_labels(height: int, width: int, rows: int, cols: int) -> np.ndarray:
    """Tiles of (nearly) equal size, numbered in raster order, (height, width)."""
    y, x = (
        np.repeat(np.arange(count), np.diff(np.round(np.arange(count + 1) * length / count).astype(int)))
        for count, length in ((rows, height), (cols, width))
    )
    return y[:, None] * cols + x


def _positive(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _slic(episode: Episode, count: int) -> np.ndarray:
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise MissingDependencyError(
            "superpixels need scikit-image", remedy='pip install "medground-bench[radedit]"'
        ) from error
    frame = episode.frame_array
    x1, y1, x2, y2 = episode.letterbox.content
    labels = np.full(frame.shape[:2], -1)
    found = slic(
        frame[y1:y2, x1:x2],
        n_segments=count,
        slic_zero=True,
        start_label=0,
        channel_axis=-1 if frame.ndim == 3 else None,
    )
    labels[y1:y2, x1:x2] = np.unique(found, return_inverse=True)[1].reshape(found.shape)
    return labels
