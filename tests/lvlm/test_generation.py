"""Greedy answers in batches equal answers one at a time."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question
from medground_bench.lvlm import Lvlm, generation


@pytest.fixture(scope="module", params=["tiny_qwen", "tiny_gemma"])
def lvlm(request: pytest.FixtureRequest) -> Lvlm:
    return request.getfixturevalue(request.param)


def noise(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width), dtype=np.uint8))


IMAGES = [noise(60, 80, 0), noise(200, 100, 1), noise(33, 33, 2)]
QUESTIONS = ["Is it?", question("lung opacity", "reason"), question("pleural effusion", "direct")]


def step_by_step(lvlm: Lvlm, image: Image.Image, text: str, count: int) -> str:
    """Oracle: argmax of full forwards without cache, token by token."""
    episode = lvlm.prepare(image, text, "x")
    inputs = {k: v[:, :-1] if v.shape[-1] == episode.length else v for k, v in episode.inputs.items()}
    ids: list[int] = []
    eos = lvlm.model.generation_config.eos_token_id
    for _ in range(count):
        with torch.no_grad():
            best = int(lvlm.model(**inputs).logits[0, -1].argmax())
        if best in (eos if isinstance(eos, list) else [eos]):
            break
        ids.append(best)
        tail = {"input_ids": best, "attention_mask": 1, "token_type_ids": 0, "mm_token_type_ids": 0}
        inputs = {
            k: torch.cat([v, torch.tensor([[tail[k]]], dtype=v.dtype)], dim=1) if k in tail else v
            for k, v in inputs.items()
        }
    return lvlm.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_batched_equals_one_by_one_equals_step_by_step(lvlm: Lvlm) -> None:
    alone = [lvlm.generate([i], [q], max_new_tokens=5)[0] for i, q in zip(IMAGES, QUESTIONS, strict=True)]
    assert lvlm.generate(IMAGES, QUESTIONS, max_new_tokens=5) == alone
    assert lvlm.generate(IMAGES, QUESTIONS, max_new_tokens=5, batch_size=2) == alone
    assert alone == [step_by_step(lvlm, i, q, 5) for i, q in zip(IMAGES, QUESTIONS, strict=True)]


def test_conversations_and_sides(lvlm: Lvlm) -> None:
    turns = [QUESTIONS[0], "Yes\n", "Where is it?"]
    out = lvlm.generate([IMAGES[0], IMAGES[1]], [turns, QUESTIONS[1]], max_new_tokens=3, side=None)
    assert out[1] == lvlm.generate([IMAGES[1]], [QUESTIONS[1]], max_new_tokens=3, side=None)[0]
    chat = lvlm.adapter.messages(turns)
    assert [m["role"] for m in chat] == ["user", "assistant", "user"]
    assert [p["type"] for p in chat[0]["content"]] == ["image", "text"]
    assert [p["type"] for p in chat[2]["content"]] == ["text"]


def test_no_warnings_about_sampling(lvlm: Lvlm, caplog: pytest.LogCaptureFixture) -> None:
    config = lvlm.model.generation_config
    before = (config.temperature, config.do_sample)
    config.temperature, config.do_sample = 1e-6, True  # as Qwen2.5-VL publishes them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            first = lvlm.generate(IMAGES[:1], QUESTIONS[:1], max_new_tokens=2)
    finally:
        config.temperature, config.do_sample = before
    assert lvlm.generate(IMAGES[:1], QUESTIONS[:1], max_new_tokens=2) == first
    assert "temperature" not in caplog.text


def test_bad_input(lvlm: Lvlm) -> None:
    assert lvlm.generate([], []) == []
    with pytest.raises(LvlmError, match="3 images and 1 questions"):
        lvlm.generate(IMAGES, QUESTIONS[:1])
    with pytest.raises(LvlmError, match="a list of images"):
        lvlm.generate(IMAGES[0], QUESTIONS[0])  # type: ignore[arg-type]
    with pytest.raises(LvlmError, match="empty"):
        lvlm.generate(IMAGES[:1], [""])
    with pytest.raises(LvlmError, match="2 turns"):
        lvlm.generate(IMAGES[:1], [["Is it?", "Yes"]])
    with pytest.raises(LvlmError, match="max_new_tokens"):
        lvlm.generate(IMAGES[:1], QUESTIONS[:1], max_new_tokens=0)
    with pytest.raises(LvlmError, match="context"):
        lvlm.generate(IMAGES[:1], ["Is it? " * 1000], max_new_tokens=1)


def test_the_context_bounds_the_answer(lvlm: Lvlm, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 3
    length = lvlm.prepare(IMAGES[0], QUESTIONS[0], "Yes").length - 1
    short = lvlm.generate(IMAGES[:1], QUESTIONS[:1], max_new_tokens=room)
    monkeypatch.setattr(Lvlm, "context_length", property(lambda self: length + room))
    assert lvlm.generate(IMAGES[:1], QUESTIONS[:1], max_new_tokens=5000) == short


def test_running_out_of_memory_halves_the_batch(tiny_qwen: Lvlm, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny_qwen.generate(IMAGES, QUESTIONS, max_new_tokens=2)
    answer, sizes = generation._answer, []

    def limited(lvlm: Lvlm, frames: list, *rest: object) -> list[str]:
        sizes.append(len(frames))
        if len(frames) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return answer(lvlm, frames, *rest)

    monkeypatch.setattr(generation, "_answer", limited)
    assert tiny_qwen.generate(IMAGES, QUESTIONS, max_new_tokens=2) == expected
    assert sizes == [3, 1, 1, 1]
