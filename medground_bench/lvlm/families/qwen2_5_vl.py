"""Qwen2.5-VL: any aspect ratio, patches in merge-block order, three-axis rotary positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.families.base import Family, Tensors, knows, normalisation, resized
from medground_bench.lvlm.grid import TokenGrid

__all__ = ["Qwen25VL"]


class Qwen25VL(Family):
    """Qwen2.5-VL (Bai et al., 2025).

    The processor resizes a frame to multiples of ``patch_size * merge_size`` (28 pixels) near its own size, cuts
    14-pixel patches and stores them so that the 2x2 patches of one image token are neighbours: the order is
    (block row, block column, row in block, column in block). Each patch row of ``pixel_values`` is
    (channel, time, y, x) with the image repeated ``temporal_patch_size`` times. After the merger the image
    tokens are row-major.
    """

    model_type = "qwen2_5_vl"
    image_inputs = ("pixel_values", "image_grid_thw")
    box_scale = "pixels"
    from_embeddings = True

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenGrid:
        t, h, w = (int(v) for v in inputs["image_grid_thw"][0])
        merge = int(config.vision_config.spatial_merge_size)
        if t != 1:
            raise LvlmError(f"the processor made {t} frames of a still image", expected="one")
        return TokenGrid(h // merge, w // merge, frame_size)

    def processed_size(self, processor: Any, width: int, height: int) -> tuple[int, int]:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        ip = processor.image_processor
        h, w = smart_resize(
            height,
            width,
            factor=ip.patch_size * ip.merge_size,
            min_pixels=ip.size["shortest_edge"],
            max_pixels=ip.size["longest_edge"],
        )
        return int(w), int(h)

    def fast_pixels(self, processor: Any, frames: torch.Tensor, device: torch.device) -> Tensors | None:
        ip = processor.image_processor
        if not knows(ip):
            return None
        n, channels, height, width = frames.shape
        w, h = self.processed_size(processor, width, height)
        right_size = resized(frames, (w, h), ip.resample)
        if right_size is None:
            return None
        p, m, times = ip.patch_size, ip.merge_size, ip.temporal_patch_size
        gh, gw = h // p, w // p
        # Cut the bytes first and write each normalised value once, straight into its place.
        blocks = right_size.to(device).reshape(n, channels, gh // m, m, p, gw // m, m, p)
        patches = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(n * gh * gw, channels, p * p).float()
        mean, std = normalisation(ip, device)
        out = torch.empty(n * gh * gw, len(mean), times, p * p, device=device)
        for c in range(len(mean)):
            source = patches[:, c if channels > 1 else 0]
            first = out[:, c, 0]
            torch.sub(source, mean[c], out=first)
            first.div_(std[c])
            out[:, c, 1:] = first[:, None]
        grid = torch.tensor([[1, gh, gw]], device=device).expand(n, 3)
        return {"pixel_values": out.reshape(n * gh * gw, -1), "image_grid_thw": grid}

    def to_image(self, config: Any, values: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        _, gh, gw = (int(v) for v in inputs["image_grid_thw"][0])
        vision = config.vision_config
        m, p, times = int(vision.spatial_merge_size), int(vision.patch_size), int(vision.temporal_patch_size)
        if values.shape != (gh * gw, 3 * times * p * p):
            raise LvlmError(f"pixel values of shape {tuple(values.shape)} do not fit a {gh}x{gw} patch grid")
        v = values.reshape(gh // m, gw // m, m, m, 3, times, p, p)
        return v.permute(5, 4, 0, 2, 6, 1, 3, 7).reshape(times, 3, gh * p, gw * p)

    def batch(self, model: Any, inputs: Mapping[str, torch.Tensor], images: Tensors, count: int) -> dict[str, Any]:
        out = super().batch(model, inputs, images, count)
        grid = images["image_grid_thw"][:1] if "image_grid_thw" in images else inputs["image_grid_thw"]
        positions = self.positions(model, {**inputs, "image_grid_thw": grid})
        return {**out, **{name: value.expand(-1, count, -1) for name, value in positions.items()}}

    def positions(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if "mm_token_type_ids" not in inputs:
            return {}
        # They depend on text and grid alone: made once, not once per image in a Python loop. Giving them also keeps the
        # model from reusing offsets that an earlier generation left behind.
        positions, _ = model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
        )
        return {"position_ids": positions}

    def rotary_tables(self, attention: Any, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if cos.ndim == 3:
            return cos, sin
        # Older releases hand each layer one table per axis (3, B, S, d) and interleave them there.
        sections = list(attention.rope_parameters["mrope_section"]) * 2

        def pick(table: torch.Tensor) -> torch.Tensor:
            return torch.cat([part[i % 3] for i, part in enumerate(table.split(sections, dim=-1))], dim=-1)

        return pick(cos), pick(sin)

    @contextmanager
    def quartered(self, model: Any) -> Iterator[None]:
        """The tower gets every quarter as an image of its own; its tokens go back to their places."""
        tower = model.model.visual
        whole, each = tower.forward, int(tower.spatial_merge_size) ** 2

        def apart(hidden_states: torch.Tensor, grid_thw: torch.Tensor, **more: Any) -> Any:
            orders, grids, start = [], [], 0
            for t, h, w in grid_thw.tolist():
                rows, cols = h // int(tower.spatial_merge_size), w // int(tower.spatial_merge_size)
                if t != 1 or rows % 2 or cols % 2:
                    raise LvlmError(f"{rows}x{cols} image tokens have no quarters", expected="even rows and columns")
                blocks = torch.arange(rows * cols).reshape(2, rows // 2, 2, cols // 2).transpose(1, 2).reshape(-1)
                orders.append(blocks + start)
                grids += [[1, h // 2, w // 2]] * 4
                start += rows * cols
            order = torch.cat(orders).to(hidden_states.device)
            patches = (order[:, None] * each + torch.arange(each, device=order.device)).reshape(-1)
            out = whole(hidden_states[patches], torch.tensor(grids, device=grid_thw.device), **more)
            back = torch.argsort(order)
            if isinstance(out, torch.Tensor):
                return out[back]
            out.pooler_output = out.pooler_output[back]
            if (deep := getattr(out, "deepstack_features", None)) is not None:  # Qwen3-VL adds them in the decoder
                out.deepstack_features = [features[back] for features in deep]
            return out

        tower.forward = apart
        try:
            yield
        finally:
            del tower.forward

    def vision_tokens(self, config: Any, images: Mapping[str, torch.Tensor], count: int) -> int:
        return int(images["pixel_values"].shape[0] // max(count, 1))
