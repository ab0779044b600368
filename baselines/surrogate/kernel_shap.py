"""KernelSHAP over regions of the frame."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.games import RegionGame
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from collections.abc import Callable

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["KernelShapParameters", "kernel_shap", "shapley_regression"]


@dataclass(frozen=True)
class KernelShapParameters:
    """Parameters of ``kernel_shap``.

    Attributes
    ----------
    regions : str
        Partition of the frame: ``tiles:8x8``, ``slic:64``, ``tokens``, ``anatomy``.
    fill : str
        What takes the place of a region.
    budget : int
        Most forward passes. Where all coalitions fit, all are taken and the values are exact.
    seed : int
        Of the coalitions.
    """

    regions: str = "tiles:8x8"
    fill: str = "black"
    budget: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.budget >= 4, "kernel_shap", "budget must be at least 4 passes")


@method(
    "kernel_shap",
    family="surrogate",
    parameters=KernelShapParameters,
    signed=True,
    over="frame",
    cost="512 F",
    reference="Lundberg & Lee, NeurIPS 2017; Covert & Lee, AISTATS 2021",
)
def kernel_shap(lvlm: Lvlm, episode: Episode, parameters: KernelShapParameters) -> np.ndarray:
    """``argmin_phi sum_z pi(z) (v(z) - v(0) - z phi)^2`` with ``sum phi = v(1) - v(0)`` exactly, on the frame.

    v is the sequence score, ``pi(z) = (n - 1) / (C(n, |z|) |z| (n - |z|))``; coalitions are drawn by pi, each with its
    complement. Signed, question-aware. The package ``shap`` enumerates the smallest and largest sizes first.
    """
    game = RegionGame(lvlm, episode, parameters.regions, parameters.fill)
    return game.heat(shapley_regression(game.values, game.count, parameters.budget, parameters.seed))


def shapley_regression(worth: Callable[[np.ndarray], np.ndarray], count: int, budget: int, seed: int) -> np.ndarray:
    """Shapley values of n players by weighted regression, (n,) float64; exact where ``2^n <= budget``.

    Parameters
    ----------
    worth : callable
        (N, n) bool -> (N,).
    count, budget, seed
        Players, most coalitions, and the seed of those that are drawn.
    """
    empty, full = worth(np.stack([np.zeros(count, bool), np.ones(count, bool)]))
    if count == 1:
        return np.array([full - empty])
    if 2**count <= budget:
        numbers = np.arange(1, 2**count - 1)
        sets = (numbers[:, None] >> np.arange(count) & 1).astype(bool)
        sizes = sets.sum(1)
        weights = np.array([(count - 1) / (comb(count, k) * k * (count - k)) for k in sizes])
    else:
        rng = np.random.default_rng(seed)
        chances = 1 / (np.arange(1, count) * np.arange(count - 1, 0, -1.0))
        sizes = rng.choice(np.arange(1, count), (budget - 2) // 2, p=chances / chances.sum())
        half = np.stack([rng.permutation(count) < size for size in sizes])
        sets = np.concatenate([half, ~half])
        weights = np.ones(len(sets))
    # The last player's value follows from the sum: without it the regression has no constraint.
    z = sets.astype(float)
    target = worth(sets) - empty - z[:, -1] * (full - empty)
    design = z[:, :-1] - z[:, -1:]
    root = np.sqrt(weights)[:, None]
    phi = np.linalg.lstsq(design * root, target * root[:, 0], rcond=None)[0]
    return np.append(phi, full - empty - phi.sum())
