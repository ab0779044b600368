"""Models that PEFT has wrapped: taken out of the wrapper with their adapters, or refused at the door."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question
from medground_bench.lvlm import Lvlm, load_lvlm, whitebox

IMAGE = Image.fromarray(np.random.default_rng(5).integers(0, 255, (80, 60), dtype=np.uint8))
QUESTION = question("nodule", "direct")


class LowRank(torch.nn.Module):
    """A linear layer with a low-rank update, as PEFT puts in place of it."""

    def __init__(self, layer: torch.nn.Linear, seed: int) -> None:
        super().__init__()
        self.base_layer = layer
        make = torch.Generator().manual_seed(seed)
        self.a = torch.randn(2, layer.in_features, generator=make)
        self.b = torch.randn(layer.out_features, 2, generator=make) * 0.1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + x @ self.a.T @ self.b.T

    def merged(self) -> torch.Tensor:
        return self.base_layer.weight + self.b @ self.a


class Wrapped(torch.nn.Module):
    """What a PEFT model shows of itself."""

    def __init__(self, model: Any, *, prompt: bool = False) -> None:
        super().__init__()
        self.base_model = SimpleNamespace(model=model)
        self.peft_config = {"default": SimpleNamespace(is_prompt_learning=prompt)}
        self.config = model.config

    def get_base_model(self) -> Any:
        return self.base_model.model


@pytest.mark.parametrize("name", ["tiny_qwen", "tiny_gemma"])
def test_a_wrapped_model_equals_the_merged_one(request: pytest.FixtureRequest, name: str) -> None:
    plain: Lvlm = request.getfixturevalue(name)
    adapted, merged = deepcopy(plain.model), deepcopy(plain.model)
    for i, (one, two) in enumerate(
        zip(adapted.model.language_model.layers, merged.model.language_model.layers, strict=True)
    ):
        one.self_attn.q_proj = LowRank(one.self_attn.q_proj, i)
        two.self_attn.q_proj.weight = torch.nn.Parameter(one.self_attn.q_proj.merged(), requires_grad=False)
    lvlm = Lvlm.from_parts(Wrapped(adapted), plain.processor)
    reference = Lvlm.from_parts(merged, plain.processor)
    episode = lvlm.prepare(IMAGE, QUESTION, "Yes, there is.")
    frames = [episode.frame] * 2
    np.testing.assert_allclose(lvlm.log_probs(episode, frames), reference.log_probs(episode, frames), atol=1e-4)
    assert np.abs(lvlm.log_probs(episode, frames) - plain.log_probs(episode, frames)).max() > 1e-3
    assert lvlm.generate([IMAGE], [QUESTION], 4) == reference.generate([IMAGE], [QUESTION], 4)
    rows = [whitebox.trace_attention(m, episode, [-1]).weights(-1, episode.rows) for m in (lvlm, reference)]
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-3, atol=1e-5)


def test_learned_prompts_are_refused(tiny_qwen: Lvlm) -> None:
    with pytest.raises(LvlmError, match="learned tokens before the prompt"):
        Lvlm.from_parts(Wrapped(tiny_qwen.model, prompt=True), tiny_qwen.processor)


def test_a_folder_with_an_adapter_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}), encoding="utf-8")
    with pytest.raises(LvlmError, match="a PEFT adapter, not a whole model") as caught:
        load_lvlm(tmp_path)
    assert "merge_and_unload" in str(caught.value)


@pytest.mark.heavy
def test_with_peft_itself(tiny_gemma: Lvlm) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(deepcopy(tiny_gemma.model), config)
    lvlm = Lvlm.from_parts(wrapped, tiny_gemma.processor)
    episode = lvlm.prepare(IMAGE, QUESTION, "Yes")
    got = lvlm.log_probs(episode, [episode.frame])
    states = whitebox.hidden_states(lvlm, episode, [-1])
    assert states[len(lvlm.layers)].shape[0] == episode.length
    merged = Lvlm.from_parts(wrapped.merge_and_unload(), tiny_gemma.processor)
    np.testing.assert_allclose(got, merged.log_probs(episode, [episode.frame]), atol=1e-4)
    assert np.abs(got - tiny_gemma.log_probs(episode, [episode.frame])).max() > 1e-3
    prompts = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(LvlmError, match="learned tokens"):
        Lvlm.from_parts(peft.get_peft_model(deepcopy(tiny_gemma.model), prompts), tiny_gemma.processor)
