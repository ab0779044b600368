"""GlobEnc: attention rollout with the norms of what attention really adds, in place of its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.shared.attention_rows import from_row, mean_of
from baselines.shared.flow import norm_row
from medground_bench.attribution.method import Attribution, NoParameters, method

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["globenc", "value_rollout"]


@method(
    "globenc",
    family="decomposition",
    over="frame",
    needs=("white_box", "geometry"),
    cost="1 F",
    reference="Modarressi et al., GlobEnc, NAACL 2022; Kobayashi et al., EMNLP 2021",
)
def globenc(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> Attribution:
    """Rollout of ``N[r, p] = |A[r, p] W_O v_p + (r = p) x_r|_2``, rows adding up to 1, on the token grid.

    Heads are added up as vectors. Unsigned; question-aware through the rows it starts from. The paper's encoder blocks
    end in norms, which it folds in; these decoders norm before attention (folded into v) and, in Gemma, after it
    (folded in with a fixed scale), and none follows the residual sum. The MLP counts as its residual, as in the paper.
    """
    from medground_bench.lvlm.whitebox import trace_attention

    return from_row(episode, value_rollout(trace_attention(lvlm, episode), list(episode.rows)))


def value_rollout(trace: AttentionTrace, rows: list[int]) -> torch.Tensor:
    """Mean of the given rows of the product of all layers' row-normalised norms, (S,) float64."""
    row = mean_of(trace, rows)
    for layer in reversed(trace.layers):
        active = row.nonzero()[:, 0].tolist()
        row = row[active] @ norm_row(trace, layer, active)
    return row
