"""Attention rollout over all layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.shared.attention_rows import from_row, rollout_row
from medground_bench.attribution.method import Attribution, NoParameters, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["rollout"]


@method(
    "rollout",
    family="attention",
    over="frame",
    parameters=NoParameters,
    needs=("white_box", "geometry"),
    cost="1 F",
    reference="Abnar & Zuidema, ACL 2020",
)
def rollout(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> Attribution:
    """Rows of ``N_L ... N_1`` with ``N_l = rownorm(mean_h A_l + I)``, mean of the predicting rows, on the token grid.

    Unsigned; question-aware through the rows, though the causal mask, by which early tokens collect attention, shapes
    the map more than the weights do. The paper's encoders have no such mask.
    """
    from medground_bench.lvlm.whitebox import trace_attention

    return from_row(episode, rollout_row(trace_attention(lvlm, episode), episode.rows))
