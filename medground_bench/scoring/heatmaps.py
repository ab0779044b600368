"""Scores of a heat map itself, before any threshold: pointing game, energy in the evidence, AUPRC."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from medground_bench.core.errors import GeometryError
from medground_bench.imaging import Letterbox, clip_boxes

__all__ = ["HEATMAP_METRICS", "TOLERANCE", "HeatmapScores", "score_heatmap"]

HEATMAP_METRICS = ("pointing", "energy", "auprc", "auprc_chance")

TOLERANCE = 0.05
"""Default tolerance of the pointing game, as a share of the image's longer side."""


class HeatmapScores(NamedTuple):
    """Scores of one heat map, fractions.

    Attributes
    ----------
    pointing : float
        Whether the hottest point lies in the evidence or within the tolerance of it; the share, where several
        points are equally hot.
    energy : float
        Share of the map's heat above its minimum that lies in the evidence.
    auprc : float
        Area under the precision-recall curve of telling evidence from the rest of the image, pixel by pixel.
    auprc_chance : float
        What a constant map has as AUPRC: the share of the image that is evidence.
    """

    pointing: float
    energy: float
    auprc: float
    auprc_chance: float


def score_heatmap(
    heatmap: np.ndarray,
    letterbox: Letterbox,
    boxes: Sequence[Sequence[float]] | np.ndarray,
    *,
    tolerance: float = TOLERANCE,
) -> HeatmapScores:
    """Score a heat map against evidence boxes.

    Cells of the map are weighted by the exact share of them that the evidence and the image cover, so that a
    coarse map (a token grid) needs no resampling. Heat in the padding counts as heat outside the evidence; the
    precision-recall curve is over the image alone. A constant map, or one that is not finite, points everywhere at
    once: it scores what chance does.

    Parameters
    ----------
    heatmap : ndarray, shape (h, w)
        Over the letterbox's frame, any resolution.
    letterbox : Letterbox
        The transform between the native image and the frame.
    boxes : sequence of [x1, y1, x2, y2]
        Evidence, native pixels.
    tolerance : float
        Of the pointing game, as a share of the image's longer side (Zhang et al. 2018 use 15 pixels of about 224).

    Raises
    ------
    GeometryError
        If the map is not 2-D or the tolerance is negative.
    """
    heat = np.asarray(heatmap)
    if heat.ndim != 2 or heat.size == 0 or heat.dtype.kind not in "fiub":
        raise GeometryError(
            f"a heat map of shape {heat.shape} and type {heat.dtype}", expected="a 2-D array of numbers"
        )
    if not tolerance >= 0:
        raise GeometryError(f"tolerance {tolerance} is negative")
    heat = heat.astype(np.float64)
    heat = np.zeros_like(heat) if not np.isfinite(heat).all() else heat
    evidence = clip_boxes(boxes, letterbox.width, letterbox.height)
    rows = np.linspace(0, letterbox.frame_height, heat.shape[0] + 1)
    cols = np.linspace(0, letterbox.frame_width, heat.shape[1] + 1)
    image = cell_coverage(np.array([letterbox.content], np.float64), rows, cols)
    inside = np.minimum(cell_coverage(np.asarray(letterbox.to_frame(evidence)).reshape(-1, 4), rows, cols), image)
    return HeatmapScores(
        _pointing(heat, letterbox, evidence, tolerance * max(letterbox.width, letterbox.height)),
        _energy(heat, inside, image, (rows[1] - rows[0]) * (cols[1] - cols[0])),
        _average_precision(heat, inside, image),
        float(inside.sum() / image.sum()) if image.sum() > 0 else 0.0,
    )


def cell_coverage(boxes: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Area of every cell that the union of boxes covers, exact: the union is cut into disjoint rectangles."""
    out = np.zeros((len(rows) - 1, len(cols) - 1))
    xs = np.unique(boxes[:, [0, 2]])
    for left, right in pairwise(xs.tolist()):
        here = boxes[(boxes[:, 0] <= left) & (boxes[:, 2] > left)]
        if not len(here):
            continue
        across = _overlap(left, right, cols)
        down = np.zeros(len(rows) - 1)
        reached = -np.inf
        for top, bottom in here[np.argsort(here[:, 1])][:, [1, 3]]:
            if bottom > reached:
                down += _overlap(max(top, reached), bottom, rows)
                reached = bottom
        out += np.outer(down, across)
    return out


def _overlap(low: float, high: float, edges: np.ndarray) -> np.ndarray:
    return np.maximum(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0.0)


def _pointing(heat: np.ndarray, letterbox: Letterbox, evidence: np.ndarray, reach: float) -> float:
    if not len(evidence):
        return 0.0
    row, col = np.nonzero(heat == heat.max())
    centres = np.stack(
        [
            (col + 0.5) * letterbox.frame_width / heat.shape[1],
            (row + 0.5) * letterbox.frame_height / heat.shape[0],
        ],
        axis=1,
    )
    points = (centres - np.array(letterbox.content[:2])) / np.array(letterbox.scale)
    hit = np.zeros(len(points), bool)
    for x1, y1, x2, y2 in evidence:
        gap = np.maximum(np.maximum(np.array([x1, y1]) - points, points - np.array([x2, y2])), 0.0)
        hit |= np.hypot(gap[:, 0], gap[:, 1]) <= reach
    return float(hit.mean())


def _energy(heat: np.ndarray, inside: np.ndarray, image: np.ndarray, cell: float) -> float:
    peak = np.abs(heat).max()
    above = heat / peak if peak > 0 else heat  # sums of huge or tiny values stay in range
    above = above - above.min()
    total = above.sum() * cell
    if total <= 0:
        return float(inside.sum() / image.sum()) if image.sum() > 0 else 0.0
    return float((above * inside).sum() / total)


def _average_precision(heat: np.ndarray, inside: np.ndarray, image: np.ndarray) -> float:
    """Average precision with cells weighted by area; equally hot cells enter together."""
    positives = inside.sum()
    if positives <= 0:
        return 0.0
    used = image > 0
    values, hit, weight = heat[used], inside[used], image[used]
    order = np.argsort(-values, kind="stable")
    values = values[order]
    last = np.append(values[1:] != values[:-1], True)
    hits = np.cumsum(hit[order])[last]
    seen = np.cumsum(weight[order])[last]
    steps = np.diff(hits, prepend=0.0)
    return float(np.minimum((steps * hits / seen).sum() / positives, 1.0))
