"""Two small LVLMs that ship with the project and really look at the image.

``toy_qwen`` and ``toy_gemma`` are Qwen2.5-VL and Gemma3 at a size that fits a wheel, trained on the project's own
phantom radiographs (``builder_scripts/toy_lvlm``). They exist so that every method and the causal filter run
end to end on any machine. They know nothing about real radiographs.

This module stays free of torch: it only says where the folders are.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["TOYS"]

TOYS: dict[str, Path] = {name: Path(__file__).parent / name for name in ("toy_qwen", "toy_gemma")}
"""Key of a toy LVLM -> folder with its weights and processor (plain ``from_pretrained`` folders)."""
