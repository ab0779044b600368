"""Information flow routes, in one hop and through the reasoning that precedes the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.attention_rows import from_row
from baselines.shared.checks import require
from baselines.shared.chosen_tokens import TOKENS, chosen_tokens
from baselines.shared.flow import flow_shares
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from medground_bench.lvlm import Episode, Lvlm
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["IfrTwoHopParameters", "hops", "ifr", "ifr_two_hop", "importance"]


@dataclass(frozen=True)
class IfrTwoHopParameters:
    """Parameters of ``ifr_two_hop``.

    Attributes
    ----------
    hops : int
        How often the flow into the reasoning is followed on.
    tokens : {"answer", "keywords", "all"}
        The span that is explained; what the response says before it is the reasoning.
    """

    hops: int = 1
    tokens: str = "answer"

    def __post_init__(self) -> None:
        require(self.tokens in TOKENS, "ifr_two_hop", f"tokens must be one of {', '.join(TOKENS)}")
        require(self.hops >= 0, "ifr_two_hop", "hops cannot be negative")


@method(
    "ifr",
    family="decomposition",
    over="frame",
    needs=("white_box", "geometry"),
    cost="1 F",
    reference="Ferrando & Voita, Information flow routes, EMNLP 2024",
)
def ifr(lvlm: Lvlm, episode: Episode, parameters: object) -> Attribution:
    """``sum_l e_p`` with ``e_p = sum_h prox(c_hp, x') / (sum prox + prox(x, x'))``, on the token grid.

    c is what a head writes from position p into the predicting rows, x and x' the residual stream before and after
    attention (vectors of all rows added up first, as in FlashTrace), prox the L1 proximity. Unsigned, question-aware.
    The paper follows edges above a threshold through all positions; here, as in FlashTrace, those into the rows count.
    """
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode)
    return from_row(episode, importance(trace, list(episode.rows), [1.0] * len(episode.rows)))


@method(
    "ifr_two_hop",
    family="decomposition",
    over="frame",
    parameters=IfrTwoHopParameters,
    needs=("white_box", "geometry"),
    cost="1 F",
    reference="FlashTrace, arXiv 2602.01914",
)
def ifr_two_hop(lvlm: Lvlm, episode: Episode, parameters: IfrTwoHopParameters) -> Attribution:
    """``I(answer) + rho I(reasoning, w)``: flow into the verdict, and into the reasoning in proportion to its part.

    I is ``ifr``'s importance of all positions for a span; w that of the reasoning's tokens for the verdict (the last
    yes or no of the response), rho their share of the total. A response that is a verdict alone has one hop. Unsigned,
    question-aware; ``token_scores`` are the first hop's. The package ``flashtrace`` takes the tokens' own positions
    for the rows that predict them, leaves biases of values out, and rebuilds attention without query and key norms.
    """
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode)
    answer = chosen_tokens(lvlm, episode, parameters.tokens)
    thinking = [t for t in range(len(episode.tokens)) if t < answer[0]]
    rows = [episode.rows[t] for t in thinking]
    first, total, ratio = hops(
        trace, [episode.rows[t] for t in answer], rows, [row + 1 for row in rows], parameters.hops
    )
    tokens = first[[row + 1 for row in episode.rows[:-1]]].cpu().numpy()
    extras = {"reasoning_tokens": len(thinking), "last_ratio": ratio}
    return from_row(episode, total, token_scores=np.append(tokens, 0.0), extras=extras)


def hops(
    trace: AttentionTrace, answer: list[int], rows: list[int], places: list[int], count: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Importance for the answer's rows; the same with ``count`` hops through a span; the last hop's ratio.

    ``rows`` predict the span's tokens, which stand at ``places``.
    """
    total = first = flow = importance(trace, answer, [1.0] * len(answer))
    ratio = 1.0
    for _ in range(count if rows else 0):
        share = flow[places]
        if not float(share.sum()) > 0:
            break
        ratio *= float(share.sum() / flow.sum())
        flow = importance(trace, rows, (share / share.sum()).tolist())
        total = total + ratio * flow
    return first, total, ratio


def importance(trace: AttentionTrace, rows: Sequence[int], weights: Sequence[float]) -> torch.Tensor:
    """Importance of every position for a span of rows, summed over the traced layers, (S,) float64."""
    import torch

    weight = torch.tensor(list(weights), device=trace.final.device)
    shares = [flow_shares(trace, layer, list(rows), weight) for layer in trace.layers]
    return torch.stack(shares).sum(0)
