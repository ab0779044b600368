"""Prompt and response as tokens: the chat template in one place, and which tokens are the response."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.episode import ResponseToken

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from medground_bench.lvlm.families.base import Family

__all__ = [
    "append_response",
    "check_text",
    "control_tokens",
    "encode_prompts",
    "hidden_ids",
    "random_words",
    "response_tokens",
]

_THOUGHT = re.compile(r"think|thought|reason|<\|?channel|<channel|<\|message", re.IGNORECASE)
_NO_INPUTS = frozenset(["num_crops", "labels"])
"""What some processors return and the model does not take, or takes for training."""
_TYPE_IDS = ("token_type_ids", "mm_token_type_ids")


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Texts that the tokenizer turns into control tokens: turns, image placeholders, padding.

    Not those that mark where a thought begins and ends: a reader of the reply must see them.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(t for t in added | set(tokenizer.all_special_tokens) if t and not _THOUGHT.search(t)))


def hidden_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the control tokens: what a reply's text is shown without."""
    return frozenset(int(i) for i in tokenizer.convert_tokens_to_ids(list(control_tokens(tokenizer))))


def check_text(text: Any, what: str, control: Sequence[str]) -> str:
    """The text, if it can be part of a conversation.

    Raises
    ------
    LvlmError
        If it is no text, is empty, or contains one of the ``control`` tokens (an image placeholder in a question,
        say, would shift every image token).
    """
    if not isinstance(text, str):
        raise LvlmError(f"the {what} is a {type(text).__name__}", expected="text")
    if not text.strip():
        raise LvlmError(f"the {what} is empty", expected="text with at least one visible character")
    found = next((token for token in control if token in text), None)
    if found:
        raise LvlmError(f"the {what} contains the control token {found!r}", remedy="remove it from the text")
    return text


def encode_prompts(
    processor: Any, family: Family, frames: Sequence[Image | torch.Tensor], conversations: Sequence[Sequence[str]]
) -> dict[str, torch.Tensor]:
    """The processor's tensors for prompts that end where the assistant's answer begins, left-padded.

    Parameters
    ----------
    processor, family
        The LVLM's.
    frames : sequence of PIL images or tensors
        One per conversation, mode "RGB" or (3, H, W).
    conversations : sequence of sequence of str
        Turns, user first; a single question is a conversation of one turn.
    """
    prompts = [
        processor.apply_chat_template(family.messages(turns), tokenize=False, add_generation_prompt=True)
        for turns in conversations
    ]
    options: dict[str, Any] = {}
    bos = getattr(processor.tokenizer, "bos_token", None)
    if bos and prompts[0].startswith(bos):
        options["add_special_tokens"] = False  # the template already wrote it
    if len(prompts) > 1:
        options.update(padding=True, padding_side="left")
    out = processor(text=prompts, images=[[frame] for frame in frames], return_tensors="pt", **options)
    return {name: value for name, value in out.items() if isinstance(value, torch.Tensor) and name not in _NO_INPUTS}


def response_tokens(tokenizer: Any, response: str) -> tuple[ResponseToken, ...]:
    """The tokens the model writes for ``response``, each with the piece of text it adds.

    The response is encoded on its own: generation starts after the prompt's last token, so no token of it can
    span that border, and whatever whitespace it begins or ends with stays its own.

    Raises
    ------
    LvlmError
        If the tokenizer makes no tokens of it.
    """
    ids = [int(i) for i in tokenizer(response, add_special_tokens=False)["input_ids"]]
    if not ids:
        raise LvlmError("the response has no tokens", expected="text the tokenizer knows")
    return tuple(ResponseToken(i, text) for i, text in zip(ids, _pieces(tokenizer, ids), strict=True))


def random_words(tokenizer: Any, count: int, rng: np.random.Generator) -> str | None:
    """Random words of the vocabulary that are ``count`` tokens together, without yes and no.

    None where none are found: not every word of a vocabulary stays one token beside others.
    """
    text = ""
    for done in range(count):
        for number in rng.integers(len(tokenizer), size=_TRIES).tolist():
            word = tokenizer.decode([number]).strip()
            if not (word.isascii() and word.isalpha()) or word.lower() in ("yes", "no"):
                continue
            longer = [t for t in (f"{text} {word}".strip(), text + word) if _length(tokenizer, t) == done + 1]
            if longer:
                text = longer[0]
                break
        else:
            return None
    return text


_TRIES = 200


def _length(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    pieces: list[str] = []
    done = 0
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[done:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if text.endswith("\ufffd") and end < len(ids):
            pieces.append("")  # bytes of a character that the next tokens complete
            continue
        pieces.append(text)
        done = end
    return pieces


def append_response(inputs: dict[str, torch.Tensor], ids: Sequence[int], kind: int = 0) -> dict[str, torch.Tensor]:
    """Prompt tensors with the same response's ids after them; masks follow, type ids are ``kind``."""
    count = inputs["input_ids"].shape[0]
    tail = torch.tensor([list(ids)], dtype=inputs["input_ids"].dtype).expand(count, -1)
    out = dict(inputs)
    out["input_ids"] = torch.cat([inputs["input_ids"], tail], dim=1)
    out["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(tail)], dim=1)
    for name in _TYPE_IDS:
        if name in inputs:
            types = inputs[name]
            out[name] = torch.cat([types, torch.full_like(tail, kind, dtype=types.dtype)], dim=1)
    if (
        "cross_attention_mask" in inputs
    ):  # Mllama: which tiles a token may look at; the response sees what the last one saw
        seen = inputs["cross_attention_mask"]
        out["cross_attention_mask"] = torch.cat([seen, seen[:, -1:].expand(-1, len(ids), *seen.shape[2:])], dim=1)
    return out
