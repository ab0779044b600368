"""Many texts with a whole number each, in few bytes: what a dict does for a thousand ids, for a million of them."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from hashlib import blake2b

__all__ = ["Numbering"]

_halves = struct.Struct("=QQ").unpack


class Numbering:
    """Texts -> whole numbers from 0 to 4,294,967,294, in 25 to 60 bytes each, however long the texts are.

    A text is told from others by 128 bits of its BLAKE2b: no two are known that share them. The table is open
    addressing (Knuth, The Art of Computer Programming 3, 6.4, algorithm L) that is kept at most two thirds full.

    Parameters
    ----------
    texts : iterable of str
        The first ones: each gets the number of different texts before it.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._count = 0
        self._make(1 << 10)
        for text in texts:
            self.number(text)

    def __len__(self) -> int:
        return self._count

    def get(self, text: str) -> int | None:
        """The number of a text; None where it has none."""
        slot, _, _ = self._find(text)
        return self._numbers[slot] - 1 if self._numbers[slot] else None

    def number(self, text: str, number: int | None = None) -> int:
        """The number of a text, which it gets if it has none: by default how many have one so far."""
        slot, low, high = self._find(text)
        if known := self._numbers[slot]:
            return known - 1
        if number is None:
            number = self._count
        self._low[slot], self._high[slot], self._numbers[slot] = low, high, number + 1
        self._count += 1
        if 3 * self._count > 2 * len(self._numbers):
            self._grow()
        return number

    def _find(self, text: str) -> tuple[int, int, int]:
        """The slot where a text is or would be, and its digest."""
        low, high = _halves(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
        mask = len(self._numbers) - 1
        slot = low & mask
        while self._numbers[slot] and not (self._low[slot] == low and self._high[slot] == high):
            slot = (slot + 1) & mask
        return slot, low, high

    def _make(self, size: int) -> None:
        self._low, self._high = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))
        self._numbers = array("I", bytes(array("I").itemsize * size))

    def _grow(self) -> None:
        old = zip(self._low, self._high, self._numbers, strict=True)
        self._make(2 * len(self._numbers))
        mask = len(self._numbers) - 1
        for low, high, number in old:
            if number:
                slot = low & mask
                while self._numbers[slot]:
                    slot = (slot + 1) & mask
                self._low[slot], self._high[slot], self._numbers[slot] = low, high, number
