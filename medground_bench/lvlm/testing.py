"""Small LVLMs of the real classes with random weights, for testing methods and families without downloads.

They answer nonsense, but every shape, position, mask and hook is that of the real models. For models that look
at the image, load ``toy_qwen`` or ``toy_gemma``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medground_bench.core.schema import MODES, question
from medground_bench.lvlm.model import Lvlm

__all__ = [
    "GENERIC",
    "generic_parts",
    "save_parts",
    "tiny_gemma",
    "tiny_gemma_parts",
    "tiny_qwen",
    "tiny_qwen_parts",
    "tiny_two_tower_parts",
]

_CORPUS = [
    *(question(a, mode) for a in ("pleural effusion", "lung opacity", "cardiomegaly") for mode in MODES),
    *["Yes", "No", "Yes.", "No."] * 4,
    "The left costophrenic angle is blunted. The answer is yes.",
    "The heart is not enlarged and the lungs are clear, so the answer is no.",
]

_QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_GEMMA_SPECIAL = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)

_QWEN_CHAT = """\
{%- for message in messages -%}
{%- if loop.first and message.role != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

_GEMMA_CHAT = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<start_of_image>' -}}{%- else -%}{{- part.text | trim -}}{%- endif -%}
{%- endfor -%}
{{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""


def _tokenizer(special: tuple[str, ...], **options: Any) -> Any:
    """Byte-level BPE with a few merges from the benchmark's own sentences: encodes any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=len(special) + len(alphabet) + 60,
            special_tokens=list(special),
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        **options,
    )


def tiny_qwen_parts(
    seed: int = 0,
    *,
    attention: str = "sdpa",
    layers: int = 3,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:
    """Random Qwen2.5-VL of 0.3 M parameters: (model, processor).

    ``text`` and ``vision`` replace entries of the two configurations.
    """
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _tokenizer(_QWEN_SPECIAL, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _QWEN_SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            **(text or {}),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_heads": 4,
            "out_hidden_size": 64,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            **(vision or {}),
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    config._attn_implementation = attention
    model = _seeded(lambda: Qwen2_5_VLForConditionalGeneration(config), seed)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_QWEN_CHAT,
    )
    return model, processor


def tiny_gemma_parts(
    seed: int = 0,
    *,
    attention: str = "sdpa",
    layers: int = 3,
    image_size: int = 448,
    tokens: int = 256,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:
    """Random Gemma3 of 0.3 M parameters: (model, processor).

    The second of each pair of layers attends globally, the first within a sliding window that is shorter than
    a prompt, so that both masks matter. ``image_size=896`` is the real models' geometry; ``text`` and ``vision``
    replace entries of the two configurations.
    """
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    tokenizer = _tokenizer(
        _GEMMA_SPECIAL,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _GEMMA_SPECIAL}
    config = Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": layers,
            "head_dim": 16,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "query_pre_attn_scalar": 16,
            "max_position_embeddings": 2048,
            "sliding_window": 300,
            "layer_types": ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)],
            "pad_token_id": ids["<pad>"],
            "eos_token_id": ids["<eos>"],
            "bos_token_id": ids["<bos>"],
            **(text or {}),
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": 14,
            "vision_use_head": False,
            **(vision or {}),
        },
        mm_tokens_per_image=tokens,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
    )
    config._attn_implementation = attention
    model = _seeded(lambda: Gemma3ForConditionalGeneration(config), seed)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        # The class starts this matrix at zero: the image would not reach the decoder.
        torch.manual_seed(seed + 1)
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(std=0.2)
    model.generation_config.eos_token_id = [ids["<eos>"], ids["<end_of_turn>"]]
    model.generation_config.pad_token_id = ids["<pad>"]
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(
            size={"height": image_size, "width": image_size}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=tokenizer,
        chat_template=_GEMMA_CHAT,
        image_seq_length=tokens,
    )
    return model, processor


def _seeded(build: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().eval()
    # Wider than the default initialisation, so that attention and answers depend on the input.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                weight.mul_(4.0)
    return model


_IMAGE_CHAT = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<turn>' + message.role + '\\n' -}}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- IMAGE + '\\n' -}}{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{{- '<end>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<turn>assistant\\n' -}}{%- endif -%}"""


def generic_parts(family: str, seed: int = 0) -> tuple[Any, Any]:
    """Random model and processor of one of :data:`GENERIC`: real classes of small width, without an adapter of ours."""
    return _BUILDERS[family](seed)


def _plain_tokenizer(image: str, *more: str, **roles: str) -> tuple[Any, dict[str, int]]:
    special = ("<pad>", "<s>", "<unk>", "<turn>", "<end>", image, *more)
    tokenizer = _tokenizer(
        special,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<end>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": image, **roles},
    )
    return tokenizer, {token: tokenizer.convert_tokens_to_ids(token) for token in special}


def _llama(tokenizer: Any, ids: Mapping[str, int], kind: str = "llama") -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "pad_token_id": ids["<pad>"],
        "bos_token_id": ids["<s>"],
        "eos_token_id": ids["<end>"],
    }


def _finish(model: Any, ids: Mapping[str, int]) -> Any:
    model.generation_config.eos_token_id = ids["<end>"]
    model.generation_config.pad_token_id = ids["<pad>"]
    return model


def _llava(seed: int) -> tuple[Any, Any]:
    """One square image through CLIP, a token a patch."""
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer, ids = _plain_tokenizer("<image>")
    vision = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    vision |= {"num_attention_heads": 2, "image_size": 112, "patch_size": 14}
    config = LlavaConfig(
        text_config=_llama(tokenizer, ids),
        vision_config=vision,
        image_token_index=ids["<image>"],
        vision_feature_layer=-2,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"height": 112, "width": 112}, do_center_crop=False, crop_size={"height": 112, "width": 112}
        ),
        tokenizer=tokenizer,
        patch_size=14,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'<image>'"),
    )
    return _finish(_seeded(lambda: LlavaForConditionalGeneration(config), seed), ids), processor


def _llava_next(seed: int) -> tuple[Any, Any]:
    """Tiles at the best of several resolutions, a thumbnail, and a newline token after each row."""
    from transformers import (
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    tokenizer, ids = _plain_tokenizer("<image>")
    vision = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    vision |= {"num_attention_heads": 2, "image_size": 112, "patch_size": 14}
    points = [[112, 224], [224, 112], [224, 224]]
    config = LlavaNextConfig(
        text_config=_llama(tokenizer, ids),
        vision_config=vision,
        image_token_index=ids["<image>"],
        vision_feature_layer=-2,
        image_grid_pinpoints=points,
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": 112}, crop_size={"height": 112, "width": 112}, image_grid_pinpoints=points
        ),
        tokenizer=tokenizer,
        patch_size=14,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'<image>'"),
    )
    return _finish(_seeded(lambda: LlavaNextForConditionalGeneration(config), seed), ids), processor


def _idefics3(seed: int) -> tuple[Any, Any]:
    """Tiles of a fixed size and a thumbnail, pixels shuffled into channels."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor, Idefics3Processor

    tiles = tuple(f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5))
    tokenizer, ids = _plain_tokenizer(
        "<image>",
        "<fake_token_around_image>",
        "<global-img>",
        "<end_of_utterance>",
        *tiles,
        boi_token="<fake_token_around_image>",
        eoi_token="<fake_token_around_image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    config = Idefics3Config(
        text_config=_llama(tokenizer, ids),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 112,
            "patch_size": 14,
        },
        image_token_id=ids["<image>"],
        scale_factor=2,
        pad_token_id=ids["<pad>"],
    )
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessor(size={"longest_edge": 224}, max_image_size={"longest_edge": 112}),
        tokenizer=tokenizer,
        image_seq_len=16,
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'<image>'"),
    )
    return _finish(_seeded(lambda: Idefics3ForConditionalGeneration(config), seed), ids), processor


def _internvl(seed: int) -> tuple[Any, Any]:
    """Tiles of a fixed size and a thumbnail, pixels shuffled into channels."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    tokenizer, ids = _plain_tokenizer(
        "<IMG_CONTEXT>",
        "<img>",
        "</img>",
        "<video>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        text_config=_llama(tokenizer, ids, "qwen2"),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [112, 112],
            "patch_size": [14, 14],
        },
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=16,
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": 112, "width": 112}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size={"height": 112, "width": 112}),
        image_seq_length=16,
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'<IMG_CONTEXT>'"),
    )
    return _finish(_seeded(lambda: InternVLForConditionalGeneration(config), seed), ids), processor


def _qwen3_vl(seed: int) -> tuple[Any, Any]:
    """Any aspect ratio, merged 2x2 patches, vision features added to several decoder layers."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer, ids = _plain_tokenizer(
        "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", video_token="<|video_pad|>"
    )
    text = _llama(tokenizer, ids, "qwen3_vl_text")
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}
    config = Qwen3VLConfig(
        text_config=text,
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, merge_size=2),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'<|vision_start|><|image_pad|><|vision_end|>'"),
    )
    return _finish(_seeded(lambda: Qwen3VLForConditionalGeneration(config), seed), ids), processor


def _qwen2_vl(seed: int) -> tuple[Any, Any]:
    """Any aspect ratio, merged 2x2 patches."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer, ids = _plain_tokenizer(
        "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", video_token="<|video_pad|>"
    )
    text = _llama(tokenizer, ids, "qwen2_vl_text")
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "mlp_ratio": 2,
            "num_heads": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'<|vision_start|><|image_pad|><|vision_end|>'"),
    )
    return _finish(_seeded(lambda: Qwen2VLForConditionalGeneration(config), seed), ids), processor


def _llava_onevision(seed: int) -> tuple[Any, Any]:
    """Tiles at the best of several resolutions with a bound on their tokens, a thumbnail, newlines."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    tokenizer, ids = _plain_tokenizer("<image>", "<video>", video_token="<video>")
    points = [[112, 224], [224, 112], [224, 224], [224, 336], [336, 224]]
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "image_size": 112, "patch_size": 14, "vision_use_head": False}
    config = LlavaOnevisionConfig(
        text_config=_llama(tokenizer, ids, "qwen2"),
        vision_config=vision,
        image_token_id=ids["<image>"],
        video_token_id=ids["<video>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
        image_grid_pinpoints=points,
    )
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size={"height": 112, "width": 112}, image_grid_pinpoints=points),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size={"height": 112, "width": 112}),
        num_image_tokens=64,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'<image>'"),
    )
    return _finish(_seeded(lambda: LlavaOnevisionForConditionalGeneration(config), seed), ids), processor


def _mistral3(seed: int) -> tuple[Any, Any]:
    """Any aspect ratio, merged 2x2 patches, a break token of its own after each row."""
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        PixtralImageProcessor,
        PixtralProcessor,
    )

    tokenizer, ids = _plain_tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    vision = {"model_type": "pixtral", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "head_dim": 16, "image_size": 336, "patch_size": 14}
    config = Mistral3Config(
        text_config=_llama(tokenizer, ids, "mistral"),
        vision_config=vision,
        image_token_index=ids["[IMG]"],
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )
    processor = PixtralProcessor(
        image_processor=PixtralImageProcessor(size={"longest_edge": 336}, patch_size={"height": 14, "width": 14}),
        tokenizer=tokenizer,
        patch_size=14,
        spatial_merge_size=2,
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'[IMG]'"),
    )
    return _finish(_seeded(lambda: Mistral3ForConditionalGeneration(config), seed), ids), processor


def _paligemma(seed: int) -> tuple[Any, Any]:
    """One square image, a token a patch, and attention that goes both ways over image and question."""
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    tokenizer, ids = _plain_tokenizer("<image>")
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "image_size": 112, "patch_size": 14, "projection_dim": 64}
    config = PaliGemmaConfig(
        text_config=_llama(tokenizer, ids, "gemma"),
        vision_config=vision | {"vision_use_head": False},
        image_token_index=ids["<image>"],
        projection_dim=64,
        hidden_size=64,
    )
    image_processor = SiglipImageProcessor(size={"height": 112, "width": 112})
    image_processor.image_seq_length = 64
    processor = PaliGemmaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'<image>'"),
    )
    return _finish(_seeded(lambda: PaliGemmaForConditionalGeneration(config), seed), ids), processor


def _glm4v(seed: int) -> tuple[Any, Any]:
    """Any aspect ratio, merged 2x2 patches, rotary positions on half of each head."""
    from transformers import (
        Glm4vConfig,
        Glm4vForConditionalGeneration,
        Glm4vImageProcessor,
        Glm4vProcessor,
        Glm4vVideoProcessor,
    )

    tokenizer, ids = _plain_tokenizer(
        "<|image|>",
        "<|video|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
        video_token="<|video|>",
    )
    text = _llama(tokenizer, ids, "glm4v_text")
    text["rope_parameters"] = {
        "rope_type": "default",
        "mrope_section": [1, 1, 2],
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
    }
    config = Glm4vConfig(
        text_config=text,
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "image_size": 112,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=ids["<|image|>"],
        video_token_id=ids["<|video|>"],
        image_start_token_id=ids["<|begin_of_image|>"],
        image_end_token_id=ids["<|end_of_image|>"],
        video_start_token_id=ids["<|begin_of_video|>"],
        video_end_token_id=ids["<|end_of_video|>"],
    )
    processor = Glm4vProcessor(
        image_processor=Glm4vImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Glm4vVideoProcessor(),
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'<|begin_of_image|><|image|><|end_of_image|>'"),
    )
    return _finish(_seeded(lambda: Glm4vForConditionalGeneration(config), seed), ids), processor


def _gemma4(seed: int) -> tuple[Any, Any]:
    """The aspect ratio stays, patches are pooled; tokens have embeddings per layer, the last layers share keys."""
    from transformers import (
        Gemma4AudioFeatureExtractor,
        Gemma4Config,
        Gemma4ForConditionalGeneration,
        Gemma4ImageProcessor,
        Gemma4Processor,
        Gemma4VideoProcessor,
    )

    roles = {f"{name}_token": f"<|{name}|>" for name in ("boi", "eoi", "audio", "boa", "eoa")}
    tokenizer, ids = _plain_tokenizer("<|image|>", *roles.values(), "<|video|>", **roles)
    text = {**_llama(tokenizer, ids, "gemma4_text"), "num_hidden_layers": 4, "num_kv_shared_layers": 2}
    text |= {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 64, "global_head_dim": 32}
    text |= {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": len(tokenizer)}
    text |= {"use_bidirectional_attention": "vision", "final_logit_softcapping": 30.0}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"num_key_value_heads": 2, "head_dim": 16, "position_embedding_size": 64}
    vision["pooling_kernel_size"] = 2  # 3 in the released models: fewer patches for as many tokens
    config = Gemma4Config(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image|>"],
        video_token_id=ids["<|video|>"],
        **{f"{name}_token_id": ids[f"<|{name}|>"] for name in ("boi", "eoi", "audio", "boa")},
        eoa_token_index=ids["<|eoa|>"],
    )
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(max_soft_tokens=70, pooling_kernel_size=2),
        tokenizer=tokenizer,
        video_processor=Gemma4VideoProcessor(),
        chat_template=_IMAGE_CHAT.replace("IMAGE", "'<|image|>'"),
    )
    return _finish(_seeded(lambda: Gemma4ForConditionalGeneration(config), seed), ids), processor


_BUILDERS = {
    "llava": _llava,
    "llava_next": _llava_next,
    "idefics3": _idefics3,
    "internvl": _internvl,
    "qwen3_vl": _qwen3_vl,
    "qwen2_vl": _qwen2_vl,
    "llava_onevision": _llava_onevision,
    "mistral3": _mistral3,
    "paligemma": _paligemma,
    "glm4v": _glm4v,
    "gemma4": _gemma4,
}
GENERIC: tuple[str, ...] = tuple(_BUILDERS)
"""Families that :func:`generic_parts` builds."""


def tiny_qwen(seed: int = 0, *, attention: str = "sdpa", layers: int = 3) -> Lvlm:
    """A random Qwen2.5-VL, ready to use."""
    return Lvlm.from_parts(*tiny_qwen_parts(seed, attention=attention, layers=layers), key="tiny_qwen")


def tiny_gemma(
    seed: int = 0, *, attention: str = "sdpa", layers: int = 3, image_size: int = 448, tokens: int = 256
) -> Lvlm:
    """A random Gemma3, ready to use."""
    parts = tiny_gemma_parts(seed, attention=attention, layers=layers, image_size=image_size, tokens=tokens)
    return Lvlm.from_parts(*parts, key="tiny_gemma")


def tiny_two_tower_parts(kind: str, seed: int = 0, *, image_size: int = 56, patch_size: int = 14) -> tuple[Any, Any]:
    """Random CLIP or SigLIP of 0.1 M parameters: (model, processor)."""
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
        SiglipProcessor,
    )

    tokenizer = _tokenizer(("<pad>", "<end>"), pad_token="<pad>", eos_token="<end>", unk_token="<pad>")
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    tokenizer.model_max_length = 64
    common = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**common, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "bos_token_id": None}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    vision = {**common, "image_size": image_size, "patch_size": patch_size}
    size = {"height": image_size, "width": image_size}
    if kind == "clip":
        tokenizer.padding_side = "right"
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
        model = _seeded(lambda: CLIPModel(config), seed)
        return model, CLIPProcessor(CLIPImageProcessor(size=size, do_center_crop=False, crop_size=size), tokenizer)
    tokenizer.padding_side = "right"
    config = SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=vision)
    model = _seeded(lambda: SiglipModel(config), seed)
    return model, SiglipProcessor(SiglipImageProcessor(size=size), tokenizer)


def save_parts(model: Any, processor: Any, folder: Path) -> Path:
    """Write model and processor as ``save_pretrained`` does; returns the folder."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
