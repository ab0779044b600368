"""Refining transferred regions with a box-prompted segmenter of the MedSAM family."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from medfocus.appearance import as_uint8
from medfocus.regions import tight_box
from medfocus.result import FRAME, Found, Transfer
from medground_bench.core.schema import Box
from medground_bench.imaging.letterbox import Letterbox

if TYPE_CHECKING:
    from medground_bench.attribution.segmenters import Segmenter

__all__ = ["enlarged", "overlap", "refine"]

_WORKING = 512  # longer side at which masks are decoded; LiteMedSAM itself sees 256


def refine(
    image: np.ndarray, transfer: Transfer, segmenter: Segmenter, enlarge: float = 1.0, agreement: float = 0.0
) -> Transfer:
    """Every concept's box prompts the segmenter; the tight box of its mask replaces it.

    One call for all concepts, so that the image is embedded once. The raw region stays where the mask is empty, or
    where its box overlaps the raw one by less than ``agreement``: the segmenter found another object.

    Parameters
    ----------
    image : ndarray, (h, w)
        Grey image.
    transfer : Transfer
        Raw regions.
    segmenter : Segmenter
        See :mod:`medground_bench.attribution.segmenters`.
    enlarge : float
        Factor on the prompt boxes.
    agreement : float
        Least IoU of refined and raw box; 0 takes every mask.
    """
    from PIL import Image

    if not transfer.concepts:
        return transfer
    height, width = image.shape
    scale = min(1.0, _WORKING / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(as_uint8(image)).resize(size, Image.Resampling.BOX if scale < 1 else None)
    factor = np.array([size[0] / width, size[1] / height] * 2)
    prompts = [np.multiply(enlarged(found.box, enlarge, width, height), factor) for found in transfer.concepts.values()]
    masks = segmenter.segment(small, prompts)
    letterbox = Letterbox.fit(width, height, FRAME)
    refined, kept = {}, []
    for (concept, found), mask in zip(transfer.concepts.items(), masks, strict=True):
        box = tight_box(mask)
        native = None if box is None else _native(box, factor, width, height)
        if native is None or overlap(native, found.box) < agreement:
            refined[concept] = found
            kept.append(concept)
        else:
            refined[concept] = Found(native, _on_frame(mask, letterbox))
    details = {**transfer.details, "refiner": segmenter.name, "unrefined": kept}
    return dataclasses.replace(transfer, concepts=refined, details=details)


def enlarged(box: Box, factor: float, width: float, height: float) -> Box:
    """A box scaled about its centre and cut to the image."""
    x1, y1, x2, y2 = box
    x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2 * factor, (y2 - y1) / 2 * factor
    return max(x - w, 0.0), max(y - h, 0.0), min(x + w, float(width)), min(y + h, float(height))


def overlap(one: Box, two: Box) -> float:
    """IoU of two boxes."""
    shared = max(min(one[2], two[2]) - max(one[0], two[0]), 0.0) * max(min(one[3], two[3]) - max(one[1], two[1]), 0.0)
    return shared / ((one[2] - one[0]) * (one[3] - one[1]) + (two[2] - two[0]) * (two[3] - two[1]) - shared)


def _native(box: Box, factor: np.ndarray, width: int, height: int) -> Box:
    x1, y1, x2, y2 = (float(v) for v in np.divide(box, factor))
    return x1, y1, min(x2, float(width)), min(y2, float(height))


def _on_frame(mask: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    from PIL import Image

    x1, y1, x2, y2 = letterbox.content
    out = np.zeros((letterbox.frame_height, letterbox.frame_width), bool)
    out[y1:y2, x1:x2] = np.asarray(Image.fromarray(mask).resize((x2 - x1, y2 - y1), Image.Resampling.NEAREST))
    return out
