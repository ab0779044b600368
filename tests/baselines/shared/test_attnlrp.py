"""AttnLRP's rules: bit-identical forward, the naive rule-by-rule result, conservation, no trace left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.shared.attnlrp import attnlrp_rules  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402
from medground_bench.lvlm import Lvlm  # noqa: E402
from medground_bench.lvlm.testing import GENERIC, generic_parts, tiny_gemma, tiny_qwen  # noqa: E402
from tests.baselines.naive import OneLayerRelevance  # noqa: E402

OTHERS = ["llava", "mistral3", "paligemma", "glm4v", "gemma4"]
"""Decoders of other forms: Llama's, Mistral's, the first Gemma's, GLM-4 (fused gates), Gemma 4 (shared keys)."""
QUESTION = "Is there evidence of cardiomegaly in the image?"


def build(family: str, *, layers: int = 1, seed: int = 0) -> Any:
    if family in GENERIC:
        lvlm = Lvlm.from_parts(*generic_parts(family, seed))
        lvlm.model.set_attn_implementation("eager")
        return lvlm
    if family == "qwen":
        return tiny_qwen(seed, layers=layers, attention="eager")
    return tiny_gemma(seed, layers=layers, attention="eager", image_size=56, tokens=4)


def decoder_call(lvlm: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The episode, and the arguments with which the model calls its decoder and the decoder its first layer."""
    pixels = np.random.default_rng(0).integers(0, 256, (84, 56), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), QUESTION, "Yes.", side=None)
    seen: list[dict[str, Any]] = []
    decoder = lvlm.adapter.decoder(lvlm.model)
    handles = [
        decoder.register_forward_pre_hook(lambda m, a, k: seen.append(dict(k)), with_kwargs=True),
        decoder.layers[0].register_forward_pre_hook(lambda m, a, k: seen.append(dict(k)), with_kwargs=True),
    ]
    with torch.no_grad():
        lvlm.model(**lvlm.model_inputs(episode), use_cache=False)
    for handle in handles:
        handle.remove()
    return episode, seen[0], seen[1]


def relevance(lvlm: Any, episode: Any, call: dict[str, Any], **options: Any) -> tuple[Any, Any, Any]:
    """Embeddings times modified gradient, (S, D); the logits; the gradient of s there."""
    embeddings = call["inputs_embeds"].detach().double().requires_grad_(True)
    rows, ids = list(episode.rows), list(episode.token_ids)
    with attnlrp_rules(lvlm.adapter.decoder(lvlm.model), **options):
        hidden = lvlm.adapter.decoder(lvlm.model)(**{**call, "inputs_embeds": embeddings}).last_hidden_state
        logits = lvlm.model.lm_head(hidden)[0]
        logits.retain_grad()
        logits[rows].log_softmax(-1)[range(len(rows)), ids].sum().backward()
    return (embeddings.grad * embeddings.detach())[0], logits.detach(), logits.grad


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_equals_the_naive_rule_by_rule_relevance(family: str) -> None:
    lvlm = build(family)
    lvlm.model.double()
    torch.manual_seed(0)
    if family == "gemma":  # norms start as identities: give them weights
        for name, weight in lvlm.model.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(weight, std=0.3)
    else:
        for name, weight in lvlm.model.named_parameters():
            if name.endswith("proj.bias"):
                torch.nn.init.normal_(weight, std=0.1)
    episode, call, layer = decoder_call(lvlm)
    mine, _, _ = relevance(lvlm, episode, call)

    cos, sin = (t.double().reshape(-1, t.shape[-1]) for t in layer["position_embeddings"])
    mask = layer["attention_mask"][0, 0].double()
    with torch.no_grad():
        naive = OneLayerRelevance(
            lvlm.adapter.decoder(lvlm.model),
            lvlm.model.lm_head,
            call["inputs_embeds"][0].double(),
            cos,
            sin,
            mask.clamp(min=-1e30),
        )
        logits = naive.forward()
        start = torch.zeros_like(logits)
        rows, ids = list(episode.rows), list(episode.token_ids)
        start[rows] = -logits[rows].softmax(-1)
        start[rows, ids] += 1
        expected = naive.backward(logits, start * logits)
    assert expected[list(episode.image_positions)].abs().sum() > 0
    # transformers computes norms and softmax in float32 whatever the model's type.
    np.testing.assert_allclose(mine.numpy(), expected.numpy(), atol=2e-5 * float(expected.abs().max()))
    np.testing.assert_allclose(
        mine.sum(-1).numpy(), expected.sum(-1).numpy(), atol=1e-4 * float(mine.sum(-1).abs().max())
    )


@pytest.mark.parametrize("family", ["qwen", "gemma", *OTHERS])
def test_conserves_relevance_without_queries_and_keys(family: str) -> None:
    lvlm = build(family, layers=3)
    lvlm.model.double()
    for name, weight in lvlm.model.named_parameters():
        # Relevance also goes to biases, and to the embeddings that each of Gemma 4's layers has of each token.
        if (name.endswith(".bias") and "language_model" in name) or "embed_tokens_per_layer" in name:
            torch.nn.init.zeros_(weight)
    episode, call, _ = decoder_call(lvlm)
    mine, logits, grad = relevance(lvlm, episode, call, attention_scores=False)
    assert float(mine.sum()) == pytest.approx(float((logits * grad).sum()), rel=1e-5)
    full, _, _ = relevance(lvlm, episode, call)
    assert float(full.sum()) != pytest.approx(float(mine.sum()), rel=1e-3)


@pytest.mark.parametrize("family", ["qwen", "gemma", *OTHERS])
def test_the_forward_pass_is_bit_identical_and_nothing_stays(family: str) -> None:
    lvlm = build(family, layers=2)
    episode, _, _ = decoder_call(lvlm)
    inputs = lvlm.model_inputs(episode)
    decoder = lvlm.adapter.decoder(lvlm.model)

    def hooks() -> int:  # LLaVA's class leaves some of its own in the vision tower
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in decoder.modules())

    here = hooks()
    with torch.no_grad():
        before = lvlm.response_log_probs(episode, inputs)
        with attnlrp_rules(lvlm.adapter.decoder(lvlm.model)):
            during = lvlm.response_log_probs(episode, inputs)
        after = lvlm.response_log_probs(episode, inputs)
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert hooks() == here
    assert family in OTHERS or here == 0


def test_the_rules_leave_when_the_pass_fails() -> None:
    lvlm = build("qwen")
    with pytest.raises(ZeroDivisionError), attnlrp_rules(lvlm.adapter.decoder(lvlm.model)):
        raise ZeroDivisionError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lvlm.model.modules())


@pytest.mark.parametrize("part", ["norm", "mlp"])
def test_an_unknown_layer_is_refused_and_no_rule_stays(part: str) -> None:
    lvlm = build("qwen")
    decoder = lvlm.adapter.decoder(lvlm.model)
    if part == "norm":
        decoder.norm = torch.nn.LayerNorm(64)
    else:
        decoder.layers[0].mlp = torch.nn.Linear(64, 64)
    with pytest.raises(MethodError, match="does not know"), attnlrp_rules(decoder):
        pass
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lvlm.model.modules())
