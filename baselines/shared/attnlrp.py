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

from torch import nn

from baselines.shared.backward_rules import activation_slope, frozen_norm, halved_input, scaled_output
from medground_bench.core.errors import MethodError

__all__ = ["attnlrp_rules"]


@contextmanager
def attnlrp_rules(
    decoder: nn.Module,
    *,
    attention_scores: bool = True,
    activations: bool = True,
    norms: bool = True,
    products: bool = True,
) -> Iterator[None]:
    """Install the rules in a language model for the duration of the block; without any the gradient is the plain one.

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
    norms : bool
        Whether the scales of norms count as constants.
    products : bool
        Whether the factors of a product share its gradient: halves of a gate, halves and quarters of attention.

    Raises
    ------
    MethodError
        If a layer is not of the known form: a wrong rule would be silently wrong.
    """
    with ExitStack() as stack:
        for hook in _hooks(decoder, attention_scores, activations, norms, products):
            stack.callback(hook.remove)
        yield


def _hooks(decoder: nn.Module, attention_scores: bool, activations: bool, norms: bool, products: bool) -> Iterator[Any]:
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise MethodError(f"method 'lrp' does not know {type(decoder).__name__}", expected="a decoder with layers")
    for name, module in decoder.named_modules() if norms else ():
        if "norm" in name.rpartition(".")[2] or type(module).__name__.endswith("Norm"):
            yield frozen_norm(module)
    shared = (0.25, 0.25, 0.5) if products else (1.0, 1.0, 1.0)
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
        for name, factor in zip(own, shared if attention_scores else (0.0, 0.0, 1.0), strict=False):
            # Where there is a norm of values, keys and values may be one projection, and come apart behind it.
            last = getattr(attention, f"{name}_norm" if hasattr(attention, "v_norm") else f"{name}_proj")
            yield last.register_forward_hook(scaled_output(factor))
        gated = [(getattr(mlp, activation), mlp.down_proj)]
        if hasattr(layer, "per_layer_input_gate"):
            gated.append((layer.act_fn, layer.per_layer_projection))
        for function, product in gated:
            if activations:
                yield function.register_forward_hook(activation_slope)
            if products:
                yield product.register_forward_pre_hook(halved_input)
