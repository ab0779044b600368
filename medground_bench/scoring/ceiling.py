"""The other end of the scale: what the evidence itself scores in the space that a method speaks in.

A method that speaks in image tokens, tiles or whole anatomical concepts cannot draw a small finding exactly, however
right it is. A ceiling is what remains of the true evidence when it is told in such a space: of the sets of cells
``{cells whose share of evidence is at least t}``, over all t, each turned into boxes by the benchmark's protocol, the
one of the greatest IoU. (Among all unions of cells the one of greatest IoU is such a set: a cell belongs to it where
its share exceeds IoU / (1 + IoU).) Cells are taken with hard edges. A method whose map is interpolated between cells
may do better on a single record, and does about as well on average (``benchmarks/ceilings.py`` prints both).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.imaging.areas import RaggedBoxes
from medground_bench.imaging.boxes import mask_box
from medground_bench.imaging.letterbox import Letterbox
from medground_bench.imaging.overlap import METRICS, BoxScores, score_boxes
from medground_bench.scoring.heatmaps import cell_coverage
from medground_bench.sources.phantom.source import phantom_for, phantom_root

if TYPE_CHECKING:
    from medground_bench.dataset.columns import Record
    from medground_bench.sources import Source

__all__ = ["BOUND_ROWS", "TILES", "best_concept", "bound_kind", "ceiling_scores"]

BOUND_ROWS = ("token_grid", "tiles", "pixels", "concepts", "second_annotator")
"""Ceilings and the human row, in the order of a table: the LVLM's image tokens, 8 x 8 tiles, the pixels of the frame,
the best single anatomical concept, and another annotator's boxes of the same finding."""

TILES = (8, 8)
"""The tiles that perturbation methods remove by default."""

_RECORDS_AT_ONCE = 1 << 14
_MIN_PIXELS, _MOST_BOXES = 16, 10  # of a component and of a record, in the protocol


def bound_kind(row: str) -> str:
    """The kind of row that a key of :data:`BOUND_ROWS` is."""
    return "human" if row == "second_annotator" else "ceiling"


def ceiling_scores(
    evidence: RaggedBoxes, sizes: np.ndarray, grid: tuple[int, int] | None, *, side: int | None = 224
) -> BoxScores:
    """Scores per record of the evidence told in cells of a grid over the frame.

    Parameters
    ----------
    evidence : RaggedBoxes
        Evidence per record, native pixels, inside the images.
    sizes : ndarray, shape (n, 2)
        Widths and heights of the images.
    grid : (rows, columns) or None
        Of the cells, over the whole frame, padding included; None: its pixels.
    side : int or None
        Side of the letterboxed frame; None: the frame is the native image.

    Returns
    -------
    BoxScores
        1 where the evidence is a union of cells that the protocol keeps apart; 0 where it is empty, or too small for
        the protocol's least component in every set.
    """
    n = len(sizes)
    ends = np.cumsum(evidence.counts)
    out = np.zeros((len(METRICS), n))
    known: dict[tuple[bytes, ...], np.ndarray] = {}  # several LVLMs are asked about the same evidence
    for lo in range(0, n, _RECORDS_AT_ONCE):
        part = slice(lo, min(lo + _RECORDS_AT_ONCE, n))
        counts = evidence.counts[part]
        mine = RaggedBoxes(evidence.boxes[ends[part.start] - counts[0] : ends[part.stop - 1]], counts)
        out[:, part] = _ceiling_scores(mine, sizes[part], grid, side, known)
    return BoxScores(*out)


def _ceiling_scores(
    evidence: RaggedBoxes,
    sizes: np.ndarray,
    grid: tuple[int, int] | None,
    side: int | None,
    known: dict[tuple[bytes, ...], np.ndarray],
) -> np.ndarray:
    different, frame = np.unique(sizes, axis=0, return_inverse=True)
    frame = frame.reshape(-1)  # two-dimensional in some versions of numpy
    frames = [Letterbox.fit(int(w), int(h), side) for w, h in different.tolist()]
    content = np.array([f.content for f in frames], np.float64).reshape(-1, 4)[frame]
    shape = np.array([(f.frame_width, f.frame_height) for f in frames], np.float64).reshape(-1, 2)[frame]
    cells = shape if grid is None else np.broadcast_to(np.array(grid[::-1], np.float64), shape.shape)
    # Native to frame is one scale per axis, which leaves every ratio of areas as it is: all is computed in the frame.
    owner = np.repeat(np.arange(len(sizes)), evidence.counts)
    scale, origin = (content[:, 2:] - content[:, :2]) / sizes, content[:, :2]
    inside = evidence.boxes * np.tile(scale, 2)[owner] + np.tile(origin, 2)[owner]
    inside = np.clip(inside, np.tile(origin, 2)[owner], np.tile(content[:, 2:], 2)[owner])
    start = np.cumsum(evidence.counts) - evidence.counts
    single = np.flatnonzero(evidence.counts == 1)
    out = np.zeros((len(METRICS), len(sizes)))
    if len(single):
        here = inside[start[single]]
        found, kept = _best_rectangles(here, content[single], shape[single], cells[single])
        out[:, single] = score_boxes(
            RaggedBoxes(found[kept], kept.astype(np.int64)), RaggedBoxes(here, np.ones(len(here), np.int64))
        )
    for k in np.flatnonzero(evidence.counts > 1).tolist():
        here = inside[start[k] : start[k] + evidence.counts[k]]
        key = (here.tobytes(), content[k].tobytes(), shape[k].tobytes())
        if key not in known:
            sets = _threshold_sets(here, content[k], shape[k], cells[k])
            scores = np.stack(score_boxes(sets, [here] * len(sets)))
            known[key] = scores[:, int(np.argmax(scores[0]))]
        out[:, k] = known[key]
    return out


def _best_rectangles(
    boxes: np.ndarray, content: np.ndarray, shape: np.ndarray, cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per record the rectangle of cells of greatest IoU with its one box, and whether there is one.

    A single box is best told by a rectangle whose every edge is the cell edge just outside or just inside the box's.
    """
    step = np.tile(shape / cells, 2)
    place = _snapped(boxes / step)
    near, far = np.floor(place), np.ceil(place)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    best, found = np.zeros(len(boxes)), np.zeros_like(boxes)
    for choice in product((False, True), repeat=4):
        lines = np.where(choice, far, near)
        pixels = np.prod((lines[:, 2:] - lines[:, :2]) * step[:, :2], axis=1)
        rectangle = lines * step
        rectangle = np.clip(rectangle, np.tile(content[:, :2], 2), np.tile(content[:, 2:], 2))
        extent = np.maximum(rectangle[:, 2:] - rectangle[:, :2], 0)
        common = np.maximum(np.minimum(rectangle, boxes)[:, 2:] - np.maximum(rectangle, boxes)[:, :2], 0).prod(axis=1)
        iou = np.where(
            (lines[:, 2:] > lines[:, :2]).all(axis=1) & (pixels > _MIN_PIXELS - 0.5),
            common / (extent.prod(axis=1) + area - common),
            0.0,
        )
        better = iou > best
        best[better], found[better] = iou[better], rectangle[better]
    return found, best > 0


def _threshold_sets(boxes: np.ndarray, content: np.ndarray, shape: np.ndarray, cells: np.ndarray) -> list[np.ndarray]:
    """The boxes, by the protocol, of every set of cells whose share of evidence is above a threshold."""
    from scipy import ndimage

    lines = []
    for axis in (1, 0):
        step = shape[axis] / cells[axis]
        place = _snapped(boxes[:, [axis, axis + 2]] / step)
        # Between the cell edges next to the boxes' own all cells are alike, and are taken as one.
        lines.append(np.unique([np.floor(place), np.ceil(place)]) * step)
    rows, cols = lines
    visible = cell_coverage(content[None], rows, cols)
    share = np.round(cell_coverage(boxes, rows, cols) / np.where(visible > 0, visible, 1.0), 9)
    pixels = np.outer(np.diff(rows), np.diff(cols)).ravel()
    sets = []
    for level in np.unique(share[share > 0]).tolist():
        labels, count = ndimage.label(share >= level, np.ones((3, 3)))
        area = np.bincount(labels.ravel(), pixels, count + 1)[1:]
        kept = [
            where for where, size in zip(ndimage.find_objects(labels), area, strict=True) if size > _MIN_PIXELS - 0.5
        ]
        told = np.array([(cols[x.start], rows[y.start], cols[x.stop], rows[y.stop]) for y, x in kept[:_MOST_BOXES]])
        sets.append(np.clip(told.reshape(-1, 4), np.tile(content[:2], 2), np.tile(content[2:], 2)))
    return sets


def _snapped(place: np.ndarray) -> np.ndarray:
    """Places in cells, whole where only rounding keeps them from it."""
    whole = np.round(place)
    return np.where(np.abs(place - whole) < 1e-9, whole, place)


def best_concept(records: Sequence[Record], evidence: RaggedBoxes, sources: Iterable[Source]) -> BoxScores | None:
    """Scores of the anatomical concept whose box fits the evidence best; NaN where the concepts' masks are not known.

    Parameters
    ----------
    records : sequence of Record
        The records.
    evidence : RaggedBoxes
        Theirs, native pixels.
    sources : iterable of Source
        Those whose images are phantoms tell the exact masks.

    Returns
    -------
    BoxScores or None
        None where no record's concepts are known.
    """
    places = {(s.name, c.image_id): c for s in sources for c in s}
    start = np.cumsum(evidence.counts) - evidence.counts
    out = np.full((len(METRICS), len(records)), np.nan)
    boxes: dict[tuple[str, str], list[list[tuple[float, ...]]]] = {}
    for k, record in enumerate(records):
        key = (record.dataset, record.image_id)
        if key not in places or phantom_root(places[key].image_path) is None:
            continue
        if key not in boxes:
            masks = phantom_for(places[key]).masks.values()
            boxes[key] = [[box] for box in map(mask_box, masks) if box is not None]
        here = evidence.boxes[start[k] : start[k] + evidence.counts[k]]
        scores = np.stack(score_boxes(boxes[key], [here] * len(boxes[key])))
        out[:, k] = scores[:, int(np.argmax(scores[0]))]
    return None if np.isnan(out).all() else BoxScores(*out)
