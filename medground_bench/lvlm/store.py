"""What an LVLM said of variants of a record's image, asked once for all methods and protocols.

A variant is known by its pixels and by the text it is scored under, that is by record, mask and fill: two methods that
remove the same part share a pass, and so does everything random, whose seed is the record's and not the method's.

A score that is found is the one that was made, whatever shared its batch then: beside a fresh one it may differ in the
last digits of float32.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.files import atomic_write, file_lock, sweep
from medground_bench.core.settings import same_as_before
from medground_bench.lvlm.images import stack_variants

if TYPE_CHECKING:
    from medground_bench.lvlm.episode import Episode
    from medground_bench.lvlm.model import Lvlm
    from medground_bench.lvlm.passes import Passes

logger = logging.getLogger(__name__)

__all__ = ["Store", "check_store", "remembered", "unknown", "variant_key"]


def variant_key(frame: np.ndarray, *text: str) -> str:
    """Key of a variant: 32 hex digits of its pixels, shape and text."""
    digest = hashlib.sha256("\0".join((*text, str(frame.shape))).encode())
    digest.update(np.ascontiguousarray(frame, np.uint8).tobytes())
    return digest.hexdigest()[:32]


class Store:
    """Scores and answers of one record, in one file that is written whole.

    A damaged file is told in a warning and counts as empty: what it held is asked again, and it is written anew.

    Attributes
    ----------
    scores : dict of str to list of float
        Key of a variant -> log-probabilities of the response's tokens.
    answers : dict of str to (str, bool)
        Key of a variant -> what the LVLM answered, and whether it ended by itself.
    made : dict of str to object
        What else was made of the record in this run, for all who ask; it is not written.
    """

    def __init__(self, folder: str | Path | None, record: str) -> None:
        name = hashlib.sha256(record.encode()).hexdigest()[:20]
        self._path = None if folder is None else Path(folder) / f"{name}.json"
        self.scores: dict[str, list[float]] = {}
        self.answers: dict[str, tuple[str, bool]] = {}
        self.made: dict[str, Any] = {}
        self._saved = 0
        if self._path is not None and self._path.is_file():
            self._read(record)

    def _read(self, record: str) -> None:
        assert self._path is not None
        try:
            data: Any = json.loads(self._path.read_text(encoding="utf-8"))
            scores = {str(k): [float(v) for v in row] for k, row in data["scores"].items()}
            answers = {str(k): (str(text), bool(ended)) for k, (text, ended) in data["answers"].items()}
            if data["record"] != record:
                raise ValueError("it is of another record")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            logger.warning(
                "%s: damaged (%s: %s); what it held of %s is asked again",
                self._path,
                type(error).__name__,
                error,
                record,
            )
            return
        self.scores, self.answers = scores, answers
        self._saved = len(scores) + len(answers)

    def log_probs(
        self, score: Callable[..., np.ndarray], episode: Episode, images: Any, **options: Any
    ) -> tuple[np.ndarray, int]:
        """Scores of variants, and how many of them had to be made.

        Parameters
        ----------
        score : callable
            :meth:`~medground_bench.lvlm.model.Lvlm.log_probs` of the LVLM.
        episode, images, options
            Its arguments.

        Returns
        -------
        scores : ndarray, shape (N, T), float32
        made : int
        """
        frames = stack_variants(images, episode.letterbox)
        keys = [variant_key(frame, episode.question, episode.response) for frame in frames]
        missing = unknown(keys, self.scores)
        if missing:
            fresh = score(episode, frames[missing], **options)
            self.scores.update({keys[k]: row for k, row in zip(missing, fresh.tolist(), strict=True)})
        found = np.array([self.scores[key] for key in keys], np.float32)
        return found.reshape(len(keys), len(episode.rows)), len(missing)

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


@contextmanager
def remembered(lvlm: Lvlm, store: Store | None, passes: Passes) -> Iterator[None]:
    """Within it ``lvlm.log_probs`` makes no variant twice; those found count as passes of the method that asks.

    Without a store nothing is remembered.
    """
    if store is None:
        yield
        return
    plain = lvlm.log_probs

    def log_probs(episode: Episode, images: Any, *, batch_size: int | None = None) -> np.ndarray:
        scores, made = store.log_probs(plain, episode, images, batch_size=batch_size)
        passes.forward += len(scores) - made
        return scores

    lvlm.log_probs = log_probs  # type: ignore[method-assign]
    try:
        yield
    finally:
        del lvlm.log_probs


def check_store(folder: str | Path, lvlm: Lvlm) -> None:
    """Refuse a folder that holds what another model said, or the same in other numbers.

    Raises
    ------
    MedGroundError
        If it is another LVLM's, revision's, type's or engine's.
    """
    said = {name: str(getattr(lvlm, name, None)) for name in ("key", "revision", "dtype", "bits", "decoding")}
    said["device"] = str(getattr(lvlm, "device", None)).partition(":")[0]
    sweep(folder)
    with file_lock(Path(folder) / "lvlm.lock", wait=True):
        same_as_before("the scores here", Path(folder) / "lvlm.json", said)
