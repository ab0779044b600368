"""GLM-4V (4.1V, 4.5V): any aspect ratio, merged patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.families.explicit import Explicit
from medground_bench.lvlm.families.qwen2_5_vl import Qwen25VL
from medground_bench.lvlm.grid import TokenGrid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["Glm4V"]


class Glm4V(Explicit):
    """GLM-4.1V (Zhipu, 2025): the frame is stretched to whole merged patches, tokens are row-major.

    Its decoder turns a part of each head only, neighbours in pairs, and has a norm before and after each block.
    """

    model_type = "glm4v"

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenBoxes:
        t, h, w = (int(v) for v in inputs["image_grid_thw"][0])
        merge = int(config.vision_config.spatial_merge_size)
        if t != 1:
            raise LvlmError(f"the processor made {t} frames of a still image", expected="one")
        return TokenGrid(h // merge, w // merge, frame_size)

    positions = Qwen25VL.positions

    def attention_norm(self, layer: Any) -> Any:
        return layer.post_self_attn_layernorm

    def quarter_turn(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
