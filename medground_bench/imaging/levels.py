"""Regions of a heat map at several levels, and the one that the levels agree on: boxes without a cut to choose.

The protocol that all saliency methods share keeps the hottest tenth (:mod:`medground_bench.imaging.heatmap`), whatever
a map looks like. A map that rises around the evidence has a region at every level, each inside the one before, and of
these the one that has the highest mean IoU with all is the decision of least expected loss where each may be the right
one and the loss is 1 - IoU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medground_bench.core.schema import Box

__all__ = ["LEVELS", "TOGETHER", "Region", "agreed", "level_regions"]

Region = tuple[Box, ...]
"""Boxes that belong together."""

LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65)
"""Shares of a map's maximum at which it is cut."""

TOGETHER = 0.3
"""Parts that hold at least this share of the heat of the largest part belong to a region."""


def level_regions(
    heat: NDArray[np.floating], levels: Sequence[float] = LEVELS, together: float = TOGETHER
) -> list[Region]:
    """Boxes of a map's connected parts (8 neighbours) above each level, as far as they hold enough heat; each once.

    Parameters
    ----------
    heat : ndarray, shape (H, W)
        Not negative, with a maximum above 0.
    levels : sequence of float
        Shares of the maximum.
    together : float
        Least share of the heat of the largest part that a part must hold.

    Returns
    -------
    list of tuple of (x1, y1, x2, y2)
        Half-open, in pixels of the map.
    """
    from scipy.ndimage import find_objects, label

    found: dict[Region, None] = {}
    for level in levels:
        labels, _ = label(heat >= level * heat.max(), np.ones((3, 3)))
        mass = np.bincount(labels.ravel(), heat.ravel())[1:]
        parts = [part for part, heavy in zip(find_objects(labels), mass >= together * mass.max(), strict=True) if heavy]
        found[tuple((float(x.start), float(y.start), float(x.stop), float(y.stop)) for y, x in parts)] = None
    return list(found)


def agreed(masks: NDArray[np.bool_], worth: NDArray[np.floating] | None = None, temperature: float = 1.0) -> int:
    """The region that has the highest mean IoU with all, weighted by the softmax of what they are worth.

    Parameters
    ----------
    masks : ndarray of bool, shape (n, H, W)
        The regions; none is empty.
    worth : ndarray, shape (n,), optional
        By default all are worth the same.
    temperature : float
        What worth is divided by; at 0 the region that is worth most (the first of equals).

    References
    ----------
    .. [1] Kumar & Byrne, Minimum Bayes-Risk Decoding for Statistical Machine Translation, NAACL 2004, eq. 2.
    """
    values = np.zeros(len(masks)) if worth is None else worth
    if temperature == 0:
        return int(np.argmax(values))
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    shared = flat @ flat.T
    sizes = np.diagonal(shared)
    weights = np.exp((values - values.max()) / temperature)
    return int(np.argmax(shared / (sizes[:, None] + sizes - shared) @ weights))
