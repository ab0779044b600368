"""The four numbers of the benchmark per record: IoU, precision, recall and F1 of unions of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medground_bench.imaging.areas import RaggedBoxes, RecordAreas, record_areas

__all__ = ["METRICS", "BoxScores", "score_areas", "score_boxes"]

METRICS = ("iou", "precision", "recall", "f1")
"""The paper's four numbers, in the order of its table; fractions."""


class BoxScores(NamedTuple):
    """Scores per record, each of shape (n,), fractions from 0 to 1."""

    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def score_boxes(predictions: Sequence[Any] | RaggedBoxes, references: Sequence[Any] | RaggedBoxes) -> BoxScores:
    """Score predicted boxes against evidence boxes, record by record (paper, section 5; spec section 5).

    With the union of boxes P and the union of evidence G: IoU = ``|P & G| / |P | G|``, precision =
    ``|P & G| / |P|``, recall = ``|P & G| / |G|``, F1 their harmonic mean. Areas are exact. Both empty: all 1; one
    empty: all 0. Reversed and zero-area boxes are dropped.

    Parameters
    ----------
    predictions, references : sequence of (sequence of [x1, y1, x2, y2])
        One list of half-open boxes per record, in native pixels; lists, tuples, arrays or :class:`RaggedBoxes`.

    Returns
    -------
    BoxScores
        ``iou``, ``precision``, ``recall``, ``f1``: float64 arrays with one entry per record.

    Raises
    ------
    ScoringError
        If the two differ in length, or a box does not have four finite numbers.
    """
    return score_areas(record_areas(predictions, references))


def score_areas(areas: RecordAreas) -> BoxScores:
    """Scores from areas (see :func:`score_boxes`)."""
    p, g, common = areas
    both_empty = (p == 0) & (g == 0)
    overlap = common > 0

    def ratio(whole: np.ndarray) -> np.ndarray:
        share = np.divide(common, whole, out=np.zeros_like(common), where=overlap)
        return np.where(both_empty, 1.0, np.minimum(share, 1.0))

    return BoxScores(ratio(p + g - common), ratio(p), ratio(g), ratio((p + g) / 2))
