"""Short descriptions of regions, out of a reply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from baselines.shared.lenient import scan
from medground_bench.causal.answers import without_thoughts

__all__ = ["read_phrases"]

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
