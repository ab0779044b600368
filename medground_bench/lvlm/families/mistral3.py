"""Mistral Small 3.1 and its kin: any aspect ratio, merged patches, a break token after each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medground_bench.lvlm.families.explicit import Explicit
from medground_bench.lvlm.grid import TokenGrid

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["Mistral3"]


class Mistral3(Explicit):
    """Mistral 3 with the Pixtral vision tower (Mistral AI, 2025).

    The frame is stretched to whole merged patches. The tokens that end rows and the image have ids of their own and are
    no image tokens.
    """

    model_type = "mistral3"

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenBoxes:
        height, width = (int(v) for v in inputs["image_sizes"][0])
        side = int(config.vision_config.patch_size) * int(config.spatial_merge_size)
        return TokenGrid(height // side, width // side, frame_size)
