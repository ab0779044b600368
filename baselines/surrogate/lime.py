"""LIME: a linear model of the score around the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.games import RegionGame
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["LimeParameters", "lime", "weighted_ridge"]


@dataclass(frozen=True)
class LimeParameters:
    """Parameters of ``lime``.

    Attributes
    ----------
    regions : str
        Partition of the frame: ``tiles:8x8``, ``slic:64``, ``tokens``, ``anatomy``.
    fill : str
        What takes the place of a region.
    width : float
        Of the kernel over cosine distances.
    alpha : float
        Strength of the ridge penalty; 0 is plain least squares.
    budget : int
        Forward passes: the image and random coalitions.
    seed : int
        Of the coalitions.
    """

    regions: str = "tiles:8x8"
    fill: str = "mean"
    width: float = 0.25
    alpha: float = 1.0
    budget: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.budget >= 4, "lime", "budget must be at least 4 passes")
        require(self.width > 0, "lime", "width must be positive")
        require(self.alpha >= 0, "lime", "alpha cannot be negative")


@method(
    "lime",
    family="surrogate",
    parameters=LimeParameters,
    signed=True,
    over="frame",
    cost="512 F",
    reference="Ribeiro, Singh & Guestrin, KDD 2016",
)
def lime(lvlm: Lvlm, episode: Episode, parameters: LimeParameters) -> np.ndarray:
    """Coefficients of ``ridge(v(z) ~ z)``, weighted by ``sqrt(exp(-d^2 / width^2))``, on the frame.

    z keeps each region with probability 1/2, d is the cosine distance to keeping all, v the sequence score. Signed,
    question-aware. The penalty shrinks: values are no effects. The package ``lime`` cuts by quickshift, which on grey
    radiographs gives few and huge segments.
    """
    game = RegionGame(lvlm, episode, parameters.regions, parameters.fill)
    rng = np.random.default_rng(parameters.seed)
    sets = rng.random((parameters.budget, game.count)) < 0.5
    sets[0] = True
    distance = 1 - np.sqrt(sets.mean(1))  # of the cosine between z and the vector of ones
    weights = np.sqrt(np.exp(-((distance / parameters.width) ** 2)))
    scores = game.values(sets)
    return game.heat(weighted_ridge(sets.astype(float), scores - scores[0], weights, parameters.alpha))


def weighted_ridge(x: np.ndarray, y: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """Coefficients (n,) of a weighted ridge regression whose intercept is not penalised."""
    share = weights / weights.sum()
    x, y = x - share @ x, y - share @ y
    gram = (x * weights[:, None]).T @ x + alpha * np.eye(x.shape[1])
    coefficients: np.ndarray = np.linalg.lstsq(gram, (x * weights[:, None]).T @ y, rcond=None)[0]
    return coefficients
