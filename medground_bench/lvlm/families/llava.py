"""LLaVA 1.5 and models of its make: one square image, a token a patch."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medground_bench.lvlm.families.base import patches_apart, vision_layers
from medground_bench.lvlm.families.explicit import Explicit, token_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["Llava"]


class Llava(Explicit):
    """LLaVA (Liu et al., 2023), LLaVA-Med and LLaVA-Rad conversions among them.

    CLIP's processor brings the shorter side to the square's and cuts its middle out: of a frame that is not square the
    ends are not seen. The benchmark's frames are square.
    """

    model_type = "llava"

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenBoxes:
        ip, (width, height) = self.image_processor, frame_size
        shorter = ip.size.get("shortest_edge") if hasattr(ip.size, "get") else getattr(ip.size, "shortest_edge", None)
        if shorter:
            scale_x = scale_y = shorter / min(width, height)
        else:
            scale_x, scale_y = ip.size["width"] / width, ip.size["height"] / height
        seen_x, seen_y = width * scale_x, height * scale_y
        if ip.do_center_crop:
            seen_x, seen_y = float(ip.crop_size["width"]), float(ip.crop_size["height"])
        x1, y1 = (width * scale_x - seen_x) / 2, (height * scale_y - seen_y) / 2
        patch = int(config.vision_config.patch_size)
        box = (x1 / scale_x, y1 / scale_y, (x1 + seen_x) / scale_x, (y1 + seen_y) / scale_y)
        return token_boxes(frame_size, [(box, int(seen_y) // patch, int(seen_x) // patch)])

    def processed_size(self, processor: Any, width: int, height: int) -> tuple[int, int]:
        crop = getattr(processor.image_processor, "crop_size", None)
        return (int(crop["width"]), int(crop["height"])) if crop and width == height else (width, height)

    @contextmanager
    def quartered(self, model: Any) -> Iterator[None]:
        with patches_apart(vision_layers(model)):
            yield
