"""Zones of the chest, derived from where the eleven concepts are: geometry, nothing learned.

Lungs are cut into thirds of their height; the apex is what lies above the clavicle, a hemidiaphragm the band around the
lung's lower edge. The airway runs down the middle of the upper mediastinum to the carina at the upper edge of the hila;
aortic arch and superior vena cava are its left and right border, the right atrium the heart's. Names are those of Chest
ImaGenome.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medground_bench.core.anatomy import ZONES
from medground_bench.core.schema import Box
from medground_bench.imaging.boxes import mask_box

__all__ = ["breast_mask", "zone_boxes", "zone_masks"]

_THIRDS = ("upper lung zone", "mid lung zone", "lower lung zone")


def zone_boxes(boxes: Mapping[str, Box], width: float, height: float) -> dict[str, Box]:
    """Boxes of the zones that follow from boxes of concepts.

    Parameters
    ----------
    boxes : mapping of str to Box
        Concepts of :data:`medground_bench.core.anatomy.CONCEPTS`; what needs one that is absent is left out.
    width, height : float
        Of the image, in the boxes' unit.

    Returns
    -------
    dict of str to Box
        In the order of :data:`medground_bench.core.anatomy.ZONES`, cut to the image. Concepts that are zones too are
        passed on.
    """
    found = {name: boxes[name] for name in ZONES if name in boxes}
    for side in ("left", "right"):
        if f"{side} lung" in boxes:
            found |= _lung(side, boxes[f"{side} lung"], boxes.get(f"{side} clavicle"))
    found |= _middle(boxes, height)
    out: dict[str, Box] = {}
    for name in ZONES:
        if name in found:
            x1, y1, x2, y2 = found[name]
            cut = (max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height))
            if cut[2] > cut[0] and cut[3] > cut[1]:
                out[name] = cut
    return out


def _lung(side: str, lung: Box, clavicle: Box | None) -> dict[str, Box]:
    x1, y1, x2, y2 = lung
    h = y2 - y1
    apex = y1 + h / 6 if clavicle is None else min(max(clavicle[3], y1 + 0.1 * h), y1 + 0.22 * h)
    zones = {f"{side} {name}": (x1, y1 + k * h / 3, x2, y1 + (k + 1) * h / 3) for k, name in enumerate(_THIRDS)}
    zones[f"{side} apical zone"] = (x1, y1, x2, apex)
    zones[f"{side} hemidiaphragm"] = (x1, y2 - 0.12 * h, x2, y2 + 0.05 * h)
    return zones


def _middle(boxes: Mapping[str, Box], height: float) -> dict[str, Box]:
    """Zones between and below the lungs."""
    if not {"left lung", "right lung", "upper mediastinum"} <= set(boxes):
        return {}
    left, right, (x1, y1, x2, y2) = boxes["left lung"], boxes["right lung"], boxes["upper mediastinum"]
    middle, chest, h = (x1 + x2) / 2, left[2] - right[0], y2 - y1
    hila = [boxes[name][1] for name in ("left hilar structures", "right hilar structures") if name in boxes]
    carina = min(max(float(np.mean(hila)), y1 + 0.4 * h), y2) if hila else y1 + 0.75 * h
    zones = {
        "trachea": (middle - 0.04 * chest, y1, middle + 0.04 * chest, carina),
        "carina": (middle - 0.06 * chest, carina - 0.04 * chest, middle + 0.06 * chest, carina + 0.04 * chest),
        "aortic arch": (middle, y2 - 0.55 * h, x2, y2 - 0.1 * h),
        "svc": (x1, y1 + 0.3 * h, x1 + 0.8 * (middle - x1), y2),
        "spine": (middle - 0.07 * chest, y1, middle + 0.07 * chest, height),
        "abdomen": (right[0], (left[3] + right[3]) / 2, left[2], height),
    }
    if "cardiac silhouette" in boxes:
        hx1, hy1, _, hy2 = boxes["cardiac silhouette"]
        tall = hy2 - hy1
        zones["cavoatrial junction"] = (hx1, hy1 - 0.05 * tall, middle, hy1 + 0.25 * tall)
        zones["right atrium"] = (hx1, hy1 + 0.25 * tall, middle, hy2 - 0.1 * tall)
    return zones


def zone_masks(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Masks of the zones: the zone's box, within the lung where it is part of one; concepts keep their own.

    Parameters
    ----------
    masks : mapping of str to (H, W) bool array
        Of the concepts on one image.
    """
    there = {name: np.asarray(mask, bool) for name, mask in masks.items() if np.any(mask)}
    boxes = {name: box for name, mask in there.items() if (box := mask_box(mask)) is not None}
    if not there:
        return {}
    height, width = next(iter(there.values())).shape
    out: dict[str, np.ndarray] = {}
    for name, (x1, y1, x2, y2) in zone_boxes(boxes, width, height).items():
        if name in there:
            out[name] = there[name]
            continue
        area = np.zeros((height, width), bool)
        area[round(y1) : max(round(y2), round(y1) + 1), round(x1) : max(round(x2), round(x1) + 1)] = True
        side = name.split()[0]
        if name.endswith("zone"):
            area &= there[f"{side} lung"]
        if area.any():
            out[name] = area
    return out


def breast_mask(masks: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Where breasts cast their shadow, if the patient has any, (H, W) bool; None where neither lung is known.

    An ellipse over the lower third of each lung, a little wider than the lung and reaching below it.

    Parameters
    ----------
    masks : mapping of str to (H, W) bool array
        Of the concepts on one image, any grid.
    """
    out: np.ndarray | None = None
    for side in ("left", "right"):
        mask = masks.get(f"{side} lung")
        box = None if mask is None else mask_box(np.asarray(mask, bool))
        if mask is None or box is None:
            continue
        x1, y1, x2, y2 = box
        across = 0.55 if side == "left" else 0.45  # from the image's left, where the patient's right is
        y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
        dx = (x + 0.5 - x1 - across * (x2 - x1)) / (0.6 * (x2 - x1))
        dy = (y + 0.5 - y1 - 0.9 * (y2 - y1)) / (0.22 * (y2 - y1))
        inside = dx**2 + dy**2 <= 1
        out = inside if out is None else out | inside
    return out
