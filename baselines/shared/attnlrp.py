"""AttnLRP as modified backward rules: install them, run one ordinary backward pass, take input times gradient.

Every rule leaves the forward pass bit-identical and changes only the gradient, so that ``x * ds/dx`` is the
relevance of x (Achtibat et al., AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers,
ICML 2024):

=====================  ================================================================================
layer                  backward rule
=====================  ================================================================================
linear, residual sum   unchanged: gradient times input is the 0-rule of a linear map
RMS normalisation      identity rule (their prop. 3.4): the scale is a constant, ``dy/dx = w / rms``
activation f           identity rule: ``dy/dx = f(x) / x``
gated product a * b    uniform rule (prop. 3.3): each factor gets half of the gradient
attention A V          uniform rule: half to A, half to V
softmax                unchanged: gradient times input is its Taylor rule (prop. 3.1)
scores Q K'            uniform rule on the half that A got: a quarter to Q, a quarter to K
=====================  ================================================================================

Rotary positions and the query and key norms of Gemma3 sit between the projections and the scores; they are
linear under these rules, so the quarters and the half are applied where the projections end. That works with any
attention kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from medground_bench.core.errors import LvlmError, MethodError
from medground_bench.lvlm.norms import frozen_scale, rms_norm

__all__ = ["attnlrp_rules"]


@contextmanager
def attnlrp_rules(decoder: nn.Module, *, attention_scores: bool = True, activations: bool = True) -> Iterator[None]:
    """Install the rules in a language model for the duration of the block.

    Parameters
    ----------
    decoder : Module
        The language model: ``layers`` with ``self_attn`` (``q_proj``, ``k_proj``, ``v_proj``), a gated ``mlp``
        (``act_fn`` or ``activation_fn``, ``up_proj`` or ``gate_up_proj``, ``down_proj``) and RMS norms, as in the
        Qwen2.5, Gemma3 and GLM-4 classes of ``transformers``.
    attention_scores : bool
        Whether relevance flows through queries and keys. Without it attention weights count as constants and
        all of their product's relevance goes to the values: then, in a model without biases, relevance is conserved.
    activations : bool
        Whether activations follow the identity rule; without it they keep their derivative.

    Raises
    ------
    MethodError
        If a layer is not of the known form: a wrong rule would be silently wrong.
    """
    with ExitStack() as stack:
        for hook in _hooks(decoder, attention_scores, activations):
            stack.callback(hook.remove)
        yield


def _hooks(decoder: nn.Module, attention_scores: bool, activations: bool) -> Iterator[Any]:
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise MethodError(f"method 'lrp' does not know {type(decoder).__name__}", expected="a decoder with layers")
    for name, module in decoder.named_modules():
        if "norm" in name.rpartition(".")[2] or type(module).__name__.endswith("Norm"):
            yield _norm_hook(module)
    for layer in layers:
        attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
        if hasattr(layer, "router"):
            raise MethodError(f"method 'lrp' does not know the experts of {type(layer).__name__}")
        up = "gate_up_proj" if hasattr(mlp, "gate_up_proj") else "up_proj"
        activation = "activation_fn" if hasattr(mlp, "activation_fn") else "act_fn"
        own = "q" if getattr(attention, "is_kv_shared_layer", False) else "qkv"  # or keys and values of another layer
        for part, names in ((attention, tuple(f"{n}_proj" for n in own)), (mlp, (activation, "down_proj", up))):
            if any(not hasattr(part, n) for n in names):
                raise MethodError(
                    f"method 'lrp' does not know the layer {type(layer).__name__}",
                    expected="self_attn with q_proj, k_proj, v_proj and a gated mlp with up_proj, act_fn, down_proj",
                )
        assert attention is not None
        assert mlp is not None
        scores = 0.25 if attention_scores else 0.0
        for name, factor in zip(own, (scores, scores, 0.5 if attention_scores else 1.0), strict=False):
            # Where there is a norm of values, keys and values may be one projection, and come apart behind it.
            last = getattr(attention, f"{name}_norm" if hasattr(attention, "v_norm") else f"{name}_proj")
            yield last.register_forward_hook(_scale_output(factor))
        gated = [(getattr(mlp, activation), mlp.down_proj)]
        if hasattr(layer, "per_layer_input_gate"):
            gated.append((layer.act_fn, layer.per_layer_projection))
        for function, product in gated:
            if activations:
                yield function.register_forward_hook(_activation)
            yield product.register_forward_pre_hook(_halve_input)


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


def _scale_output(factor: float) -> Any:
    def hook(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return _ScaleGradient.apply(output, factor)

    return hook


def _halve_input(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (_ScaleGradient.apply(args[0], 0.5), *args[1:])


def _activation(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    """Identity rule: the slope is f(x) / x. At x = 0, where the activations have f(0) = 0, it is f'(0) = 1/2."""
    x, y = args[0].detach(), output.detach()
    if x.dtype != torch.float64:
        x, y = x.float(), y.float()
    slope = torch.where(x == 0, 0.5, y / torch.where(x == 0, 1.0, x))
    return _WithSlope.apply(args[0], output.detach(), slope)


def _norm_hook(module: nn.Module) -> Any:
    try:
        rms_norm(module)
    except LvlmError as error:
        raise MethodError(f"method 'lrp' does not know it: {error.message}", expected=error.expected) from error

    def hook(norm: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return _WithSlope.apply(args[0], output.detach(), frozen_scale(norm, args[0]))

    return module.register_forward_hook(hook)
