"""Relative attention: the ratio of two stored traces, and what cancels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from baselines.attention.rel_attention import RelAttentionParameters, default_layer, rel_attention
from medground_bench.core.errors import MethodError
from medground_bench.lvlm.whitebox import trace_attention

QUESTION = "Is there evidence of pleural effusion in the image?"
GENERIC = "Write a general description of the image."


@pytest.fixture(scope="module", params=[("tiny_qwen", 224), ("tiny_qwen", None), ("tiny_gemma", 224)], ids=str)
def case(request: pytest.FixtureRequest) -> Any:
    name, side = request.param
    lvlm = request.getfixturevalue(name)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 224), dtype=np.uint8))
    return lvlm, lvlm.prepare(image, QUESTION, "Yes.", side=side), lvlm.prepare(image, GENERIC, "Yes.", side=side)


def attention(lvlm: Any, episode: Any, layer: int, rows: Any) -> np.ndarray:
    weights = trace_attention(lvlm, episode).weights(layer, rows).mean(dim=(0, 1))
    return weights[list(episode.image_positions)].numpy().reshape(episode.grid.rows, episode.grid.cols)


def test_it_is_the_ratio_of_two_traces(case: Any) -> None:
    lvlm, episode, generic = case
    expected = attention(lvlm, episode, 1, episode.rows[:1]) / attention(lvlm, generic, 1, generic.rows[:1])
    np.testing.assert_allclose(rel_attention.function(lvlm, episode, RelAttentionParameters(layer=1)), expected)
    rows = attention(lvlm, episode, 1, episode.rows) / attention(lvlm, generic, 1, generic.rows)
    mine = rel_attention.function(lvlm, episode, RelAttentionParameters(layer=1, rows="response"))
    np.testing.assert_allclose(mine, rows)


def test_the_same_prompt_twice_names_no_evidence(case: Any) -> None:
    lvlm, episode, _ = case
    mine = rel_attention.run(lvlm, episode, RelAttentionParameters(prompt=QUESTION))
    assert (mine.heatmap == 1).all()
    assert mine.degenerate


def test_a_share_of_the_mean_is_the_least_to_divide_by(case: Any) -> None:
    lvlm, episode, generic = case
    plain = attention(lvlm, generic, 1, generic.rows[:1])
    expected = attention(lvlm, episode, 1, episode.rows[:1]) / np.maximum(plain, 0.8 * plain.mean())
    mine = rel_attention.function(lvlm, episode, RelAttentionParameters(layer=1, eps=0.8, relative=True))
    np.testing.assert_allclose(mine, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "layers", "expected"), [("qwen2_5_vl", 28, 22), ("llava", 32, 14), ("gemma3", 1, 0)]
)
def test_the_layer_is_at_the_papers_depth(family: str, layers: int, expected: int) -> None:
    from types import SimpleNamespace

    lvlm: Any = SimpleNamespace(family=family, layers=range(layers))
    assert default_layer(lvlm) == expected


def test_refusals() -> None:
    with pytest.raises(MethodError, match="rows must be"):
        RelAttentionParameters(rows="all")
