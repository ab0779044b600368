"""A small byte-level BPE tokenizer with the special tokens and chat template of each family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .text import corpus

__all__ = ["DEFAULT_SYSTEM", "GEMMA_SPECIALS", "QWEN_SPECIALS", "gemma_tokenizer", "qwen_tokenizer"]

DEFAULT_SYSTEM = "You are a helpful assistant."

QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
GEMMA_SPECIALS = (
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

QWEN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\n" + DEFAULT_SYSTEM + "<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# A Gemma conversation has no system turn: the system text goes before the first user text.
GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% set state = namespace(system='') %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{% if message['content'] is string %}{% set state.system = message['content'] + '\n\n' %}"
    "{% else %}{% set state.system = message['content'][0]['text'] + '\n\n' %}{% endif %}"
    "{% else %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ state.system }}{% set state.system = '' %}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] | trim }}"
    "{% endif %}{% endfor %}{% endif %}<end_of_turn>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def qwen_tokenizer() -> Any:
    """Tokenizer of ``toy_qwen``: pads and ends like Qwen2.5-VL."""
    return _tokenizer(
        QWEN_SPECIALS,
        extra=("system", "user", "assistant"),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
    )


def gemma_tokenizer(more: Sequence[str] = ()) -> Any:
    """Tokenizer of ``toy_gemma``, with the image tokens that ``Gemma3Processor`` asks for.

    ``more`` are further texts whose words become tokens.
    """
    return _tokenizer(
        GEMMA_SPECIALS,
        extra=("user", "model", *more),
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


def _tokenizer(specials: tuple[str, ...], extra: tuple[str, ...], **settings: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # never reached: training stops when every word of the corpus is one token
        min_frequency=1,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [*corpus(DEFAULT_SYSTEM), *extra]
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **settings,
    )
