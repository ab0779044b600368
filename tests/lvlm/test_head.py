"""In half precision the head is applied in float32, and nothing else changes."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.schema import question
from medground_bench.lvlm import Lvlm, whitebox
from medground_bench.lvlm.head import float32_head

IMAGE = Image.fromarray(np.random.default_rng(3).integers(0, 255, (90, 70), dtype=np.uint8))
RESPONSE = "The heart is enlarged, so yes."


@pytest.fixture(params=["tiny_qwen", "tiny_gemma"])
def half(request: pytest.FixtureRequest) -> Lvlm:
    lvlm = request.getfixturevalue(request.param)
    model = deepcopy(lvlm.model)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # logits far from zero, where bfloat16 is coarse
    return Lvlm.from_parts(model.to(torch.bfloat16), lvlm.processor)


def final_hidden(lvlm: Lvlm, inputs: dict) -> torch.Tensor:
    """The model's own final hidden states, (S, D): what its head is given."""
    with torch.no_grad():
        return lvlm.model.model(**inputs, use_cache=False).last_hidden_state[0]


def test_log_probs_are_the_final_hidden_state_times_the_head_in_float32(half: Lvlm) -> None:
    episode = half.prepare(IMAGE, question("nodule", "reason"), RESPONSE)
    hidden = final_hidden(half, half.model_inputs(episode))[list(episode.rows)].float()
    logits = hidden @ half.model.lm_head.weight.float().T
    expected = logits.log_softmax(-1)[range(len(episode.rows)), list(episode.token_ids)]
    got = half.log_probs(episode, [episode.frame])[0]
    np.testing.assert_allclose(got, expected.detach().numpy(), atol=2e-5)
    with torch.no_grad():
        rows = torch.tensor(episode.rows)
        rough = half.model(**half.model_inputs(episode), logits_to_keep=rows).logits.float().log_softmax(-1)[0]
    rough = rough[range(len(episode.rows)), list(episode.token_ids)]
    assert np.abs(rough.numpy() - got).max() > 1e-3  # what a head in bfloat16 would have given


def test_what_follows_the_head_happens_in_float32(half: Lvlm) -> None:
    class Capped(type(half.model)):  # type: ignore[misc]
        def forward(self, *args: object, **kwargs: object) -> object:
            out = super().forward(*args, **kwargs)
            out.logits = torch.tanh(out.logits / 5.0) * 5.0  # as final_logit_softcapping does
            return out

    half.model.__class__ = Capped
    episode = half.prepare(IMAGE, question("nodule", "reason"), RESPONSE)
    hidden = final_hidden(half, half.model_inputs(episode))[list(episode.rows)].float()
    logits = torch.tanh(hidden @ half.model.lm_head.weight.float().T / 5.0) * 5.0
    expected = logits.log_softmax(-1)[range(len(episode.rows)), list(episode.token_ids)]
    np.testing.assert_allclose(half.log_probs(episode, [episode.frame])[0], expected.detach().numpy(), atol=2e-5)


def test_gradients_go_through_it(half: Lvlm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medground_bench.lvlm.head._CHUNK", 7)  # several parts
    episode = half.prepare(IMAGE, question("nodule", "direct"), "Yes")
    states, gradients = whitebox.hidden_gradients(half, episode, [-1])[len(half.layers)]
    hidden = states.clone().requires_grad_(True)
    logits = (
        half.model.model.language_model.norm(hidden)[list(episode.rows)].float() @ half.model.lm_head.weight.float().T
    )
    logits.log_softmax(-1)[range(len(episode.rows)), list(episode.token_ids)].sum().backward()
    assert hidden.grad is not None
    torch.testing.assert_close(gradients, hidden.grad, rtol=2e-2, atol=1e-4)


def test_a_float32_model_is_left_alone_and_the_hook_goes(tiny_qwen: Lvlm, half: Lvlm) -> None:
    with float32_head(tiny_qwen.model):
        assert not tiny_qwen.model.lm_head._forward_hooks
    with float32_head(half.model):
        assert half.model.lm_head._forward_hooks
    with pytest.raises(KeyboardInterrupt), float32_head(half.model):
        raise KeyboardInterrupt
    assert not half.model.lm_head._forward_hooks
