"""PaliGemma: one square image, a token a patch."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medground_bench.lvlm.families.base import patches_apart, vision_layers
from medground_bench.lvlm.families.explicit import Explicit
from medground_bench.lvlm.grid import TokenGrid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["PaliGemma"]


class PaliGemma(Explicit):
    """PaliGemma (Beyer et al., 2024): the frame is stretched to the vision tower's square.

    The released models have no chat template; one has to be given with the processor.
    """

    model_type = "paligemma"
    box_scale = "normalised"
    response_type = 1  # 0 is the prefix, whose tokens see each other

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenBoxes:
        side = int(config.vision_config.image_size) // int(config.vision_config.patch_size)
        return TokenGrid(side, side, frame_size)

    def processed_size(self, processor: Any, width: int, height: int) -> tuple[int, int]:
        size = processor.image_processor.size
        return int(size["width"]), int(size["height"])

    @contextmanager
    def quartered(self, model: Any) -> Iterator[None]:
        with patches_apart(vision_layers(model)):
            yield
