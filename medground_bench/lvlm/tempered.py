"""Attention whose backward pass goes through a softmax of another temperature; the forward pass stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.trace import attention_parts

if TYPE_CHECKING:
    from medground_bench.lvlm.model import Lvlm

__all__ = ["tempered_attention"]


@contextmanager
def tempered_attention(lvlm: Lvlm, temperature: float) -> Iterator[None]:
    """Within it the attention A of the language model has the Jacobian of ``softmax(scores / temperature)``.

    Each layer's heads are computed once more from what entered them, and what the kernel gave is kept as their value:
    works with any kernel. One sequence at a time.

    Raises
    ------
    LvlmError
        If the model is given more than one sequence.
    """
    with ExitStack() as stack:
        for layer in lvlm.layers:
            attention: Any = layer.self_attn
            entered: dict[str, Any] = {}
            stack.callback(attention.register_forward_pre_hook(_keep(entered), with_kwargs=True, prepend=True).remove)
            stack.callback(
                attention.o_proj.register_forward_pre_hook(_again(lvlm, attention, entered, temperature)).remove
            )
        yield


def _keep(entered: dict[str, Any]) -> Any:
    names = ("hidden_states", "position_embeddings", "attention_mask")

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.clear()
        entered.update(dict(zip(names, args, strict=False)) | kwargs)

    return hook


def _again(lvlm: Lvlm, attention: Any, entered: dict[str, Any], temperature: float) -> Any:
    def hook(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        heads = args[0]
        if heads.shape[0] != 1:
            raise LvlmError(f"a batch of {heads.shape[0]} sequences", expected="one")
        scores, values = attention_parts(lvlm, attention, entered)  # (H, S, S), (H, S, d)
        weights = _Tempered.apply(scores, temperature)
        mine = torch.einsum("hrs,hsd->rhd", weights, values).flatten(1)[None].to(heads.dtype)
        return (_Valued.apply(mine, heads.detach()), *args[1:])

    return hook


class _Tempered(torch.autograd.Function):
    """softmax(x), with the Jacobian of softmax(x / T)."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, temperature: float) -> torch.Tensor:
        ctx.temperature = temperature
        ctx.save_for_backward(scores)
        return torch.softmax(scores, dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        (scores,) = ctx.saved_tensors
        soft = torch.softmax(scores / ctx.temperature, dim=-1)
        inner = (gradient * soft).sum(-1, keepdim=True)
        return soft * (gradient - inner) / ctx.temperature, None


class _Valued(torch.autograd.Function):
    """A given value with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None
