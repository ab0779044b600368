"""LLaVA-NeXT: a thumbnail, then tiles at the best of several resolutions, a newline after each row."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from medground_bench.lvlm.families.explicit import Explicit, Part, token_boxes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from medground_bench.core.schema import Box
    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["LlavaNext"]


class LlavaNext(Explicit):
    """LLaVA-NeXT (Liu et al., 2024).

    The frame as one tile comes first. Then it is fitted into the best canvas of ``image_grid_pinpoints``, centred; the
    tokens of all tiles are put together into one grid, rows (or columns) of padding are taken away, and each row that
    is left ends with a newline token, which sees nothing.
    """

    model_type = "llava_next"

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenBoxes:
        from transformers.image_processing_utils import select_best_resolution

        width, height = frame_size
        vision = config.vision_config
        tile, side = int(vision.image_size), int(vision.image_size) // int(vision.patch_size)
        canvas = select_best_resolution((height, width), [list(p) for p in config.image_grid_pinpoints])
        rows, cols = canvas[0] // tile * side, canvas[1] // tile * side
        box, rows, cols = self._canvas(frame_size, (int(canvas[0]), int(canvas[1])), rows, cols)
        rows, cols = self.reduced(config, rows, cols, side)
        whole: Part = ((0.0, 0.0, float(width), float(height)), side, side)
        return token_boxes(frame_size, [whole, (box, rows, cols)], newlines=(1,))

    def reduced(self, config: Any, rows: int, cols: int, side: int) -> tuple[int, int]:
        """Rows and columns of the tiles' tokens as they enter the decoder."""
        return rows, cols

    @staticmethod
    def _canvas(frame_size: tuple[int, int], canvas: tuple[int, int], rows: int, cols: int) -> tuple[Box, int, int]:
        """Box in the frame, rows and columns of the tokens that are kept of a padded canvas (height, width)."""
        (width, height), (tall, wide) = frame_size, canvas
        if wide / width < tall / height:
            new_w, new_h = wide, min(ceil(height * wide / width), tall)
        else:
            new_w, new_h = min(ceil(width * tall / height), wide), tall
        left, upper = (wide - new_w) // 2, (tall - new_h) // 2
        cell_w, cell_h = wide / cols, tall / rows
        cut_x = cut_y = 0
        if width / height > cols / rows:
            cut_y = (rows - int(round(height * cols / width, 7))) // 2
        else:
            cut_x = (cols - int(round(width * rows / height, 7))) // 2
        to_x, to_y = width / new_w, height / new_h
        box = (
            (cut_x * cell_w - left) * to_x,
            (cut_y * cell_h - upper) * to_y,
            ((cols - cut_x) * cell_w - left) * to_x,
            ((rows - cut_y) * cell_h - upper) * to_y,
        )
        return box, rows - 2 * cut_y, cols - 2 * cut_x
