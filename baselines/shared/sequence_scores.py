"""The score that every method explains, for many variants of the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["sequence_scores"]


def sequence_scores(lvlm: Lvlm, episode: Episode, variants: np.ndarray) -> np.ndarray:
    """Sequence score s of every variant of the frame, (N,) float64: the sum of its tokens' log-probabilities."""
    return np.asarray(lvlm.log_probs(episode, variants), np.float64).sum(axis=1)
