"""Integrated gradients: Captum, completeness, image order, refused parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from baselines.gradient.integrated_gradients import (
    IntegratedGradientsParameters,
    frame_attributions,
    integrated_gradients,
    pixel_attributions,
)
from medground_bench.core.errors import MethodError
from medground_bench.lvlm import Lvlm, testing

QUESTION = "Is there evidence of cardiomegaly in the image?"


def test_integrated_gradients_equal_captum(lvlm: Any, episode: Any) -> None:
    captum = pytest.importorskip("captum.attr")
    image = episode.inputs["pixel_values"]
    black = lvlm.pixel_inputs(episode, [np.zeros_like(episode.frame_array)])["pixel_values"]
    others = {n: episode.inputs[n] for n in lvlm.adapter.image_inputs if n != "pixel_values"}

    def score(values: Any) -> Any:
        images = {**others, "pixel_values": values}
        return lvlm.response_log_probs(episode, lvlm.model_inputs(episode, images)).sum().reshape(1)

    # Captum lays its steps along the first axis, which Qwen2.5-VL uses for patches: one image's rows at a time.
    oracle = captum.IntegratedGradients(score).attribute(
        image, baselines=black, n_steps=12, method="gausslegendre", internal_batch_size=image.shape[0]
    )
    mine, extras = pixel_attributions(lvlm, episode, IntegratedGradientsParameters(steps=12, max_steps=12))
    np.testing.assert_allclose(mine.numpy(), oracle.numpy(), atol=2e-4 * float(oracle.abs().max()))
    assert extras["steps"] == 12


def test_the_sum_of_attributions_is_the_change_of_the_score(lvlm: Any, episode: Any) -> None:
    parameters = IntegratedGradientsParameters(tolerance=0.02)
    attributions, extras = pixel_attributions(lvlm, episode, parameters)
    black = np.zeros_like(episode.frame_array)
    scores = lvlm.log_probs(episode, [episode.frame, black]).astype(float).sum(axis=1)
    change = scores[0] - scores[1]
    assert extras["completeness_error"] <= 0.02
    assert abs(float(attributions.sum()) - change) <= 0.025 * abs(change)


def test_the_map_is_in_image_order(lvlm: Any) -> None:
    """Only one region of the image differs from the black baseline: only there can attribution be."""
    pixels = np.zeros((112, 168), np.uint8)
    pixels[56:84, 112:140] = np.random.default_rng(0).integers(60, 256, (28, 28))
    episode = lvlm.prepare(Image.fromarray(pixels), QUESTION, "Yes", side=None)
    heat = integrated_gradients.run(lvlm, episode).heatmap
    assert heat is not None
    assert heat.shape == (112, 168)
    inside = np.zeros((112, 168), bool)
    inside[54:86, 110:142] = True  # two pixels for the interpolation to the processor's size and back
    assert heat[inside].sum() > 0.98 * heat.sum()


def test_of_a_family_that_makes_tiles_it_is_captum_s_at_the_frame() -> None:
    import torch

    captum = pytest.importorskip("captum.attr")
    lvlm = Lvlm.from_parts(*testing.generic_parts("llava_next"))
    pixels = np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), QUESTION, "Yes", side=None)
    frame = torch.from_numpy(episode.frame_array.astype(np.float32)).permute(2, 0, 1)[None]
    oracle = captum.IntegratedGradients(lambda values: lvlm.soft_log_probs(episode, values).sum(1)).attribute(
        frame, n_steps=6, method="gausslegendre", internal_batch_size=1
    )[0]
    parameters = IntegratedGradientsParameters(steps=6, max_steps=6)
    mine, extras = frame_attributions(lvlm, episode, parameters)
    np.testing.assert_allclose(mine.transpose(2, 0, 1), oracle.numpy(), atol=2e-4 * float(oracle.abs().max()))
    black = np.zeros_like(episode.frame_array)
    first, last = lvlm.log_probs(episode, [black, episode.frame]).astype(float).sum(1)
    assert abs(mine.sum() - (last - first)) == pytest.approx(extras["completeness_error"] * abs(last - first), abs=5e-3)
    heat = integrated_gradients.run(lvlm, episode, parameters).heatmap
    assert heat is not None
    np.testing.assert_allclose(heat, np.abs(mine).sum(-1), rtol=1e-5)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": 64, "max_steps": 32}, {"tolerance": 0.0}])
def test_impossible_parameters_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match="integrated_gradients"):
        integrated_gradients.make_parameters(bad)
