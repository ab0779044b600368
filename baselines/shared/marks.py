"""Numbered outlines on a frame, and the numbers that a reply names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

__all__ = ["draw_marks", "read_numbers"]

_COLOUR = (255, 210, 0)


def draw_marks(frame: Image, masks: Sequence[np.ndarray]) -> Image:
    """A copy of the frame with every mask outlined and numbered from 1.

    Parameters
    ----------
    frame : PIL image
        Mode "RGB".
    masks : sequence of ndarray, (H, W) bool
        Regions; the number stands at the region's innermost pixel.
    """
    from PIL import Image as pil
    from PIL import ImageDraw
    from scipy.ndimage import binary_erosion, distance_transform_edt

    pixels = np.array(frame)
    for mask in masks:
        pixels[mask & ~binary_erosion(mask)] = _COLOUR
    out = pil.fromarray(pixels)
    pen = ImageDraw.Draw(out)
    for number, mask in enumerate(masks, start=1):
        inside = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(np.argmax(inside)), mask.shape)
        box = pen.textbbox((int(x), int(y)), str(number), anchor="mm")
        pen.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), fill=(0, 0, 0))
        pen.text((int(x), int(y)), str(number), fill=_COLOUR, anchor="mm")
    return out


def read_numbers(reply: str, count: int) -> tuple[list[int], int]:
    """Numbers 1 to ``count`` that a reply names, in its order and each once, and how many others it names.

    Where the reply has a list in brackets, its last one counts and the text around it does not. Repeated and unknown
    numbers are the others.
    """
    lists = re.findall(r"\[([^\[\]]*)\]", reply)
    found = [int(text) for text in re.findall(r"(?<![\d.])\d{1,3}(?![\d.]*\d)", lists[-1] if lists else reply)]
    named = [number for number in dict.fromkeys(found) if 1 <= number <= count]
    return named, len(found) - len(named)
