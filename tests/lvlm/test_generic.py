"""Models without an adapter of their own: real classes of small width through their own processors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.attribution.method import get_method
from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question
from medground_bench.lvlm import Lvlm, load_lvlm, testing, whitebox
from medground_bench.lvlm.embeddings import decoder_entry
from medground_bench.lvlm.families.generic import Generic

QUESTION = question("lung opacity", "reason")
RESPONSE = "Yes, there is."


FAMILIES = ("llava", "llava_next", "idefics3", "internvl", "qwen3_vl")


def generic(family: str) -> Lvlm:
    """Read by the generic adapter, although there is an explicit one."""
    return Lvlm(*testing.generic_parts(family), Generic(family), key=family, hub_id=family)


@pytest.fixture(scope="module", params=FAMILIES)
def lvlm(request: pytest.FixtureRequest) -> Lvlm:
    return generic(request.param)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width), dtype=np.uint8))


def plain_forward(lvlm: Lvlm, frame: np.ndarray) -> np.ndarray:
    """The obvious way: chat template and processor for one image, full logits, read off the response."""
    content = [{"type": "image", "image": Image.fromarray(frame).convert("RGB")}, {"type": "text", "text": QUESTION}]
    inputs: Any = lvlm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = lvlm.processor.tokenizer(RESPONSE, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        kinds = inputs["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(ids, dtype=kinds.dtype)], dim=1)
    with torch.no_grad():
        logits = lvlm.model(**inputs).logits[0].log_softmax(-1)
    return np.array([float(logits[start - 1 + t, i]) for t, i in enumerate(ids[0].tolist())])


@pytest.mark.parametrize(("size", "side"), [((90, 110), 224), ((160, 128), None)])
def test_scores_equal_a_plain_forward(lvlm: Lvlm, size: tuple[int, int], side: int | None) -> None:
    episode = lvlm.prepare(noise(*size), QUESTION, RESPONSE, side=side)
    stack = np.stack([episode.frame_array] * 3)
    stack[1, :60, :70] = 0
    stack[2] = 255 - stack[2]
    expected = np.stack([plain_forward(lvlm, frame) for frame in stack])
    np.testing.assert_allclose(lvlm.log_probs(episode, stack), expected, atol=1e-5)
    np.testing.assert_allclose(lvlm.log_probs(episode, stack, batch_size=1), expected, atol=1e-5)
    assert np.abs(expected[0] - expected[2]).max() > 1e-3  # the image reaches the answer


def test_answers_in_a_batch_equal_answers_alone(lvlm: Lvlm) -> None:
    images, asked = [noise(60, 80), noise(200, 100, 1)], ["Is it?", QUESTION]
    alone = [lvlm.generate([i], [q], max_new_tokens=4)[0] for i, q in zip(images, asked, strict=True)]
    assert lvlm.generate(images, asked, max_new_tokens=4) == alone


def test_what_it_cannot_do_it_says(lvlm: Lvlm) -> None:
    episode = lvlm.prepare(noise(50, 50), QUESTION, "Yes")
    with pytest.raises(LvlmError, match="pixel values"):
        whitebox.pixel_gradients(lvlm, episode)


def test_gradients_at_the_image_embeddings_are_the_slopes_of_the_score(lvlm: Lvlm) -> None:
    """Numerical differences along random directions, at every place where image features enter the decoder."""
    model = lvlm.model.double()
    episode = lvlm.prepare(noise(50, 50), QUESTION, RESPONSE)
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in episode.inputs.items()}
    episode = replace(episode, inputs=MappingProxyType(inputs))
    states, gradients = whitebox.embedding_gradients(lvlm, episode)
    positions, width = list(episode.image_positions), model.config.get_text_config().hidden_size
    assert states.shape == gradients.shape == (len(positions), states.shape[1])
    assert states.shape[1] == width * (3 if lvlm.family == "qwen3_vl" else 1)  # two injections of DeepStack
    way = torch.randn(states.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def score(step: float) -> float:
        def moved(arguments: dict[str, Any]) -> dict[str, Any]:
            merged = arguments["inputs_embeds"].clone()
            merged[0, positions] += step * way[:, :width]
            changed: dict[str, Any] = {"inputs_embeds": merged}
            for k, features in enumerate(arguments.get("deepstack_visual_embeds") or []):
                part = way[:, width * (k + 1) : width * (k + 2)]
                changed.setdefault("deepstack_visual_embeds", []).append(features + step * part)
            return {**arguments, **changed}

        with torch.no_grad(), decoder_entry(lvlm, moved):
            logits = model(**episode.inputs, use_cache=False).logits[0].log_softmax(-1)
        return sum(float(logits[r, t]) for r, t in zip(episode.rows, episode.token_ids, strict=True))

    slope = (score(5e-5) - score(-5e-5)) / 1e-4
    lvlm.model.float()
    assert float((gradients.double() * way).sum()) == pytest.approx(slope, rel=5e-3)


def test_attention_is_that_of_the_eager_kernel(lvlm: Lvlm) -> None:
    episode = lvlm.prepare(noise(50, 50), QUESTION, RESPONSE)
    trace = whitebox.trace_attention(lvlm, episode)
    eager = generic(lvlm.family)
    eager.model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = eager.model(**episode.inputs, use_cache=False, output_attentions=True).attentions
    assert len(expected) == len(trace.layers) == 2
    for layer in trace.layers:
        np.testing.assert_allclose(trace.weights(layer), expected[layer][0], atol=1e-5)


@pytest.mark.parametrize(
    "name", ["attention", "rollout", "grad_attention", "lrp", "gradcam", "rel_attention", "legrad"]
)
def test_white_box_methods_work_on_measured_geometry(lvlm: Lvlm, name: str) -> None:
    episode = lvlm.prepare(noise(120, 120), QUESTION, RESPONSE)
    found = get_method(name).run(lvlm, episode)
    assert found.heatmap is not None
    assert found.heatmap.shape == episode.grid.lattice  # of tiles and thumbnail: the tokens of the tiles
    assert np.ptp(found.heatmap) > 0


def test_attention_that_is_rotated_otherwise_is_refused() -> None:
    lvlm = generic("glm4v")  # whose decoder turns neighbours in pairs, which its own adapter knows
    episode = lvlm.prepare(noise(50, 50), QUESTION, RESPONSE)
    with pytest.raises(LvlmError, match="does not reproduce the layer's output"):
        whitebox.trace_attention(lvlm, episode).weights(0)


@pytest.mark.parametrize("name", ["saliency", "dave", "extremal_perturbation"])
def test_methods_that_need_gradients_at_the_frame_or_variants_of_it_work(lvlm: Lvlm, name: str) -> None:
    episode = lvlm.prepare(noise(120, 120), QUESTION, "Yes")
    method = get_method(name)
    quick = {"extremal_perturbation": {"iterations": 3}}.get(name)
    found = method.run(lvlm, episode, method.make_parameters(quick))
    assert found.heatmap is not None
    assert found.heatmap.shape == (224, 224)
    assert np.ptp(found.heatmap) > 0


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_loads_from_a_folder(tmp_path: Path, family: str) -> None:
    model, processor = testing.generic_parts(family)
    loaded = load_lvlm(testing.save_parts(model, processor, tmp_path / family))
    original = Lvlm.from_parts(model, processor)
    assert loaded.family == family
    assert loaded.generate([noise(50, 60)], [QUESTION], 3) == original.generate([noise(50, 60)], [QUESTION], 3)


def test_a_model_that_looks_ahead_is_refused() -> None:
    lvlm = generic("llava")
    forward = lvlm.model.forward

    def peeking(input_ids: torch.Tensor, **inputs: Any) -> Any:
        out = forward(input_ids=input_ids, **inputs)
        out.logits = out.logits + input_ids[:, -1:, None].float()  # every place knows the last token
        return out

    lvlm.model.forward = peeking
    episode = lvlm.prepare(noise(50, 50), QUESTION, RESPONSE)
    with pytest.raises(LvlmError, match="depends on the tokens after it"):
        lvlm.log_probs(episode, [episode.frame])


def test_a_model_whose_logits_lie_elsewhere_is_refused() -> None:
    lvlm = generic("llava")
    forward = lvlm.model.forward

    def shortened(**inputs: Any) -> Any:
        out = forward(**inputs)
        out.logits = out.logits[:, 3:]
        return out

    lvlm.model.forward = shortened
    episode = lvlm.prepare(noise(50, 50), QUESTION, RESPONSE)
    with pytest.raises(LvlmError, match="logits for"):
        lvlm.log_probs(episode, [episode.frame])
