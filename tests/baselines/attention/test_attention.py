"""Raw attention, rollout and gradient-weighted attention against full float64 matrices from eager attentions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.attention.attention import AttentionParameters, attention  # noqa: E402
from baselines.attention.rollout import rollout  # noqa: E402
from baselines.gradient.grad_attention import grad_attention  # noqa: E402
from medground_bench.attribution.method import NoParameters  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen  # noqa: E402
from tests.baselines import naive  # noqa: E402

QUESTION = "Is there evidence of pleural effusion in the image?"
RESPONSE = "The left costophrenic angle is blunted. The answer is yes."


def build(family: str, kernel: str) -> Any:
    if family == "qwen":
        return tiny_qwen(attention=kernel)
    return tiny_gemma(attention=kernel, image_size=224, tokens=16)


@pytest.fixture(scope="module", params=[("qwen", 224), ("qwen", None), ("gemma", 224)], ids=str)
def case(request: pytest.FixtureRequest) -> Any:
    """An episode under sdpa; the same model's eager attentions and the score's gradients there, all layers."""
    family, side = request.param
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 224), dtype=np.uint8))
    eager = build(family, "eager")
    episode = eager.prepare(image, QUESTION, RESPONSE, side=side)
    inputs = eager.model_inputs(episode)
    out = eager.model(**inputs, use_cache=False, output_attentions=True)
    for layer in out.attentions:
        layer.retain_grad()
    logits = out.logits[0, list(episode.rows)].log_softmax(-1)
    logits[range(len(episode.rows)), list(episode.token_ids)].sum().backward()
    attentions = [a.detach()[0] for a in out.attentions]
    gradients = [a.grad[0] for a in out.attentions]
    fast = build(family, "sdpa")
    return fast, fast.prepare(image, QUESTION, RESPONSE, side=side), attentions, gradients


def on_grid(episode: Any, row: Any) -> np.ndarray:
    return row[list(episode.image_positions)].numpy().reshape(episode.grid.rows, episode.grid.cols)


def close(mine: np.ndarray, expected: np.ndarray) -> None:
    assert expected.std() > 0
    np.testing.assert_allclose(mine, expected, atol=2e-5 * np.abs(expected).max(), rtol=2e-4)


def test_raw_attention_reads_the_predicting_rows_of_the_last_layer(case: Any) -> None:
    lvlm, episode, attentions, _ = case
    expected = attentions[-1].double().mean(0)[list(episode.rows)].mean(0)
    close(attention.run(lvlm, episode, AttentionParameters()).heatmap, on_grid(episode, expected))
    expected = attentions[1].double().mean(0)[list(episode.rows)].mean(0)
    close(attention.run(lvlm, episode, AttentionParameters(layer=1)).heatmap, on_grid(episode, expected))


def test_rollout_equals_the_full_matrix_product(case: Any) -> None:
    lvlm, episode, attentions, _ = case
    mine = rollout.run(lvlm, episode, NoParameters()).heatmap
    close(mine, on_grid(episode, naive.rollout(attentions, list(episode.rows))))
    backwards = on_grid(episode, naive.rollout(attentions[::-1], list(episode.rows)))
    assert np.abs(mine - backwards).max() > 1e-3 * mine.max()  # the order of the layers matters and is right


def test_grad_attention_equals_the_full_matrix_recursion(case: Any) -> None:
    lvlm, episode, attentions, gradients = case
    mine = grad_attention.function(lvlm, episode, NoParameters())
    close(mine, on_grid(episode, naive.grad_attention(attentions, gradients, list(episode.rows))))


def test_the_rows_are_not_shifted(case: Any) -> None:
    lvlm, episode, attentions, _ = case
    shifted = attentions[-1].double().mean(0)[[r + 1 for r in episode.rows]].mean(0)
    mine = attention.run(lvlm, episode, AttentionParameters()).heatmap
    assert np.abs(mine - on_grid(episode, shifted)).max() > 1e-3 * mine.max()
