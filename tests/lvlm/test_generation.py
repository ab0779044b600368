"""Greedy answers in batches equal answers one at a time."""

from __future__ import annotations

import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question
from medground_bench.lvlm import Generated, Lvlm, generation, load_lvlm
from medground_bench.lvlm.text import hidden_ids
from medground_bench.sources.phantom import sample_phantom


@pytest.fixture(scope="module", params=["tiny_qwen", "tiny_gemma"])
def lvlm(request: pytest.FixtureRequest) -> Lvlm:
    return request.getfixturevalue(request.param)


def noise(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width), dtype=np.uint8))


IMAGES = [noise(60, 80, 0), noise(200, 100, 1), noise(33, 33, 2)]
QUESTIONS = ["Is it?", question("lung opacity", "reason"), question("pleural effusion", "direct")]


def step_by_step(lvlm: Lvlm, image: Image.Image, text: str, count: int) -> Generated:
    """Oracle: argmax of full forwards without cache, token by token."""
    episode = lvlm.prepare(image, text, "x")
    inputs = {k: v[:, :-1] if v.shape[-1] == episode.length else v for k, v in episode.inputs.items()}
    ids: list[int] = []
    eos = lvlm.model.generation_config.eos_token_id
    ended = False
    for _ in range(count):
        with torch.no_grad():
            best = int(lvlm.model(**inputs).logits[0, -1].argmax())
        if best in (eos if isinstance(eos, list) else [eos]):
            ended = True
            break
        ids.append(best)
        tail = {"input_ids": best, "attention_mask": 1, "token_type_ids": 0, "mm_token_type_ids": 0}
        inputs = {
            k: torch.cat([v, torch.tensor([[tail[k]]], dtype=v.dtype)], dim=1) if k in tail else v
            for k, v in inputs.items()
        }
    text = lvlm.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Generated(text, ended)


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

    def limited(lvlm: Lvlm, frames: list, *rest: object) -> list[Generated]:
        sizes.append(len(frames))
        if len(frames) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return answer(lvlm, frames, *rest)

    monkeypatch.setattr(generation, "_answer", limited)
    assert tiny_qwen.generate(IMAGES, QUESTIONS, max_new_tokens=2) == expected
    assert sizes == [3, 1, 1, 1]


@pytest.mark.parametrize("key", ["toy_qwen", "toy_gemma"])
def test_a_text_says_whether_the_model_ended_it(key: str) -> None:
    toy = load_lvlm(key)
    phantom = sample_phantom(3, size=224, findings=["nodule"])
    images, asked = [Image.fromarray(phantom.image)] * 2, [question("nodule", "direct"), question("nodule", "reason")]
    # In one batch: the short one ends, the long one is cut.
    direct, reason = toy.generate(images, asked, max_new_tokens=4)
    assert direct.ended
    assert not reason.ended
    whole = toy.generate(images[1:], asked[1:], max_new_tokens=200)[0]
    assert whole.ended
    assert whole.text.startswith(reason.text)


def test_greedy_means_greedy(lvlm: Lvlm) -> None:
    expected = lvlm.generate(IMAGES, QUESTIONS, max_new_tokens=12)
    config = lvlm.model.generation_config
    assert lvlm.decoding == {"greedy": True}
    stored = {
        "repetition_penalty": 9.0,
        "no_repeat_ngram_size": 1,
        "do_sample": True,
        "num_beams": 3,
        "min_new_tokens": 11,
    }
    before = {name: getattr(config, name) for name in stored}
    config.update(**stored)
    try:
        assert lvlm.generate(IMAGES, QUESTIONS, max_new_tokens=12) == expected
        assert lvlm.decoding == {
            "greedy": True,
            "off": {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "min_new_tokens": 11},
        }
        asked = Lvlm.from_parts(lvlm.model, lvlm.processor, decoding={"repetition_penalty": 9.0})
        assert asked.generate(IMAGES, QUESTIONS, max_new_tokens=12) != expected
        assert asked.decoding["repetition_penalty"] == 9.0
        assert "repetition_penalty" not in asked.decoding["off"]
        assert config.repetition_penalty == 9.0  # the stored configuration is as it was
    finally:
        config.update(**before)
    with pytest.raises(LvlmError, match="'temperature' is no logits processor"):
        Lvlm.from_parts(lvlm.model, lvlm.processor, decoding={"temperature": 0.5})


def test_markers_of_thoughts_stay_and_other_control_tokens_go(tiny_qwen: Lvlm) -> None:
    tokenizer = deepcopy(tiny_qwen.processor.tokenizer)
    tokenizer.add_tokens([AddedToken(t, special=True) for t in ("<think>", "</think>", "<|channel>")])
    hidden = hidden_ids(tokenizer)
    text = "<|im_start|><think>No</think>Yes<|im_end|><|endoftext|>"
    kept = [i for i in tokenizer(text)["input_ids"] if i not in hidden]
    assert tokenizer.decode(kept) == "<think>No</think>Yes"
