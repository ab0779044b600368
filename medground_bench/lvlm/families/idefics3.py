"""Idefics3 and SmolVLM: tiles of one size, then the whole image."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.families.explicit import Explicit, Part, token_boxes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["Idefics3", "SmolVLM"]


class Idefics3(Explicit):
    """Idefics3 (Laurencon et al., 2024): the frame is stretched over whole tiles, and follows once more as one tile."""

    model_type = "idefics3"

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenBoxes:
        width, height = frame_size
        rows, cols = self._tiles(width, height)
        vision = config.vision_config
        side = int(vision.image_size) // int(vision.patch_size) // int(config.scale_factor)
        w, h = width / cols, height / rows
        parts: list[Part] = [
            ((c * w, r * h, (c + 1) * w, (r + 1) * h), side, side) for r in range(rows) for c in range(cols)
        ]
        if len(parts) > 1:
            parts.append(((0.0, 0.0, float(width), float(height)), side, side))
        if inputs["pixel_values"].shape[1] != len(parts):
            raise LvlmError(
                f"the processor made {inputs['pixel_values'].shape[1]} tiles, its rules make {len(parts)}",
                expected="an image processor that splits images into tiles of its max_image_size",
            )
        return token_boxes(frame_size, parts)

    def _tiles(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns: the longer side to ``size``, the shorter to an even number, then both up to whole tiles."""
        ip = self.image_processor
        if not ip.do_image_splitting:
            return 1, 1
        longest, tile = int(ip.size["longest_edge"]), int(ip.max_image_size["longest_edge"])
        shorter = int(longest * min(width, height) / max(width, height))
        shorter += shorter % 2
        along = ceil(longest / tile)
        across = ceil(int(along * tile * shorter / longest) / tile)
        return (across, along) if width >= height else (along, across)


class SmolVLM(Idefics3):
    """SmolVLM (Marafioti et al., 2025): the rules of Idefics3 with other sizes."""

    model_type = "smolvlm"
