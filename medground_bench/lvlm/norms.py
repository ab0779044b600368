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
    weight = getattr(norm, "weight", None)
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if not type(norm).__name__.endswith("RMSNorm") or weight is None or eps is None:
        raise LvlmError(f"the normalisation {type(norm).__name__} is not known", expected="an RMS norm with a weight")
    offset = 1.0 if type(norm).__name__.startswith("Gemma") else 0.0  # Gemma stores w - 1
    return weight.detach().double() + offset, float(eps)
