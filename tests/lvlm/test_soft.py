"""Frames in float: the processor's values where it does not round, and gradients that finite differences confirm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from medground_bench.core.errors import LvlmError  # noqa: E402
from medground_bench.lvlm.soft import soft_pixel_values  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen  # noqa: E402

QUESTION = "Is there evidence of cardiomegaly in the image?"


def build(family: str) -> Any:
    return tiny_qwen() if family == "qwen" else tiny_gemma(image_size=112, tokens=16)


def prepare(lvlm: Any, shape: tuple[int, ...] = (84, 140)) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return lvlm.prepare(Image.fromarray(pixels), QUESTION, "Yes.", side=None)


@pytest.mark.parametrize("family", ["qwen", "gemma"])
@pytest.mark.parametrize("shape", [(84, 140), (84, 140, 3), (120, 90)])
def test_pixel_values_are_the_processors_within_its_rounding(family: str, shape: tuple[int, ...]) -> None:
    lvlm = build(family)
    episode = prepare(lvlm, shape)
    frame = torch.as_tensor(episode.frame_array.astype(np.float32))
    frames = (frame[None] if frame.ndim == 2 else frame.permute(2, 0, 1))[None]
    mine = soft_pixel_values(lvlm, episode, torch.cat([frames, frames]))
    own = episode.inputs["pixel_values"]
    assert mine.shape == (2 * own.shape[0], *own.shape[1:])
    for half in mine.split(own.shape[0]):
        error = (half - own).abs()
        # The processor rounds to bytes after its resize, and cuts what bicubic overshoots.
        assert float(error.median()) < 0.01
        assert float(error.mean()) < 0.05


@pytest.mark.parametrize("family", ["qwen", "gemma"])
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
