"""Gemma3 and MedGemma: every image becomes a square of fixed size and a fixed square of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.families.base import (
    Family,
    Tensors,
    knows,
    normalisation,
    patches_apart,
    resized,
    vision_layers,
)
from medground_bench.lvlm.grid import TokenGrid

__all__ = ["Gemma3"]


class Gemma3(Family):
    """Gemma 3 (Gemma Team, 2025) and MedGemma (Sellergren et al., 2025).

    The processor stretches a frame to 896x896 pixels, the vision tower cuts 64x64 patches, and the projector
    averages 4x4 of them into each of 16x16 row-major image tokens. Inside the image block attention goes both
    ways, which the model only knows from ``token_type_ids``. Pan-and-scan (extra crops) is switched off: the
    benchmark shows every model the same one frame.
    """

    model_type = "gemma3"
    image_inputs = ("pixel_values",)
    box_scale = "normalised"
    from_embeddings = True

    def configure(self, processor: Any) -> None:
        processor.image_processor.do_pan_and_scan = False

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenGrid:
        if inputs["pixel_values"].shape[0] != 1:
            raise LvlmError("the processor cut the image into crops", expected="pan-and-scan off")
        side = round(int(config.mm_tokens_per_image) ** 0.5)
        return TokenGrid(side, side, frame_size)

    def processed_size(self, processor: Any, width: int, height: int) -> tuple[int, int]:
        size = processor.image_processor.size
        return int(size["width"]), int(size["height"])

    def fast_pixels(self, processor: Any, frames: torch.Tensor, device: torch.device) -> Tensors | None:
        ip = processor.image_processor
        if not knows(ip) or getattr(ip, "do_pan_and_scan", False):
            return None
        n, channels = frames.shape[:2]
        # A grey frame is resized once, not three times; bytes go to the device, floats are made there.
        square = resized(frames, self.processed_size(processor, frames.shape[3], frames.shape[2]), ip.resample)
        if square is None:
            return None
        square = square.to(device)
        mean, std = normalisation(ip, device)
        if channels == 1 and bool((mean == mean[0]).all() and (std == std[0]).all()):
            one = square.float().sub_(mean[0]).div_(std[0])
            return {"pixel_values": one.expand(n, len(mean), *one.shape[2:])}
        out = torch.empty(n, len(mean), *square.shape[2:], device=device)
        for c in range(len(mean)):
            torch.sub(square[:, c if channels > 1 else 0].float(), mean[c], out=out[:, c])
        return {"pixel_values": out.div_(std.view(1, -1, 1, 1))}

    def to_image(self, config: Any, values: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if values.ndim == 3:
            values = values[None]
        if values.ndim != 4 or values.shape[0] != 1:
            raise LvlmError(f"pixel values of shape {tuple(values.shape)} are not one image")
        return values

    @contextmanager
    def quartered(self, model: Any) -> Iterator[None]:
        with patches_apart(vision_layers(model)):
            yield

    def vision_tokens(self, config: Any, images: Mapping[str, torch.Tensor], count: int) -> int:
        vision = config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2)
