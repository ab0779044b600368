"""Attention propagated through all layers as one row vector: O(S^2) per layer, one layer's attention at a time.

The full-matrix definitions multiply S x S matrices of all layers and then read a few rows. Multiplying from the
left, starting with those rows, gives the same numbers from vector-matrix products; and only the rows in which the
vector is not zero are ever needed, which in the last layer are the few that predict the response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medground_bench.attribution.method import Attribution, from_heatmap

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch

    from medground_bench.lvlm import Episode
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["from_row", "mean_of", "on_grid", "rollout_row"]


def rollout_row(trace: AttentionTrace, rows: tuple[int, ...]) -> torch.Tensor:
    """Mean of the given rows of the attention rollout, (S,) float64.

    With A_l the mean over heads of layer l's attention, ``r <- r rownorm(A_l + I)`` for l = L ... 1 (Abnar &
    Zuidema 2020). Rows of A_l add up to 1, so row-normalising halves the sum.
    """
    row = mean_of(trace, rows)
    for layer in reversed(trace.layers):
        active = row.nonzero()[:, 0]
        mixed = trace.weights(layer, active.tolist()).double().mean(dim=0)  # (active rows, S)
        share = row[active] / (mixed.sum(dim=-1) + 1)
        row = share @ mixed + _scatter(row, active, share)
    return row


def mean_of(trace: AttentionTrace, rows: Sequence[int]) -> torch.Tensor:
    """Mean of the rows' unit vectors, (S,) float64, on the device of the attention: where a propagation starts."""
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


def from_row(episode: Episode, row: torch.Tensor, *, signed: bool = False, **fields: Any) -> Attribution:
    """Values of all positions (S,) as an attribution: those of the image are its map.

    ``extras["image_share"]`` is the image's share of all absolute values, template and response included; left out
    where all are 0.
    """
    size = row.detach().double().abs()
    total = float(size.sum())
    share = {"image_share": float(size[list(episode.image_positions)].sum()) / total} if total > 0 else {}
    extras = {**fields.pop("extras", {}), **share}
    return from_heatmap(on_grid(episode, row), episode, signed=signed, extras=extras, **fields)
