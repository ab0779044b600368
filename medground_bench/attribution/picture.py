"""A picture of an attribution, drawn with Pillow alone: image, heat map, evidence and boxes in native pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as pil
from PIL import ImageColor, ImageDraw, ImageFont

from medground_bench.imaging import is_degenerate

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["colour_map", "draw"]

_SMALLEST = 448
"""Longer side, in pixels, below which the image is enlarged (by a whole number)."""

_OPACITY = 0.75
_EVIDENCE, _BOX, _HALO, _PAPER, _INK = "#35d0ff", "#ffffff", "#000000", "#16181d", "#e8eaed"

# The colour map "inferno" (van der Walt & Smith, CC0), perceptually uniform, at 17 equal steps.
_STEPS = (
    *("#000004", "#0b0724", "#210c4a", "#3d0965", "#57106e", "#71196e", "#8a226a", "#a32c61", "#bc3754"),
    *("#d24644", "#e45a31", "#f1731d", "#f98e09", "#fcac11", "#f9cb35", "#f2ea69", "#fcffa4"),
)
_INFERNO = np.array([ImageColor.getrgb(step) for step in _STEPS], np.float64)


def colour_map(values: np.ndarray) -> np.ndarray:
    """Colours of values from 0 to 1, uint8, (..., 3); the map is perceptually uniform (inferno)."""
    at = np.clip(values, 0, 1) * (len(_INFERNO) - 1)
    steps = np.arange(len(_INFERNO))
    return np.rint(np.stack([np.interp(at, steps, _INFERNO[:, c]) for c in range(3)], axis=-1)).astype(np.uint8)


def draw(
    image: Image,
    boxes: Sequence[Sequence[float]],
    evidence: Sequence[Sequence[float]],
    heat: np.ndarray | None,
    caption: Sequence[str],
) -> Image:
    """The picture.

    Parameters
    ----------
    image : PIL image
        The native image; it comes to lie at the top left.
    boxes, evidence : sequence of [x1, y1, x2, y2]
        Native pixels: of the method (solid, white) and of the expert (dashed, blue).
    heat : ndarray, shape (height, width), optional
        Over the native image; where it has negative values only the positive part is shown.
    caption : sequence of str
        Lines below the picture; they are wrapped.

    Returns
    -------
    PIL image
        Mode "RGB".
    """
    scale = max(1, -(-_SMALLEST // max(image.size)))
    width, height = image.width * scale, image.height * scale
    pixels = image.convert("RGB").resize((width, height), pil.Resampling.NEAREST)
    shown = heat is not None and not is_degenerate(np.maximum(heat, 0))
    if heat is not None and shown:
        pixels = _overlaid(pixels, heat)
    canvas = ImageDraw.Draw(pixels)
    line = max(2, round(max(width, height) / 250))
    for box in evidence:
        _outline(canvas, [v * scale for v in box], _EVIDENCE, line, dashed=True)
    for box in boxes:
        _outline(canvas, [v * scale for v in box], _BOX, line)
    strip = _strip(width, caption, legend=bool(evidence), heat=shown)
    out = pil.new("RGB", (width, height + strip.height), _PAPER)
    out.paste(pixels, (0, 0))
    out.paste(strip, (0, height))
    return out


def _overlaid(pixels: Image, heat: np.ndarray) -> Image:
    """The heat map over the pixels, the hotter the more opaque."""
    positive = np.maximum(heat, 0) if (heat < 0).any() else heat - heat.min()
    share = positive / positive.max()
    colours = pil.fromarray(colour_map(share)).resize(pixels.size, pil.Resampling.BILINEAR)
    opacity = pil.fromarray(np.rint(255 * _OPACITY * share**0.75).astype(np.uint8))
    return pil.composite(colours, pixels, opacity.resize(pixels.size, pil.Resampling.BILINEAR))


def _outline(
    canvas: ImageDraw.ImageDraw, box: Sequence[float], colour: str, line: int, *, dashed: bool = False
) -> None:
    """A box's outline inside the box, on a dark halo so that it shows on any grey."""
    x1, y1, x2, y2 = box[0], box[1], max(box[2] - 1, box[0]), max(box[3] - 1, box[1])
    canvas.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_HALO, width=line + 2)
    if not dashed:
        canvas.rectangle((x1, y1, x2, y2), outline=colour, width=line)
        return
    for a, b in _dashes(x1, x2, 4 * line):
        for y in (y1, max(y1, y2 - line + 1)):
            canvas.rectangle((a, y, b, min(y + line - 1, y2)), fill=colour)
    for a, b in _dashes(y1, y2, 4 * line):
        for x in (x1, max(x1, x2 - line + 1)):
            canvas.rectangle((x, a, min(x + line - 1, x2), b), fill=colour)


def _dashes(start: float, end: float, length: int) -> Iterator[tuple[float, float]]:
    """Dashes from start to end, with gaps of 3/4 of their length; the last reaches the end."""
    step = length * 1.75
    count = max(1, round((end - start) / step))
    for k in range(count):
        a = start + k * (end - start) / count
        yield a, min(a + (end - start) / count / 1.75, end)
    yield max(start, end - 1), end


def _strip(width: int, caption: Sequence[str], *, legend: bool, heat: bool) -> Image:
    """What stands below the image: the caption, and what the colours mean."""
    size = max(11, min(28, round(width / 36)))
    font = ImageFont.load_default(size)
    gap = round(size * 0.6)
    lines = [part for line in caption for part in _wrapped(line, font, width - 2 * gap)]
    row = round(size * 1.4)
    keys = [(_BOX, "boxes", False)] + ([(_EVIDENCE, "evidence", True)] if legend else [])
    strip = pil.new("RGB", (width, row * (len(lines) + 1) + 2 * gap), _PAPER)
    canvas = ImageDraw.Draw(strip)
    for k, text in enumerate(lines):
        canvas.text((gap, gap + k * row), text, fill=_INK, font=font)
    x, y = float(gap), gap + len(lines) * row
    for colour, name, dashed in keys:
        _outline(canvas, (x, y + 2, x + 2 * size, y + size), colour, max(2, size // 8), dashed=dashed)
        canvas.text((x + 2.5 * size, y), name, fill=_INK, font=font)
        x += 3.5 * size + font.getlength(name)
    if heat:
        bar = colour_map(np.linspace(0, 1, 4 * size)[None].repeat(max(1, size - 4), axis=0))
        strip.paste(pil.fromarray(bar), (round(x), y + 3))
        canvas.text((x + 4.5 * size, y), "heat", fill=_INK, font=font)
    return strip


def _wrapped(text: str, font: Any, width: int) -> Iterator[str]:
    """Lines no wider than ``width``, broken at spaces, or inside a word that is wider by itself."""
    line = ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > width:
            yield line
            line = ""
        line = f"{line} {word}".strip()
        while len(line) > 1 and font.getlength(line) > width:
            fits = max(1, next(k for k in range(len(line), 0, -1) if k == 1 or font.getlength(line[:k]) <= width))
            yield line[:fits]
            line = line[fits:]
    yield line
