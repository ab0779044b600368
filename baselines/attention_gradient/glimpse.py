"""GLIMPSE: gradient-weighted attention, with weighted heads, layers and response tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["GlimpseParameters", "fused_heads", "glimpse"]


@dataclass(frozen=True)
class GlimpseParameters:
    """Parameters of ``glimpse``.

    Attributes
    ----------
    temperature : float
        Of the softmax over heads.
    """

    temperature: float = 0.5

    def __post_init__(self) -> None:
        require(self.temperature > 0, "glimpse", "temperature must be positive")


@method(
    "glimpse",
    family="attention_gradient",
    over="frame",
    parameters=GlimpseParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Shen, GLIMPSE, arXiv 2506.18985",
)
def glimpse(lvlm: Lvlm, episode: Episode, parameters: GlimpseParameters) -> Attribution:
    """``sum_t delta_t r_t`` with ``r <- r + w_l r E_l`` from the last layer to the first, on the token grid.

    ``E_l`` are ``ReLU(A * dA)``, the heads weighted by a softmax of how much of a head's positive gradient falls on
    what it attends to. The paper gives layers weights by gradient norm and depth, and tokens by confidence and visual
    relevance, but not their exact form. Decided here: w_l is proportional to ``(l + 1) |ReLU(dA_l)|`` with mean 1,
    delta_t to the token's probability times the share of its row that falls on the image. Unsigned, question-aware.
    """
    import torch

    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode, gradients=True)
    rows, image = list(episode.rows), list(episode.image_positions)
    norms = torch.stack([trace.gradient(layer, rows).clamp(min=0).double().norm() for layer in trace.layers])
    weight = norms * torch.arange(1, len(norms) + 1, device=norms.device)
    weight = weight / weight.mean() if float(weight.sum()) > 0 else torch.ones_like(weight)
    state = trace.final.new_zeros(len(rows), trace.length).double()
    state[range(len(rows)), rows] = 1
    for k in reversed(range(len(trace.layers))):
        active = state.any(0).nonzero()[:, 0].tolist()
        fused = fused_heads(trace, trace.layers[k], active, parameters.temperature)
        state = state + weight[k] * (state[:, active] @ fused)
    own = state.clone()
    own[range(len(rows)), rows] -= 1  # where it started is no relevance
    share = own[:, image].sum(1) / own.sum(1).clamp(min=1e-30)
    delta = torch.as_tensor(np.exp(trace.log_probs), device=share.device).double() * share
    heat = episode.grid.as_map((delta @ own[:, image]).cpu().numpy())
    return from_heatmap(heat, episode, token_scores=delta.cpu().numpy())


def fused_heads(trace: AttentionTrace, layer: int, rows: list[int], temperature: float) -> torch.Tensor:
    """``sum_h w_h ReLU(A_h * dA_h)`` of some rows, (R, S) float64.

    ``w = softmax_h(ratio_h / temperature)``, ratio the sum of positive gradient times attention over that of the
    positive gradient.
    """
    import torch

    attention, gradient = trace.weights(layer, rows).double(), trace.gradient(layer, rows).double().clamp(min=0)
    gradient = gradient.masked_fill(trace.scores(layer, rows) == float("-inf"), 0.0)
    product = attention * gradient
    ratio = product.sum((1, 2)) / gradient.sum((1, 2)).clamp(min=1e-30)
    return torch.einsum("h,hrs->rs", torch.softmax(ratio / temperature, dim=0), product)
