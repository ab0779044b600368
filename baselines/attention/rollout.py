"""Attention rollout over all layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.shared.attention_rows import on_grid, rollout_row
from medground_bench.attribution.method import NoParameters, method

if TYPE_CHECKING:
    import numpy as np

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
def rollout(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """Attention rollout from the predicting rows to the image tokens, on the token grid."""
    from medground_bench.lvlm.whitebox import trace_attention

    return on_grid(episode, rollout_row(trace_attention(lvlm, episode), episode.rows))
