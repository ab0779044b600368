"""A tiny Qwen2.5-VL whose weights numpy draws, so that every release of torch has the same, and what it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from medground_bench.lvlm.testing import tiny_qwen

__all__ = ["REASONING", "VERDICT", "prepared"]

REASONING = "The left costophrenic angle is blunted. The answer is yes."
VERDICT = 30  # the tokens of REASONING from here on are the answer
QUESTION = "Is there evidence of pleural effusion in this image?"


def prepared(attention: str, response: str, size: tuple[int, int] = (84, 140)) -> tuple[Any, Any]:
    """The LVLM and an episode of its own; values have no bias, the final norm scales by 1."""
    lvlm = tiny_qwen(attention=attention)
    rng = np.random.default_rng(7)
    with torch.no_grad():
        for name, weight in sorted(lvlm.model.named_parameters()):
            drawn = rng.standard_normal(tuple(weight.shape)) * (weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.1)
            scale = float(weight.ndim == 1 and name.endswith("weight"))  # of a norm
            plain = name.endswith(("v_proj.bias", "language_model.norm.weight"))
            weight.copy_(torch.as_tensor(scale + (0 if plain else 1) * drawn))
    frame = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
    return lvlm, lvlm.prepare(frame, QUESTION, response, side=None)
