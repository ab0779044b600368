"""Gemma 4: the aspect ratio stays, patches are averaged three by three, layers may share keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.families.explicit import Explicit
from medground_bench.lvlm.grid import TokenGrid

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["Gemma4"]


class Gemma4(Explicit):
    """Gemma 4 (Google, 2026).

    The frame is stretched to whole tokens of 3 x 3 patches, as many as ``max_soft_tokens`` allows at its aspect ratio;
    tokens are row-major. The last decoder layers of the small models read the keys and values of an earlier layer of
    their kind, those of the large ones take their values from the key projection, and every layer gets an embedding of
    its own of each token, which hidden tokens keep.
    """

    model_type = "gemma4"
    box_scale = "normalised"

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenBoxes:
        places, pooled = inputs["image_position_ids"], int(config.vision_config.pooling_kernel_size)
        if places.shape[0] != 1:
            raise LvlmError(f"the processor made {places.shape[0]} images of one", expected="one")
        cols, rows = (places[0].amax(0) + 1).tolist()
        return TokenGrid(rows // pooled, cols // pooled, frame_size)

    def keys_of(self, layers: Any, number: int) -> int:
        if not layers[number].self_attn.is_kv_shared_layer:
            return number
        kind = layers[number].self_attn.layer_type
        own = [k for k, layer in enumerate(layers) if not layer.self_attn.is_kv_shared_layer]
        return max(k for k in own if layers[k].self_attn.layer_type == kind)
