"""Rules for the backward pass of single modules, as hooks that leave the forward pass bit-identical."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medground_bench.core.errors import LvlmError, MethodError
from medground_bench.lvlm.norms import frozen_scale, rms_norm

__all__ = ["activation_slope", "frozen_norm", "halved_input", "scaled_output"]


class _ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad * ctx.factor, None


class _WithSlope(torch.autograd.Function):
    """A given value ``y`` that, for the backward pass, is ``x * slope``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(slope)
        ctx.dtype = x.dtype
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (grad * slope).to(ctx.dtype), None, None


def scaled_output(factor: float) -> Any:
    """Forward hook: what leaves the module has its gradient multiplied by a constant."""

    def hook(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return _ScaleGradient.apply(output, factor)

    return hook


def halved_input(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Forward pre-hook of the module that reads a product of two factors: each gets half of the gradient."""
    return (_ScaleGradient.apply(args[0], 0.5), *args[1:])


def activation_slope(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    """Forward hook, identity rule: the slope is f(x) / x; at x = 0, where activations have f(0) = 0, f'(0) = 1/2."""
    x, y = args[0].detach(), output.detach()
    if x.dtype != torch.float64:
        x, y = x.float(), y.float()
    slope = torch.where(x == 0, 0.5, y / torch.where(x == 0, 1.0, x))
    return _WithSlope.apply(args[0], output.detach(), slope)


def frozen_norm(module: nn.Module) -> Any:
    """Hang the identity rule on a norm; returns the handle."""
    try:
        rms_norm(module)
    except LvlmError as error:
        raise MethodError(f"method 'lrp' does not know it: {error.message}", expected=error.expected) from error

    def hook(norm: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return _WithSlope.apply(args[0], output.detach(), frozen_scale(norm, args[0]))

    return module.register_forward_hook(hook)
