"""Regions of the frame that perturbation and search methods remove or keep: a registry of partitions."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.anatomy import VOCABULARIES
from medground_bench.core.errors import MethodError, MissingDependencyError
from medground_bench.imaging.zones import zone_masks
from medground_bench.sources.planted.anatomy import load_localizer

if TYPE_CHECKING:
    from medground_bench.core.schema import Box
    from medground_bench.lvlm import Episode
    from medground_bench.sources.planted.anatomy import Localizer

__all__ = ["PARTS", "REST", "box_masks", "named_regions", "region_labels", "region_masks", "tile_labels"]


def region_labels(spec: str, episode: Episode) -> np.ndarray:
    """A partition of the episode's frame.

    Parameters
    ----------
    spec : str
        ``"tiles:ROWSxCOLS"`` over the whole frame; ``"tokens"``, one region for each image token (of tiles and their
        thumbnail: for each token of the tiles); ``"slic:N"``, about N superpixels of the image (zero-parameter SLIC of
        scikit-image; Achanta et al., 2012) and none on the bars; ``"anatomy"`` or ``"anatomy:LOCALIZER"``, up to eight
        parts of the chest (see :func:`named_regions`); ``"concepts"`` or ``"zones"``, also with ``:LOCALIZER``, what is
        found of these vocabularies.
    episode : Episode
        Its frame is divided.

    Returns
    -------
    ndarray, (H, W) int
        Number of the region of every pixel, from 0 and without gaps; -1 where there is none.

    Raises
    ------
    MethodError
        If the specification is not one of these, or the LVLM's image tokens are no grid.
    MissingDependencyError
        If it needs scikit-image or a localiser, which is not installed.
    """
    height, width = episode.frame_array.shape[:2]
    kind, _, size = spec.partition(":")
    if kind == "tokens" and not size:
        lattice = episode.grid.lattice
        if lattice is None:
            raise MethodError("the image tokens are no grid over the frame", expected="tiles:8x8 or slic:64")
        return tile_labels(height, width, *lattice)
    rows, _, cols = size.partition("x")
    if kind == "tiles" and _positive(rows) and _positive(cols):
        return tile_labels(height, width, int(rows), int(cols))
    if kind == "slic" and _positive(size):
        return _slic(episode, int(size))
    if kind == "anatomy" or kind in VOCABULARIES:
        return named_regions(spec, episode)[0]
    raise MethodError(f"unknown regions {spec!r}", expected="tiles:8x8, tokens, slic:64, anatomy, concepts or zones")


def named_regions(spec: str, episode: Episode) -> tuple[np.ndarray, list[str]]:
    """As :func:`region_labels`, with the regions' names; of partitions other than those of anatomy the list is empty.

    The parts of a chest (``anatomy``) are the upper, middle and lower third of either lung, by height of the lung's
    mask, heart and mediastinum where they lie outside the lungs, and the rest of the image. What a localiser does not
    find is none. Of ``concepts`` and ``zones`` a pixel belongs to the smallest one that it lies in, or to none.

    Raises
    ------
    MethodError
        If no concept is found.
    """
    kind, _, localizer = spec.partition(":")
    if kind == "anatomy":
        return _anatomy(episode, localizer or "multi_atlas")
    if kind in VOCABULARIES:
        return _named(episode, kind, localizer or "multi_atlas")
    return region_labels(spec, episode), []


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


@lru_cache(maxsize=1)
def _localizer(name: str) -> Localizer:
    return load_localizer(name)


def _anatomy(episode: Episode, localizer: str) -> tuple[np.ndarray, list[str]]:
    found = _localizer(localizer)(np.asarray(episode.image.convert("L"))).masks
    masks = {name: episode.letterbox.heatmap_to_frame(mask.astype(float)) > 0.5 for name, mask in found.items()}
    x1, y1, x2, y2 = episode.letterbox.content
    height, width = episode.frame_array.shape[:2]
    labels = np.full((height, width), -1)
    labels[y1:y2, x1:x2] = _OUTSIDE
    for name in ("mediastinum", "upper mediastinum", "cardiac silhouette"):
        labels[masks.get(name, False) & (labels == _OUTSIDE)] = _CENTRE
    for side, lung in enumerate(("right lung", "left lung")):
        rows, cols = np.nonzero(masks.get(lung, np.zeros((height, width), bool)) & (labels != -1))
        if len(rows):
            third = (rows - rows.min()) * 3 // (np.ptp(rows) + 1)
            labels[rows, cols] = 3 * side + third
    kept, dense = np.unique(labels, return_inverse=True)
    names = [PARTS[k] for k in kept if k >= 0]
    return dense.reshape(labels.shape) - int(kept[0] == -1), names


REST = "rest of the image"
PARTS = (
    *(f"{side} lung, {part} third" for side in ("right", "left") for part in ("upper", "middle", "lower")),
    "heart and mediastinum",
    REST,
)
"""Parts of a chest, in their order in a partition by ``anatomy``."""
_CENTRE, _OUTSIDE = 6, 7


def _slic(episode: Episode, count: int) -> np.ndarray:
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise MissingDependencyError(
            "superpixels need scikit-image", remedy='pip install "medground-bench[methods]"'
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


def _named(episode: Episode, vocabulary: str, localizer: str) -> tuple[np.ndarray, list[str]]:
    found = {
        name: m for name, m in _localizer(localizer)(np.asarray(episode.image.convert("L"))).masks.items() if m.any()
    }
    native = zone_masks(found) if vocabulary == "zones" else found
    masks = {name: episode.letterbox.heatmap_to_frame(mask.astype(float)) > 0.5 for name, mask in native.items()}
    labels = np.full(episode.frame_array.shape[:2], -1)
    order = sorted(masks, key=lambda name: -int(masks[name].sum()))
    for k, name in enumerate(order):
        labels[masks[name]] = k
    there = labels >= 0
    if not there.any():
        raise MethodError("no anatomy was found on this image", remedy="use tiles:8x8 or slic:64")
    kept, dense = np.unique(labels[there], return_inverse=True)
    labels[there] = dense
    return labels, [order[k] for k in kept]
