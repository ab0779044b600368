"""Names of methods as a reader sees them: two that look alike are the same name."""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib import metadata
from string import ascii_uppercase

from medground_bench.attribution.method import ENTRY_POINT_GROUP
from medground_bench.core.errors import MissingDependencyError
from medground_bench.scoring import CHANCE_ROWS

__all__ = ["is_reserved", "skeleton"]

_KINDS = ("chance", "control", "ceiling", "human")
"""How rows that are no method begin on a page."""

_CONTROLS = ("oracle evidence", "shuffled attributions", "random map")


def skeleton(name: str) -> str:
    """What is left of a name when everything that a reader may overlook is taken away.

    Compatibility forms, case, spaces, punctuation and invisible characters go; of characters that look alike one stands
    for all (the skeleton of Unicode Technical Standard 39, section 4).

    Raises
    ------
    MissingDependencyError
        If the table of confusable characters is not installed.
    """
    table, several = _table()
    text = unicodedata.normalize("NFKD", name)
    for _ in range(2):
        text = "".join(c for c in (table.get(c, c) for c in text) if unicodedata.category(c)[0] in "LN")
        text = unicodedata.normalize("NFKD", text.casefold())
    for letters, one in several:
        text = text.replace(letters.casefold(), one.casefold())
    return text


def is_reserved(name: str) -> bool:
    """Whether a name is, or could be taken for, that of a chance row, a control or a method of this package."""
    plain = skeleton(name)
    return plain in _reserved() or any(plain.startswith(skeleton(kind)) for kind in _KINDS)


@cache
def _reserved() -> frozenset[str]:
    published = {entry.name for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    return frozenset(map(skeleton, {*CHANCE_ROWS, *_CONTROLS, *published}))


@cache
def _table() -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """Character -> what stands for all that look like it; and letters that look like one, ``rn`` like ``m``.

    Both cases of an ASCII letter are taken for the same, so that ``I``, ``l``, ``1`` and ``i`` are.
    """
    try:
        from confusable_homoglyphs.confusables import confusables_data
    except ImportError as error:
        raise MissingDependencyError(
            "comparing names needs the table of confusable characters", remedy='pip install "medground-bench[app]"'
        ) from error
    parents: dict[str, str] = {}

    def find(character: str) -> str:
        while (above := parents.get(character, character)) != character:
            character = above
        return character

    def join(one: str, other: str) -> None:
        low, high = sorted((find(one), find(other)))
        parents[high] = low

    for letter in ascii_uppercase:
        join(letter, letter.lower())
    several = []
    for character, alike in confusables_data.items():
        for other in (entry["c"] for entry in alike):
            if len(character) == len(other) == 1:
                join(character, other)
            elif len(character) == 1 and character.isascii() and other.isascii() and other.isalnum():
                several.append((other, character))
    table = {character: find(character) for character in parents}
    pairs = {("".join(table.get(c, c) for c in seq), table.get(c, c)) for seq, c in several}
    return table, tuple(sorted(pairs))
