"""The heart as wide as the radiograph shows it: the references' hearts are of normal size, the target's may not be.

From the voted heart's middle outwards the image falls from the heart's grey to the lung's. On either side the border is
the path down the rows of the heart, at most one pixel to the side per row, along which that fall is steepest in sum
(dynamic programming). The voted mask is moved to it row by row; where no lung is seen beside the heart the vote stands.
A heart that came out wider grows in height too, by a share of it, since its lower border lies in the diaphragm's shadow
and its upper one in that of the vessels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from medfocus.appearance import as_uint8
from medfocus.result import FRAME, Found, Transfer
from medground_bench.core.schema import Box
from medground_bench.imaging.letterbox import Letterbox

__all__ = ["measure_heart"]

_HEART, _MIDDLE, _LUNGS = "cardiac silhouette", "mediastinum", ("right lung", "left lung")
_WINDOW = 0.04  # of the lungs' width: what is averaged on either side of a border
_ROWS = (0.3, 0.9)  # of the voted heart's height: above are the vessels, below is the diaphragm
_INNER = 0.15  # of the voted heart's width, from its middle: nearer there is no border
_WALL = 0.03  # of the lungs' width, from their outer edge: nearer it is the chest wall
_LEAST = 0.1  # of the contrast of heart and lung: what falls by less is no border
_SEEN = 5  # rows with a border, at least
_GROWTH = 0.4  # of the relative growth in width: growth in height


def measure_heart(image: np.ndarray, transfer: Transfer, *, inverted: bool = False) -> Transfer:
    """Replace the voted heart by the one that is seen, in the mediastinum too.

    Parameters
    ----------
    image : ndarray, (h, w)
        Grey image.
    transfer : Transfer
        Voted regions; returned as it is where heart or lungs are not among them.
    inverted : bool
        Lungs are brighter than the heart.
    """
    concepts = dict(transfer.concepts)
    if not {_HEART, *_LUNGS} <= set(concepts) or not all(concepts[c].mask.any() for c in (_HEART, *_LUNGS)):
        return transfer
    letterbox = Letterbox.fit(image.shape[1], image.shape[0], FRAME)
    grey = np.asarray(letterbox.apply(Image.fromarray(as_uint8(image))).convert("L"), np.float32)
    voted = concepts[_HEART]
    box = letterbox.to_frame([voted.box])[0]
    edges = _borders(-grey if inverted else grey, voted.mask, box, *(concepts[lung].mask for lung in _LUNGS))
    if edges is None:
        return transfer
    mask, box = _moved(voted.mask, box, *edges)
    concepts[_HEART] = Found(letterbox.to_native([box])[0], mask)
    if _MIDDLE in concepts:
        one, two = concepts[_MIDDLE].box, concepts[_HEART].box
        both = (min(one[0], two[0]), min(one[1], two[1]), max(one[2], two[2]), max(one[3], two[3]))
        concepts[_MIDDLE] = Found(both, concepts[_MIDDLE].mask | mask)
    return dataclasses.replace(transfer, concepts=concepts)


def _borders(
    grey: np.ndarray, heart: np.ndarray, box: Box, right: np.ndarray, left: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows, and the column of the (right, left) border in each, (2, rows), NaN where none is seen; None if nowhere."""
    columns = np.flatnonzero((right | left).any(0))
    start, end = float(columns[0]), float(columns[-1] + 1)
    width, middle = end - start, (box[0] + box[2]) / 2
    lung = grey[(right | left) & ~heart]
    rows = np.arange(*(int(np.clip(box[1] + share * (box[3] - box[1]), 0, FRAME)) for share in _ROWS))
    if not len(rows) or not len(lung):
        return None
    contrast = max(float(np.median(grey[heart]) - np.percentile(lung, 25)), 1.0)
    fall = _fall(grey, max(3, round(_WINDOW * width)))[rows] / contrast
    near, far = _INNER * (box[2] - box[0]), _WALL * width
    edge = np.arange(FRAME + 1)
    allowed = np.stack([(edge >= start + far) & (edge <= middle - near), (edge >= middle + near) & (edge <= end - far)])
    gains = np.where(allowed[:, None], np.stack([-fall, fall]), -1e3)
    paths = _steepest(gains)
    seen = np.take_along_axis(gains, paths[..., None], 2)[..., 0] > _LEAST
    seen &= seen.sum(1, keepdims=True) >= _SEEN
    return (rows, np.where(seen, paths, np.nan)) if seen.any() else None


def _fall(grey: np.ndarray, window: int) -> np.ndarray:
    """Mean of the pixels left of every pixel edge less the mean of those right of it, (h, w + 1)."""
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(grey, 2.0, axis=0)
    total = np.cumsum(np.pad(smooth, ((0, 0), (window + 1, window)), mode="edge"), 1, dtype=np.float64)
    at = total[:, window:-window]
    return (2 * at - total[:, : -2 * window] - total[:, 2 * window :]) / window


def _steepest(gains: np.ndarray) -> np.ndarray:
    """The column in every row of the path of highest sum, neighbours at most one apart: (n, rows, c) -> (n, rows)."""
    n, rows, _ = gains.shape
    best = gains[:, 0]
    came = np.zeros(gains.shape, np.int8)
    for row in range(1, rows):
        beside = np.pad(best, ((0, 0), (1, 1)), constant_values=-np.inf)
        options = np.stack([best, beside[:, :-2], beside[:, 2:]])
        chosen = options.argmax(0)
        came[:, row] = np.array([0, -1, 1], np.int8)[chosen]
        best = np.take_along_axis(options, chosen[None], 0)[0] + gains[:, row]
    paths = np.empty((n, rows), int)
    paths[:, -1] = best.argmax(1)
    for row in range(rows - 1, 0, -1):
        paths[:, row - 1] = paths[:, row] + came[np.arange(n), row, paths[:, row]]
    return paths


def _moved(mask: np.ndarray, box: Box, rows: np.ndarray, borders: np.ndarray) -> tuple[np.ndarray, Box]:
    """The mask with its sides at the borders, and its box."""
    x1, y1, x2, y2 = box
    inside = np.flatnonzero(mask.any(1))
    own = np.stack([mask.argmax(1), FRAME - mask[:, ::-1].argmax(1)])[:, inside].astype(float)
    sides = np.stack([np.interp(rows, inside, side) for side in own])
    centre, width = sides.mean(0), sides[1] - sides[0]
    for side, border in zip(sides, borders, strict=True):
        known = np.isfinite(border)
        if known.any():
            side += np.interp(rows, rows[known], (border - side)[known])
    if np.isfinite(borders[0]).any():
        x1 = float(np.nanmin(borders[0]))
    if np.isfinite(borders[1]).any():
        x2 = float(np.nanmax(borders[1]))
    grown = _GROWTH / 2 * max((x2 - x1) / (box[2] - box[0]) - 1.0, 0.0) * (y2 - y1)
    y1, y2 = max(y1 - grown, 0.0), min(y2 + grown, float(FRAME))
    y = x = np.arange(FRAME) + 0.5
    # What is above and below the measured rows keeps its shape, stretched.
    source = np.interp(y, (y1, rows[0], rows[-1], y2), (box[1], rows[0], rows[-1], box[3]))
    shift, factor = (np.interp(source, rows, f) for f in (sides.mean(0) - centre, (sides[1] - sides[0]) / width))
    left, right = (np.interp(source, inside + 0.5, side) for side in own)
    centre, width = (left + right) / 2 + shift, (right - left) * factor
    left, right = centre - width / 2, centre + width / 2
    tall = (y >= y1) & (y < y2)
    return tall[:, None] & (x >= left[:, None]) & (x < right[:, None]), (x1, y1, x2, y2)
