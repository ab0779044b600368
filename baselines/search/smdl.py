"""SMDL attribution: EAGLE's search with a reward for regions that differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.search.eagle import EagleParameters, explain
from medground_bench.attribution.method import Attribution, method
from medground_bench.attribution.regions import region_labels

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["SmdlParameters", "effectiveness", "smdl"]


@dataclass(frozen=True)
class SmdlParameters(EagleParameters):
    """Parameters of ``smdl``: those of ``eagle`` and one.

    Attributes
    ----------
    effectiveness : float
        Weight of the reward for regions whose features differ.
    """

    effectiveness: float = 0.05


@method(
    "smdl",
    family="search",
    parameters=SmdlParameters,
    needs=("white_box", "geometry"),
    over="frame",
    cost="1828 F for 64 regions; 1 V",
    reference="Chen et al., Less is more: fewer interpretable region via submodular subset selection, ICLR 2024",
)
def smdl(lvlm: Lvlm, episode: Episode, parameters: SmdlParameters) -> Attribution:
    """``eagle`` with ``F(S) + lambda sum_i min_(j != i) arccos(cos(f_i, f_j)) / pi``, f a region's mean image feature.

    Unsigned, question-aware. Consistency and collaboration of the paper are EAGLE's two terms; its confidence needs a
    set of classes, which a response does not have, and is left out (the released scripts give it weight 0).
    """
    from medground_bench.lvlm.embeddings import leaf_embeddings

    features = leaf_embeddings(lvlm, episode)[0][list(episode.image_positions)].double().cpu().numpy()
    labels = region_labels(parameters.regions, episode)
    shares = np.stack([episode.grid.from_frame(labels == k) for k in range(labels.max() + 1)])
    means = shares @ features / np.maximum(shares.sum(1, keepdims=True), 1e-12)

    return explain(lvlm, episode, parameters, lambda sets: parameters.effectiveness * effectiveness(sets, means))


def effectiveness(sets: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Sum over a set's regions of the angle to the nearest other, over pi, (N,); 0 for fewer than two regions."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    angles = np.arccos(np.clip(unit @ unit.T, -1, 1)) / np.pi
    np.fill_diagonal(angles, np.inf)
    out = np.zeros(len(sets))
    for k, chosen in enumerate(sets):
        if chosen.sum() > 1:
            out[k] = angles[np.ix_(chosen, chosen)].min(1).sum()
    return out
