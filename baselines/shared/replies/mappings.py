"""Boxes of which each number has a name: corners, corner and size, centre and size."""

from __future__ import annotations

import re
from typing import Any

from baselines.shared.replies.numbers import RawBox, as_number, as_point, as_row, raw_box, sized_box

__all__ = ["named_box"]

# Names of a mapping's entries, in lower case and without separators; "centre" is spelt "center".
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("left", "top", "right", "bottom"),
    ("xleft", "ytop", "xright", "ybottom"),
    ("xstart", "ystart", "xend", "yend"),
    ("topleftx", "toplefty", "bottomrightx", "bottomrighty"),
)
_POINTS = (
    ("topleft", "bottomright"),
    ("upperleft", "lowerright"),
    ("lefttop", "rightbottom"),
    ("tl", "br"),
    ("min", "max"),
    ("start", "end"),
    ("p1", "p2"),
    ("point1", "point2"),
)
_SIZES = (
    ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
    ("left", "top", "width", "height"),
    ("xmin", "ymin", "width", "height"),
    ("x1", "y1", "width", "height"),
)
_CENTRES = (
    ("cx", "cy", "w", "h"),
    ("cx", "cy", "width", "height"),
    ("centerx", "centery", "width", "height"),
    ("xcenter", "ycenter", "width", "height"),
    ("centerx", "centery", "w", "h"),
    ("xcenter", "ycenter", "w", "h"),
)


def named_box(node: dict[str, Any]) -> RawBox | None:
    """A mapping with named corners, with corner and size, or with centre and size."""
    names = {re.sub(r"[\W_]", "", str(k).lower()).replace("centre", "center"): v for k, v in node.items()}
    numbers = {k: n for k, v in names.items() if (n := as_number(v)) is not None}
    for keys in _CORNERS:
        if all(k in numbers for k in keys):
            return raw_box([numbers[k] for k in keys])
    for one, two in _POINTS:
        first, second = as_point(names.get(one)), as_point(names.get(two))
        if first and second:
            return raw_box([*first, *second])
    centre = as_point(names.get("center"))
    size = as_point(names.get("size")) or as_row(
        [names.get("width", names.get("w")), names.get("height", names.get("h"))]
    )
    if centre and size:
        return sized_box([*centre, *size], centred=True)
    for keys in _CENTRES:
        if all(k in numbers for k in keys):
            return sized_box([numbers[k] for k in keys], centred=True)
    for keys in _SIZES:
        if all(k in numbers for k in keys):
            return sized_box([numbers[k] for k in keys])
    return None
