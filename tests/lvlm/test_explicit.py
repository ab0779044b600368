"""Explicit adapters: where they say that image tokens lie is where the model's own embeddings move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question
from medground_bench.lvlm import Lvlm, families, testing, whitebox
from medground_bench.lvlm.geometry import measure_tokens
from medground_bench.lvlm.grid import TokenBoxes, TokenGrid

QUESTION = question("lung opacity", "direct")


@pytest.fixture(scope="module", params=testing.GENERIC)
def lvlm(request: pytest.FixtureRequest) -> Lvlm:
    return Lvlm.from_parts(*testing.generic_parts(request.param), key=request.param)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "step"),
    [
        ((224, 224), 4),
        ((128, 160), 4),
        pytest.param((512, 640), 8, marks=pytest.mark.heavy),
        pytest.param((640, 512), 8, marks=pytest.mark.heavy),
    ],
)
def test_measured_and_explicit_geometry_agree(lvlm: Lvlm, size: tuple[int, int], step: int) -> None:
    explicit = lvlm.prepare(noise(*size), QUESTION, "Yes", side=None).grid
    measured = measure_tokens(lvlm, size, step=step)
    assert isinstance(measured, TokenBoxes)
    assert len(measured) == len(explicit)
    seen = [box is not None for box in explicit.boxes]
    assert seen == [box is not None for box in measured.boxes]
    a, b = (np.array([box for box in one.boxes if box is not None]) for one in (explicit, measured))
    # Resizing blurs what a token sees: a measured edge is good to a small part of a cell.
    cell = np.maximum((a[:, 2:] - a[:, :2]).min(0), 4.0)
    assert (np.abs(a - b) <= 0.08 * np.tile(cell, 2)).all()


def test_the_registry_and_the_configuration_agree(lvlm: Lvlm) -> None:
    assert lvlm.family in families.FAMILIES
    assert type(families.family_of(lvlm.family)).model_type == lvlm.family
    lines = Path(families.__path__[0], f"{families.FAMILIES[lvlm.family][0].rpartition('.')[2]}.py").read_text()
    assert lines.count("\n") < 120


def test_attention_is_that_of_the_eager_kernel(lvlm: Lvlm) -> None:
    episode = lvlm.prepare(noise(50, 50), QUESTION, "Yes, there is.")
    trace = whitebox.trace_attention(lvlm, episode, gradients=True)
    eager = testing.generic_parts(lvlm.family)[0]
    eager.set_attn_implementation("eager")
    out = eager(**episode.inputs, use_cache=False, output_attentions=True)
    rows = out.logits[0].float().log_softmax(-1)[list(episode.rows)]
    score = rows.gather(1, torch.tensor(episode.token_ids)[:, None]).sum()
    gradients = torch.autograd.grad(score, out.attentions)
    assert len(out.attentions) == len(trace.layers)
    for layer, weights, gradient in zip(trace.layers, out.attentions, gradients, strict=True):
        np.testing.assert_allclose(trace.weights(layer), weights[0].detach(), atol=2e-5)
        np.testing.assert_allclose(
            trace.gradient(layer), gradient[0], atol=1e-4 * float(gradient.abs().max()), err_msg=str(layer)
        )


def test_hidden_positions_move_nothing_else(lvlm: Lvlm) -> None:
    episode = lvlm.prepare(noise(50, 50), QUESTION, "Yes, there is.")
    merged = whitebox.merged_embeddings(lvlm, episode)
    hidden = torch.zeros(3, episode.length, dtype=torch.bool)
    hidden[1, list(episode.image_positions)[::2]] = True
    hidden[2, list(episode.image_positions)] = True
    scores = whitebox.embedding_log_probs(lvlm, episode, 3, lambda a, b: merged.expand(b - a, -1, -1), hidden)
    np.testing.assert_allclose(scores[0], lvlm.log_probs(episode, [episode.frame])[0], atol=1e-4)
    ids = episode.inputs["input_ids"]
    noisy = torch.where((ids == lvlm.adapter.image_token_id(lvlm.config))[..., None], torch.randn_like(merged), merged)
    other = whitebox.embedding_log_probs(lvlm, episode, 1, lambda a, b: noisy, hidden[2:])
    assert np.abs(scores[1] - scores[0]).max() > 1e-4
    np.testing.assert_allclose(scores[2], other[0], atol=1e-4)


def test_values_that_are_keys() -> None:
    """Of the large models of Gemma 4 the full layers have no projection of values."""
    model, processor = testing.generic_parts("gemma4")
    config = model.config
    config.text_config.attention_k_eq_v, config.text_config.num_kv_shared_layers = True, 0
    lvlm = Lvlm.from_parts(type(model)(config), processor)
    episode = lvlm.prepare(noise(50, 50), QUESTION, "Yes")
    trace = whitebox.trace_attention(lvlm, episode)
    assert lvlm.layers[1].self_attn.v_proj is None
    for layer in trace.layers:  # which holds what is rebuilt to what the model computed
        np.testing.assert_allclose(trace.weights(layer).sum(-1), 1.0, atol=1e-5)


def test_square_frames_have_a_lattice(lvlm: Lvlm) -> None:
    grid = lvlm.prepare(noise(224, 224), QUESTION, "Yes").grid
    assert grid.lattice is not None
    values = np.zeros(len(grid))
    places = [i for i, box in enumerate(grid.boxes) if box is not None and box[0] < 5 and box[1] < 5]
    values[places] = 1.0
    heat = grid.to_frame(values)
    assert heat[2, 2] == heat.max()
    assert heat[-3, -3] == 0


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_pixels_of_the_qwen_kin(family: str) -> None:
    """Their batched preprocessing, their layout of pixel values and gradients at the pixels are those of Qwen2.5-VL."""
    lvlm = Lvlm.from_parts(*testing.generic_parts(family))
    frame = noise(224, 224)
    episode = lvlm.prepare(frame, QUESTION, "Yes")
    fast = lvlm.pixel_inputs(episode, [episode.frame])
    for name, value in fast.items():
        np.testing.assert_allclose(value.float(), episode.inputs[name].float(), atol=1e-5)
    _, gradient = whitebox.pixel_gradients(lvlm, episode)
    heat = whitebox.pixel_map(lvlm, episode, gradient)
    assert heat.shape[0] == 3
    assert float(heat.abs().sum()) > 0
    values = whitebox.pixel_map(lvlm, episode, episode.inputs["pixel_values"])[0]
    mean, std = lvlm.processor.image_processor.image_mean[0], lvlm.processor.image_processor.image_std[0]
    shown = (values.numpy() / 2 * std + mean) * 255  # the two frames of the still image are added up
    np.testing.assert_allclose(shown, np.asarray(frame, float), atol=0.6)


def test_llava_s_crop_loses_the_ends_of_a_frame_that_is_not_square() -> None:
    model, processor = testing.generic_parts("llava")
    processor.image_processor.size = {"shortest_edge": 112}
    processor.image_processor.do_center_crop = True
    lvlm = Lvlm.from_parts(model, processor)
    grid = lvlm.prepare(noise(200, 100), QUESTION, "Yes", side=None).grid
    assert not isinstance(grid, TokenGrid)
    assert grid.boxes[0] == pytest.approx((50.0, 0.0, 62.5, 12.5))
    assert grid.boxes[-1] == pytest.approx((137.5, 87.5, 150.0, 100.0))
    measured = measure_tokens(lvlm, (200, 100), step=4)
    assert measured is not None
    np.testing.assert_allclose(measured.boxes[0] or (), grid.boxes[0] or (), atol=1.0)


def test_a_processor_of_other_tiles_is_refused() -> None:
    model, processor = testing.generic_parts("idefics3")
    lvlm = Lvlm.from_parts(model, processor)
    lvlm.adapter.image_processor = testing.generic_parts("idefics3")[1].image_processor  # type: ignore[attr-defined]
    lvlm.adapter.image_processor.do_image_splitting = False  # type: ignore[attr-defined]
    with pytest.raises(LvlmError, match="the processor made 5 tiles, its rules make 1"):
        lvlm.prepare(noise(224, 224), QUESTION, "Yes")
