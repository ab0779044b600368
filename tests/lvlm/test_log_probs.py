"""Scoring variants of an image: against a plain forward through the processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question
from medground_bench.lvlm import Episode, Lvlm, testing, whitebox
from medground_bench.lvlm.families.base import stack_to_tensor

QUESTION = question("lung opacity", "reason")


@pytest.fixture(scope="module", params=["tiny_qwen", "tiny_gemma"])
def lvlm(request: pytest.FixtureRequest) -> Lvlm:
    return request.getfixturevalue(request.param)


def radiograph(width: int = 90, height: int = 110) -> Image.Image:
    return Image.fromarray(np.random.default_rng(2).integers(0, 255, (height, width), dtype=np.uint8))


def response_of(lvlm: Lvlm, count: int) -> str:
    text, tokenizer = "Yes", lvlm.processor.tokenizer
    words = ["", "there", "is", "a", "small", "left", "effusion,", "and", "the", "heart", "is", "large"]
    while len(tokenizer(text, add_special_tokens=False)["input_ids"]) < count:
        text += words[len(text) % len(words)] + "."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:count]
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def variants(episode: Episode, count: int, colour: bool = False) -> np.ndarray:
    rng = np.random.default_rng(4)
    stack = np.stack([episode.frame_array] * count)
    if colour:
        stack = np.repeat(stack[..., None], 3, axis=-1)
    for i in range(count):
        y, x = rng.integers(0, stack.shape[1] - 40, 2)
        stack[i, y : y + 40, x : x + 40] = rng.integers(0, 255, 3 if colour else 1)
    return stack


def plain_forward(lvlm: Lvlm, frame: np.ndarray, response: str) -> np.ndarray:
    """The obvious way: chat template and processor for one image, full logits, read off the response."""
    chat = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": Image.fromarray(frame).convert("RGB")},
                {"type": "text", "text": QUESTION},
            ],
        }
    ]
    inputs = lvlm.processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = lvlm.processor.tokenizer(response, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], torch.zeros_like(ids, dtype=inputs[name].dtype)], dim=1)
    with torch.no_grad():
        logits = lvlm.model(**inputs).logits[0].log_softmax(-1)
    return np.array([float(logits[start - 1 + t, i]) for t, i in enumerate(ids[0].tolist())])


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("length", [1, 60])
def test_equals_a_plain_forward_per_image(lvlm: Lvlm, count: int, length: int) -> None:
    response = response_of(lvlm, length)
    episode = lvlm.prepare(radiograph(), QUESTION, response)
    assert len(episode.tokens) == length
    stack = variants(episode, count)
    got = lvlm.log_probs(episode, stack, batch_size=count)
    assert got.shape == (count, length)
    assert got.dtype == np.float32
    expected = np.stack([plain_forward(lvlm, frame, response) for frame in stack])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert count == 1 or np.ptp(got.sum(1)) > 1e-3  # the variants do differ


def test_colour_and_native_size_variants(lvlm: Lvlm) -> None:
    image = radiograph()
    episode = lvlm.prepare(image, QUESTION, "Yes")
    stack = variants(episode, 3, colour=True)
    expected = np.stack([plain_forward(lvlm, frame, "Yes") for frame in stack])
    np.testing.assert_allclose(lvlm.log_probs(episode, stack), expected, rtol=0, atol=1e-5)
    own = lvlm.log_probs(episode, [image, episode.frame, episode.frame_array])
    np.testing.assert_allclose(own, np.repeat(own[:1], 3, axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(640, 512), (300, 500)])
def test_frames_of_any_size(lvlm: Lvlm, size: tuple[int, int]) -> None:
    episode = lvlm.prepare(radiograph(*size), QUESTION, "Yes", side=None)
    stack = variants(episode, 2)
    expected = np.stack([plain_forward(lvlm, frame, "Yes") for frame in stack])
    np.testing.assert_allclose(lvlm.log_probs(episode, stack), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(224, 224), (640, 512), (31, 57)])
@pytest.mark.parametrize("colour", [False, True])
def test_fast_pixels_are_the_processors_bit_for_bit(lvlm: Lvlm, size: tuple[int, int], colour: bool) -> None:
    rng = np.random.default_rng(6)
    frames = rng.integers(0, 256, (3, size[1], size[0], *([3] if colour else [])), dtype=np.uint8)
    fast = lvlm.adapter.fast_pixels(lvlm.processor, stack_to_tensor(frames), lvlm.device)
    assert fast is not None
    plain = lvlm.adapter.plain_pixels(lvlm.processor, frames)
    for name in lvlm.adapter.image_inputs:
        assert torch.equal(fast[name], plain[name].to(fast[name])), name


def test_uneven_channel_statistics() -> None:
    """A Gemma processor whose channels are normalised differently still gets its own values."""
    local = testing.tiny_gemma()
    local.processor.image_processor.image_mean = [0.4, 0.5, 0.6]
    frames = np.random.default_rng(1).integers(0, 256, (2, 50, 50), dtype=np.uint8)
    fast = local.adapter.fast_pixels(local.processor, stack_to_tensor(frames), local.device)
    assert torch.equal(fast["pixel_values"], local.adapter.plain_pixels(local.processor, frames)["pixel_values"])


def test_unknown_processor_settings_fall_back_to_the_processor() -> None:
    for setting, value in (("do_normalize", False), ("do_rescale", False)):
        local = testing.tiny_gemma()
        setattr(local.processor.image_processor, setting, value)
        episode = local.prepare(radiograph(), QUESTION, "Yes")
        stack = variants(episode, 2)
        expected = np.stack([plain_forward(local, frame, "Yes") for frame in stack])
        np.testing.assert_allclose(local.log_probs(episode, stack), expected, rtol=0, atol=1e-5)


def test_a_fast_way_that_disagrees_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    local = testing.tiny_qwen()
    episode = local.prepare(radiograph(), QUESTION, "Yes")
    expected = local.log_probs(episode, [episode.frame])
    fresh = testing.tiny_qwen()
    right = fresh.adapter.fast_pixels

    def wrong(*args: object) -> dict[str, torch.Tensor]:
        out = right(*args)
        return {**out, "pixel_values": out["pixel_values"].flip(0)}

    monkeypatch.setattr(fresh.adapter, "fast_pixels", wrong)
    np.testing.assert_allclose(fresh.log_probs(episode, [episode.frame]), expected, atol=1e-6)
    assert "differs from the processor" in caplog.text


def test_generation_in_between_changes_nothing(lvlm: Lvlm) -> None:
    episode = lvlm.prepare(radiograph(), QUESTION, "Yes")
    before = lvlm.log_probs(episode, [episode.frame])
    lvlm.generate([radiograph(50, 50), radiograph()], ["Is it?", QUESTION], max_new_tokens=2)
    np.testing.assert_array_equal(lvlm.log_probs(episode, [episode.frame]), before)


def test_no_images(lvlm: Lvlm) -> None:
    episode = lvlm.prepare(radiograph(), QUESTION, "Yes")
    assert lvlm.log_probs(episode, []).shape == (0, 1)


def test_memory_budget_sets_the_batch_and_running_out_halves_it(
    tiny_qwen: Lvlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    episode = tiny_qwen.prepare(radiograph(), QUESTION, "Yes")
    stack = variants(episode, 9)
    expected = tiny_qwen.log_probs(episode, stack)
    sizes: list[int] = []
    score = Lvlm._score_batch

    def limited(self: Lvlm, episode: Episode, part: np.ndarray) -> np.ndarray:
        sizes.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return score(self, episode, part)

    monkeypatch.setattr(Lvlm, "_score_batch", limited)
    np.testing.assert_allclose(tiny_qwen.log_probs(episode, stack), expected, rtol=0, atol=1e-5)
    assert sizes == [9, 4, 2, 2, 2, 2, 1]
    sizes.clear()
    monkeypatch.setattr(tiny_qwen, "memory_budget", 1)
    tiny_qwen.log_probs(episode, stack)
    assert sizes == [1] * 9


def test_logits_that_are_not_finite() -> None:
    local = testing.tiny_qwen()
    episode = local.prepare(radiograph(), QUESTION, "Yes.")
    torch.nn.init.constant_(local.model.lm_head.weight, float("nan"))
    with pytest.raises(LvlmError, match="not finite"):
        local.log_probs(episode, [episode.frame])


def test_wrong_batch_size(tiny_qwen: Lvlm) -> None:
    episode = tiny_qwen.prepare(radiograph(), QUESTION, "Yes")
    with pytest.raises(LvlmError, match="batch of 0"):
        tiny_qwen.log_probs(episode, [episode.frame], batch_size=0)


def test_bfloat16_scores_are_float32_and_close(lvlm: Lvlm) -> None:
    local = getattr(testing, lvlm.key)()
    local.model.to(torch.bfloat16)
    episode = local.prepare(radiograph(), QUESTION, "Yes")
    got = local.log_probs(episode, [episode.frame])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, lvlm.log_probs(episode, [episode.frame]), atol=0.2)


@pytest.mark.parametrize("resample", [0, 1, 2, 3])
def test_every_resampling_filter_of_the_processor(resample: int) -> None:
    local = testing.tiny_gemma()
    local.processor.image_processor.resample = resample
    episode = local.prepare(radiograph(), QUESTION, "Yes")
    stack = variants(episode, 2)
    plain = local.adapter.plain_pixels(local.processor, stack)["pixel_values"]
    assert torch.equal(local.pixel_inputs(episode, stack)["pixel_values"], plain)


def test_an_episode_of_another_family(tiny_qwen: Lvlm, tiny_gemma: Lvlm) -> None:
    for mine, other in ((tiny_qwen, tiny_gemma), (tiny_gemma, tiny_qwen)):
        episode = other.prepare(radiograph(), QUESTION, "Yes")
        for call in (
            lambda m=mine, e=episode: m.log_probs(e, [e.frame]),
            lambda m=mine, e=episode: whitebox.trace_attention(m, e),
            lambda m=mine, e=episode: whitebox.pixel_gradients(m, e),
        ):
            with pytest.raises(LvlmError, match=f"prepared for {other.family}"):
                call()
