"""Gradient-weighted attention, accumulated over the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.shared.attention_rows import grad_attention_row, on_grid
from medground_bench.attribution.method import NoParameters, method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["grad_attention"]


@method(
    "grad_attention",
    family="gradient",
    over="frame",
    parameters=NoParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Chefer, Gur & Wolf, ICCV 2021",
)
def grad_attention(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """Gradient-weighted attention accumulated over the layers, from the predicting rows to the image tokens."""
    from medground_bench.lvlm.whitebox import trace_attention

    return on_grid(episode, grad_attention_row(trace_attention(lvlm, episode, gradients=True), episode.rows))
