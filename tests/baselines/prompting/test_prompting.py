"""Prompting: the conversation, the scales of both families, and the way back to native pixels."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from baselines.prompting.prompting import PromptingParameters, prompting
from tests.baselines.prompting.conversation import QUESTION, answer, prepare


def test_the_lvlm_is_asked_about_its_own_answer(monkeypatch: pytest.MonkeyPatch, qwen: Any) -> None:
    episode = prepare(qwen)
    asked = answer(monkeypatch, qwen, "[[56, 112, 168, 140]]")
    attribution = prompting.run(qwen, episode)
    (((frame,), ((first, reply, prompt),), limit, side),) = asked
    assert frame is episode.frame
    assert (first, reply, limit, side) == (QUESTION, "Yes", 512, None)
    assert "224 pixels wide and 224 pixels high" in prompt
    # The 448 x 224 image lies in rows 56 to 168 of the frame at half size.
    assert attribution.boxes == [pytest.approx((112.0, 112.0, 336.0, 168.0))]
    assert attribution.extras["kept"] == attribution.extras["stated"] == 1
    assert attribution.extras["scale"] == "pixel"


def test_qwen_pixels_are_those_after_its_resize(monkeypatch: pytest.MonkeyPatch, qwen: Any) -> None:
    episode = prepare(qwen, (300, 200), side=None)  # resized to 308 x 196, multiples of 28
    assert qwen.adapter.processed_size(qwen.processor, 300, 200) == (308, 196)
    answer(monkeypatch, qwen, '```json\n[{"bbox_2d": [77, 49, 154, 196], "label": "fluid"}]\n```')
    assert prompting.run(qwen, episode).boxes == [pytest.approx((75.0, 50.0, 150.0, 200.0))]


def test_gemma_boxes_are_thousandths(monkeypatch: pytest.MonkeyPatch, gemma: Any) -> None:
    episode = prepare(gemma)
    asked = answer(monkeypatch, gemma, '[{"box_2d": [500, 250, 625, 750], "label": "fluid"}]')
    box = pytest.approx((112.0, 112.0, 336.0, 168.0))
    assert prompting.run(gemma, episode).boxes == [box]
    assert "0-1000" in asked[0][1][0][2]
    answer(monkeypatch, gemma, "[[250, 500, 750, 625]]")
    assert prompting.run(gemma, episode).boxes == [box]


@pytest.mark.parametrize("reply", ["", "[]", "I cannot tell.", "[[5, 5, 5, 5]]"])
def test_no_boxes_is_an_answer(monkeypatch: pytest.MonkeyPatch, qwen: Any, reply: str) -> None:
    answer(monkeypatch, qwen, reply)
    attribution = prompting.run(qwen, prepare(qwen))
    assert attribution.boxes == []
    assert not attribution.degenerate
    assert attribution.extras["reply"] == reply


def test_boxes_in_the_padding_are_dropped_and_the_number_is_limited(monkeypatch: pytest.MonkeyPatch, qwen: Any) -> None:
    rows = ", ".join(f"[{i}, 100, {i + 10}, 120]" for i in range(0, 200, 10))
    answer(monkeypatch, qwen, f"[[0, 0, 224, 50], {rows}]")  # the first lies above the letterboxed image
    attribution = prompting.run(qwen, prepare(qwen), PromptingParameters(max_boxes=7))
    assert len(attribution.boxes) == 7
    assert attribution.boxes[0] == pytest.approx((0.0, 88.0, 20.0, 128.0))
    assert attribution.extras["stated"] == 21


def test_the_models_really_reply(qwen: Any, gemma: Any) -> None:
    for lvlm in (qwen, gemma):
        attribution = prompting.run(lvlm, prepare(lvlm), PromptingParameters(max_new_tokens=4))
        assert isinstance(attribution.extras["reply"], str)
