"""Every box of a reply: box tokens, lists and mappings, pairs of points, sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator

from baselines.shared.lenient import Number, scan
from baselines.shared.replies.numbers import BOX_WORD, RawBox, as_point, raw_box
from baselines.shared.replies.prose import prose_boxes
from baselines.shared.replies.structures import boxes_of
from medground_bench.causal.answers import without_thoughts

__all__ = ["read_boxes"]

_LOC = re.compile(r"<loc(\d{4})>\s*<loc(\d{4})>\s*<loc(\d{4})>\s*<loc(\d{4})>")  # PaliGemma: y1 x1 y2 x2
_FLORENCE = re.compile(r"<loc_(\d{1,3})>\s*<loc_(\d{1,3})>\s*<loc_(\d{1,3})>\s*<loc_(\d{1,3})>")  # x1 y1 x2 y2
_CORNER_WORD = re.compile(r"\b(?:top|upper)[- _]?left\b|\b(?:bottom|lower)[- _]?right\b|corner", re.IGNORECASE)
_BETWEEN = re.compile(r"\W*(?:to|and|-|\u2013)?\W*", re.IGNORECASE)
_NEAR = 40  # characters between the two corners of a box that is told as two points


def read_boxes(reply: str, *, rows_first: bool = True) -> list[RawBox]:
    """Every box a reply states, in its order, duplicates removed.

    Parameters
    ----------
    reply : str
        The model's text.
    rows_first : bool
        What a list filed under ``box_2d`` holds, in thousandths: ``[y1, x1, y2, x2]``, as Gemini and Gemma write it, or
        ``[x1, y1, x2, y2]``.

    Returns
    -------
    list of RawBox
        Empty when the reply states none: that is an answer, not an error.
    """
    reply = without_thoughts(reply)
    found = [
        (m.start(), RawBox((float(m[2]), float(m[1]), float(m[4]), float(m[3])), "location"))
        for m in _LOC.finditer(reply)
    ]
    found += [
        (m.start(), RawBox((float(m[1]), float(m[2]), float(m[3]), float(m[4])), "thousand"))
        for m in _FLORENCE.finditer(reply)
    ]
    points: list[tuple[int, int, list[Number]]] = []
    for start, end, node in scan(reply):
        boxes = list(boxes_of(node, "", rows_first))
        found += [(start, box) for box in boxes]
        point = None if boxes else as_point(node)
        if point is not None:
            points.append((start, end, point))
    found += paired_corners(points, reply)
    if not found:
        found = list(prose_boxes(reply))
    return list(dict.fromkeys(box for _, box in sorted(found, key=lambda item: item[0])))


def paired_corners(points: list[tuple[int, int, list[Number]]], reply: str) -> Iterator[tuple[int, RawBox]]:
    """Two neighbouring points of the text are the corners of a box where the text says so.

    It does by naming corners, or by box tokens, the name of a box or nothing at all before two points that nothing
    comes between. Other points are places.
    """
    i = 0
    while i + 1 < len(points):
        (start, end, first), (following, _, second) = points[i], points[i + 1]
        between = reply[end:following]
        line = reply[reply.rfind("\n", 0, start) + 1 : start][-120:]
        joined = _BETWEEN.fullmatch(between) and (not re.search(r"\w", line) or BOX_WORD.search(line))
        told = _CORNER_WORD.search(between) or _CORNER_WORD.search(line[-30:])
        if following - end <= _NEAR and (joined or told):
            yield start, raw_box([*first, *second])
            i += 2
        else:
            i += 1
