"""A model in another data type for a while: what changes, and that nothing stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.attribution.method import get_method
from medground_bench.lvlm.retype import other_type, retyped

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm


def test_scores_in_half_precision_and_back(tiny_qwen: Lvlm) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (112, 112), np.uint8))
    episode = tiny_qwen.prepare(image, "Is it there?", "Yes", side=112)
    before = {name: p.detach().clone() for name, p in tiny_qwen.model.named_parameters()}
    plain = tiny_qwen.log_probs(episode, episode.frame_array[None])
    assert other_type(tiny_qwen) == torch.bfloat16
    with retyped(tiny_qwen, torch.bfloat16):
        assert tiny_qwen.dtype == torch.bfloat16
        assert {p.dtype for p in tiny_qwen.model.parameters()} == {torch.bfloat16}
        assert other_type(tiny_qwen) == torch.float32
        rounded = tiny_qwen.log_probs(episode, episode.frame_array[None])
    assert 0 < np.abs(rounded - plain).max() < 0.1
    assert np.array_equal(tiny_qwen.log_probs(episode, episode.frame_array[None]), plain)
    with pytest.raises(ZeroDivisionError), retyped(tiny_qwen, torch.float16):
        raise ZeroDivisionError
    assert all(torch.equal(p, before[name]) for name, p in tiny_qwen.model.named_parameters())


@pytest.mark.parametrize("name", ["gradcam", "lrp", "attention", "integrated_gradients"])
def test_methods_run_in_it(name: str, tiny_qwen: Lvlm) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (112, 112), np.uint8))
    episode = tiny_qwen.prepare(image, "Is it there?", "Yes", side=112)
    method = get_method(name)
    settings = {"steps": 4} if name == "integrated_gradients" else {}
    parameters = method.make_parameters(settings)
    plain = method.run(tiny_qwen, episode, parameters)
    with retyped(tiny_qwen, torch.bfloat16):
        rounded = method.run(tiny_qwen, episode, parameters)
    assert np.corrcoef(np.ravel(plain.heatmap), np.ravel(rounded.heatmap))[0, 1] > 0.9


def test_weights_that_are_not_at_hand(tiny_qwen: Lvlm, monkeypatch: pytest.MonkeyPatch) -> None:
    assert other_type(object()) is None
    monkeypatch.setattr(tiny_qwen, "bits", 4)
    assert other_type(tiny_qwen) is None
