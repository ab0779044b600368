"""LLaVA-OneVision: LLaVA-NeXT's layout, with a bound on the tokens of the tiles."""

from __future__ import annotations

from typing import Any

from medground_bench.lvlm.families.llava_next import LlavaNext

__all__ = ["LlavaOnevision"]


class LlavaOnevision(LlavaNext):
    """LLaVA-OneVision (Li et al., 2024).

    Where the tiles have more tokens than ``anyres_max_N`` allows they are resized, all together, to fewer rows and
    columns over the same part of the image.
    """

    model_type = "llava_onevision"

    def reduced(self, config: Any, rows: int, cols: int, side: int) -> tuple[int, int]:
        most = int(str(config.vision_aspect_ratio).removeprefix("anyres_max_"))
        ratio = (rows * cols / (most * side**2)) ** 0.5
        return (int(rows // ratio), int(cols // ratio)) if ratio > 1.1 else (rows, cols)
