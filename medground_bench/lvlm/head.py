"""The language model's head in float32, for models in half precision.

In bfloat16 a logit near 20 is a multiple of 1/8, so log-probabilities would carry that error. The head is therefore
applied in float32 to the final hidden states; what the model does to the logits afterwards (soft caps, scales) then
happens in float32 too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["float32_head"]

_CHUNK = 16_384
"""Rows of the head's matrix that are put into float32 at a time."""


class _Linear(torch.autograd.Function):
    """x W' in float32 for a half-precision W, of which only a part at a time is copied, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return torch.cat([x @ part.float().T for part in weight.split(_CHUNK)], dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        (weight,) = ctx.saved_tensors
        parts = zip(gradient.split(_CHUNK, dim=-1), weight.split(_CHUNK), strict=True)
        return sum(g @ part.float() for g, part in parts), None


@contextmanager
def float32_head(model: Any) -> Iterator[None]:
    """Within it a plain linear head of half precision gives the logits of a head in float32.

    A head of another kind (quantised, or with an adapter of its own) is left as it is.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.dtype == torch.float32 or head.weight.is_meta:
        yield
        return

    def again(module: torch.nn.Linear, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = _Linear.apply(args[0].float(), module.weight)
        return logits if module.bias is None else logits + module.bias.float()

    handle = head.register_forward_hook(again)
    try:
        yield
    finally:
        handle.remove()
