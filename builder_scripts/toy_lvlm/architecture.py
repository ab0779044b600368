"""The toy LVLMs before training: real classes, real processors, small widths."""

from __future__ import annotations

from typing import Any

from medground_bench.core.errors import LvlmError

from .tokenizer import GEMMA_TEMPLATE, QWEN_TEMPLATE, gemma_tokenizer, qwen_tokenizer

__all__ = ["build", "build_gemma", "build_qwen"]

SIDE = 224
"""Side in pixels of the frame the toys are trained on."""


def build(name: str, seed: int = 0) -> tuple[Any, Any]:
    """Randomly initialised model and processor of ``toy_qwen`` or ``toy_gemma``.

    Raises
    ------
    LvlmError
        If the name is neither.
    """
    builders = {"toy_qwen": build_qwen, "toy_gemma": build_gemma}
    if name not in builders:
        raise LvlmError(f"unknown toy LVLM {name!r}", expected=" or ".join(builders))
    return builders[name](seed)


def build_qwen(seed: int = 0) -> tuple[Any, Any]:
    """A Qwen2.5-VL of under a million parameters: 224 x 224 pixels are 16 x 16 patches, each an image token."""
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = qwen_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 96,
            "intermediate_size": 224,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 4, 4], "rope_theta": 1e4},
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_heads": 4,
            "out_hidden_size": 96,
            "patch_size": 14,
            "spatial_merge_size": 1,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    _set_generation(model, eos=[ids("<|im_end|>"), ids("<|endoftext|>")], pad=ids("<|endoftext|>"))
    processor = Qwen2_5_VLProcessor(
        # As the real family: any aspect ratio, between 4 and 1,280 image tokens; a 224 x 224 frame keeps its size.
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": 28 * 28, "longest_edge": 14 * 14 * 1280}, merge_size=1
        ),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=QWEN_TEMPLATE,
    )
    return model, processor


def build_gemma(seed: int = 0) -> tuple[Any, Any]:
    """A Gemma3 of under a million parameters: images become 224 x 224, 16 x 16 patches, each an image token."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    tokenizer = gemma_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    tokens = 256
    config = Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 96,
            "intermediate_size": 224,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "query_pre_attn_scalar": 24,
            "max_position_embeddings": 8192,
            "sliding_window": 512,
            "sliding_window_pattern": 2,
            "bos_token_id": ids("<bos>"),
            "eos_token_id": ids("<eos>"),
            "pad_token_id": ids("<pad>"),
        },
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=tokens,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
    )
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(config).eval()
    # The library starts this projection at zero, from which no gradient reaches the vision tower.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=96**-0.5)
    _set_generation(model, eos=[ids("<eos>"), ids("<end_of_turn>")], pad=ids("<pad>"), bos=ids("<bos>"))
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(
            size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_pan_and_scan=False
        ),
        tokenizer=tokenizer,
        chat_template=GEMMA_TEMPLATE,
        image_seq_length=tokens,
    )
    return model, processor


def _set_generation(model: Any, eos: list[int], pad: int, bos: int | None = None) -> None:
    model.generation_config.eos_token_id = eos
    model.generation_config.pad_token_id = pad
    model.generation_config.bos_token_id = bos
    model.generation_config.do_sample = False
