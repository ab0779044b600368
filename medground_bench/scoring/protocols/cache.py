"""What an LVLM said of variants of a record's image, asked once for all methods and protocols.

A variant is known by its pixels and by the text it is scored under, that is by record, mask and fill: two methods that
remove the same part share a pass, and so does everything random, whose seed is the record's and not the method's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.core.files import atomic_write

__all__ = ["Store", "unknown", "variant_key"]


def variant_key(frame: np.ndarray, *text: str) -> str:
    """Key of a variant: 32 hex digits of its pixels, shape and text."""
    digest = hashlib.sha256("\0".join((*text, str(frame.shape))).encode())
    digest.update(np.ascontiguousarray(frame, np.uint8).tobytes())
    return digest.hexdigest()[:32]


class Store:
    """Scores and answers of one record, in one file that is written whole.

    Attributes
    ----------
    scores : dict of str to list of float
        Key of a variant -> log-probabilities of the response's tokens.
    answers : dict of str to (str, bool)
        Key of a variant -> what the LVLM answered, and whether it ended by itself.
    """

    def __init__(self, folder: str | Path | None, record: str) -> None:
        name = hashlib.sha256(record.encode()).hexdigest()[:20]
        self._path = None if folder is None else Path(folder) / f"{name}.json"
        self.scores: dict[str, list[float]] = {}
        self.answers: dict[str, tuple[str, bool]] = {}
        self._saved = 0
        if self._path is not None and self._path.is_file():
            self._read(record)

    def _read(self, record: str) -> None:
        assert self._path is not None
        try:
            data: Any = json.loads(self._path.read_text(encoding="utf-8"))
            self.scores = {str(k): [float(v) for v in row] for k, row in data["scores"].items()}
            self.answers = {str(k): (str(text), bool(ended)) for k, (text, ended) in data["answers"].items()}
            if data["record"] != record:
                raise ValueError("it is of another record")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ScoringError(f"damaged cache: {error}", where=self._path, remedy="delete the file") from error
        self._saved = len(self.scores) + len(self.answers)

    def save(self, record: str) -> None:
        """Write what is new."""
        count = len(self.scores) + len(self.answers)
        if self._path is None or count == self._saved:
            return
        with atomic_write(self._path) as file:
            json.dump({"record": record, "scores": self.scores, "answers": self.answers}, file, separators=(",", ":"))
        self._saved = count


def unknown(keys: Sequence[str], known: Container[str]) -> list[int]:
    """Positions of the keys that are not known yet, each key once."""
    first: dict[str, int] = {}
    for position, key in enumerate(keys):
        if key not in known:
            first.setdefault(key, position)
    return list(first.values())
