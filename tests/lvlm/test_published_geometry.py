"""The six LVLMs of the benchmark at their published geometry, without their weights.

Twice: at full size on the meta device, where parameters are counted against the published number (so the table
is that of the real models), and at their full depth, resolution and token counts with a tiny width, where
everything runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.schema import LVLMS, question
from medground_bench.lvlm import Lvlm, testing, whitebox
from medground_bench.lvlm.published import PUBLISHED, Published


def test_the_table_covers_the_benchmark() -> None:
    assert set(PUBLISHED) == set(LVLMS)


@pytest.mark.parametrize("key", sorted(PUBLISHED))
def test_parameters_of_the_full_model(key: str) -> None:
    facts = PUBLISHED[key]
    assert facts.count(facts.build()) == facts.parameters


@pytest.mark.parametrize("key", sorted(PUBLISHED))
def test_the_adapter_finds_the_parts_of_the_full_model(key: str) -> None:
    facts = PUBLISHED[key]
    model = facts.build()
    _, processor = (testing.tiny_qwen_parts if facts.family == "qwen2_5_vl" else testing.tiny_gemma_parts)()
    lvlm = Lvlm.from_parts(model, processor, key=key)
    assert lvlm.family == facts.family
    assert len(lvlm.layers) == facts.text["num_hidden_layers"]
    assert lvlm.context_length == (128000 if facts.family == "qwen2_5_vl" else 131072)
    for layer in lvlm.layers:
        attention: Any = layer.self_attn
        heads = attention.q_proj.out_features // attention.head_dim
        assert heads == facts.text["num_attention_heads"]
        assert attention.k_proj.out_features // attention.head_dim == facts.text["num_key_value_heads"]
        assert attention.o_proj.in_features == heads * attention.head_dim
    if facts.family == "gemma3":  # five local layers, then a global one
        kinds = [bool(layer.self_attn.is_sliding) for layer in lvlm.layers]
        assert kinds == [(i + 1) % 6 != 0 for i in range(len(kinds))]


def narrow(facts: Published) -> Lvlm:
    """Published depth, heads, resolution, windows and token counts; a width that fits a test."""
    text = dict(facts.text)
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    text.update(hidden_size=8 * heads, intermediate_size=32, vocab_size=400, num_key_value_heads=groups)
    if facts.family == "qwen2_5_vl":
        text["rope_parameters"] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
        vision = {**facts.vision, "hidden_size": 64, "intermediate_size": 64, "out_hidden_size": 8 * heads}
        return Lvlm.from_parts(*testing.tiny_qwen_parts(text=text, vision=vision))
    text.update(head_dim=8, query_pre_attn_scalar=8, layer_types=None)
    vision = {**facts.vision, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    return Lvlm.from_parts(*testing.tiny_gemma_parts(text=text, vision=vision, image_size=896, tokens=256))


def radiograph(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(0, 255, (height, width), dtype=np.uint8))


@pytest.mark.parametrize(
    "key", ["qwen2_5_vl_3b", "qwen2_5_vl_7b", "gemma3_4b", pytest.param("gemma3_12b", marks=pytest.mark.heavy)]
)
def test_grid_rows_and_shapes(key: str) -> None:
    facts = PUBLISHED[key]
    lvlm = narrow(facts)
    episode = lvlm.prepare(radiograph(1024, 800), question("atelectasis", "direct"), "Yes\n")
    depth, heads = facts.text["num_hidden_layers"], facts.text["num_attention_heads"]
    if facts.family == "qwen2_5_vl":
        assert episode.inputs["pixel_values"].shape == (256, 1176)
        assert episode.inputs["image_grid_thw"].tolist() == [[1, 16, 16]]
        assert (episode.grid.rows, episode.grid.cols) == (8, 8)
    else:
        assert episode.inputs["pixel_values"].shape == (1, 3, 896, 896)
        assert (episode.grid.rows, episode.grid.cols) == (16, 16)
    assert len(episode.image_positions) == len(episode.grid)
    assert np.ptp(episode.image_positions) == len(episode.grid) - 1  # one block
    assert episode.rows == (episode.length - 3, episode.length - 2)
    scores = lvlm.log_probs(episode, [episode.frame, radiograph(224, 224)])
    assert scores.shape == (2, 2)
    assert np.isfinite(scores).all()
    trace = whitebox.trace_attention(lvlm, episode, [0, 5, -1], gradients=True)
    assert trace.layers == (0, 5, depth - 1)
    for layer in trace.layers:
        weights = trace.weights(layer, episode.rows)
        assert weights.shape == trace.gradient(layer, episode.rows).shape == (heads, 2, episode.length)
        torch.testing.assert_close(weights.sum(-1), torch.ones(heads, 2))
        assert weights[:, 0, episode.rows[0] + 1 :].max() == 0  # no row sees what comes after it
    states = whitebox.hidden_states(lvlm, episode, [0, -1])
    assert states[depth].shape == states[0].shape == (episode.length, 8 * heads)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((224, 224), (8, 8)),
        ((640, 512), (18, 23)),
        ((512, 640), (23, 18)),
        ((1024, 1024), (37, 37)),
        ((30, 1000), (36, 1)),
        ((40, 40), (2, 2)),
    ],
)
def test_qwen_grids_at_any_aspect_ratio(size: tuple[int, int], grid: tuple[int, int]) -> None:
    lvlm = testing.tiny_qwen(layers=1)
    # The published processor: images between 56 x 56 and 3584 x 3584 pixels keep their size, to the next 28.
    lvlm.processor.image_processor.size = {"shortest_edge": 3136, "longest_edge": 12845056}
    episode = lvlm.prepare(radiograph(*size), question("atelectasis", "direct"), "Yes", side=None)
    assert (episode.grid.rows, episode.grid.cols) == grid
    width, height = lvlm.adapter.processed_size(lvlm.processor, *size)
    assert (height // 28, width // 28) == grid
    assert np.isfinite(lvlm.log_probs(episode, [episode.frame])).all()
