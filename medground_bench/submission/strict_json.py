"""Reading JSON that somebody else wrote: bounded, strict, and saying what is wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

__all__ = ["MAX_LINE_BYTES", "JsonFault", "Parsed", "RawLine", "parse_json", "read_lines"]

MAX_LINE_BYTES = 4 * 1024 * 1024
"""Longest line that is read; a longer one is skipped in chunks and reported."""

_MAX_DIGITS = 400  # more than any float has; Python's own limit for integers differs between versions
_CHUNK = 1 << 16
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class RawLine(NamedTuple):
    """A line of a file: its number from 1 and its bytes, None when it is longer than the limit."""

    number: int
    content: bytes | None


class JsonFault(Exception):
    """Why a text is not acceptable JSON: a code, a message and what to do."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy = code, message, remedy


class Parsed(NamedTuple):
    """A parsed value, and what it contained that JSON does not allow or that is ambiguous.

    ``has_constants`` tells of ``NaN``, ``Infinity`` and numbers beyond what a float holds; ``has_surrogates`` of halves
    of a character, which no file can be written with.
    """

    value: Any
    duplicate_keys: tuple[str, ...]
    has_constants: bool
    has_surrogates: bool = False


def read_lines(file: IO[bytes], limit: int = MAX_LINE_BYTES) -> Iterator[RawLine]:
    """Lines of a binary file, never holding more than ``limit`` bytes of one."""
    number = 0
    while True:
        line = file.readline(limit + 1)
        if not line:
            return
        number += 1
        if len(line) <= limit or line.endswith(b"\n"):
            yield RawLine(number, line)
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_CHUNK)
        yield RawLine(number, None)


def parse_json(content: bytes) -> Parsed:
    """Parse one JSON text.

    ``NaN`` and ``Infinity`` become floats, so that the row they are in can still be named; the flag says that they
    were there. Duplicate keys are collected; the last value stands.

    Raises
    ------
    JsonFault
        If it is not UTF-8, not JSON, nested too deeply, or holds a number of absurd length.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonFault("encoding", f"not UTF-8 at byte {error.start}", "save the file as UTF-8") from None
    duplicates: list[str] = []
    constants: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len(out) != len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    duplicates.append(key)
                seen.add(key)
        return out

    def constant(token: str) -> float:
        constants.append(token)
        return float(token)

    def number(digits: str) -> float:
        return constant(digits) if math.isinf(value := float(digits)) else value

    def integer(digits: str) -> int | float:
        # Beyond what a float holds the value is infinite for every purpose here; int() of it would be quadratic.
        return int(digits) if len(digits) <= _MAX_DIGITS else constant("-Infinity" if digits[0] == "-" else "Infinity")

    try:
        value = json.loads(
            text, object_pairs_hook=pairs, parse_constant=constant, parse_int=integer, parse_float=number
        )
    except RecursionError:
        raise JsonFault("nesting", "nested too deeply", "write plain rows: boxes are lists of four numbers") from None
    except ValueError as error:
        raise JsonFault("json", f"not JSON: {error}", "write one JSON object per line, as json.dumps does") from None
    halves = _SURROGATE.search(text) is not None and _has_surrogates(value)
    return Parsed(value, tuple(dict.fromkeys(duplicates)), bool(constants), halves)


def _has_surrogates(value: Any) -> bool:
    """Whether a text in a value has half of a surrogate pair, without what belongs to it."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if any("\ud800" <= c <= "\udfff" for c in item):
                return True
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
    return False


def read_object(path: Path, limit: int = MAX_LINE_BYTES) -> Parsed:
    """The one JSON value of a small file.

    Raises
    ------
    JsonFault
        If the file is larger than the limit or not JSON.
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise JsonFault("size", f"larger than {limit} bytes", "keep only the documented keys in it")
    return parse_json(content)
