"""Attention gradients: the family of which AG-CAM, LeGrad, DEX-AR, Grad-ECLIP and Grad-CAM on attention are members.

With dA[h, r, p] the gradient of a target with respect to the attention of head h from row r to position p, all of them
start from ``G = ReLU(dA)``, multiply it by a factor, weigh heads, rows and layers, and add up. Because
``dA[h, r, p] = g_r . v_p`` (g the gradient at the heads' output, v the values), the differences are exactly the
arguments of :func:`attention_gradient`. Positions that the mask hides count as zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from baselines.shared.attention_factors import FACTORS, Factor
from baselines.shared.attention_rows import mean_of, on_grid

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["AttentionGradient", "Factor", "attention_gradient", "last_layers"]


@dataclass(frozen=True)
class AttentionGradient:
    """A map and what it says of the response's tokens.

    Attributes
    ----------
    heat : ndarray, (rows, cols) float64
        On the token grid.
    token_weights : ndarray, (T,) float64
        How much each token of the response counts.
    """

    heat: np.ndarray
    token_weights: np.ndarray


def attention_gradient(
    lvlm: Lvlm,
    episode: Episode,
    *,
    layers: Iterable[int] | None = None,
    target: Literal["score", "lens"] = "score",
    factor: Factor = "attention",
    head_weight: Literal["mean", "sum", "focus"] = "mean",
    token_weight: Literal["mean", "focus"] = "mean",
    propagate: Literal["sum", "mean", "rollout"] = "sum",
    tokens: Sequence[int] | None = None,
) -> AttentionGradient:
    """Gradient-weighted attention from the predicting rows to the image tokens.

    Parameters
    ----------
    lvlm, episode
        The model and what it reads.
    layers : iterable of int, optional
        Decoder layers, negative from the end; default all.
    target : {"score", "lens"}
        What is differentiated: the sequence score, or every layer's own logit of the token that a row predicts.
    factor : str
        What multiplies ``ReLU(dA)``: see :data:`~baselines.shared.attention_factors.FACTORS`.
    head_weight : {"mean", "sum", "focus"}
        ``focus``: ``ReLU(max over image of G - max over later text of ReLU(dA))``, per row, layer and head.
    token_weight : {"mean", "focus"}
        ``focus``: ``ReLU(max over layers, heads and image of G - max over layers, heads and later text)`` per row.
    propagate : {"sum", "mean", "rollout"}
        Over layers: their sum or mean, or ``r <- r + r mean_h(G factor)`` from the last layer to the first (the rows of
        ``(I + R_L) ... (I + R_1)``), which needs the score as target.
    tokens : sequence of int, optional
        Numbers of the response's tokens whose rows count; default all.
    """
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode, layers, gradients=target == "score")
    rows, count = list(episode.rows), len(episode.rows)
    if propagate == "rollout":
        row = mean_of(trace, rows)
        for layer in reversed(trace.layers):
            active = row.nonzero()[:, 0]
            weighted = _positive(trace, episode, layer, active.tolist(), "score")
            weighted = weighted * FACTORS[factor](trace, layer, active.tolist(), _image(episode))
            row = row + row[active] @ weighted.double().mean(dim=0)
        return AttentionGradient(on_grid(episode, row), np.full(count, 1 / count))

    image = _image(episode)
    heat = None
    most_image = most_text = None
    for layer in trace.layers:
        found = _positive(trace, episode, layer, rows, target)  # (H, T, S)
        seen, text = found[..., image].amax(-1), _later_text(episode, found).amax(-1)  # (H, T)
        weighted = (found * FACTORS[factor](trace, layer, rows, image))[..., image].double()
        if head_weight == "focus":
            weighted = weighted * (seen - text).clamp(min=0).double()[..., None]
        layered = weighted.mean(0) if head_weight == "mean" else weighted.sum(0)  # (T, P)
        heat = layered if heat is None else heat + layered
        seen, text = seen.amax(0), text.amax(0)
        most_image = seen if most_image is None else most_image.maximum(seen)
        most_text = text if most_text is None else most_text.maximum(text)
    assert heat is not None
    assert most_image is not None
    assert most_text is not None
    if propagate == "mean":
        heat = heat / len(trace.layers)
    weight = heat.new_full((count,), 1 / (count if tokens is None else len(tokens)))
    if token_weight == "focus":
        weight = (most_image - most_text).clamp(min=0).double()
    if tokens is not None:
        weight[[t for t in range(count) if t not in tokens]] = 0
    return AttentionGradient(episode.grid.as_map((weight @ heat).cpu().numpy()), weight.cpu().numpy())


def last_layers(lvlm: Lvlm, count: int) -> list[int]:
    """The numbers of the last ``count`` decoder layers, or of all where there are fewer."""
    total = len(lvlm.layers)
    return list(range(max(0, total - count), total))


def _image(episode: Episode) -> list[int]:
    return list(episode.image_positions)


def _positive(trace: AttentionTrace, episode: Episode, layer: int, rows: list[int], target: str) -> torch.Tensor:
    """ReLU(dA), (H, R, S) float32, zero where the mask hides."""
    lens = target == "lens"
    gradient = trace.lens_gradient(layer, rows, episode.token_ids) if lens else trace.gradient(layer, rows)
    return gradient.clamp_(min=0).masked_fill_(trace.scores(layer, rows) == float("-inf"), 0.0)


def _later_text(episode: Episode, found: torch.Tensor) -> torch.Tensor:
    """The part after the image, question and response (what lies after a row is hidden from it, and zero)."""
    return found[..., max(episode.image_positions) + 1 :]
