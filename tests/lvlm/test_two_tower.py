"""Two-tower models of the real classes: scores, geometry and methods against plain computations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.attribution.method import get_method
from medground_bench.core.errors import LvlmError, MethodError
from medground_bench.core.schema import question
from medground_bench.lvlm import Lvlm, load_lvlm
from medground_bench.lvlm.testing import save_parts, tiny_two_tower_parts
from medground_bench.lvlm.two_tower import PROMPTS, TwoTower

FINDING = "pleural effusion"


@pytest.fixture(scope="module", params=["clip", "siglip"])
def model(request: pytest.FixtureRequest) -> TwoTower:
    return TwoTower(*tiny_two_tower_parts(request.param), key=request.param)


def noise(width: int = 90, height: int = 120, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8))


def test_scores_equal_the_plain_model(model: TwoTower) -> None:
    """The obvious way: processor and model on image and both prompts, and the softmax of the two logits."""
    image = noise()
    episode = model.prepare(image, question(FINDING, "direct"))
    variants = [episode.frame, Image.fromarray(255 - np.asarray(episode.frame))]
    found = model.log_probs(episode, variants)
    padding = "max_length" if model.family == "siglip" else True
    text = [prompt.format(FINDING) for prompt in PROMPTS]
    for variant, value in zip(variants, found, strict=True):
        inputs = model.processor(text=text, images=variant, return_tensors="pt", padding=padding)
        with torch.no_grad():
            logits = model.model(**inputs).logits_per_image[0]
        assert value[0] == pytest.approx(float(logits.log_softmax(-1)[0]), abs=1e-5)
    assert abs(found[0, 0] - found[1, 0]) > 1e-6
    assert model.log_probs(episode, []).shape == (0, 1)


def test_each_patch_embedding_is_that_of_its_own_cell(model: TwoTower) -> None:
    """With the tower's self-attention silenced a changed cell moves its own patch alone."""
    episode = model.prepare(noise(112, 112), FINDING, side=112)
    rows, cols = episode.grid.lattice or (0, 0)
    assert (rows, cols) == (4, 4)
    handles = [
        layer.self_attn.register_forward_hook(lambda m, a, out: (torch.zeros_like(out[0]), *out[1:]))
        for layer in model.model.vision_model.encoder.layers
    ]
    try:
        frame = episode.frame_array
        before = patches(model, frame)
        for cell in (0, 5, 14):
            changed = frame.copy()
            x1, y1, x2, y2 = (round(v) for v in episode.grid.cell_box(cell) or ())
            changed[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4] ^= 255  # away from the edges, over which resizing blurs
            moved = (patches(model, changed) - before).norm(dim=-1)
            assert int(moved.argmax()) == cell
            assert float(moved[cell]) > 20 * float(np.delete(moved.numpy(), cell).max())
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def patches(model: TwoTower, frame: np.ndarray) -> torch.Tensor:
    _, out = model.tower(model.pixels([Image.fromarray(frame).convert("RGB")]))
    return model.patch_embeddings(out["last_hidden_state"])[0]


def test_the_tower_gives_the_model_s_own_embedding(model: TwoTower) -> None:
    pixels = model.pixels([noise(112, 112).convert("RGB")])
    with torch.no_grad():
        torch.testing.assert_close(model.tower(pixels)[0], model.image_embeddings(pixels))


@pytest.mark.parametrize("name", ["similarity_map", "tower_gradcam", "tower_gradient_x_state", "occlusion"])
def test_methods_give_maps(model: TwoTower, name: str) -> None:
    episode = model.prepare(noise(), FINDING)
    method = get_method(name)
    found = method.run(model, episode)
    assert found.heatmap is not None
    assert np.isfinite(found.heatmap).all()
    again = method.run(model, episode)
    np.testing.assert_array_equal(found.heatmap, again.heatmap)
    assert all(p.grad is None for p in model.model.parameters())


def test_gradients_are_the_slopes_of_the_score(model: TwoTower) -> None:
    from baselines.two_tower.tower import hidden_with_gradient

    episode = model.prepare(noise(), FINDING)
    states, gradients = hidden_with_gradient(model, episode, -2)
    layer = model.model.vision_model.encoder.layers[-1]
    way = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))

    def score(step: float) -> float:
        def moved(module: Any, args: Any, kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            hidden = hidden.clone()
            hidden[0, -len(way) :] += step * way
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        handle = layer.register_forward_pre_hook(moved, with_kwargs=True)
        try:
            return float(model.log_probs(episode, [episode.frame])[0, 0])
        finally:
            handle.remove()

    slope = (score(2e-3) - score(-2e-3)) / 4e-3
    assert float((gradients * way).sum()) == pytest.approx(slope, rel=0.05, abs=2e-4)


def test_what_it_cannot_do_it_says(model: TwoTower, tiny_qwen: Lvlm) -> None:
    episode = model.prepare(noise(), FINDING)
    with pytest.raises(LvlmError, match="answers no questions"):
        model.generate([noise()], ["?"])
    with pytest.raises(LvlmError, match="has no decoder"):
        get_method("attention").run(model, episode)  # type: ignore[arg-type]
    with pytest.raises(MethodError, match="compared with a prompt"):
        get_method("similarity_map").run(tiny_qwen, tiny_qwen.prepare(noise(), "?", "Yes"))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_loads_from_a_folder(tmp_path: Path, kind: str) -> None:
    model, processor = tiny_two_tower_parts(kind)
    loaded: Any = load_lvlm(save_parts(model, processor, tmp_path / kind), key="mine")
    original = TwoTower(model, processor)
    assert isinstance(loaded, TwoTower)
    assert (loaded.key, loaded.family) == ("mine", kind)
    episode = original.prepare(noise(), FINDING)
    np.testing.assert_allclose(
        loaded.log_probs(loaded.prepare(noise(), FINDING), [episode.frame]),
        original.log_probs(episode, [episode.frame]),
        atol=1e-6,
    )
    (tmp_path / kind / "tokenizer.json").unlink()
    with pytest.raises(LvlmError, match="no tokenizer"):
        load_lvlm(tmp_path / kind)
