"""Rules that make boxes of a map: how much of a score is the rule's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.attribution.regions import box_masks
from medground_bench.imaging import heatmap_to_boxes
from medground_bench.imaging.levels import agreed, level_regions
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["box_rules"]


@protocol(
    "box_rules",
    asks="How much of a map's score is the rule that makes boxes of it?",
    measures=[
        Measure("iou_agreed", "IoU of the boxes at the level that eight levels agree on most", bounds=(0, 1)),
        Measure("iou_hottest", "IoU of the boxes around the hottest tenth, the benchmark's rule", bounds=(0, 1)),
        Measure("iou_sized", "IoU of the hottest pixels, as many as the evidence has", "high", (0, 1), "at_random"),
        Measure("iou_best", "IoU of the best of the eight levels, if one could tell it", bounds=(0, 1)),
        Measure("gain", "IoU won by agreement over the hottest tenth", "", (-1, 1)),
        Measure("at_random", "IoU of as many pixels anywhere", "", (0, 1)),
    ],
    needs=("heatmaps",),
    cost="0 F",
    reference="agreement: the decision of least expected loss (Kumar & Byrne 2004), all levels worth the same",
)
def box_rules(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """The submitted map's boxes by two rules, and its hottest pixels where the size of the evidence is known."""
    heat = case.over_frame(np.maximum(case.heatmap, 0) if case.trial.submission.signed else case.heatmap)
    heat = heat - heat.min()
    if not heat.max() > 0:
        raise Skip("a map without a positive part")
    height, width = heat.shape
    regions = level_regions(heat)
    masks = np.stack([box_masks(list(region), height, width).any(0) for region in regions])
    ious = [case.overlap(case.letterbox.to_native(list(region)))["iou"] for region in regions]
    hottest = case.overlap(case.letterbox.to_native(heatmap_to_boxes(heat)))["iou"]
    truth = box_masks(case.letterbox.to_frame(case.record.boxes), height, width).any(0)
    size = int(truth.sum())
    if not size:
        raise Skip("evidence smaller than a pixel of the frame")
    chosen = np.zeros(truth.size, bool)
    chosen[np.argsort(-heat.ravel(), kind="stable")[:size]] = True
    common = int((chosen.reshape(truth.shape) & truth).sum())
    expected = size * size / truth.size  # of as many pixels drawn at random
    return {
        "iou_agreed": ious[agreed(masks)],
        "iou_hottest": hottest,
        "iou_sized": common / (2 * size - common),
        "iou_best": max(ious),
        "gain": ious[agreed(masks)] - hottest,
        "at_random": expected / (2 * size - expected),
    }
