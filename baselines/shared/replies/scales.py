"""What a reply's coordinates are of: pixels, thousandths, percent, fractions or bins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medground_bench.core.schema import Box

if TYPE_CHECKING:
    from baselines.shared.replies.numbers import RawBox

__all__ = ["to_fractions"]

_LOCATION_TOKENS = 1024  # PaliGemma's <locNNNN> bins
_OVERSHOOT = 1.15  # models overshoot the border by some per cent; further out the scale must be another


def to_fractions(boxes: Sequence[RawBox], *, convention: str, width: float, height: float) -> tuple[list[Box], str]:
    """Boxes as fractions of the image the model saw, and the scale that was used.

    The scale is decided once for all boxes that do not state theirs. It is the one that was asked for unless the
    numbers clearly exclude it: coordinates that are all at most 1 are fractions, and "pixels" more than 15 % beyond the
    image but within 1000 are thousandths. What lies over the border is cut off.

    Parameters
    ----------
    boxes : sequence of RawBox
        As :func:`read_boxes` gives them.
    convention : {"pixel", "thousand"}
        What the prompt asked for, which is how the family was taught to write boxes: Qwen2.5-VL in pixels of the image
        after its processor's resize; Gemma, MedGemma and Qwen3-VL in thousandths.
    width, height : float
        Size of the image after the processor's resize, in pixels.

    Returns
    -------
    boxes : list of Box
        Cut to the image; reversed or empty boxes are left out.
    scale : str
        ``"pixel"``, ``"thousand"``, ``"fraction"``, or the unit that the reply itself states.
    """
    undecided = [box.values for box in boxes if not box.unit]
    scale = _scale(undecided, convention, width, height) if undecided else (boxes[0].unit if boxes else convention)
    out = []
    for box in boxes:
        sx, sy = _unit_size(box.unit or scale, width, height)
        x1, y1, x2, y2 = (min(max(v / s, 0.0), 1.0) for v, s in zip(box.values, (sx, sy, sx, sy), strict=True))
        if x2 > x1 and y2 > y1:
            out.append((x1, y1, x2, y2))
    return out, scale


def _scale(values: Sequence[Box], convention: str, width: float, height: float) -> str:
    right, bottom = max(max(v[0], v[2]) for v in values), max(max(v[1], v[3]) for v in values)
    if max(right, bottom) <= 1:
        return "fraction"
    outside = right > width * _OVERSHOOT or bottom > height * _OVERSHOOT
    if convention == "pixel" and outside and max(right, bottom) <= 1000:
        return "thousand"
    return convention


def _unit_size(unit: str, width: float, height: float) -> tuple[float, float]:
    return {
        "pixel": (width, height),
        "thousand": (1000.0, 1000.0),
        "fraction": (1.0, 1.0),
        "percent": (100.0, 100.0),
        "location": (float(_LOCATION_TOKENS), float(_LOCATION_TOKENS)),
    }[unit]
