"""Bookkeeping of the residual stream: completeness on the real classes, and examples small enough for the hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.decomposition.alti_logit import traced_back  # noqa: E402
from baselines.decomposition.globenc import value_rollout  # noqa: E402
from baselines.decomposition.ifr import importance  # noqa: E402
from baselines.decomposition.logit_attribution import direct_effects  # noqa: E402
from baselines.shared.chosen_tokens import answer_tokens  # noqa: E402
from baselines.shared.directions import logit_directions  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen  # noqa: E402
from medground_bench.lvlm.whitebox import merged_embeddings, trace_attention  # noqa: E402
from tests.baselines.naive import rollout  # noqa: E402


def build(family: str, layers: int = 3) -> Any:
    return tiny_qwen(layers=layers) if family == "qwen" else tiny_gemma(image_size=112, tokens=16, layers=layers)


def prepare(lvlm: Any, response: str = "Yes.") -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (84, 140), dtype=np.uint8)
    return lvlm.prepare(Image.fromarray(pixels), "Is there evidence of cardiomegaly in the image?", response, side=None)


class FakeTrace:
    """One or more layers given by hand: attention (H, S, S), head outputs (H, S, D), residual (S, D)."""

    def __init__(self, *layers: tuple[Any, Any, Any]) -> None:
        self._layers = [tuple(torch.tensor(part, dtype=torch.float64) for part in layer) for layer in layers]
        self.layers = tuple(range(len(layers)))
        self.length = self._layers[0][2].shape[0]
        self.final = torch.zeros(self.length, self._layers[0][2].shape[1], dtype=torch.float64)

    def weights(self, layer: int, rows: Any) -> Any:
        return self._layers[layer][0][:, list(rows)]

    def head_outputs(self, layer: int) -> Any:
        return self._layers[layer][1]

    def residual(self, layer: int, rows: Any) -> Any:
        return self._layers[layer][2][list(rows)]

    def write_scale(self, layer: int, rows: Any) -> Any:
        return torch.ones_like(self.residual(layer, rows))

    def written(self, layer: int, rows: Any) -> Any:
        return torch.einsum("hrp,hpd->rd", self.weights(layer, rows), self.head_outputs(layer))


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_everything_written_adds_up_to_the_logit(family: str) -> None:
    """Embedding + what attention wrote, position by position + what the MLPs wrote, along the logit's direction."""
    lvlm = build(family)
    episode = prepare(lvlm)
    rows, seen = list(episode.rows), []
    hooks = [
        lvlm.adapter.mlp_norm(layer).register_forward_pre_hook(lambda m, a: seen.append(a[0][0].detach()))
        for layer in lvlm.layers
    ]
    trace = trace_attention(lvlm, episode)
    for hook in hooks:
        hook.remove()
    directions = logit_directions(lvlm, episode, trace, "logit").double()
    parts = (merged_embeddings(lvlm, episode).detach()[0, rows].double() * directions).sum()
    for layer, middle in zip(trace.layers, seen, strict=True):
        np.testing.assert_allclose(
            (trace.residual(layer) + trace.written(layer)).detach(), middle, rtol=1e-4, atol=1e-5
        )
        parts = parts + direct_effects(trace, layer, rows, directions.float()).sum()
        after = trace.residual(layer + 1, rows) if layer + 1 < len(lvlm.layers) else trace.final[rows]
        parts = parts + ((after - middle[rows]).double() * directions).sum()  # the MLP
    with torch.no_grad():
        logits = lvlm.model(**lvlm.model_inputs(episode), use_cache=False).logits[0, rows]
    expected = logits[range(len(rows)), list(episode.token_ids)].double().sum()
    np.testing.assert_allclose(float(parts), float(expected), rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_the_softmax_direction_is_the_gradient_of_the_score(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    trace = trace_attention(lvlm, episode)
    rows = list(episode.rows)
    final = trace.final[rows].clone().requires_grad_(True)
    norm = lvlm.adapter.decoder(lvlm.model).norm
    frozen = (norm(final) / final).detach() * final
    score = lvlm.model.lm_head(frozen).log_softmax(-1)[range(len(rows)), list(episode.token_ids)].sum()
    (expected,) = torch.autograd.grad(score, final)
    mine = logit_directions(lvlm, episode, trace, "softmax")
    np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-5)


def test_proximities_by_hand() -> None:
    """x' = (2, 0) of x = (0, -1), c1 = (2, 0) and c2 = (0, 1): only c1 brings x nearer to x'."""
    trace: Any = FakeTrace(
        ([[[0.0, 0, 0], [0, 0, 0], [1, 1, 0]]], [[[2.0, 0], [0, 1], [0, 0]]], [[0.0, 0]] * 2 + [[0, -1]])
    )
    assert importance(trace, [2], [1.0]).tolist() == [1.0, 0.0, 0.0]
    # A span's vectors are added before the proximities are taken: twice the row is the same share.
    assert importance(trace, [2, 2], [1.0, 1.0]).tolist() == [1.0, 0.0, 0.0]


def test_with_identity_values_of_one_norm_it_is_plain_rollout() -> None:
    rng = np.random.default_rng(0)
    layers, plain = [], []
    for _ in range(3):
        attention = np.tril(rng.random((1, 5, 5)))
        attention /= attention.sum(-1, keepdims=True)
        basis = np.linalg.qr(rng.standard_normal((5, 5)))[0]  # five states of norm 1
        layers.append((attention, basis[None], basis))
        plain.append(torch.tensor(attention))
    trace: Any = FakeTrace(*layers)
    np.testing.assert_allclose(value_rollout(trace, [4, 3]), rollout(plain, [4, 3]), atol=1e-12)


def test_alti_by_hand() -> None:
    """T = (3, 0) from position 0, (0, 1) from the row itself: y = (3, 1), and C = (3, 1) / 4."""
    first = ([[[1.0, 0], [1, 0]]], [[[3.0, 0], [0, 0]]], [[0.0, 0], [0, 1]])
    second = ([[[1.0, 0], [0, 1]]], [[[0.0, 0], [0, 8]]], [[0.0, 0], [0, 1]])
    trace: Any = FakeTrace(first, second)
    direction = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    # Layer 2 writes (0, 8) of position 1 itself: an effect of 4, which layer 1 shares 3 : 1; layer 1 writes (3, 0): 3.
    assert traced_back(trace, [1], direction).tolist() == [3 / 4 * 4 + 3, 1 / 4 * 4]


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_alti_logit_keeps_the_sum_of_direct_effects(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    trace = trace_attention(lvlm, episode)
    rows, directions = list(episode.rows), logit_directions(lvlm, episode, trace, "softmax")
    direct = sum(direct_effects(trace, layer, rows, directions).sum() for layer in trace.layers)
    np.testing.assert_allclose(float(traced_back(trace, rows, directions).sum()), float(direct), rtol=1e-5)


def test_in_one_layer_alti_logit_is_direct() -> None:
    lvlm = build("qwen", layers=1)
    episode = prepare(lvlm)
    one, other = (np.asarray(get_method(n).run(lvlm, episode).heatmap) for n in ("alti_logit", "logit_attribution"))
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


def test_two_hops_follow_the_reasoning() -> None:
    lvlm = build("qwen")
    direct = prepare(lvlm, "Yes")
    one, two = (np.asarray(get_method(n).run(lvlm, direct).heatmap) for n in ("ifr", "ifr_two_hop"))
    np.testing.assert_array_equal(one, two)

    episode = prepare(lvlm, "The heart is large. The answer is yes.")
    trace = trace_attention(lvlm, episode)
    texts = [token.text for token in episode.tokens]
    answer = answer_tokens(texts)
    assert "yes" in "".join(texts[t] for t in answer)
    thinking = list(range(answer[0]))
    base = importance(trace, [episode.rows[t] for t in answer], [1.0] * len(answer))
    share = base[[episode.rows[t] + 1 for t in thinking]]
    onward = importance(trace, [episode.rows[t] for t in thinking], (share / share.sum()).tolist())
    expected = base + share.sum() / base.sum() * onward
    found = get_method("ifr_two_hop").run(lvlm, episode)
    np.testing.assert_allclose(np.ravel(found.heatmap), expected[list(episode.image_positions)], rtol=1e-6)
    assert found.extras["reasoning_tokens"] == len(thinking)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(["Y", "es"], [0, 1]), (["No", " sign", ".", " So", " yes", "."], [4]), (["maybe", "."], [1]), ([""], [0])],
)
def test_the_verdict_is_the_last_yes_or_no(texts: list[str], expected: list[int]) -> None:
    assert answer_tokens(texts) == expected


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_logits_by_way_of_the_reasoning(family: str) -> None:
    """Saliency-R1's product of attentions, layer by layer and position by position."""
    lvlm = build(family)
    episode = prepare(lvlm, "The heart is large. The answer is yes.")
    method, trace = get_method("logit_attribution"), trace_attention(lvlm, episode)
    answer = answer_tokens([token.text for token in episode.tokens])
    rows, places = [episode.rows[t] for t in answer], [row + 1 for row in episode.rows[: answer[0]]]
    directions = logit_directions(lvlm, episode, trace, "softmax")[answer].double()
    expected = np.zeros(len(episode.image_positions))
    for layer in trace.layers:
        mean = trace.weights(layer).mean(0).double()
        writes, scale = trace.head_outputs(layer).sum(0).double(), trace.write_scale(layer, rows).double()
        for k, p in enumerate(episode.image_positions):
            for r, row in enumerate(rows):
                through = sum(float(mean[row, j] * mean[j, p]) for j in places)
                expected[k] += through * float((directions[r] * scale[r] * writes[p]).sum())
    found = method.run(lvlm, episode, method.make_parameters({"hops": 2}))
    np.testing.assert_allclose(np.ravel(found.heatmap), expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    short = prepare(lvlm, "Yes")
    one, two = (method.run(lvlm, short, method.make_parameters({"hops": n})).heatmap for n in (1, 2))
    np.testing.assert_array_equal(one, two)  # nothing was reasoned


@pytest.mark.parametrize("response", ["Yes", "So it is: no."])
def test_yes_against_no(response: str) -> None:
    """The direction is the difference of two rows of the head, at the row that predicts the verdict's first token."""
    lvlm = build("qwen")
    episode = prepare(lvlm, response)
    trace = trace_attention(lvlm, episode)
    answer = answer_tokens([token.text for token in episode.tokens])
    spelt = "".join(episode.tokens[t].text for t in answer)
    other = spelt.replace("Yes", "No") if "Yes" in spelt else spelt.replace("no", "yes")
    (turned, *_) = lvlm.processor.tokenizer(other, add_special_tokens=False)["input_ids"]
    found = logit_directions(lvlm, episode, trace, "yes_no").double()
    states = trace.final[list(episode.rows)]
    with torch.no_grad():
        logits = lvlm.model.lm_head(lvlm.adapter.decoder(lvlm.model).norm(states)).double()
    t = answer[0]
    expected = float(logits[t, episode.token_ids[t]] - logits[t, turned])
    assert float(found[t] @ states[t].double()) == pytest.approx(expected, rel=1e-4)
    assert abs(expected) > 1e-3
    assert not found[[k for k in range(len(found)) if k != t]].any()
    vague = prepare(lvlm, "Perhaps.")
    with pytest.raises(MethodError, match="holds no yes and no no"):
        logit_directions(lvlm, vague, trace_attention(lvlm, vague), "yes_no")
