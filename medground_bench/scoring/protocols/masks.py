"""Mask-valued submissions: regions drawn pixel by pixel against the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.errors import MedGroundError
from medground_bench.imaging.boxes import mask_box
from medground_bench.imaging.overlap import score_boxes
from medground_bench.scoring.protocols.chexlocalize import evidence_mask, iou
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, Skip, protocol
from medground_bench.submission.masks import read_mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medground_bench.scoring.protocols.case import Case

__all__ = ["boundary_f", "instance_f", "masks", "parts"]

_REACH = 0.02  # of the diagonal, for boundaries
_SAME = 0.5  # IoU from which two regions are the same
_MIN_PIXELS = 16


def parts(mask: np.ndarray) -> list[np.ndarray]:
    """The 8-connected parts of a mask."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3)))
    return [labels == k for k in range(1, count + 1)]


def boundary_f(a: np.ndarray, b: np.ndarray, reach: float) -> float:
    """F measure of the outlines of two masks: the shares of each that lie within ``reach`` pixels of the other's."""
    from scipy import ndimage

    edges = [m & ~ndimage.binary_erosion(m, border_value=0) for m in (a, b)]
    if not edges[0].any() or not edges[1].any():
        return float(not edges[0].any() and not edges[1].any())
    near = [ndimage.distance_transform_edt(~edge) <= reach for edge in edges]
    precision, recall = near[1][edges[0]].mean(), near[0][edges[1]].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def instance_f(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float:
    """F1 of regions, matched one to one for the greatest sum of IoU; a match counts from an IoU of 0.5 on."""
    from scipy.optimize import linear_sum_assignment

    if not predicted or not true:
        return float(not predicted and not true)
    table = np.array([[iou(p, t) for t in true] for p in predicted])
    rows, cols = linear_sum_assignment(-table)
    matched = int((table[rows, cols] >= _SAME).sum())
    return 2 * matched / (len(predicted) + len(true))


@protocol(
    "masks",
    asks="How well do the submission's masks, rather than its boxes, draw the evidence?",
    measures=[
        Measure("iou", "IoU of the unions", bounds=(0, 1)),
        Measure("dice", "Dice coefficient of the unions", bounds=(0, 1)),
        Measure("boundary_f", "F measure of the outlines within 2 % of the diagonal", bounds=(0, 1)),
        Measure("instance_f1", "F1 of regions matched at an IoU of 0.5", bounds=(0, 1)),
        Measure("centroid_hit", "centre of mass in the evidence", bounds=(0, 1), chance="area"),
        Measure("box_iou", "IoU of the masks' parts told as boxes, as in the tables of boxes", bounds=(0, 1)),
        Measure("area", "share of the image that is evidence", "", (0, 1)),
    ],
    needs=("masks",),
    cost="0 F",
    reference="segmentation scores; matching as in COCO's instances",
)
def masks(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """Against the source's masks where it has them, else the evidence boxes, at native resolution."""
    given = case.prediction.masks
    if not given:
        raise Skip("no masks")
    folder = case.trial.submission.path
    try:
        found = [read_mask(folder, item, case.record.size) for item in given]
    except MedGroundError as error:
        raise Skip(error.message + (f" (expected: {error.expected})" if error.expected else "")) from error
    truth = evidence_mask(case)
    union = np.logical_or.reduce(found)
    height, width = truth.shape
    total = union.sum() + truth.sum()
    pieces = [part for part in parts(union) if part.sum() >= _MIN_PIXELS]
    boxes = [box for box in map(mask_box, pieces) if box is not None]
    hit = np.nan
    if union.any():
        y, x = (round(v) for v in np.argwhere(union).mean(axis=0))
        hit = float(truth[y, x])
    return {
        "iou": iou(union, truth),
        "dice": float(2 * (union & truth).sum() / total) if total else np.nan,
        "boundary_f": boundary_f(union, truth, _REACH * float(np.hypot(height, width))),
        "instance_f1": instance_f([m for m in found if m.any()], parts(truth)),
        "centroid_hit": hit,
        "box_iou": float(score_boxes([boxes], [case.record.boxes]).iou[0]),
        "area": float(truth.mean()),
    }
