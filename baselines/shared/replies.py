"""Reading boxes and phrases out of what vision-language models really write.

Replies are JSON, almost JSON, JSON inside prose, truncated JSON, special tokens or plain sentences, and the
coordinates are pixels, thousandths, percent or fractions. What a model marks as its thoughts is not its reply. Nothing
of a reply is ever evaluated as code: a small forgiving parser (:mod:`baselines.shared.lenient`) reads lists and
mappings, and patterns read the box tokens of Qwen-VL, PaliGemma and Florence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from baselines.shared.lenient import Number, scan
from medground_bench.causal.answers import without_thoughts
from medground_bench.core.schema import Box

__all__ = ["RawBox", "read_boxes", "read_phrases", "to_fractions"]

_LOCATION_TOKENS = 1024  # PaliGemma's <locNNNN> bins

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

_LOC = re.compile(r"<loc(\d{4})>\s*<loc(\d{4})>\s*<loc(\d{4})>\s*<loc(\d{4})>")  # PaliGemma: y1 x1 y2 x2
_FLORENCE = re.compile(r"<loc_(\d{1,3})>\s*<loc_(\d{1,3})>\s*<loc_(\d{1,3})>\s*<loc_(\d{1,3})>")  # x1 y1 x2 y2
_NUMBER = r"(-?\d+(?:\.\d+)?)\s*(%?)"
_QUOTED = re.compile(rf"\s*{_NUMBER}\s*(?:px|pixels)?\s*")
_NAMED = re.compile(
    r"\bx_?(?:1|min)\b\W{1,4}" + _NUMBER + r"\D{1,12}?\by_?(?:1|min)\b\W{1,4}" + _NUMBER
    + r"\D{1,12}?\bx_?(?:2|max)\b\W{1,4}" + _NUMBER + r"\D{1,12}?\by_?(?:2|max)\b\W{1,4}" + _NUMBER,
    re.IGNORECASE,
)  # fmt: skip
_RANGES = re.compile(  # x from 56 to 168, y from 112 to 224
    r"\bx\b\W{0,3}(?:ranges?|spans?|from|between|=)?\W{0,3}(?:from )?" + _NUMBER + r" ?(?:-|\u2013|to|and) ?" + _NUMBER
    + r"\W{1,4}(?:and )?y\b\W{0,3}(?:ranges?|spans?|from|between|=)?\W{0,3}(?:from )?" + _NUMBER
    + r" ?(?:-|\u2013|to|and) ?" + _NUMBER,
    re.IGNORECASE,
)  # fmt: skip
_CENTRED = re.compile(  # centre (112, 168), width 112, height 112
    r"\bcent(?:red?|er(?:ed)?)\b\D{0,16}?" + _NUMBER + r"[,; ]{1,3}" + _NUMBER + r"\D{1,24}?\bwidth\b\D{0,8}?" + _NUMBER
    + r"\D{1,16}?\bheight\b\D{0,8}?" + _NUMBER,
    re.IGNORECASE,
)  # fmt: skip
_BARE = re.compile(r"(?<![\w.])" + r"(?:px|pixels)?\s*[,;\s]\s*".join([_NUMBER] * 4) + r"(?![\w%]|[,.]\s*\d)")
_BOX_WORD = re.compile(r"box|coordinate|region|location|bbox|area|corner", re.IGNORECASE)
_CORNER_WORD = re.compile(r"\b(?:top|upper)[- _]?left\b|\b(?:bottom|lower)[- _]?right\b|corner", re.IGNORECASE)
_BETWEEN = re.compile(r"\W*(?:to|and|-|\u2013)?\W*", re.IGNORECASE)
_NEAR = 40  # characters between the two corners of a box that is told as two points


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
        boxes = list(_walk(node, "", rows_first))
        found += [(start, box) for box in boxes]
        point = None if boxes else _point(node)
        if point is not None:
            points.append((start, end, point))
    found += _pair_corners(points, reply)
    if not found:
        found = list(_in_prose(reply))
    return list(dict.fromkeys(box for _, box in sorted(found, key=lambda item: item[0])))


def _number(value: Any) -> Number | None:
    """A number, or a string that is one."""
    if isinstance(value, Number):
        return value
    match = _QUOTED.fullmatch(value) if isinstance(value, str) and len(value) < 40 else None
    return Number(float(match[1]), match[2] == "%") if match else None


def _row(node: Any) -> list[Number] | None:
    """A list of numbers only."""
    if not isinstance(node, list):
        return None
    numbers = [number for value in node if (number := _number(value)) is not None]
    return numbers if numbers and len(numbers) == len(node) else None


def _point(node: Any) -> list[Number] | None:
    """``[x, y]`` or ``{"x": ..., "y": ...}``."""
    if isinstance(node, dict):
        node = [node.get("x"), node.get("y")]
    row = _row(node)
    return row if row is not None and len(row) == 2 else None


def _walk(node: Any, key: str, rows_first: bool) -> Iterator[RawBox]:
    """Boxes inside a parsed value; ``key`` is the name it was filed under."""
    if isinstance(node, dict):
        box = _named(node)
        if box is not None:
            yield box
            return
        for name, value in node.items():
            yield from _walk(value, str(name).lower(), rows_first)
    elif isinstance(node, list):
        row = _row(node)
        if row is not None:
            yield from _flat(row, key, rows_first)
        elif len(node) == 2 and (first := _point(node[0])) and (second := _point(node[1])):
            yield _raw([*first, *second])
        else:
            for value in node:
                yield from _walk(value, key, rows_first)
    elif isinstance(node, str) and _BOX_WORD.search(key):  # "bbox": "56, 112, 168, 224"
        numbers = [Number(float(m[1]), m[2] == "%") for m in re.finditer(_NUMBER, node)]
        yield from _flat(numbers, key, rows_first)


def _flat(values: list[Number], key: str, rows_first: bool) -> Iterator[RawBox]:
    """A list of plain numbers: one box, a box with its confidence, or several boxes in a row."""
    if len(values) == 5 and 0 <= values[4].value <= 1 < max(v.value for v in values[:4]):
        values = values[:4]
    if len(values) % 4 == 0:
        for i in range(0, len(values), 4):
            a, b, c, d = values[i : i + 4]
            if key in {"box_2d", "box2d"}:
                yield _raw([b, a, d, c] if rows_first else [a, b, c, d], "thousand")
            elif key in {"xywh", "bbox_xywh"}:
                yield _sized([a, b, c, d])
            else:
                yield _raw([a, b, c, d])


def _raw(values: Sequence[Number], unit: str = "") -> RawBox:
    a, b, c, d = (v.value for v in values)
    return RawBox((a, b, c, d), "percent" if any(v.percent for v in values) else unit)


def _sized(values: Sequence[Number], *, centred: bool = False) -> RawBox:
    """Corner (or centre) and size."""
    box = _raw(values)
    x, y, width, height = box.values
    if centred:
        x, y = x - width / 2, y - height / 2
    return RawBox((x, y, x + width, y + height), box.unit)


def _named(node: dict[str, Any]) -> RawBox | None:
    """A mapping with named corners, with corner and size, or with centre and size."""
    names = {re.sub(r"[\W_]", "", str(k).lower()).replace("centre", "center"): v for k, v in node.items()}
    numbers = {k: n for k, v in names.items() if (n := _number(v)) is not None}
    for keys in _CORNERS:
        if all(k in numbers for k in keys):
            return _raw([numbers[k] for k in keys])
    for one, two in _POINTS:
        first, second = _point(names.get(one)), _point(names.get(two))
        if first and second:
            return _raw([*first, *second])
    centre = _point(names.get("center"))
    size = _point(names.get("size")) or _row([names.get("width", names.get("w")), names.get("height", names.get("h"))])
    if centre and size:
        return _sized([*centre, *size], centred=True)
    for keys in _CENTRES:
        if all(k in numbers for k in keys):
            return _sized([numbers[k] for k in keys], centred=True)
    for keys in _SIZES:
        if all(k in numbers for k in keys):
            return _sized([numbers[k] for k in keys])
    return None


def _pair_corners(points: list[tuple[int, int, list[Number]]], reply: str) -> Iterator[tuple[int, RawBox]]:
    """Two neighbouring points of the text are the corners of a box where the text says so.

    It does by naming corners, or by box tokens, the name of a box or nothing at all before two points that nothing
    comes between. Other points are places.
    """
    i = 0
    while i + 1 < len(points):
        (start, end, first), (following, _, second) = points[i], points[i + 1]
        between = reply[end:following]
        line = reply[reply.rfind("\n", 0, start) + 1 : start][-120:]
        joined = _BETWEEN.fullmatch(between) and (not re.search(r"\w", line) or _BOX_WORD.search(line))
        told = _CORNER_WORD.search(between) or _CORNER_WORD.search(line[-30:])
        if following - end <= _NEAR and (joined or told):
            yield start, _raw([*first, *second])
            i += 2
        else:
            i += 1


def _in_prose(reply: str) -> Iterator[tuple[int, RawBox]]:
    """Coordinates without brackets: named ones anywhere, four bare numbers only where boxes are named."""
    # Runs of blanks would make the patterns' optional blanks slow: one of each is enough.
    reply = re.sub(r"\n\s*", "\n", re.sub(r"[^\S\n]+", " ", reply))
    told = [(match.start(), _raw(_of_groups(match))) for match in _NAMED.finditer(reply)]
    for match in _RANGES.finditer(reply):
        x1, x2, y1, y2 = _of_groups(match)
        told.append((match.start(), _raw([x1, y1, x2, y2])))
    told += [(match.start(), _sized(_of_groups(match), centred=True)) for match in _CENTRED.finditer(reply)]
    yield from told
    if told:
        return
    start = 0
    for line in reply.splitlines(keepends=True):
        matches = list(_BARE.finditer(line))
        before = line[: matches[0].start()] if matches else ""
        if not before.strip() or _BOX_WORD.search(before):
            for match in matches:
                yield start + match.start(), _raw(_of_groups(match))
        start += len(line)


def _of_groups(match: re.Match[str]) -> list[Number]:
    groups = match.groups()
    return [Number(float(groups[i]), groups[i + 1] == "%") for i in range(0, 8, 2)]


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


_MAX_WORDS = 12
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\(?\d{1,2}[.):])\s+")
_PREAMBLE = re.compile(
    r"^(?:sure|here (?:are|is)|the (?:following|evidence)|certainly|okay|ok|based on)\b.*:\s*$", re.IGNORECASE
)
_NOTHING = re.compile(r"^(?:none|n/?a|no (?:evidence|regions?|phrases?)|nothing|\[\s*\])\W*$", re.IGNORECASE)


def read_phrases(reply: str, limit: int = 8) -> list[str]:
    """Short region descriptions out of a reply: a list, bullets, or phrases set apart by commas or semicolons.

    Phrases of more than 12 words are sentences, not descriptions, and are left out; so are duplicates (letter
    case ignored).

    Parameters
    ----------
    reply : str
        The model's text.
    limit : int
        At most so many phrases, first ones first.
    """
    reply = without_thoughts(reply)
    strings = [s for _, _, node in scan(reply) for s in _strings(node)]
    if not strings:
        lines = [line for line in reply.replace("```", "\n").splitlines() if line.strip()]
        bullets = [_BULLET.sub("", line) for line in lines if _BULLET.match(line)]
        strings = bullets or [
            part for line in lines if not _PREAMBLE.match(line.strip()) for part in re.split(r"[,;]", line)
        ]
    out: dict[str, str] = {}
    for text in strings:
        phrase = re.sub(r"\s+", " ", text).strip(" \t\"'`*.,;:")
        if (
            phrase
            and len(phrase.split()) <= _MAX_WORDS
            and not _NOTHING.match(phrase)
            and re.search(r"[a-zA-Z]", phrase)
        ):
            out.setdefault(phrase.lower(), phrase)
    return list(out.values())[:limit]


_PHRASE_KEYS = {"label", "phrase", "region", "description", "name", "text", "evidence", "finding"}


def _strings(node: Any) -> Iterator[str]:
    """Strings of a parsed list; of a mapping, those filed under a name that describes."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)
    elif isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str):
                if str(key).lower() in _PHRASE_KEYS:
                    yield value
            else:
                yield from _strings(value)
