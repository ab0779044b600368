"""TIS: RISE over image tokens, which leave the decoder's attention in place of being painted over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["TisParameters", "mean_score_of_kept", "tis"]


@dataclass(frozen=True)
class TisParameters:
    """Parameters of ``tis``.

    Attributes
    ----------
    budget : int
        Decoder passes: random sets of tokens.
    keep : float
        Share of the tokens in a set.
    seed : int
        Of the sets.
    """

    budget: int = 256
    keep: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.budget >= 2, "tis", "budget must be at least 2 passes")
        require(0 < self.keep < 1, "tis", "keep must be a share between 0 and 1")


@method(
    "tis",
    family="intervention",
    over="frame",
    parameters=TisParameters,
    needs=("white_box", "geometry"),
    cost="256 D",
    reference="Englebert et al., Explaining through transformer input sampling, ICCV workshop 2023",
)
def tis(lvlm: Lvlm, episode: Episode, parameters: TisParameters) -> np.ndarray:
    """``sum_k s_k m_k / sum_k m_k``, s_k the score with the image tokens m_k alone in attention, on the token grid.

    Nothing is painted, and no place in the sequence moves; what a hidden token's region told the vision tower stays in
    the others. Unsigned, question-aware. The paper clusters the tokens' features to make its sets; these are random.
    """
    import torch

    from medground_bench.lvlm.embeddings import leaf_embeddings
    from medground_bench.lvlm.whitebox import embedding_log_probs

    own, positions = leaf_embeddings(lvlm, episode), list(episode.image_positions)
    rng = np.random.default_rng(parameters.seed)
    count, size = len(positions), max(1, round(parameters.keep * len(positions)))
    kept = np.stack([rng.permutation(count) < size for _ in range(parameters.budget)])
    hidden = torch.zeros(len(kept), episode.length, dtype=torch.bool, device=own.device)
    hidden[:, positions] = torch.as_tensor(~kept, device=own.device)
    scores = embedding_log_probs(
        lvlm, episode, len(kept), lambda start, stop: own.expand(stop - start, -1, -1), hidden
    ).sum(1)
    return episode.grid.as_map(mean_score_of_kept(kept, scores))


def mean_score_of_kept(kept: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Mean score of the sets (N, P) that hold a token, relative to the median score, (P,)."""
    relative = scores - np.median(scores)
    out: np.ndarray = relative @ kept / np.maximum(kept.sum(0), 1)
    return out
