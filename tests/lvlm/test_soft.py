"""Frames in float: the processor's values where it does not round, and gradients that finite differences confirm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from medground_bench.core.errors import LvlmError  # noqa: E402
from medground_bench.lvlm import Lvlm  # noqa: E402
from medground_bench.lvlm.soft import soft_pixel_values  # noqa: E402
from medground_bench.lvlm.testing import GENERIC, generic_parts, tiny_gemma, tiny_qwen  # noqa: E402

QUESTION = "Is there evidence of cardiomegaly in the image?"


FAMILIES = ["qwen", "gemma", *GENERIC]


def build(family: str) -> Any:
    if family in GENERIC:
        return Lvlm.from_parts(*generic_parts(family))
    return tiny_qwen() if family == "qwen" else tiny_gemma(image_size=112, tokens=16)


def prepare(lvlm: Any, shape: tuple[int, ...] = (84, 140), low: int = 0, high: int = 256) -> Any:
    pixels = np.random.default_rng(0).integers(low, high, shape, dtype=np.uint8)
    return lvlm.prepare(Image.fromarray(pixels), QUESTION, "Yes.", side=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_pixel_values_are_the_processors_within_its_rounding(family: str) -> None:
    lvlm = build(family)
    spread = 1 / (255 * min(lvlm.processor.image_processor.image_std))  # of a grey level
    for shape in [(84, 140), (84, 140, 3), (120, 90)]:
        episode = prepare(lvlm, shape, low=100, high=156)  # bicubic overshoots stay within bytes
        frame = torch.as_tensor(episode.frame_array.astype(np.float32))
        frames = (frame[None] if frame.ndim == 2 else frame.permute(2, 0, 1))[None]
        mine = soft_pixel_values(lvlm, episode, torch.cat([frames, frames]))
        own = episode.inputs["pixel_values"]
        for half in mine.reshape(2, *own.shape):
            # Bytes are rounded after each direction of a resize, and again where a processor resizes twice.
            assert float((half - own).abs().max()) < 2 * spread
            assert float((half - own).abs().mean()) < 0.6 * spread


@pytest.mark.parametrize("family", FAMILIES)
def test_pixel_values_are_the_processors_where_it_does_not_round(family: str) -> None:
    """Of an even frame, whatever is resized, and of a frame that is not resized, wherever a family has such."""
    lvlm = build(family)
    episode = prepare(lvlm, (224, 224), low=77, high=78)
    own = episode.inputs["pixel_values"]
    np.testing.assert_allclose(soft_pixel_values(lvlm, episode, torch.full((1, 1, 224, 224), 77.0)), own, atol=1e-5)
    if family in ("qwen", "mistral3", "glm4v", "qwen2_vl", "qwen3_vl"):
        episode = prepare(lvlm, (224, 224))
        frame = torch.as_tensor(episode.frame_array.astype(np.float32))[None, None]
        np.testing.assert_allclose(soft_pixel_values(lvlm, episode, frame), episode.inputs["pixel_values"], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_agree_and_gradients_are_those_of_finite_differences(family: str) -> None:
    lvlm = build(family)
    lvlm.model.double()
    episode = prepare(lvlm)
    frame = episode.frame_array.astype(np.float64)
    weights = np.array([1.0, 0.5, 2.0, 1.0, 1.0])[: len(episode.rows)]
    scores, gradients = lvlm.frame_gradients(episode, np.stack([frame, 0.5 * frame]), weights)
    plain = lvlm.log_probs(episode, frame.astype(np.uint8)[None])[0].astype(float) @ weights
    assert scores[0] == pytest.approx(plain, abs=0.05)
    direction = np.random.default_rng(1).standard_normal(frame.shape)
    step = 0.05
    ends, _ = lvlm.frame_gradients(episode, np.stack([frame + step * direction, frame - step * direction]), weights)
    assert (gradients[0] * direction).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02, abs=1e-5)
    assert not np.allclose(gradients[0], gradients[1])


def test_another_image_processor_is_refused() -> None:
    lvlm = build("gemma")
    episode = prepare(lvlm)
    lvlm.processor.image_processor.do_normalize = False
    with pytest.raises(LvlmError, match="cannot be followed in float"):
        soft_pixel_values(lvlm, episode, torch.zeros(1, 1, 84, 140))


def test_an_image_processor_that_works_on_pil_images_is_refused() -> None:
    from transformers import CLIPImageProcessorPil

    model, processor = generic_parts("llava")
    own = processor.image_processor
    processor.image_processor = CLIPImageProcessorPil(size=dict(own.size), do_center_crop=False)
    lvlm = Lvlm.from_parts(model, processor)
    with pytest.raises(LvlmError, match="works on PIL images"):
        soft_pixel_values(lvlm, prepare(lvlm), torch.zeros(1, 1, 84, 140))
