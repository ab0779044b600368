"""Attention propagated through all layers as one row vector: O(S^2) per layer, one layer's attention at a time.

The full-matrix definitions multiply S x S matrices of all layers and then read a few rows. Multiplying from the
left, starting with those rows, gives the same numbers from vector-matrix products; and only the rows in which the
vector is not zero are ever needed, which in the last layer are the few that predict the response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["grad_attention_row", "on_grid", "rollout_row"]


def rollout_row(trace: AttentionTrace, rows: tuple[int, ...]) -> torch.Tensor:
    """Mean of the given rows of the attention rollout, (S,) float64.

    With A_l the mean over heads of layer l's attention, ``r <- r rownorm(A_l + I)`` for l = L ... 1 (Abnar &
    Zuidema 2020). Rows of A_l add up to 1, so row-normalising halves the sum.
    """
    row = _start(trace, rows)
    for layer in reversed(trace.layers):
        active = row.nonzero()[:, 0]
        mixed = trace.weights(layer, active.tolist()).double().mean(dim=0)  # (active rows, S)
        share = row[active] / (mixed.sum(dim=-1) + 1)
        row = share @ mixed + _scatter(row, active, share)
    return row


def grad_attention_row(trace: AttentionTrace, rows: tuple[int, ...]) -> torch.Tensor:
    """Mean of the given rows of the gradient-weighted attention relevance, (S,) float64.

    With A'_l the mean over heads of ``ReLU(A_l * ds/dA_l)``, ``r <- r + r A'_l`` for l = L ... 1: the rows of
    ``(I + A'_L) ... (I + A'_1)`` (Chefer et al. 2021, equations 5 and 6 for self-attention).
    """
    row = _start(trace, rows)
    for layer in reversed(trace.layers):
        active = row.nonzero()[:, 0]
        chosen = active.tolist()
        weighted = trace.weights(layer, chosen).mul_(trace.gradient(layer, chosen)).clamp_(min=0)
        row = row + row[active] @ weighted.double().mean(dim=0)
    return row


def _start(trace: AttentionTrace, rows: tuple[int, ...]) -> torch.Tensor:
    """Mean of the rows' unit vectors, on the device of the attention."""
    some = trace.weights(trace.layers[-1], rows[:1])
    row = some.new_zeros(trace.length).double()
    row[list(rows)] = 1 / len(rows)
    return row


def _scatter(like: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    out = like.new_zeros(like.shape)
    out[index] = values
    return out


def on_grid(episode: Episode, row: torch.Tensor) -> np.ndarray:
    """The image positions of a row (S,) as a map over the frame: (rows, cols) where the tokens are one grid."""
    return episode.grid.as_map(row[list(episode.image_positions)].detach().double().cpu().numpy())
