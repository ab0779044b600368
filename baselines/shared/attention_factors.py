"""What the attention-gradient methods multiply ``ReLU(dA)`` by: that is all in which some of them differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["FACTORS", "Factor"]

Factor = Literal["one", "attention", "sigmoid_scores", "sigmoid_weights", "cosine"]


def _cosine(trace: AttentionTrace, layer: int, rows: list[int], image: list[int]) -> torch.Tensor:
    from torch.nn.functional import normalize

    queries, keys = normalize(trace.queries(layer, rows), dim=-1), normalize(trace.keys(layer), dim=-1)
    cosine = queries @ keys.transpose(1, 2)
    least, most = cosine[..., image].amin(-1, keepdim=True), cosine[..., image].amax(-1, keepdim=True)
    spread = most - least
    return ((cosine - least) / spread.where(spread > 0, 1)).clamp(0, 1).where(spread > 0, 1)


FACTORS: dict[str, Callable[[AttentionTrace, int, list[int], list[int]], torch.Tensor]] = {
    "one": lambda trace, layer, rows, image: trace.scores(layer, rows).fill_(1),
    "attention": lambda trace, layer, rows, image: trace.weights(layer, rows),
    "sigmoid_scores": lambda trace, layer, rows, image: trace.scores(layer, rows).sigmoid_(),
    "sigmoid_weights": lambda trace, layer, rows, image: trace.weights(layer, rows).sigmoid_(),
    "cosine": _cosine,
}
"""Name -> (trace, layer, rows, image positions) -> (H, R, S): 1; A; sigmoid of the scores before the softmax or of A;
the cosine of query and key (after rotary positions), min-max scaled over the image tokens, 1 where it is constant."""
