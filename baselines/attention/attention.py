"""Raw attention of one layer, the mean of its heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.attention_rows import on_grid
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["AttentionParameters", "attention"]


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
    over="frame",
    parameters=AttentionParameters,
    needs=("white_box", "geometry"),
    cost="1 F",
    reference="Bahdanau et al., ICLR 2015; last layer, mean of heads",
)
def attention(lvlm: Lvlm, episode: Episode, parameters: AttentionParameters) -> np.ndarray:
    """Mean over heads and predicting rows t of A_L[t, P], on the token grid."""
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode, [parameters.layer])
    return on_grid(episode, trace.weights(parameters.layer, episode.rows).double().mean(dim=(0, 1)))
