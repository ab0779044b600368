"""Gradient times state at the patches of a two-tower model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.two_tower.tower import hidden_with_gradient, need_two_towers
from medground_bench.attribution.method import NoParameters, method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["tower_gradient_x_state"]


@method(
    "tower_gradient_x_state",
    family="gradient",
    over="frame",
    parameters=NoParameters,
    signed=True,
    needs=("white_box", "gradients", "two_towers"),
    cost="1 F + 1 B",
    reference="Shrikumar, Greenside & Kundaje, ICML 2017, on tokens",
)
def tower_gradient_x_state(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """``sum_d H_d ds/dH_d`` at the patches of the last hidden state whose patches reach the score.

    Signed, question-aware: the score is that of the finding's prompts.
    """
    model = need_two_towers(lvlm, "tower_gradient_x_state")
    states, gradients = hidden_with_gradient(model, episode, -2)
    return episode.grid.as_map((states * gradients).sum(dim=-1).double().cpu().numpy())
