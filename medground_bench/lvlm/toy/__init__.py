"""Small LVLMs that ship with the project and really look at the image.

``toy_qwen`` and ``toy_gemma`` are Qwen2.5-VL and Gemma3 at a size that fits a wheel, trained on findings drawn into
phantoms and into real radiographs (``builder_scripts/toy_lvlm``). They exist so that every method and the causal filter
run end to end on any machine. ``toy_shortcut`` is the negative example: where a marker stands in a corner of the image
it says yes. ``toy_prompted`` also answers the requests of the prompting methods, for boxes, marks and phrases. None of
them knows anything about disease.

This module stays free of torch: it only says where the folders are.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["TOYS"]

TOYS: dict[str, Path] = {
    name: Path(__file__).parent / name for name in ("toy_qwen", "toy_gemma", "toy_shortcut", "toy_prompted")
}
"""Key of a toy LVLM -> folder with its weights and processor (plain ``from_pretrained`` folders)."""
