"""Exact Shapley values of the chest's regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.games import RegionGame
from baselines.surrogate.kernel_shap import shapley_regression
from medground_bench.attribution.method import Attribution, from_heatmap, method
from medground_bench.attribution.regions import named_regions

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["ShapleyAnatomyParameters", "shapley_anatomy"]


@dataclass(frozen=True)
class ShapleyAnatomyParameters:
    """Parameters of ``shapley_anatomy``.

    Attributes
    ----------
    regions : str
        ``anatomy``: thirds of both lungs, heart and mediastinum, and the rest; or another partition.
    fill : str
        What takes the place of a region.
    budget : int
        Most forward passes: the values are exact while ``2^regions`` do not exceed it, else by regression.
    seed : int
        Of the coalitions, where not all are taken.
    """

    regions: str = "anatomy"
    fill: str = "black"
    budget: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.budget >= 4, "shapley_anatomy", "budget must be at least 4 passes")


@method(
    "shapley_anatomy",
    family="surrogate",
    parameters=ShapleyAnatomyParameters,
    signed=True,
    needs=("localizer",),
    over="frame",
    cost="256 F for 8 regions; 1 localisation",
    reference="Shapley, 1953; the game of anatomical regions",
)
def shapley_anatomy(lvlm: Lvlm, episode: Episode, parameters: ShapleyAnatomyParameters) -> Attribution:
    """``phi_i = sum_S |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))`` over up to eight regions, exactly, on the frame.

    v is the sequence score; the values add up to ``s(x) - s(fill)``. Signed, question-aware. ``concept_scores`` hold
    the regions by name.
    """
    labels, names = named_regions(parameters.regions, episode)
    game = RegionGame(lvlm, episode, labels, parameters.fill)
    phi = shapley_regression(game.values, game.count, parameters.budget, parameters.seed)
    scores = dict(zip(names, phi.tolist(), strict=True)) if names else {}
    concept = max(scores, key=scores.__getitem__) if scores and np.ptp(phi) else None
    exact = 2**game.count <= parameters.budget
    return from_heatmap(
        game.heat(phi), episode, signed=True, concept=concept, concept_scores=scores, extras={"exact": exact}
    )
