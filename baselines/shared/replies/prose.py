"""Boxes whose coordinates stand in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator

from baselines.shared.lenient import Number
from baselines.shared.replies.numbers import BOX_WORD, NUMBER, RawBox, raw_box, sized_box

__all__ = ["prose_boxes"]

_NAMED = re.compile(
    r"\bx_?(?:1|min)\b\W{1,4}" + NUMBER + r"\D{1,12}?\by_?(?:1|min)\b\W{1,4}" + NUMBER
    + r"\D{1,12}?\bx_?(?:2|max)\b\W{1,4}" + NUMBER + r"\D{1,12}?\by_?(?:2|max)\b\W{1,4}" + NUMBER,
    re.IGNORECASE,
)  # fmt: skip
_RANGES = re.compile(  # x from 56 to 168, y from 112 to 224
    r"\bx\b\W{0,3}(?:ranges?|spans?|from|between|=)?\W{0,3}(?:from )?" + NUMBER + r" ?(?:-|\u2013|to|and) ?" + NUMBER
    + r"\W{1,4}(?:and )?y\b\W{0,3}(?:ranges?|spans?|from|between|=)?\W{0,3}(?:from )?" + NUMBER
    + r" ?(?:-|\u2013|to|and) ?" + NUMBER,
    re.IGNORECASE,
)  # fmt: skip
_CENTRED = re.compile(  # centre (112, 168), width 112, height 112
    r"\bcent(?:red?|er(?:ed)?)\b\D{0,16}?" + NUMBER + r"[,; ]{1,3}" + NUMBER + r"\D{1,24}?\bwidth\b\D{0,8}?" + NUMBER
    + r"\D{1,16}?\bheight\b\D{0,8}?" + NUMBER,
    re.IGNORECASE,
)  # fmt: skip
_BARE = re.compile(r"(?<![\w.])" + r"(?:px|pixels)?\s*[,;\s]\s*".join([NUMBER] * 4) + r"(?![\w%]|[,.]\s*\d)")


def prose_boxes(reply: str) -> Iterator[tuple[int, RawBox]]:
    """Coordinates without brackets: named ones anywhere, four bare numbers only where boxes are named."""
    # Runs of blanks would make the patterns' optional blanks slow: one of each is enough.
    reply = re.sub(r"\n\s*", "\n", re.sub(r"[^\S\n]+", " ", reply))
    told = [(match.start(), raw_box(_of_groups(match))) for match in _NAMED.finditer(reply)]
    for match in _RANGES.finditer(reply):
        x1, x2, y1, y2 = _of_groups(match)
        told.append((match.start(), raw_box([x1, y1, x2, y2])))
    told += [(match.start(), sized_box(_of_groups(match), centred=True)) for match in _CENTRED.finditer(reply)]
    yield from told
    if told:
        return
    start = 0
    for line in reply.splitlines(keepends=True):
        matches = list(_BARE.finditer(line))
        before = line[: matches[0].start()] if matches else ""
        if not before.strip() or BOX_WORD.search(before):
            for match in matches:
                yield start + match.start(), raw_box(_of_groups(match))
        start += len(line)


def _of_groups(match: re.Match[str]) -> list[Number]:
    groups = match.groups()
    return [Number(float(groups[i]), groups[i + 1] == "%") for i in range(0, 8, 2)]
