"""ALTI-Logit: what every layer writes into the logit, traced back to the input tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.decomposition.logit_attribution import direct_effects
from baselines.shared.attention_rows import from_row
from baselines.shared.directions import logit_directions
from baselines.shared.flow import alti_row
from medground_bench.attribution.method import Attribution, NoParameters, method

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["alti_logit", "traced_back"]


@method(
    "alti_logit",
    family="decomposition",
    over="frame",
    needs=("white_box", "geometry"),
    signed=True,
    cost="1 F",
    reference="Ferrando et al., Explaining how transformers use context to build predictions, ACL 2023",
)
def alti_logit(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> Attribution:
    """``sum_l DLA_l C_(l-1) ... C_1``, C_l ALTI's contributions in layer l, DLA_l as in ``logit_attribution``.

    ``C[r, p] = max(|y|_1 - |y - T_p|_1, 0)``, rows adding up to 1, with T_p what position p adds to row r, the residual
    stream among it, and y their sum. Signed, question-aware: unlike ``logit_attribution`` it follows the image through
    the question's tokens. The released code knows GPT-2, OPT and BLOOM; the logit is here the centred one.
    """
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode)
    directions = logit_directions(lvlm, episode, trace, "softmax")
    return from_row(episode, traced_back(trace, list(episode.rows), directions), signed=True)


def traced_back(trace: AttentionTrace, rows: list[int], directions: torch.Tensor) -> torch.Tensor:
    """Effects of the input positions, by way of attention, on the sum of the rows' logits, (S,) float64."""
    row = trace.final.new_zeros(trace.length).double()
    for layer in reversed(trace.layers):
        active = row.nonzero()[:, 0].tolist()
        if active:
            row = row[active] @ alti_row(trace, layer, active)
        row = row + direct_effects(trace, layer, rows, directions).sum(0)
    return row
