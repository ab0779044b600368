"""Reading boxes and phrases out of what vision-language models really write.

Replies are JSON, almost JSON, JSON inside prose, truncated JSON, special tokens or plain sentences, and the
coordinates are pixels, thousandths, percent or fractions. Nothing of a reply is ever evaluated as code: a
small forgiving parser (:mod:`baselines.shared.lenient`) reads lists and mappings, and two patterns read the box
tokens of Qwen-VL and PaliGemma.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from baselines.shared.lenient import Number, scan
from medground_bench.core.schema import Box

__all__ = ["RawBox", "read_boxes", "read_phrases", "to_fractions"]

_LOCATION_TOKENS = 1024  # PaliGemma's <locNNNN> bins

_CORNER_KEYS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
    ("x0", "y0", "x1", "y1"),
)
_SIZE_KEYS = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))

_LOC = re.compile(r"<loc(\d{4})>\s*<loc(\d{4})>\s*<loc(\d{4})>\s*<loc(\d{4})>")
_NUMBER = r"(-?\d+(?:\.\d+)?)\s*(%?)"
_NAMED = re.compile(
    r"\bx_?(?:1|min)\b\W{1,4}" + _NUMBER + r"\D{1,12}?\by_?(?:1|min)\b\W{1,4}" + _NUMBER
    + r"\D{1,12}?\bx_?(?:2|max)\b\W{1,4}" + _NUMBER + r"\D{1,12}?\by_?(?:2|max)\b\W{1,4}" + _NUMBER,
    re.IGNORECASE,
)  # fmt: skip
_BARE = re.compile(r"(?<![\w.])" + r"(?:px|pixels)?\s*[,;\s]\s*".join([_NUMBER] * 4) + r"(?![\w%]|[,.]\s*\d)")
_BARE_CONTEXT = re.compile(r"box|coordinate|region|location|bbox", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RawBox:
    """A box as a reply states it: x1, y1, x2, y2 in an unknown scale.

    Attributes
    ----------
    values : tuple of float
        ``(x1, y1, x2, y2)``; other orders are already undone.
    unit : {"", "percent", "location", "thousand"}
        What the reply itself says of the scale; empty when it says nothing. ``box_2d`` is by definition in
        thousandths.
    """

    values: Box
    unit: str = ""


def read_boxes(reply: str) -> list[RawBox]:
    """Every box a reply states, in its order, duplicates removed.

    Parameters
    ----------
    reply : str
        The model's text.

    Returns
    -------
    list of RawBox
        Empty when the reply states none: that is an answer, not an error.
    """
    found: list[tuple[int, RawBox]] = [
        (m.start(), RawBox((float(m[2]), float(m[1]), float(m[4]), float(m[3])), "location"))
        for m in _LOC.finditer(reply)
    ]
    corners: list[tuple[int, int, Sequence[Number]]] = []
    for start, end, node in scan(reply):
        boxes = list(_walk(node, ""))
        found += [(start, box) for box in boxes]
        if not boxes and _numbers(node, 2):
            corners.append((start, end, node))
    found += _pair_corners(corners)
    if not found:
        found = list(_in_prose(reply))
    return list(dict.fromkeys(box for _, box in sorted(found, key=lambda item: item[0])))


def _numbers(node: Any, count: int) -> bool:
    return isinstance(node, list) and len(node) == count and all(isinstance(v, Number) for v in node)


def _walk(node: Any, key: str) -> Iterator[RawBox]:
    """Boxes inside a parsed value; ``key`` is the name it was filed under."""
    if isinstance(node, dict):
        box = _named(node)
        if box is not None:
            yield box
            return
        for name, value in node.items():
            yield from _walk(value, str(name).lower())
    elif isinstance(node, list):
        if len(node) == 2 and all(_numbers(corner, 2) for corner in node):
            yield _raw([*node[0], *node[1]], key)
        elif node and all(isinstance(v, Number) for v in node):
            yield from _flat(node, key)
        else:
            for value in node:
                yield from _walk(value, key)


def _flat(values: list[Number], key: str) -> Iterator[RawBox]:
    """A list of plain numbers: one box, a box with its confidence, or several boxes in a row."""
    if len(values) == 5 and 0 <= values[4].value <= 1 < max(v.value for v in values[:4]):
        values = values[:4]
    if len(values) % 4 == 0:
        for i in range(0, len(values), 4):
            yield _raw(values[i : i + 4], key)


def _raw(values: Sequence[Number], key: str) -> RawBox:
    a, b, c, d = (v.value for v in values)
    unit = "percent" if any(v.percent for v in values) else ""
    if key in {"box_2d", "box2d"}:  # Gemini and Gemma: [y1, x1, y2, x2] in thousandths
        return RawBox((b, a, d, c), unit or "thousand")
    if key in {"xywh", "bbox_xywh"}:
        return RawBox((a, b, a + c, b + d), unit)
    return RawBox((a, b, c, d), unit)


def _named(node: dict[str, Any]) -> RawBox | None:
    """A mapping with named corners or with corner and size."""
    names = {str(k).lower(): v for k, v in node.items() if isinstance(v, Number)}
    for keys in _CORNER_KEYS:
        if all(k in names for k in keys):
            return _raw([names[k] for k in keys], "")
    for keys in _SIZE_KEYS:
        if all(k in names for k in keys):
            return _raw([names[k] for k in keys], "xywh")
    return None


def _pair_corners(corners: list[tuple[int, int, Sequence[Number]]]) -> Iterator[tuple[int, RawBox]]:
    """``(x1, y1) ... (x2, y2)``: two neighbouring points of the text are the corners of a box."""
    i = 0
    while i + 1 < len(corners):
        (start, end, first), (following, _, second) = corners[i], corners[i + 1]
        if following - end <= 40:
            yield start, _raw([*first, *second], "")
            i += 2
        else:
            i += 1


def _in_prose(reply: str) -> Iterator[tuple[int, RawBox]]:
    """Coordinates without brackets: ``x1=10, y1=20, ...`` anywhere, four bare numbers only where boxes are named."""
    # Runs of blanks would make the patterns' optional blanks slow: one of each is enough.
    reply = re.sub(r"\n\s*", "\n", re.sub(r"[^\S\n]+", " ", reply))
    named = list(_NAMED.finditer(reply))
    for match in named:
        yield match.start(), _of_groups(match.groups())
    if named:
        return
    start = 0
    for line in reply.splitlines(keepends=True):
        matches = list(_BARE.finditer(line))
        before = line[: matches[0].start()] if matches else ""
        if not before.strip() or _BARE_CONTEXT.search(before):
            for match in matches:
                yield start + match.start(), _of_groups(match.groups())
        start += len(line)


def _of_groups(groups: Sequence[str]) -> RawBox:
    return _raw([Number(float(groups[i]), groups[i + 1] == "%") for i in range(0, 8, 2)], "")


def to_fractions(boxes: Sequence[RawBox], *, convention: str, width: float, height: float) -> tuple[list[Box], str]:
    """Boxes as fractions of the image the model saw, and the scale that was used.

    The scale is decided once for all boxes that do not state theirs. Coordinates that are all at most 1 are
    fractions; otherwise the family's convention holds, except that "pixel" coordinates beyond the image but
    within 1000 can only be thousandths.

    Parameters
    ----------
    boxes : sequence of RawBox
        As :func:`read_boxes` gives them.
    convention : {"pixel", "thousand"}
        How the family states boxes: Qwen2.5-VL in pixels of the image after its processor's resize, Gemma
        and MedGemma in thousandths.
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
    slack = 1.02  # models overshoot the border by a pixel or two
    if convention == "pixel" and (right > width * slack or bottom > height * slack) and max(right, bottom) <= 1000:
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
