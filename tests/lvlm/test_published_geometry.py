"""The six LVLMs of the benchmark at their published geometry, without their weights.

Twice: at full size on the meta device, where parameters are counted against the published sizes (so the table
below is that of the real models), and at their full depth, resolution and token counts with a tiny width, where
everything runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.schema import LVLMS, question
from medground_bench.lvlm import Lvlm, testing, whitebox

_QWEN_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN_ROPE = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
_GEMMA_VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 896,
    "patch_size": 14,
    "vision_use_head": False,
}
_GEMMA_4B = {
    "vocab_size": 262208,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 1024,
}


@dataclass(frozen=True)
class Published:
    """Facts of the published configurations, and the parameters their model cards count (in billions)."""

    family: str
    text: dict[str, Any]
    billions: float
    tied: bool = True


PUBLISHED = {
    "qwen2_5_vl_3b": Published(
        "qwen2_5_vl",
        {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
        },
        3.75,
    ),
    "qwen2_5_vl_7b": Published(
        "qwen2_5_vl",
        {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        8.29,
        tied=False,
    ),
    "gemma3_4b": Published("gemma3", _GEMMA_4B, 4.30),
    "gemma3_12b": Published(
        "gemma3",
        {
            **_GEMMA_4B,
            "hidden_size": 3840,
            "intermediate_size": 15360,
            "num_hidden_layers": 48,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
        },
        12.19,
    ),
    "medgemma_4b": Published("gemma3", _GEMMA_4B, 4.30),
    "medgemma1_5_4b": Published("gemma3", _GEMMA_4B, 4.30),
}


def test_the_table_covers_the_benchmark() -> None:
    assert set(PUBLISHED) == set(LVLMS)


def full_size(facts: Published) -> torch.nn.Module:
    """The whole model without memory."""
    if facts.family == "qwen2_5_vl":
        from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

        config = Qwen2_5_VLConfig(
            text_config={**facts.text, "rope_parameters": _QWEN_ROPE, "max_position_embeddings": 128000},
            vision_config={**_QWEN_VISION, "out_hidden_size": facts.text["hidden_size"]},
            tie_word_embeddings=facts.tied,
        )
        with torch.device("meta"):
            return Qwen2_5_VLForConditionalGeneration(config)
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    gemma = Gemma3Config(text_config=facts.text, vision_config=_GEMMA_VISION, mm_tokens_per_image=256)
    with torch.device("meta"):
        return Gemma3ForConditionalGeneration(gemma)


@pytest.mark.parametrize("key", sorted(PUBLISHED))
def test_parameters_of_the_full_model(key: str) -> None:
    facts = PUBLISHED[key]
    model = full_size(facts)
    # On the meta device tied weights can be two tensors: count the embedding once.
    seen = {id(p): p for name, p in model.named_parameters() if not (facts.tied and name == "lm_head.weight")}
    assert sum(p.numel() for p in seen.values()) / 1e9 == pytest.approx(facts.billions, abs=0.01)


@pytest.mark.parametrize("key", sorted(PUBLISHED))
def test_the_adapter_finds_the_parts_of_the_full_model(key: str) -> None:
    facts = PUBLISHED[key]
    model = full_size(facts)
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
        vision = {**_QWEN_VISION, "hidden_size": 64, "intermediate_size": 64, "out_hidden_size": 8 * heads}
        return Lvlm.from_parts(*testing.tiny_qwen_parts(text=text, vision=vision))
    text.update(head_dim=8, query_pre_attn_scalar=8, layer_types=None)
    vision = {**_GEMMA_VISION, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
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
