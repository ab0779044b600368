"""InternVL: tiles of one size and a thumbnail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medground_bench.lvlm.families.explicit import Explicit, Part, token_boxes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["InternVL"]


class InternVL(Explicit):
    """InternVL 2.5, 3 and 3.5 as ``transformers`` has them (Chen et al., 2024).

    The frame is stretched over the canvas of tiles whose shape is nearest to its own; each tile is a grid of tokens, in
    reading order, and the whole frame follows as a thumbnail where there is more than one.
    """

    model_type = "internvl"

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenBoxes:
        from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

        ip, (width, height) = self.image_processor, frame_size
        cols = rows = 1
        if ip.crop_to_patches:
            tile = (ip.size["height"], ip.size["width"])
            cols, rows = get_optimal_tiled_canvas((height, width), tile, ip.min_patches, ip.max_patches)
        side = round(int(config.image_seq_length) ** 0.5)
        w, h = width / cols, height / rows
        parts: list[Part] = [
            ((c * w, r * h, (c + 1) * w, (r + 1) * h), side, side) for r in range(rows) for c in range(cols)
        ]
        if len(parts) > 1 and inputs["pixel_values"].shape[0] == len(parts) + 1:
            parts.append(((0.0, 0.0, float(width), float(height)), side, side))
        return token_boxes(frame_size, parts)
