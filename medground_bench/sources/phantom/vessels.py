"""Pulmonary vessels: two trees of tapering lines that leave the hila."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from medground_bench.sources.phantom.shapes import Field, Grid

__all__ = ["draw_vessels"]


def draw_vessels(r: np.random.Generator, g: Grid, hila: Sequence[tuple[float, float]]) -> Field:
    """Attenuation (H, W) of the vessel trees that leave the (right, left) hila, not yet clipped to the lungs."""
    factor = 2 if g.unit <= 700 else 1
    canvas = Image.new("L", (g.width * factor, g.height * factor))
    pen = ImageDraw.Draw(canvas)
    scale = g.unit * factor
    lines = np.concatenate([_tree(r, *hila[side], sign) for side, sign in enumerate((-1.0, 1.0))])
    # Thin first: where vessels cross, the thick one shows.
    lines = lines[np.argsort(lines[:, 4], kind="stable")]
    px, py = (factor * part for part in g.pixels(lines[:, [0, 2]], lines[:, [1, 3]]))
    wide = np.maximum(1, np.rint(lines[:, 4] * scale)).astype(int)
    # A vessel thinner than the pen is drawn fainter instead.
    share = np.minimum(1.0, lines[:, 4] * scale / wide + 0.25)
    tone = np.rint(np.clip(34 + 15000 * lines[:, 4], 0, 235) * share).astype(int)
    for (xa, xb), (ya, yb), w, v in zip(px.tolist(), py.tolist(), wide.tolist(), tone.tolist(), strict=True):
        pen.line((xa, ya, xb, yb), fill=v, width=w)
    return np.asarray(canvas.reduce(factor) if factor > 1 else canvas, np.float32) * np.float32(0.135 / 255)


def _tree(r: np.random.Generator, x: float, y: float, sign: float) -> np.ndarray:
    """Segments (n, 5) of one vessel tree: x0, y0, x1, y1, width; drawn generation by generation."""
    # 0 points away from the mediastinum, positive angles point down.
    angles = np.concatenate([np.linspace(-1.35, 1.25, 8), [0.75, 1.05]]) + r.normal(0, 0.10, 10)
    px = x + r.normal(0, 0.006, 10)
    py = y + 0.035 * np.sin(angles) + r.normal(0, 0.006, 10)
    width = np.full(10, 0.0115) * r.uniform(0.75, 1.15, 10)
    length = r.uniform(0.050, 0.075, 10)
    parts = []
    for generation in range(6):
        bend = angles + r.normal(0, 0.10, angles.size)
        mx, my = px + sign * np.cos(angles) * length / 2, py + np.sin(angles) * length / 2
        ex, ey = mx + sign * np.cos(bend) * length / 2, my + np.sin(bend) * length / 2
        parts.append(np.stack([px, py, mx, my, width], 1))
        parts.append(np.stack([mx, my, ex, ey, 0.9 * width], 1))
        if generation == 5:
            break
        fork = (
            r.normal(0.42, 0.10, (2, angles.size)) * np.array([[1.0], [-1.0]]) * r.uniform(0.3, 1.3, (2, angles.size))
        )
        angles = (bend[None] + fork).ravel()
        px, py = np.tile(ex, 2), np.tile(ey, 2)
        width = (width[None] * r.uniform(0.60, 0.82, (2, width.size))).ravel()
        length = (length[None] * r.uniform(0.66, 0.92, (2, length.size))).ravel()
    return np.concatenate(parts)
