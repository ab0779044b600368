"""Exact masks of the anatomical concepts of a phantom."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.sources.phantom.scene import Scene, at

if TYPE_CHECKING:
    from medground_bench.sources.phantom.shapes import Mask

__all__ = ["concept_masks"]

_ANGLE_RADIUS = 0.105
_HILUM = (0.052, 0.085)


def concept_masks(scene: Scene, heart: Mask | None = None) -> dict[str, Mask]:
    """Masks of the 11 concepts; ``heart`` replaces the normal cardiac silhouette when it is enlarged."""
    a, g = scene.a, scene.grid
    heart = scene.normal_heart > 0.5 if heart is None else heart
    lungs = scene.lung_masks()
    d = g.x - scene.axis(g.y)
    centre = np.abs(d) < a.trunk
    inlet, valve, floor = min(a.apex), a.heart_y - 0.115, max(a.heart_y + 0.09, a.heart_y)
    knob = scene.knob() > 0.5
    upper = (centre & (g.y > inlet) & (g.y < valve)) | (knob & (g.y < valve))
    masks = {
        "cardiac silhouette": heart,
        "left lung": lungs[1],
        "right lung": lungs[0],
        "upper mediastinum": upper,
        "mediastinum": upper | heart | (centre & (g.y > inlet) & (g.y < floor)),
    }
    for side, name in enumerate(("right", "left")):
        sign = (-1.0, 1.0)[side]
        masks[f"{name} clavicle"] = scene.clavicles[side] > 0.04
        x, y = scene.hila[side]
        inside = np.hypot((g.x - x - sign * 0.008) / _HILUM[0], (g.y - y) / _HILUM[1]) < 1.0
        masks[f"{name} hilar structures"] = inside & (sign * d > a.trunk * 0.8)
        corner = at(scene.midline, a.angle[side]) + sign * at(partial(scene.wall, side), a.angle[side])
        near = np.hypot(g.x - corner, g.y - a.angle[side]) < _ANGLE_RADIUS
        masks[f"{name} costophrenic angle"] = near & lungs[side]
    return masks
