"""Boxes inside lists and mappings that the lenient parser has read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from baselines.shared.lenient import Number
from baselines.shared.replies.mappings import named_box
from baselines.shared.replies.numbers import BOX_WORD, NUMBER, RawBox, as_point, as_row, raw_box, sized_box

__all__ = ["boxes_of"]


def boxes_of(node: Any, key: str, rows_first: bool) -> Iterator[RawBox]:
    """Boxes inside a parsed value; ``key`` is the name it was filed under."""
    if isinstance(node, dict):
        box = named_box(node)
        if box is not None:
            yield box
            return
        for name, value in node.items():
            yield from boxes_of(value, str(name).lower(), rows_first)
    elif isinstance(node, list):
        row = as_row(node)
        if row is not None:
            yield from _flat(row, key, rows_first)
        elif len(node) == 2 and (first := as_point(node[0])) and (second := as_point(node[1])):
            yield raw_box([*first, *second])
        else:
            for value in node:
                yield from boxes_of(value, key, rows_first)
    elif isinstance(node, str) and BOX_WORD.search(key):  # "bbox": "56, 112, 168, 224"
        numbers = [Number(float(m[1]), m[2] == "%") for m in re.finditer(NUMBER, node)]
        yield from _flat(numbers, key, rows_first)


def _flat(values: list[Number], key: str, rows_first: bool) -> Iterator[RawBox]:
    """A list of plain numbers: one box, a box with its confidence, or several boxes in a row."""
    if len(values) == 5 and 0 <= values[4].value <= 1 < max(v.value for v in values[:4]):
        values = values[:4]
    if len(values) % 4 == 0:
        for i in range(0, len(values), 4):
            a, b, c, d = values[i : i + 4]
            if key in {"box_2d", "box2d"}:
                yield raw_box([b, a, d, c] if rows_first else [a, b, c, d], "thousand")
            elif key in {"xywh", "bbox_xywh"}:
                yield sized_box([a, b, c, d])
            else:
                yield raw_box([a, b, c, d])
