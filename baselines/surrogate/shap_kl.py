"""SHAP of the answer's whole distribution: the explainer is not told which answer to support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.episodes import prepare_like
from baselines.shared.games import RegionGame
from baselines.surrogate.kernel_shap import shapley_regression
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["ShapKlParameters", "divergence_worth", "shap_kl"]


@dataclass(frozen=True)
class ShapKlParameters:
    """Parameters of ``shap_kl``.

    Attributes
    ----------
    options : tuple of str
        The answers between which the model decides.
    regions : str
        Partition of the frame.
    fill : str
        What takes the place of a region.
    budget : int
        Most forward passes, over all options together.
    seed : int
        Of the coalitions.
    """

    options: tuple[str, ...] = ("Yes", "No")
    regions: str = "tiles:8x8"
    fill: str = "black"
    budget: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.options) >= 2, "shap_kl", "options must be at least two answers")
        require(self.budget >= 4 * len(self.options), "shap_kl", "budget must be at least 4 passes for each option")


@method(
    "shap_kl",
    family="surrogate",
    parameters=ShapKlParameters,
    signed=True,
    over="frame",
    cost="1024 F",
    reference="Jethani et al., Don't be fooled: label leakage in explanation methods, AISTATS 2023",
)
def shap_kl(lvlm: Lvlm, episode: Episode, parameters: ShapKlParameters) -> np.ndarray:
    """Shapley values (by ``kernel_shap``) of ``v(S) = -KL(p(y | x) || p(y | x_S))`` over the answers y, on the frame.

    p is the model's probability of each option as a whole response, made to add up to 1. Signed: positive regions keep
    the answer's distribution. Question-aware and blind to the response: it cannot leak the label it was given.
    """
    variants = [prepare_like(lvlm, episode, response=option) for option in parameters.options]
    games = [RegionGame(lvlm, one, parameters.regions, parameters.fill) for one in variants]

    def worth(sets: np.ndarray) -> np.ndarray:
        return divergence_worth(np.stack([game.values(sets) for game in games], 1), full)

    count = games[0].count
    full = np.stack([game.values(np.ones((1, count), bool)) for game in games], 1)[0]
    passes = parameters.budget // len(games)
    return games[0].heat(shapley_regression(worth, count, passes, parameters.seed))


def divergence_worth(scores: np.ndarray, full: np.ndarray) -> np.ndarray:
    """``-KL(softmax(full) || softmax(scores))`` of (N, options) log-probabilities, (N,); 0 for the image itself."""
    from scipy.special import log_softmax

    reference = log_softmax(full)
    worth: np.ndarray = (np.exp(reference) * (log_softmax(scores, axis=1) - reference)).sum(1)
    return worth
