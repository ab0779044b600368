"""Methods that read attention weights alone: raw attention of the last layer, and rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medground_bench.attribution.method import NoParameters, method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["AttentionParameters", "attention", "rollout"]


@dataclass(frozen=True)
class AttentionParameters:
    """Parameters of ``attention``.

    Attributes
    ----------
    layer : int
        Decoder layer; negative counts from the last.
    """

    layer: int = -1


@method(
    "attention",
    family="attention",
    parameters=AttentionParameters,
    needs=("white_box",),
    cost="1 F",
    reference="Bahdanau et al., ICLR 2015; last layer, mean of heads",
)
def attention(lvlm: Lvlm, episode: Episode, parameters: AttentionParameters) -> np.ndarray:
    """Mean over heads and predicting rows t of A_L[t, P], on the token grid."""
    from baselines.rows import on_grid
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode, [parameters.layer])
    return on_grid(episode, trace.weights(parameters.layer, episode.rows).double().mean(dim=(0, 1)))


@method(
    "rollout",
    family="attention",
    parameters=NoParameters,
    needs=("white_box",),
    cost="1 F",
    reference="Abnar & Zuidema, ACL 2020",
)
def rollout(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """Attention rollout from the predicting rows to the image tokens, on the token grid."""
    from baselines.rows import on_grid, rollout_row
    from medground_bench.lvlm.whitebox import trace_attention

    return on_grid(episode, rollout_row(trace_attention(lvlm, episode), episode.rows))
