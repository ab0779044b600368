"""Drawing located concepts on a radiograph."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.anatomy import CONCEPTS, ZONES
from medground_bench.imaging.letterbox import Letterbox

if TYPE_CHECKING:
    from PIL.Image import Image

    from medfocus.result import Found

__all__ = ["COLOURS", "draw_concepts"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "cardiac silhouette": (230, 60, 60),
    "left lung": (70, 150, 240),
    "right lung": (60, 190, 210),
    "mediastinum": (250, 160, 40),
    "upper mediastinum": (240, 220, 60),
    "left clavicle": (170, 120, 250),
    "right clavicle": (210, 140, 230),
    "left hilar structures": (90, 210, 110),
    "right hilar structures": (170, 220, 80),
    "left costophrenic angle": (250, 120, 180),
    "right costophrenic angle": (250, 170, 200),
}


def _colour(concept: str) -> tuple[int, int, int]:
    """A concept's own colour; a zone's hue follows from its place in the vocabulary."""
    if concept in COLOURS:
        return COLOURS[concept]
    hue = (ZONES.index(concept) * 0.382 if concept in ZONES else 0.0) % 1.0  # the golden angle: neighbours differ
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


_SIDE = 896  # the picture's longer side for the radiograph
_LEGEND = 250


def draw_concepts(image: Image, found: Mapping[str, Found], title: str = "") -> Image:
    """The radiograph with every concept's pixels tinted, its box and its name, and a legend beside it.

    Parameters
    ----------
    image : PIL image
        The native radiograph.
    found : mapping of str to Found
        Located concepts.
    title : str
        First line of the legend, e.g. preset and refiner.
    """
    from PIL import Image as pil
    from PIL import ImageDraw, ImageFont

    scale = _SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = np.asarray(image.convert("L").resize(size, pil.Resampling.BICUBIC).convert("RGB"), np.float32).copy()
    for concept, one in found.items():
        _tint(canvas, _native_mask(one.mask, image.size, size), _colour(concept))
    names = CONCEPTS if set(found) <= set(CONCEPTS) else tuple(found)
    picture = pil.new("RGB", (size[0] + _LEGEND, max(size[1], 60 + 24 * len(names))), (24, 24, 28))
    picture.paste(pil.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)), (0, 0))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=13)
    for concept, one in found.items():
        box = [v * scale for v in one.box]
        draw.rectangle(
            [box[0], box[1], max(box[0], box[2] - 1), max(box[1], box[3] - 1)], outline=_colour(concept), width=2
        )
    draw.text((size[0] + 12, 12), title, font=font, fill=(235, 235, 235))
    for row, concept in enumerate(names):
        top = 44 + 24 * row
        present = concept in found
        draw.rectangle([size[0] + 12, top, size[0] + 26, top + 14], outline=_colour(concept), width=2 if present else 1)
        shade = (235, 235, 235) if present else (110, 110, 115)
        draw.text((size[0] + 34, top - 1), concept if present else f"{concept} (not in pool)", font=font, fill=shade)
    return picture


def _tint(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    canvas[mask] = canvas[mask] * 0.82 + np.array(colour, np.float32) * 0.18


def _native_mask(mask: np.ndarray, native: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    from PIL import Image as pil

    x1, y1, x2, y2 = Letterbox.fit(*native, mask.shape[0]).content
    content = pil.fromarray((mask[y1:y2, x1:x2] * 255).astype(np.uint8))
    return np.asarray(content.resize(size, pil.Resampling.BILINEAR)) > 127
