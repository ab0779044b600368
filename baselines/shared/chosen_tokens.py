"""Which tokens of a response are explained: all, those that spell the verdict, or those that the image decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.attribution.fills import fill_frame

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["TOKENS", "answer_tokens", "chosen_tokens", "keyword_weights", "opposite_verdict"]

TOKENS = ("all", "answer", "keywords")
"""``answer``: the last yes or no, or without one the last token; ``keywords``: see :func:`keyword_weights`."""

_VERDICT = re.compile(r"\b(?:yes|no)\b", re.IGNORECASE)


def chosen_tokens(lvlm: Lvlm, episode: Episode, which: str) -> list[int]:
    """Numbers of the response's tokens that are explained, by a name of :data:`TOKENS`; keywords cost two forwards."""
    if which == "answer":
        return answer_tokens([token.text for token in episode.tokens])
    if which == "keywords":
        pair = np.stack([episode.frame_array, fill_frame("blur", episode)])
        found = keyword_weights(*np.asarray(lvlm.log_probs(episode, pair), np.float64))
        return [int(t) for t in np.flatnonzero(found)]
    return list(range(len(episode.tokens)))


def answer_tokens(texts: Sequence[str]) -> list[int]:
    """Numbers of the tokens that spell the last yes or no of a response; without one, of its last token."""
    ends = np.cumsum([len(text) for text in texts])
    found = list(_VERDICT.finditer("".join(texts)))
    if not found:
        return [len(texts) - 1]
    start, stop = found[-1].span()
    return [t for t, end in enumerate(ends) if end > start and end - len(texts[t]) < stop] or [len(texts) - 1]


def opposite_verdict(text: str) -> str | None:
    """The text with its last yes or no turned round, capitals as they are; None where there is none."""
    found = list(_VERDICT.finditer(text))
    if not found:
        return None
    start, stop = found[-1].span()
    word = text[start:stop]
    other = "no" if word.lower() == "yes" else "yes"
    other = other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
    return text[:start] + other + text[stop:]


def keyword_weights(full: np.ndarray, blurred: np.ndarray) -> np.ndarray:
    """1 for tokens that lose more than 1 nat by the blur, else for the one whose probability falls most, (T,)."""
    chosen = full - blurred > 1.0
    if not chosen.any():
        chosen[int(np.argmax(np.exp(full) - np.exp(blurred)))] = True
    return chosen.astype(np.float64)
