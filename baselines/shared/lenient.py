"""A forgiving reader of lists and mappings inside free text.

It reads JSON, Python literals and what lies between: single quotes, tuples, trailing commas, missing commas,
unquoted keys, comments, and text that ends in the middle (models run out of tokens). It only ever builds lists,
dicts, strings and numbers, in one pass over the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Number", "scan"]

_OPEN = {"[": "]", "(": ")", "{": "}"}
_NUMBER = re.compile(
    r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![A-Za-z0-9_])\s*(%?)|([-+]?(?:\d+\.?\d*|\.\d+))\s*(?:px|pixels)\b"
)
_WORD = re.compile(r"[^\[\](){},:\"'\n]+")
_MAX_DEPTH = 12


class Number(NamedTuple):
    """A number of the text and whether a percent sign followed it."""

    value: float
    percent: bool = False


def scan(text: str) -> Iterator[tuple[int, int, Any]]:
    """Every outermost bracketed value of a text.

    Yields
    ------
    start, end : int
        Where the value stands in the text.
    value : list or dict
        Its content; numbers are :class:`Number`.
    """
    position = 0
    while position < len(text):
        if text[position] in _OPEN:
            parser = _Parser(text, position)
            value = parser.value(0)
            yield position, parser.position, value
            position = max(parser.position, position + 1)
        else:
            position += 1


class _Parser:
    def __init__(self, text: str, position: int) -> None:
        self.text, self.position = text, position

    def value(self, depth: int) -> Any:
        char = self.text[self.position]
        if char in _OPEN:
            return self._group(char, depth)
        if char in "\"'" and not self.text[self.position - 1].isalnum():  # else an apostrophe: patient's
            return self._string(char)
        match = _NUMBER.match(self.text, self.position)
        if match:
            self.position = match.end()
            plain = match[2] or match[0].replace("%", "")
            return Number(float(plain), match[1] == "%")
        match = _WORD.match(self.text, self.position)
        self.position = match.end() if match else self.position + 1
        return match[0].strip() if match else ""

    def _group(self, opening: str, depth: int) -> list[Any] | dict[str, Any]:
        """A list or mapping up to its closing bracket, any other closing bracket or the end of the text."""
        self.position += 1
        items: list[Any] = []
        pairs: dict[str, Any] = {}
        key: str | None = None
        while self.position < len(self.text):
            char = self.text[self.position]
            if char in "])}":
                self.position += 1
                break
            if char in ", \t\r\n":
                self.position += 1
            elif char == ":":
                self.position += 1
                key = str(items.pop()) if opening == "{" and items and isinstance(items[-1], str) else None
            elif depth >= _MAX_DEPTH and char in _OPEN:
                self.position += 1  # nobody nests boxes this deep: skip the bracket, keep reading
            else:
                item = self.value(depth + 1)
                if key is not None:
                    _file(pairs, key, item)
                    key = None
                else:
                    items.append(item)
        return {**pairs, "": items} if pairs and items else pairs or items

    def _string(self, quote: str) -> str:
        """A quoted string; an apostrophe inside a word does not end it, a line break does."""
        start = end = self.position + 1
        while end < len(self.text) and self.text[end] != "\n":
            if self.text[end] == "\\":
                end += 2
                continue
            inside_word = quote == "'" and self.text[end - 1].isalpha() and self.text[end + 1 : end + 2].isalpha()
            if self.text[end] == quote and not inside_word:
                break
            end += 1
        end = min(end, len(self.text))
        self.position = end + 1
        return self.text[start:end]


def _file(pairs: dict[str, Any], key: str, item: Any) -> None:
    """Keep every value of a key that a reply repeats."""
    if key not in pairs:
        pairs[key] = item
    elif isinstance(pairs[key], _Several):
        pairs[key].append(item)
    else:
        pairs[key] = _Several([pairs[key], item])


class _Several(list[Any]):
    """Values of a repeated key."""
