"""Boxes, the letterbox and the step from heat map to boxes: the only place with coordinates."""

from medground_bench.imaging.boxes import (
    as_boxes,
    box_areas,
    clip_boxes,
    intersection_area,
    mask_box,
    scale_boxes,
    union_area,
    union_box,
    valid_boxes,
    whole_image,
)
from medground_bench.imaging.heatmap import heatmap_to_boxes, is_degenerate, resize_heatmap
from medground_bench.imaging.letterbox import Letterbox

__all__ = [
    "Letterbox",
    "as_boxes",
    "box_areas",
    "clip_boxes",
    "heatmap_to_boxes",
    "intersection_area",
    "is_degenerate",
    "mask_box",
    "resize_heatmap",
    "scale_boxes",
    "union_area",
    "union_box",
    "valid_boxes",
    "whole_image",
]
