"""HSIC: how strongly the score depends on whether a cell is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.games import RegionGame
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["HsicParameters", "dependence", "hsic"]


@dataclass(frozen=True)
class HsicParameters:
    """Parameters of ``hsic``.

    Attributes
    ----------
    regions : str
        Cells of the mask: ``tiles:8x8``, ``slic:64``, ``tokens``, ``anatomy``.
    fill : str
        What shows where a cell is not kept.
    budget : int
        Forward passes: random masks that keep each cell with probability 1/2.
    seed : int
        Of the masks.
    """

    regions: str = "tiles:8x8"
    fill: str = "black"
    budget: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.budget >= 4, "hsic", "budget must be at least 4 passes")


@method(
    "hsic",
    family="surrogate",
    parameters=HsicParameters,
    over="frame",
    cost="500 F",
    reference="Novello, Fel & Vigouroux, NeurIPS 2022",
)
def hsic(lvlm: Lvlm, episode: Episode, parameters: HsicParameters) -> np.ndarray:
    """``tr(K_i H L H) / n`` with ``K_i(u, v) = 1/2 - (u_i - v_i)^2`` and L a Gaussian kernel of the scores.

    Unsigned, question-aware; on the frame. The kernel's width is the median distance of two scores; the package
    ``xplique`` takes the median score itself, which is no distance.
    """
    game = RegionGame(lvlm, episode, parameters.regions, parameters.fill)
    masks = np.random.default_rng(parameters.seed).random((parameters.budget, game.count)) < 0.5
    return game.heat(dependence(masks, game.values(masks)))


def dependence(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """HSIC of every column of (n, d) binary masks with (n,) scores, (d,); 0 where the scores are all the same."""
    if not np.ptp(scores):
        return np.zeros(masks.shape[1])
    distance = np.abs(scores[:, None] - scores)
    width = max(float(np.median(distance[np.triu_indices(len(scores), 1)])), 1e-6)
    kernel = np.exp(-((distance / width) ** 2) / 2)
    # For u in {0, 1}: 1/2 - (u - v)^2 = 2 (u - 1/2) (v - 1/2), so that the trace is a quadratic form.
    centred = masks - masks.mean(0)
    out: np.ndarray = 2 * np.einsum("ni,nm,mi->i", centred, kernel, centred, optimize=True) / len(scores)
    return out
