"""What becomes of every prediction, in one word: found, or the way in which it misses.

The classes are read from top to bottom, the first that fits counts, so that those of a submission add up to its
records. They say *why* a mean is low: a method that is always too broad has the same IoU as one that is right half the
time and on the wrong side else, and is mended differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.imaging.boxes import clip_boxes, intersection_area, union_area
from medground_bench.scoring.concepts import Anatomy, holding
from medground_bench.scoring.heatmaps import cell_coverage

if TYPE_CHECKING:
    from medground_bench.imaging.boxes import Boxes

__all__ = ["ELSEWHERE", "OUTCOMES", "air_around", "outcomes", "where_else"]

OUTCOMES: Mapping[str, str] = {
    "found": "IoU of at least 0.5",
    "no boxes": "nothing is named",
    "whole image": "boxes over at least nine tenths of the image",
    "too broad": "at least half of the evidence, with too much around it",
    "too narrow": "mostly inside the evidence, of which less than half",
    "outside the body": "elsewhere, mostly on the black air around the patient",
    "wrong side": "elsewhere, mostly on the other side of the image's midline than the evidence, which is on one side",
    "wrong organ": "elsewhere, in none of the anatomical concepts that hold the evidence (where these are known)",
    "missed": "elsewhere, and none of the above",
}
"""Classes in the order in which they are tried, with what they mean. "Elsewhere" is less than half of the evidence, and
less than half inside it."""

ELSEWHERE = "missed"
"""Class of what is elsewhere, before :func:`where_else` has looked at it."""

_HALF, _WHOLE, _ONE_SIDE = 0.5, 0.9, 0.9
_AIR = 0.1
"""Grey level below which a pixel may be air, between the image's darkest and its 99th percentile."""

_CELLS = 64


def outcomes(scores: Mapping[str, np.ndarray]) -> list[str]:
    """The class of every record as far as its scores decide it; what is elsewhere is all :data:`ELSEWHERE`.

    Parameters
    ----------
    scores : mapping of str to ndarray, (n,)
        Columns ``iou``, ``precision``, ``recall``, ``answered`` and ``predicted_fraction`` of a submission.
    """
    rules = (
        ("found", scores["iou"] >= _HALF),
        ("no boxes", scores["answered"] == 0),
        ("whole image", scores["predicted_fraction"] >= _WHOLE),
        ("too broad", scores["recall"] >= _HALF),
        ("too narrow", scores["precision"] >= _HALF),
    )
    return np.select([fits for _, fits in rules], [name for name, _ in rules], ELSEWHERE).tolist()


def where_else(
    boxes: Boxes,
    evidence: Boxes,
    size: tuple[int, int],
    *,
    air: Callable[[], np.ndarray] | None = None,
    holds: frozenset[str] = frozenset(),
    anatomy: Anatomy | None = None,
) -> str:
    """Where a prediction lies that is elsewhere: outside the body, on the wrong side, in the wrong organ, or missed.

    Parameters
    ----------
    boxes, evidence : boxes
        Prediction and evidence, native pixels.
    size : (width, height)
        Of the image.
    air : callable, optional
        Gives :func:`air_around` of the image; without it nothing is outside the body.
    holds, anatomy : frozenset of str, Anatomy
        The concepts that hold the evidence and where the concepts are; without them no organ is wrong.
    """
    width, height = size
    mine, theirs = clip_boxes(boxes, width, height), clip_boxes(evidence, width, height)
    area = union_area(mine)
    if not area:
        return ELSEWHERE
    if air is not None:
        edges = np.linspace(0.0, width, _CELLS + 1), np.linspace(0.0, height, _CELLS + 1)
        if float((cell_coverage(mine, edges[1], edges[0]) * air()).sum()) > _HALF * area:
            return "outside the body"
    left = [(0.0, 0.0, width / 2, float(height))]
    share = intersection_area(theirs, left) / max(union_area(theirs), 1e-9)
    if max(share, 1 - share) >= _ONE_SIDE:
        here = intersection_area(mine, left) / area
        if (here if share > _HALF else 1 - here) < _HALF:
            return "wrong side"
    if holds and anatomy is not None and anatomy.names and not holds & holding(anatomy, mine.tolist(), size):
        return "wrong organ"
    return ELSEWHERE


def air_around(image: Any) -> np.ndarray:
    """Share of every cell of a radiograph that is nearly black and joined to its border: air, or a collimator.

    Parameters
    ----------
    image : PIL image
        Grey. Where the surroundings are not nearly black there are none.

    Returns
    -------
    ndarray, (64, 64)
    """
    from PIL import Image
    from scipy import ndimage

    side = 4 * _CELLS
    grey = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX), np.float64)
    low, high = float(grey.min()), float(np.percentile(grey, 99))
    labels, _ = ndimage.label(grey <= low + _AIR * (high - low))
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    outside = np.isin(labels, border[border > 0])
    return outside.reshape(_CELLS, 4, _CELLS, 4).mean((1, 3))
