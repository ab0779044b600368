"""Models without an adapter of their own: real classes of small width through their own processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question
from medground_bench.lvlm import Lvlm, load_lvlm, testing, whitebox

QUESTION = question("lung opacity", "reason")
RESPONSE = "Yes, there is."


@pytest.fixture(scope="module", params=testing.GENERIC)
def lvlm(request: pytest.FixtureRequest) -> Lvlm:
    return Lvlm.from_parts(*testing.generic_parts(request.param), key=request.param)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width), dtype=np.uint8))


def plain_forward(lvlm: Lvlm, frame: np.ndarray) -> np.ndarray:
    """The obvious way: chat template and processor for one image, full logits, read off the response."""
    content = [{"type": "image", "image": Image.fromarray(frame).convert("RGB")}, {"type": "text", "text": QUESTION}]
    inputs: Any = lvlm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = lvlm.processor.tokenizer(RESPONSE, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        kinds = inputs["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(ids, dtype=kinds.dtype)], dim=1)
    with torch.no_grad():
        logits = lvlm.model(**inputs).logits[0].log_softmax(-1)
    return np.array([float(logits[start - 1 + t, i]) for t, i in enumerate(ids[0].tolist())])


@pytest.mark.parametrize(("size", "side"), [((90, 110), 224), ((160, 128), None)])
def test_scores_equal_a_plain_forward(lvlm: Lvlm, size: tuple[int, int], side: int | None) -> None:
    episode = lvlm.prepare(noise(*size), QUESTION, RESPONSE, side=side)
    stack = np.stack([episode.frame_array] * 3)
    stack[1, :60, :70] = 0
    stack[2] = 255 - stack[2]
    expected = np.stack([plain_forward(lvlm, frame) for frame in stack])
    np.testing.assert_allclose(lvlm.log_probs(episode, stack), expected, atol=1e-5)
    np.testing.assert_allclose(lvlm.log_probs(episode, stack, batch_size=1), expected, atol=1e-5)
    assert np.abs(expected[0] - expected[2]).max() > 1e-3  # the image reaches the answer


def test_answers_in_a_batch_equal_answers_alone(lvlm: Lvlm) -> None:
    images, asked = [noise(60, 80), noise(200, 100, 1)], ["Is it?", QUESTION]
    alone = [lvlm.generate([i], [q], max_new_tokens=4)[0] for i, q in zip(images, asked, strict=True)]
    assert lvlm.generate(images, asked, max_new_tokens=4) == alone


def test_what_it_cannot_do_it_says(lvlm: Lvlm) -> None:
    episode = lvlm.prepare(noise(50, 50), QUESTION, "Yes")
    with pytest.raises(LvlmError, match="black-box"):
        whitebox.hidden_states(lvlm, episode)
    with pytest.raises(LvlmError, match="black-box"):
        whitebox.pixel_gradients(lvlm, episode)
    with pytest.raises(LvlmError, match="where the image tokens"):
        _ = episode.grid


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_loads_from_a_folder(tmp_path: Path, family: str) -> None:
    model, processor = testing.generic_parts(family)
    loaded = load_lvlm(testing.save_parts(model, processor, tmp_path / family))
    original = Lvlm.from_parts(model, processor)
    assert loaded.family == family
    assert loaded.generate([noise(50, 60)], [QUESTION], 3) == original.generate([noise(50, 60)], [QUESTION], 3)


def test_a_model_that_looks_ahead_is_refused() -> None:
    lvlm = Lvlm.from_parts(*testing.generic_parts("llava"))
    forward = lvlm.model.forward

    def peeking(input_ids: torch.Tensor, **inputs: Any) -> Any:
        out = forward(input_ids=input_ids, **inputs)
        out.logits = out.logits + input_ids[:, -1:, None].float()  # every place knows the last token
        return out

    lvlm.model.forward = peeking
    episode = lvlm.prepare(noise(50, 50), QUESTION, RESPONSE)
    with pytest.raises(LvlmError, match="depends on the tokens after it"):
        lvlm.log_probs(episode, [episode.frame])


def test_a_model_whose_logits_lie_elsewhere_is_refused() -> None:
    lvlm = Lvlm.from_parts(*testing.generic_parts("llava"))
    forward = lvlm.model.forward

    def shortened(**inputs: Any) -> Any:
        out = forward(**inputs)
        out.logits = out.logits[:, 3:]
        return out

    lvlm.model.forward = shortened
    episode = lvlm.prepare(noise(50, 50), QUESTION, RESPONSE)
    with pytest.raises(LvlmError, match="logits for"):
        lvlm.log_probs(episode, [episode.frame])
