"""Sobol indices: the share of the score's variance in which a cell takes part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.games import RegionGame
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    from collections.abc import Callable

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["SobolParameters", "jansen", "points_within", "sobol", "sobol_points", "total_indices"]


@dataclass(frozen=True)
class SobolParameters:
    """Parameters of ``sobol``.

    Attributes
    ----------
    regions : str
        Cells of the mask: ``tiles:8x8``, ``slic:64``, ``tokens``, ``anatomy``.
    fill : str
        What shows where the mask is 0; in between the two are mixed.
    points : int
        Base points N, a power of two: the sequence is balanced only then.
    budget : int
        Most forward passes; fewer points are taken until ``N (cells + 1)`` fit. 0: as many as it takes.
    seed : int
        Of the sequence's scrambling.
    signed : bool
        Indices take the sign of what the score loses without their cell: one pass more for each cell.
    """

    regions: str = "tiles:8x8"
    fill: str = "black"
    points: int = 8
    budget: int = 0
    seed: int = 0
    signed: bool = False

    def __post_init__(self) -> None:
        power = self.points >= 2 and self.points & (self.points - 1) == 0
        require(power, "sobol", "points must be a power of two, at least 2")
        require(self.budget >= 0, "sobol", "budget cannot be negative")


@method(
    "sobol",
    family="surrogate",
    parameters=SobolParameters,
    over="frame",
    cost="520 F for 64 cells",
    reference="Fel et al., Look at the variance!, NeurIPS 2021; Jansen, 1999",
)
def sobol(lvlm: Lvlm, episode: Episode, parameters: SobolParameters) -> Attribution:
    """``S_Ti = sum_n (y(A_n) - y(A_n with i from B_n))^2 / (2 N Var y(A))``, on the frame.

    A and B are halves of a Sobol sequence of masks in [0, 1], y the sequence score. Unsigned: a cell with evidence
    against the response ranks as high, unless ``signed``. Question-aware. ``extras["standard_error"]`` is that of a
    cell's index, their mean, by a bootstrap over n. The released code enlarges the map bicubically, scores B too, which
    only first-order indices need, and does not scramble: of few points the columns of A and B are then often one, and a
    cell of which they are has index 0 whatever it does (11 of 64 cells with 8 points).
    """
    game = RegionGame(lvlm, episode, parameters.regions, parameters.fill)
    points = points_within(parameters.budget, parameters.points, game.count, "sobol")
    first, second = sobol_points(game.count, points, parameters.seed)
    indices, errors = jansen(game.values, first, second)
    if parameters.signed:
        full = np.ones(game.count, bool)
        scores = game.values(np.stack([full, *(full & (np.arange(game.count) != i) for i in range(game.count))]))
        indices = indices * np.sign(scores[0] - scores[1:])
    extras = {"standard_error": float(errors.mean())}
    return from_heatmap(game.heat(indices), episode, signed=parameters.signed, extras=extras)


def points_within(budget: int, points: int, count: int, name: str) -> int:
    """The most base points of n cells, at least 2, that a budget of passes allows; 0 allows all.

    Raises
    ------
    MethodError
        If it does not allow two.
    """
    while budget and points > 2 and points * (count + 1) > budget:
        points //= 2
    enough = not budget or points * (count + 1) <= budget
    require(enough, name, f"budget={budget} is less than the {2 * (count + 1)} passes of two points of {count} cells")
    return points


def total_indices(worth: Callable[[np.ndarray], np.ndarray], count: int, points: int, seed: int = 0) -> np.ndarray:
    """Jansen's total indices of n inputs in [0, 1], (n,) float64; 0 where the output does not vary.

    Parameters
    ----------
    worth : callable
        (N, n) float -> (N,).
    count, points, seed : int
        n, N, and the seed of :func:`sobol_points`.
    """
    return jansen(worth, *sobol_points(count, points, seed))[0]


def sobol_points(count: int, points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A and B, (N, n) each: the halves of a Sobol sequence in 2 n dimensions, scrambled (Owen)."""
    from scipy.stats.qmc import Sobol

    sequence = Sobol(2 * count, seed=np.random.default_rng(seed)).random(points)
    return sequence[:, :count], sequence[:, count:]


def jansen(
    worth: Callable[[np.ndarray], np.ndarray], first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Total indices by the points A and B, (N, n) each, and their standard errors by 200 bootstrap samples of the N."""
    base = worth(first)
    count = first.shape[1]
    if base.var(ddof=1) == 0:
        return np.zeros(count), np.zeros(count)
    squares = np.empty(first.T.shape)
    for i in range(count):
        mixed = first.copy()
        mixed[:, i] = second[:, i]
        squares[i] = (base - worth(mixed)) ** 2
    drawn = np.random.default_rng(0).integers(len(base), size=(200, len(base)))
    spread = base[drawn].var(axis=1, ddof=1)
    sampled = squares[:, drawn].mean(2)[:, spread > 0] / (2 * spread[spread > 0])
    return squares.sum(1) / (2 * len(first) * base.var(ddof=1)), sampled.std(1)
