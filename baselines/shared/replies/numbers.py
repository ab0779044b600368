"""Numbers, points and boxes, as a reply states them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from baselines.shared.lenient import Number
from medground_bench.core.schema import Box

__all__ = ["BOX_WORD", "NUMBER", "RawBox", "as_number", "as_point", "as_row", "raw_box", "sized_box"]

NUMBER = r"(-?\d+(?:\.\d+)?)\s*(%?)"
_QUOTED = re.compile(rf"\s*{NUMBER}\s*(?:px|pixels)?\s*")
BOX_WORD = re.compile(r"box|coordinate|region|location|bbox|area|corner", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RawBox:
    """A box as a reply states it.

    Attributes
    ----------
    values : tuple of float
        ``(x1, y1, x2, y2)`` in an unknown scale; corner and size, and centre and size, are already undone.
    unit : {"", "percent", "location", "thousand"}
        What the reply itself says of the scale; empty when it says nothing.
    """

    values: Box
    unit: str = ""


def as_number(value: Any) -> Number | None:
    """A number, or a string that is one."""
    if isinstance(value, Number):
        return value
    match = _QUOTED.fullmatch(value) if isinstance(value, str) and len(value) < 40 else None
    return Number(float(match[1]), match[2] == "%") if match else None


def as_row(node: Any) -> list[Number] | None:
    """A list of numbers only."""
    if not isinstance(node, list):
        return None
    numbers = [number for value in node if (number := as_number(value)) is not None]
    return numbers if numbers and len(numbers) == len(node) else None


def as_point(node: Any) -> list[Number] | None:
    """``[x, y]`` or ``{"x": ..., "y": ...}``."""
    if isinstance(node, dict):
        node = [node.get("x"), node.get("y")]
    row = as_row(node)
    return row if row is not None and len(row) == 2 else None


def raw_box(values: Sequence[Number], unit: str = "") -> RawBox:
    """Four numbers as a box; where one of them is a percentage, all are."""
    a, b, c, d = (v.value for v in values)
    return RawBox((a, b, c, d), "percent" if any(v.percent for v in values) else unit)


def sized_box(values: Sequence[Number], *, centred: bool = False) -> RawBox:
    """Corner (or centre) and size."""
    box = raw_box(values)
    x, y, width, height = box.values
    if centred:
        x, y = x - width / 2, y - height / 2
    return RawBox((x, y, x + width, y + height), box.unit)
