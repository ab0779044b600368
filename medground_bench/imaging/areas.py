"""Exact areas of unions of boxes for many records at once.

The edges of a record's boxes cut the plane into a grid of cells (coordinate compression), on which every area is a
sum of whole cells: no raster, no sampling. Which boxes cover a cell is one bit each of an integer, the bits of its
column *and* those of its row, so that a grid costs a few integer operations per cell. Records are put through
together with those of the same number of boxes. Prediction, evidence and their intersection are sums over the same
cells, so that a perfect prediction scores exactly 1 and a disjoint one exactly 0.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from medground_bench.core.errors import ScoringError

__all__ = ["BoxColumn", "RaggedBoxes", "RecordAreas", "ragged", "record_areas"]

MAX_COORDINATE = 1e9
"""No image has more pixels along a side; beyond it areas would lose digits."""

_CELLS_AT_ONCE = 1 << 15  # records x rows of cells: small enough for the cache
_RECORDS_AT_ONCE = 1 << 14
_BITS = 64


class RaggedBoxes(NamedTuple):
    """The boxes of many records, one after the other.

    Attributes
    ----------
    boxes : ndarray, shape (sum(counts), 4), float64
        Boxes with an area, in record order.
    counts : ndarray, shape (n,), int64
        Number of boxes of every record.
    """

    boxes: np.ndarray
    counts: np.ndarray


class RecordAreas(NamedTuple):
    """Areas per record in square pixels, each of shape (n,): of the prediction, the evidence and what they share."""

    prediction: np.ndarray
    evidence: np.ndarray
    common: np.ndarray


def ragged(records: Sequence[Any] | RaggedBoxes, name: str = "boxes") -> RaggedBoxes:
    """Lists of boxes per record -> flat arrays, without the reversed and zero-area ones.

    Parameters
    ----------
    records : sequence of (sequence of [x1, y1, x2, y2])
        Lists, tuples or arrays.
    name : str
        What to call them in an error message.

    Raises
    ------
    ScoringError
        If a record is not a list of boxes, or a box does not have four finite numbers; it names the record.
    """
    if isinstance(records, RaggedBoxes):
        return records
    records = records if isinstance(records, Sequence | np.ndarray) else list(records)
    try:
        counts = np.fromiter(map(len, records), np.int64, len(records))
        flat = list(chain.from_iterable(records))
        if flat and set(map(len, flat)) != {4}:
            raise ValueError("a box does not have four numbers")
        boxes = np.fromiter(chain.from_iterable(flat), np.float64, 4 * len(flat)).reshape(-1, 4)
    except (TypeError, ValueError, OverflowError) as error:
        raise _explained(records, name) from error
    if len(boxes) and not np.abs(boxes).max() <= MAX_COORDINATE:  # also false for NaN
        raise _explained(records, name)
    return _with_area(boxes, counts)


def _with_area(boxes: np.ndarray, counts: np.ndarray) -> RaggedBoxes:
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if not keep.all():
        counts = np.bincount(np.repeat(np.arange(len(counts)), counts)[keep], minlength=len(counts))
        boxes = boxes[keep]
    return RaggedBoxes(boxes, counts)


class BoxColumn:
    """Boxes of records that come one after the other, kept as numbers: a list of a million lists takes ten times that.

    Examples
    --------
    >>> column = BoxColumn()
    >>> column.append([[10, 10, 50, 50]])
    >>> column.append([])
    >>> column.ragged().counts.tolist()
    [1, 0]
    """

    def __init__(self) -> None:
        self._boxes, self._counts = array("d"), array("q")

    def __len__(self) -> int:
        return len(self._counts)

    def append(self, boxes: Sequence[Sequence[float]]) -> None:
        """Add a record's boxes, four numbers each."""
        for box in boxes:
            self._boxes.extend(box)
        self._counts.append(len(boxes))

    def ragged(self, name: str = "boxes") -> RaggedBoxes:
        """All boxes, as :func:`ragged` gives them; it raises as that does.

        Raises
        ------
        ScoringError
            If a box does not have four finite numbers.
        """
        boxes, counts = np.asarray(self._boxes), np.asarray(self._counts)
        if 4 * int(counts.sum()) != len(boxes):
            raise ScoringError(f"a box of the {name} does not have four numbers", expected="[x1, y1, x2, y2]")
        boxes = boxes.reshape(-1, 4)
        if len(boxes) and not np.abs(boxes).max() <= MAX_COORDINATE:
            return ragged(np.split(boxes, np.cumsum(counts)[:-1]), name)  # which names the record
        return _with_area(boxes, counts)


def _explained(records: Sequence[Any], name: str) -> ScoringError:
    """The error of the first faulty record, found the slow way."""
    for i, record in enumerate(records):
        where = f"{name}[{i}]"
        if isinstance(record, str) or not hasattr(record, "__len__"):
            return ScoringError(
                f"{type(record).__name__} is not a list of boxes", where=where, expected="[[x1, y1, x2, y2], ...]"
            )
        for k, box in enumerate(record):
            if isinstance(box, str) or not hasattr(box, "__len__") or len(box) != 4:
                return ScoringError(
                    f"box {k} does not have four numbers: {box!r}", where=where, expected="[x1, y1, x2, y2]"
                )
            try:
                values = np.asarray(box, np.float64)
            except (TypeError, ValueError, OverflowError):
                return ScoringError(f"box {k} is not numbers: {box!r}", where=where, expected="[x1, y1, x2, y2]")
            if values.shape != (4,) or not np.abs(values).max() <= MAX_COORDINATE:
                return ScoringError(
                    f"box {k} has a value that is not finite or beyond {MAX_COORDINATE:g}: {box!r}",
                    where=where,
                    expected="four finite numbers in pixels",
                )
    return ScoringError(f"{name} are not lists of boxes", expected="[[[x1, y1, x2, y2], ...], ...]")


def record_areas(predictions: Sequence[Any] | RaggedBoxes, references: Sequence[Any] | RaggedBoxes) -> RecordAreas:
    """Exact areas per record of the unions of predicted and evidence boxes and of their intersection.

    Memory beyond the input is a few times that of the boxes, whatever the number of records.

    Raises
    ------
    ScoringError
        If the two differ in length, or something is not a box.
    """
    predictions, references = ragged(predictions, "predictions"), ragged(references, "references")
    n = len(predictions.counts)
    if n != len(references.counts):
        raise ScoringError(
            f"{n} predictions for {len(references.counts)} references", expected="one list of boxes per record in each"
        )
    areas = RecordAreas(np.zeros(n), np.zeros(n), np.zeros(n))
    single = (predictions.counts <= 1) & (references.counts <= 1)
    _score_single(predictions, references, np.flatnonzero(single), areas)
    _score_several(predictions, references, np.flatnonzero(~single), areas)
    return areas


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts) - counts


def _score_single(p: RaggedBoxes, g: RaggedBoxes, index: np.ndarray, areas: RecordAreas) -> None:
    """Records with at most one box on either side: closed form."""
    starts = _starts(p.counts), _starts(g.counts)
    for lo in range(0, len(index), _RECORDS_AT_ONCE):
        _score_pairs(p, g, starts, index[lo : lo + _RECORDS_AT_ONCE], areas)


def _score_pairs(
    p: RaggedBoxes, g: RaggedBoxes, starts: tuple[np.ndarray, np.ndarray], index: np.ndarray, areas: RecordAreas
) -> None:
    a = _only_box(p, starts[0], index)
    b = _only_box(g, starts[1], index)
    areas.prediction[index] = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    areas.evidence[index] = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    areas.common[index] = np.maximum(width, 0.0) * np.maximum(height, 0.0)


def _only_box(side: RaggedBoxes, starts: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The one box of each record, zeros for those without."""
    out = np.zeros((len(index), 4))
    has = side.counts[index] > 0
    out[has] = side.boxes[starts[index[has]]]
    return out


def _score_several(p: RaggedBoxes, g: RaggedBoxes, index: np.ndarray, areas: RecordAreas) -> None:
    """All other records, together with those that have the same number of boxes."""
    if not len(index):
        return
    total = p.counts + g.counts
    starts = _starts(total)
    boxes = np.empty((int(total.sum()), 4))
    # Predictions first, then evidence, record by record.
    boxes[_places(p.counts, starts)] = p.boxes
    boxes[_places(g.counts, starts + p.counts)] = g.boxes
    for m in np.unique(total[index]).tolist():
        same = index[total[index] == m]
        if m > _BITS:
            for i in same.tolist():
                _score_crowded(boxes[starts[i] : starts[i] + m], int(p.counts[i]), i, areas)
            continue
        step = max(1, min(_RECORDS_AT_ONCE, _CELLS_AT_ONCE // (2 * m - 1)))
        for lo in range(0, len(same), step):
            part = same[lo : lo + step]
            _score_bucket(boxes, starts[part], p.counts[part], m, part, areas)


def _places(counts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Where the boxes of records that begin at ``starts`` go, in order."""
    return np.arange(int(counts.sum())) + np.repeat(starts - _starts(counts), counts)


def _score_bucket(
    boxes: np.ndarray, starts: np.ndarray, predicted: np.ndarray, m: int, index: np.ndarray, areas: RecordAreas
) -> None:
    """``n`` records of ``m`` boxes each; arrays have the record as last axis, so that every operation is long."""
    dtype = np.uint8 if m <= 8 else np.uint16 if m <= 16 else np.uint32 if m <= 32 else np.uint64
    mine = boxes[starts + np.arange(m)[:, None]]  # (m, n, 4)
    widths, columns = _slabs(mine[:, :, 0], mine[:, :, 2], dtype)
    heights, rows = _slabs(mine[:, :, 1], mine[:, :, 3], dtype)
    of_prediction = ((np.uint64(1) << np.minimum(predicted, 63).astype(np.uint64)) - np.uint64(1)).astype(dtype)
    of_prediction[predicted == _BITS] = np.iinfo(dtype).max
    p_rows, g_rows = rows & of_prediction, rows & ~of_prediction
    sums = np.zeros((3, len(index)))
    for width, column in zip(widths, columns, strict=True):
        in_p = (p_rows & column) != 0
        in_g = (g_rows & column) != 0
        for k, cells in enumerate((in_p, in_g, in_p & in_g)):
            sums[k] += width * np.where(cells, heights, 0.0).sum(axis=0)
    areas.prediction[index], areas.evidence[index], areas.common[index] = sums


def _slabs(low: np.ndarray, high: np.ndarray, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """The slabs between neighbouring edges of m intervals: widths (2m - 1, n) and the bits of who covers them."""
    edges = np.sort(np.concatenate([low, high]), axis=0)
    left = edges[:-1]
    bits: np.ndarray = np.zeros(left.shape, dtype)
    for j in range(len(low)):
        bits |= ((low[j] <= left) & (high[j] > left)).astype(dtype) << dtype(j)
    return np.diff(edges, axis=0), bits


def _score_crowded(boxes: np.ndarray, predicted: int, i: int, areas: RecordAreas) -> None:
    """One record of more boxes than an integer has bits: a sweep from left to right, O(boxes) memory.

    Of every row of cells it is known how many boxes of either side cover it; where a box begins or ends, only its own
    rows change. The three lengths are sums of the same numbers in the same order, so that they are equal where the
    sides are.
    """
    ys = np.unique(boxes[:, [1, 3]])
    heights = np.diff(ys)
    rows = np.stack([np.searchsorted(ys, boxes[:, 1]), np.searchsorted(ys, boxes[:, 3])], axis=1)
    begins = np.concatenate([boxes[:, 0], boxes[:, 2]])
    order = np.argsort(begins, kind="stable")
    count = np.zeros((2, len(heights)), np.int32)
    totals = np.zeros(3)
    edges = begins[order].tolist()
    for k, event in enumerate(order.tolist()):
        box, step = (event, 1) if event < len(boxes) else (event - len(boxes), -1)
        count[int(box >= predicted), rows[box, 0] : rows[box, 1]] += step
        if k + 1 < len(edges) and (width := edges[k + 1] - edges[k]) > 0:
            covered = count > 0
            totals += width * (np.stack([covered[0], covered[1], covered[0] & covered[1]]) @ heights)
    areas.prediction[i], areas.evidence[i], areas.common[i] = totals
