"""Raw attention of one layer, the mean of its heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.attention_rows import from_row
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
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
def attention(lvlm: Lvlm, episode: Episode, parameters: AttentionParameters) -> Attribution:
    """Mean over heads and predicting rows t of ``A_L[t, p]``, p the image tokens, on the token grid.

    Unsigned, question-aware: the rows have read the question. Weights are rebuilt from queries and keys, whatever the
    model's kernel.
    """
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode, [parameters.layer])
    return from_row(episode, trace.weights(parameters.layer, episode.rows).double().mean(dim=(0, 1)))
