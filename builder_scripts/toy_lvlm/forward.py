"""The training forward: many questions about one image, each exactly as a conversation of its own.

The vision tower and the prompt up to the end of the image are the same for all questions about an image: they are
computed once, and every question continues from the cached keys and values in its own row. What comes out equals a
plain forward of the model on processor inputs (tests/lvlm/test_toy.py holds the two together); only the order of work
differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_ATTENTION = "toy_training"

__all__ = ["Conversations", "Pixels", "ToyForward", "pad_right", "qwen_image_tokens"]


class Pixels:
    """Frames -> the processor's pixel tensors, by a table of what the processor does to each level of each channel.

    Parameters
    ----------
    processor : Qwen2_5_VLProcessor or Gemma3Processor
    side : int
        Side of the square frames; the processor must keep that size.
    """

    def __init__(self, processor: Any, side: int = 224) -> None:
        from PIL import Image

        self.patches = hasattr(processor.image_processor, "merge_size")
        self.side = side
        self.merge = int(getattr(processor.image_processor, "merge_size", 1))
        self.patch = int(getattr(processor.image_processor, "patch_size", 14))
        ramp = np.resize(np.arange(256, dtype=np.uint8), (side, side))
        image = Image.fromarray(ramp).convert("RGB")
        out = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
        if self.patches:
            m, p = self.merge, self.patch
            grid = side // (m * p)
            planes = out.reshape(grid, grid, m, m, 3, 2, p, p)[:, :, :, :, :, 0]
            planes = planes.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, side, side)
        else:
            planes = out.reshape(3, side, side)
        self.table = torch.zeros(3, 256)
        self.table[:, torch.from_numpy(ramp.reshape(-1)).long()] = planes.reshape(3, -1)

    def __call__(self, frames: np.ndarray) -> Tensor:
        """(B, side, side) or (B, side, side, 3) uint8 -> ``pixel_values`` as the processor makes them from RGB."""
        levels = torch.from_numpy(np.ascontiguousarray(frames)).long()
        if levels.ndim == 4:
            planes = torch.stack([self.table[c, levels[..., c]] for c in range(3)], 1)
        else:
            planes = self.table[:, levels].transpose(0, 1)
        if not self.patches:
            return planes
        m, p = self.merge, self.patch
        count, grid = len(planes), self.side // (m * p)
        blocks = planes.reshape(count, 3, grid, m, p, grid, m, p).permute(0, 2, 5, 3, 6, 1, 4, 7)
        values = blocks.reshape(-1, 3, p * p)
        return values[:, :, None].expand(-1, -1, 2, -1).reshape(-1, 6 * p * p)


class Conversations:
    """Token ids of the prompts and answers, cut where the image ends.

    Attributes
    ----------
    prefix : Tensor
        (P,) ids up to and including the end of the image: the same for every question.
    positions : Tensor
        (3, 1, P) for Qwen2.5-VL (multimodal rotary positions), (1, P) for Gemma3.
    next_position : int
        Position of the first token after the prefix.
    """

    def __init__(self, model: Any, processor: Any, side: int = 224) -> None:
        from PIL import Image

        self._processor = processor
        self._image = Image.new("RGB", (side, side))
        self._end = processor.tokenizer.convert_tokens_to_ids(
            "<|vision_end|>" if hasattr(processor.image_processor, "merge_size") else "<end_of_image>"
        )
        self.turn_end = "<|im_end|>" if hasattr(processor.image_processor, "merge_size") else "<end_of_turn>"
        inputs = self.inputs("?")
        ids = inputs["input_ids"]
        cut = int((ids[0] == self._end).nonzero()[-1]) + 1
        self.prefix = ids[0, :cut]
        self.image = self.prefix == model.config.image_token_id
        if "mm_token_type_ids" in inputs:
            positions, _ = model.model.get_rope_index(
                ids, image_grid_thw=inputs["image_grid_thw"], mm_token_type_ids=inputs["mm_token_type_ids"]
            )
            self.positions = positions[:, :, :cut]
            self.next_position = int(positions[0, 0, cut])
        else:
            self.positions = torch.arange(cut)[None]
            self.next_position = cut

    def inputs(self, question: str | Sequence[str], answer: str = "") -> Any:
        """Processor inputs of the conversation about a blank frame, closed by the end of turn if there is an answer.

        Several turns before the answer alternate between the user and the model.
        """
        turns = [question] if isinstance(question, str) else question
        content = [[{"type": "text", "text": turn}] for turn in turns]
        content[0].insert(0, {"type": "image"})
        chat = [{"role": ("user", "assistant")[n % 2], "content": part} for n, part in enumerate(content)]
        text = self._processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        text += answer + (self.turn_end if answer else "")
        # The template writes the beginning-of-text token itself.
        return self._processor(text=[text], images=[self._image], return_tensors="pt", add_special_tokens=False)

    def branch(self, question: str | Sequence[str], answer: str) -> tuple[list[int], int]:
        """Ids after the image (question, answer, end of turn), and where among them the answer begins."""
        cut = len(self.prefix)
        whole = self.inputs(question, answer)["input_ids"][0, cut:].tolist()
        start = self.inputs(question)["input_ids"].shape[1] - cut
        return whole, start


class ToyForward:
    """Batched forward of a toy LVLM over images and the questions about them."""

    def __init__(self, model: Any, processor: Any, side: int = 224) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(_ATTENTION, _attention)
        model.set_attn_implementation(_ATTENTION)
        self.model = model
        self.pixels = Pixels(processor, side)
        self.conversations = Conversations(model, processor, side)
        self._grid = side // self.pixels.patch
        cut = len(self.conversations.prefix)
        mask = torch.ones(cut, cut, dtype=torch.bool).tril()
        if not self.pixels.patches:  # Gemma3: image tokens see their whole image
            image = self.conversations.image
            mask |= image[:, None] & image[None, :]
        self._prefix_mask = mask[None, None]

    def image_tokens(self, frames: np.ndarray) -> Tensor:
        """Frames, grey or with three channels, -> (B, tokens, hidden) image embeddings for the language model."""
        pixels = self.pixels(frames)
        if self.pixels.patches:
            return qwen_image_tokens(self.model.model.visual, pixels, self._grid, len(frames))
        return self.model.model.get_image_features(pixels).pooler_output

    def prefix(self, tokens: Tensor) -> Any:
        """Keys and values of the prompt up to the end of the image, for each image."""
        from transformers import DynamicCache

        talk = self.conversations
        language = self.model.model.language_model
        embedded = language.embed_tokens(talk.prefix)[None].expand(len(tokens), -1, -1)
        image = talk.image.nonzero()[:, 0]
        start, end = int(image[0]), int(image[-1]) + 1
        embedded = torch.cat([embedded[:, :start], tokens.to(embedded.dtype), embedded[:, end:]], dim=1)
        cache = DynamicCache()
        language(
            inputs_embeds=embedded,
            position_ids=talk.positions.expand(*talk.positions.shape[:-2], len(tokens), -1),
            attention_mask=self._masks(self._prefix_mask),
            past_key_values=cache,
            use_cache=True,
        )
        return cache

    def branches(self, cache: Any, ids: Tensor) -> Tensor:
        """Hidden states of question-and-answer rows, each after its own image.

        Parameters
        ----------
        cache : DynamicCache
            From :meth:`prefix`.
        ids : Tensor
            (N, L) ids, padded on the right (what comes after a row's end changes nothing before it). With B images
            in the cache, the first N / B rows are about the first image, and so on.
        """
        from transformers import DynamicCache

        talk = self.conversations
        language = self.model.model.language_model
        count, length = ids.shape
        own = DynamicCache()
        for layer, part in enumerate(cache.layers):
            times = count // len(part.keys)
            own.update(_repeated(part.keys, times), _repeated(part.values, times), layer)
        mask = torch.ones(length, len(talk.prefix) + length, dtype=torch.bool).tril(len(talk.prefix))
        positions = torch.arange(length) + talk.next_position
        return language(
            inputs_embeds=language.embed_tokens(ids),
            position_ids=positions.expand(*talk.positions.shape[:-2], count, -1),
            attention_mask=self._masks(mask[None, None]),
            past_key_values=own,
            use_cache=True,
        ).last_hidden_state

    @staticmethod
    def _masks(mask: Tensor) -> dict[str, Tensor]:
        return {"full_attention": mask, "sliding_attention": mask}


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention in the interface of the library: (B, heads, L, D) -> (B, L, heads, D); a mask is true where seen."""
    out = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2), None


def _repeated(part: Tensor, times: int) -> Tensor:
    """Each row ``times`` times in a row: a view whose gradient is a plain sum (that of an index is far slower)."""
    return part[:, None].expand(-1, times, *part.shape[1:]).reshape(-1, *part.shape[1:])


def qwen_image_tokens(visual: Any, pixels: Tensor, grid: int, count: int, only_merger: bool = False) -> Tensor:
    """The library's vision tower for square images of one size: same weights, one attention call per layer.

    The library attends window by window in a loop; images of one size have windows of one size, which batch. With
    ``only_merger`` gradients reach no further than the merger.
    """
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

    merge = visual.spatial_merge_size
    order, span = _windows(grid // merge, visual.window_size // merge // visual.patch_size, merge)
    weight = visual.patch_embed.proj.weight
    states = functional.linear(pixels, weight.view(weight.shape[0], -1)).view(count, grid * grid, -1)[:, order]
    heads = visual.blocks[0].attn.num_heads
    cos, sin = (part[order].repeat(count, 1) for part in _axial_rotary(grid, merge, weight.shape[0] // heads))
    for index, block in enumerate(visual.blocks):
        attention = block.attn
        width = grid * grid if index in visual.fullatt_block_indexes else span
        qkv = attention.qkv(block.norm1(states)).reshape(count * grid * grid, 3, heads, -1)
        query, key, value = qkv.unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
        query, key, value = (
            part.to(qkv.dtype).reshape(-1, width, *part.shape[1:]).transpose(1, 2) for part in (query, key, value)
        )
        out, _ = _attention(attention, query, key, value, None, attention.scaling)
        states = states + attention.proj(out.reshape(states.shape))
        states = states + block.mlp(block.norm2(states))
    if only_merger:
        states = states.detach()
    merged = visual.merger(states.reshape(count * grid * grid, -1)).view(count, (grid // merge) ** 2, -1)
    return merged[:, torch.argsort(order[:: merge * merge])]


def _windows(cells: int, window: int, merge: int) -> tuple[Tensor, int]:
    """Order of the patches window by window, and patches per window, for a square grid of merged cells.

    Raises
    ------
    ValueError
        If the windows are not all of one size.
    """
    if cells % window:
        raise ValueError(f"{cells} x {cells} cells do not divide into windows of {window}")
    blocks = torch.arange(cells * cells).reshape(cells // window, window, cells // window, window)
    order = blocks.transpose(1, 2).reshape(-1, 1) * merge**2 + torch.arange(merge**2)
    return order.reshape(-1), window**2 * merge**2


def _axial_rotary(grid: int, merge: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (patches, width) of the two-axis rotary embedding, patches in merge-block order."""
    axis = torch.arange(grid)
    rows, cols = (
        part.reshape(grid // merge, merge, grid // merge, merge).transpose(1, 2).reshape(-1)
        for part in torch.meshgrid(axis, axis, indexing="ij")
    )
    rate = 1.0 / 10000.0 ** (torch.arange(0, width // 2, 2) / (width // 2))
    angles = torch.cat([rows[:, None] * rate, cols[:, None] * rate], dim=-1)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def pad_right(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """(N, longest) ids."""
    out = torch.full((len(rows), max(map(len, rows))), value)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row)
    return out
