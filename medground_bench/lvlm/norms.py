"""Root-mean-square norms as the linear maps that they are once their scale is held fixed."""

from __future__ import annotations

from typing import Any

import torch

from medground_bench.core.errors import LvlmError

__all__ = ["frozen_scale", "rms_norm"]


def frozen_scale(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """``w / rms(x)``, (..., D): what an RMS norm multiplies ``x`` (..., D) by; in float32, or float64 if x is.

    Raises
    ------
    LvlmError
        If the module is no RMS norm with a weight.
    """
    weight, eps = rms_norm(norm)
    exact = x.detach() if x.dtype == torch.float64 else x.detach().float()
    return torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + eps) * weight.to(exact.dtype)


def rms_norm(norm: Any) -> tuple[torch.Tensor, float]:
    """Weight (D,) and epsilon of an RMS norm; :class:`LvlmError` if it is none."""
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    stored = getattr(norm, "weight", torch.ones(()) if getattr(norm, "with_scale", True) is False else None)
    if type(norm).__name__.endswith("RMSNorm") and stored is not None and eps is not None:
        weight = stored.detach().double()
        # Some families store w - 1. What the module makes of ones tells; its forward alone, without hooks of ours.
        ones = torch.ones(weight.shape or (8,), device=weight.device, dtype=stored.dtype)
        made = norm.forward(ones).detach().double() * (1 + float(eps)) ** 0.5
        for offset in (0.0, 1.0):
            if torch.allclose(made, (weight + offset).expand_as(made), rtol=1e-2, atol=1e-3):
                return weight + offset, float(eps)
    raise LvlmError(f"the normalisation {type(norm).__name__} is not known", expected="an RMS norm with a weight")
