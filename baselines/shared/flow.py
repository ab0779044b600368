"""Contributions of positions to the residual stream, by how much nearer their vectors bring it to what it becomes.

With y the residual stream after attention and c what one source adds, ``max(|y|_1 - |y - c|_1, 0)`` is the source's
proximity (Ferrando, Gallego & Costa-jussa, EMNLP 2022; Ferrando & Voita, EMNLP 2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import torch

    from medground_bench.lvlm.whitebox import AttentionTrace

    Measure: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

__all__ = ["alti_row", "flow_shares", "norm_row", "proximity"]

_CHUNK = 8  # rows whose vectors from every position are held at a time


def proximity(parts: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """``max(|y|_1 - |y - c|_1, 0)`` of parts c (..., D) in a whole y that broadcasts to them, (...)."""
    return (whole.abs().sum(-1) - (whole - parts).abs().sum(-1)).clamp(min=0)


def flow_shares(trace: AttentionTrace, layer: int, rows: list[int], weights: torch.Tensor) -> torch.Tensor:
    """Shares of the positions in what one layer does to a span, (S,) float64; the residual stream has the rest.

    The span's vectors are added up first, weighted by ``weights`` (R,); an edge is one head's vector from one position.
    """
    import torch

    scale = trace.write_scale(layer, rows) * weights[:, None]  # (R, D)
    attention, outputs = trace.weights(layer, rows), trace.head_outputs(layer)
    before = (trace.residual(layer, rows) * weights[:, None]).sum(0)
    after = before + (trace.written(layer, rows) * weights[:, None]).sum(0)
    edges = torch.stack([proximity((a.T @ scale) * o, after) for a, o in zip(attention, outputs, strict=True)])
    total = edges.double().sum() + proximity(before, after).double()
    return edges.double().sum(0) / total if total > 0 else torch.zeros_like(edges[0], dtype=torch.float64)


def alti_row(trace: AttentionTrace, layer: int, rows: list[int]) -> torch.Tensor:
    """ALTI's contributions of every position to rows of one layer, (R, S) float64, each row adding up to 1."""
    return _rows(trace, layer, rows, lambda parts, whole: proximity(parts, whole))


def norm_row(trace: AttentionTrace, layer: int, rows: list[int]) -> torch.Tensor:
    """L2 norms of what every position adds to rows of one layer, itself included, (R, S) float64, rows adding to 1."""
    return _rows(trace, layer, rows, lambda parts, whole: parts.norm(dim=-1))


def _rows(trace: AttentionTrace, layer: int, rows: list[int], measure: Measure) -> torch.Tensor:
    import torch

    outputs = trace.head_outputs(layer)
    out = []
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        own = trace.residual(layer, some)
        parts = torch.einsum("hrp,hpd->rpd", trace.weights(layer, some), outputs)
        parts = parts * trace.write_scale(layer, some)[:, None]
        parts[range(len(some)), some] += own
        found = measure(parts, parts.sum(1, keepdim=True)).double()
        total = found.sum(-1, keepdim=True)
        out.append(found / total.where(total > 0, 1.0))
    return torch.cat(out)
