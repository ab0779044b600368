"""Qwen2-VL: as Qwen2.5-VL to us; it writes boxes in thousandths."""

from __future__ import annotations

from medground_bench.lvlm.families.qwen2_5_vl import Qwen25VL

__all__ = ["Qwen2VL"]


class Qwen2VL(Qwen25VL):
    """Qwen2-VL (Wang et al., 2024): the same patches, merging and rotary axes; full attention in the vision tower."""

    model_type = "qwen2_vl"
    box_scale = "normalised_xyxy"
