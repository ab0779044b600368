"""Greedy answers in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from medground_bench.core.errors import LvlmError, nearest
from medground_bench.lvlm.batching import batch_size as fit
from medground_bench.lvlm.batching import bytes_per_image, default_budget, run_in_batches
from medground_bench.lvlm.episode import Generated
from medground_bench.lvlm.images import letterbox_image
from medground_bench.lvlm.text import check_text, encode_prompts, hidden_ids

if TYPE_CHECKING:
    from medground_bench.lvlm.model import Lvlm

__all__ = ["PROCESSORS", "check_decoding", "generate", "stored_processors"]

PROCESSORS: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "min_length": 0,
    "min_new_tokens": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": None,
}
"""Settings of ``transformers`` by which greedy decoding would not take the likeliest token, and their neutral value."""


def generate(
    lvlm: Lvlm,
    images: Sequence[Any],
    questions: Sequence[str | Sequence[str]],
    *,
    max_new_tokens: int,
    side: int | None,
    batch_size: int | None,
) -> list[Generated]:
    """See :meth:`Lvlm.generate`."""
    if isinstance(questions, str) or hasattr(images, "size"):
        raise LvlmError("generate takes a list of images and a list of questions")
    if len(images) != len(questions):
        raise LvlmError(
            f"{len(images)} images and {len(questions)} questions", expected="as many of one as of the other"
        )
    if max_new_tokens < 1:
        raise LvlmError(f"max_new_tokens is {max_new_tokens}", expected="at least 1")
    if not images:
        return []
    conversations = [_turns(question, lvlm.control_tokens) for question in questions]
    size = batch_size if batch_size is not None else _fitting(lvlm, max_new_tokens)
    if size < 1:
        raise LvlmError(f"a batch of {size} images cannot be asked", expected="a batch size of at least 1")

    def step(start: int, stop: int) -> list[Generated]:
        frames = [letterbox_image(image, side)[1] for image in images[start:stop]]
        return _answer(lvlm, frames, conversations[start:stop], max_new_tokens)

    parts, _ = run_in_batches(len(images), size, step)
    return [answer for part in parts for answer in part]


def _turns(question: str | Sequence[str], control: Sequence[str]) -> list[str]:
    turns = [question] if isinstance(question, str) else list(question)
    if len(turns) % 2 == 0:
        raise LvlmError(f"a conversation of {len(turns)} turns", expected="an odd number: it ends with a question")
    return [check_text(turn, "question" if i % 2 == 0 else "answer", control) for i, turn in enumerate(turns)]


def _fitting(lvlm: Lvlm, max_new_tokens: int) -> int:
    config = lvlm.config
    vision = getattr(config, "vision_config", None)
    # A frame at the processor's size; a prompt of 512 tokens beside it is generous.
    side, patch = getattr(vision, "image_size", 448), getattr(vision, "patch_size", 14)
    patches = (side // patch) ** 2 if isinstance(side, int) and isinstance(patch, int) else 1024
    length = 512 + max_new_tokens + int(getattr(config, "mm_tokens_per_image", patches // 4))
    element = torch.finfo(lvlm.dtype).bits // 8
    budget = lvlm.memory_budget if lvlm.memory_budget is not None else default_budget(lvlm.device)
    return min(16, fit(budget, bytes_per_image(config, length, 1, patches, element)))


@torch.no_grad()
def _answer(lvlm: Lvlm, frames: list[Any], conversations: list[list[str]], max_new_tokens: int) -> list[Generated]:
    try:
        inputs = encode_prompts(lvlm.processor, lvlm.adapter, frames, conversations)
    except ValueError as error:
        raise LvlmError(f"the processor refuses an image: {error}") from error
    length = inputs["input_ids"].shape[1]
    lvlm.check_length(length + 1)
    if lvlm.context_length is not None:
        max_new_tokens = min(max_new_tokens, lvlm.context_length - length)
    inputs = {name: value.to(lvlm.device) for name, value in inputs.items()}
    with _greedy(lvlm.model, lvlm.processors) as ends:
        out = lvlm.model.generate(**inputs, max_new_tokens=max_new_tokens)[:, length:]
    tokenizer = lvlm.processor.tokenizer
    hidden = hidden_ids(tokenizer)
    shown = [[i for i in ids if i not in hidden] for ids in out.tolist()]
    texts = tokenizer.batch_decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return [Generated(text, not ends.isdisjoint(ids)) for text, ids in zip(texts, out.tolist(), strict=True)]


@contextmanager
def _greedy(model: Any, processors: Mapping[str, Any]) -> Iterator[frozenset[int]]:
    """Greedy decoding with these logits processors and no others; gives the ids that end a text.

    ``generate`` fills whatever is not said from the model's stored configuration, so that configuration itself is set
    aside for the time.
    """
    from transformers import GenerationConfig

    stored = model.generation_config
    ids = {name: getattr(stored, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(do_sample=False, num_beams=1, **ids, **processors)
    ends = ids["eos_token_id"]
    try:
        yield frozenset([ends] if isinstance(ends, int) else ends or [])
    finally:
        model.generation_config = stored


def stored_processors(model: Any) -> dict[str, Any]:
    """Logits processors that a model's stored generation configuration asks for."""
    stored = getattr(model, "generation_config", None)
    found = {name: getattr(stored, name, None) for name in PROCESSORS}
    return {name: value for name, value in found.items() if value is not None and value != PROCESSORS[name]}


def check_decoding(decoding: Mapping[str, Any] | None) -> dict[str, Any]:
    """The logits processors asked for.

    Raises
    ------
    LvlmError
        If one is none of :data:`PROCESSORS`: sampling and beams would not be greedy.
    """
    unknown = sorted(set(decoding or {}) - set(PROCESSORS))
    if unknown:
        raise LvlmError(
            f"{unknown[0]!r} is no logits processor of greedy decoding",
            expected="one of " + ", ".join(PROCESSORS),
            remedy=nearest(unknown[0], PROCESSORS),
        )
    return dict(decoding or {})
