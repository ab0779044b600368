"""EAGLE: regions in the order in which they suffice for the response and are necessary for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.chosen_tokens import TOKENS, chosen_tokens
from baselines.shared.games import SCORES, RegionGame
from baselines.shared.search import order_map, search_regions
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    from baselines.shared.search import Objective
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["EagleParameters", "eagle", "explain"]


@dataclass(frozen=True)
class EagleParameters:
    """Parameters of ``eagle`` and its presets.

    Attributes
    ----------
    regions : str
        Partition of the frame: ``slic:64``, ``tiles:8x8``, ``tokens``, ``anatomy``.
    fill : str
        What takes the place of a region.
    score : str
        Probability of the response: ``pmean`` as published, or ``pbar``.
    tokens : {"all", "answer", "keywords"}
        Tokens of the response whose probability it is.
    insight, necessity : float
        Weights of what the set does alone and of what is lost without it.
    search : {"fast", "greedy", "bidirectional"}
        ``greedy``: all remaining regions in every step. ``fast``: all in every fifth, in between the ten that were best
        then. ``bidirectional``: as ``greedy``, and each step also sends the worst of the eight last to the end.
    map : {"shifted", "released", "rank"}
        A region's value: the objective still to come before its step, or after it (as released, which gives the last
        region that matters no more than one that does not), or its place in the order.
    budget : int
        Most forward passes; superpixels and tiles become fewer until ``n (n + 1)`` fit. 0: as many as it takes.
    """

    regions: str = "slic:64"
    fill: str = "black"
    score: str = "pmean"
    tokens: str = "all"
    insight: float = 1.0
    necessity: float = 1.0
    search: str = "fast"
    map: str = "shifted"
    budget: int = 0

    def __post_init__(self) -> None:
        require(self.score in SCORES, "eagle", f"score must be one of {', '.join(SCORES)}")
        require(self.tokens in TOKENS, "eagle", f"tokens must be one of {', '.join(TOKENS)}")
        require(self.search in ("fast", "greedy", "bidirectional"), "eagle", "search is fast, greedy or bidirectional")
        require(self.map in ("shifted", "released", "rank"), "eagle", "map must be shifted, released or rank")
        require(self.budget == 0 or self.budget >= 6, "eagle", "budget must be 0 or at least 6 passes")


@method(
    "eagle",
    family="search",
    parameters=EagleParameters,
    over="frame",
    cost="1828 F for 64 regions; 4160 F by search=greedy",
    reference="Chen et al., EAGLE, CVPR 2026 (arXiv 2509.22496)",
)
def eagle(lvlm: Lvlm, episode: Episode, parameters: EagleParameters) -> Attribution:
    """Greedy order by ``F(S) = p(x keeps S) + 1 - p(x without S)``; a region's heat is what was still to come.

    Unsigned, question-aware. Ties go to the region of lower number. Released maps take the value after a region's own
    step (``map="released"``), and the released fast search pairs sorted scores with regions in the old order.
    ``extras["image_influence"]`` says of every token how much the image decides it: the mean of its probability as
    regions are shown in their order, less the least of it.
    """
    return explain(lvlm, episode, parameters, lambda chosen: np.zeros(len(chosen)))


def explain(lvlm: Lvlm, episode: Episode, parameters: EagleParameters, bonus: Objective) -> Attribution:
    """EAGLE with something added to its objective."""
    chosen = None if parameters.tokens == "all" else chosen_tokens(lvlm, episode, parameters.tokens)
    game = RegionGame(lvlm, episode, _affordable(parameters), parameters.fill, parameters.score, chosen)

    def objective(chosen: np.ndarray) -> np.ndarray:
        both = game.values(np.concatenate([chosen, ~chosen]))
        alone, without = both[: len(chosen)], both[len(chosen) :]
        return parameters.insight * alone + parameters.necessity * (1 - without) + bonus(chosen)

    order, scores = search_regions(objective, game.count, parameters.search)
    values = np.zeros(game.count)
    base = float(objective(np.zeros((1, game.count), bool))[0])
    values[order] = order_map(np.array(scores), base, parameters.map)
    shown = np.exp(game.tokens(np.tri(game.count + 1, game.count, -1, dtype=bool)[:, np.argsort(order)]))  # no new pass
    influence = np.trapezoid(shown, axis=0) / game.count - shown.min(0)
    extras = {
        "regions": game.count,
        "order": order,
        "objective": [base, *scores],
        "image_influence": influence.tolist(),
    }
    return from_heatmap(game.heat(values), episode, extras=extras)


def _affordable(parameters: EagleParameters) -> str:
    """The partition, with fewer parts where the budget asks for it."""
    most = int((-1 + (1 + 4 * parameters.budget) ** 0.5) / 2)
    kind, _, size = parameters.regions.partition(":")
    if not parameters.budget or kind not in ("slic", "tiles"):
        return parameters.regions
    if kind == "slic":
        return f"slic:{min(int(size), most)}"
    side = min(int(most**0.5), *(int(v) for v in size.split("x")))
    return f"tiles:{side}x{side}"
