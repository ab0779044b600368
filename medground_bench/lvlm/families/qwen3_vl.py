"""Qwen3-VL: patches of 16 pixels, vision features added to several decoder layers, boxes in thousandths."""

from __future__ import annotations

from medground_bench.lvlm.families.qwen2_5_vl import Qwen25VL

__all__ = ["Qwen3VL"]


class Qwen3VL(Qwen25VL):
    """Qwen3-VL (2025): pixel values, merging and token order as in Qwen2.5-VL, with patches of 16 pixels.

    Features of intermediate vision layers enter the first decoder layers at the image positions too (DeepStack);
    gradients at the image embeddings are taken at every such place.
    """

    model_type = "qwen3_vl"
    box_scale = "normalised_xyxy"
    from_embeddings = False
