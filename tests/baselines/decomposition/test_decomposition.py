"""Bookkeeping of the residual stream: completeness on the real classes, and examples small enough for the hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.decomposition.alti_logit import traced_back  # noqa: E402
from baselines.decomposition.globenc import value_rollout  # noqa: E402
from baselines.decomposition.ifr import answer_tokens, importance  # noqa: E402
from baselines.decomposition.logit_attribution import direct_effects  # noqa: E402
from baselines.shared.directions import logit_directions  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
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
