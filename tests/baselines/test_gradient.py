"""Grad-CAM(++) by hand, integrated gradients against Captum, and the errors of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.gradient import (  # noqa: E402
    CamParameters,
    CamPlusPlusParameters,
    IntegratedGradientsParameters,
    cam_plus_plus_weights,
    cam_weights,
    gradcam,
    gradcam_plus_plus,
    integrated_gradients,
    pixel_attributions,
)
from baselines.gradient_integral import integrate_path  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402
from medground_bench.lvlm import whitebox  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen  # noqa: E402

QUESTION = "Is there evidence of cardiomegaly in the image?"


@pytest.fixture(scope="module", params=["qwen", "gemma"])
def lvlm(request: pytest.FixtureRequest) -> Any:
    return tiny_qwen() if request.param == "qwen" else tiny_gemma(2, image_size=112, tokens=16)


@pytest.fixture(scope="module")
def episode(lvlm: Any) -> Any:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (84, 112), dtype=np.uint8))
    return lvlm.prepare(image, QUESTION, "Yes", side=None)


# -- Grad-CAM -----------------------------------------------------------------------------------------------------


def formula_weights(states: np.ndarray, gradients: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """The weights of Grad-CAM and Grad-CAM++ as the published formulas have them, in plain loops."""
    positions, channels = gradients.shape
    plain, plus = np.zeros(channels), np.zeros(channels)
    for d in range(channels):
        total = sum(states[p, d] for p in range(positions))
        for p in range(positions):
            g = gradients[p, d]
            plain[d] += g / positions
            if g != 0:
                plus[d] += g**2 / (2 * g**2 + total * g**3 + eps) * max(g, 0)
    return plain, plus


def test_cam_weights_by_hand() -> None:
    states = np.array([[1.0, 2.0], [3.0, -1.0]])
    gradients = np.array([[0.5, 0.0], [-1.0, 2.0]])
    np.testing.assert_allclose(cam_weights(gradients), [-0.25, 1.0])
    # channel 0: H sums to 4, only g = 0.5 is positive: 0.25 / (0.5 + 4 * 0.125) * 0.5 = 0.125
    # channel 1: H sums to 1, g = 2: 4 / (8 + 8) * 2 = 0.5; where g = 0 alpha is 0
    np.testing.assert_allclose(cam_plus_plus_weights(states, gradients, 1e-12), [0.125, 0.5])


def test_cam_weights_equal_the_formula() -> None:
    rng = np.random.default_rng(0)
    states, gradients = rng.normal(size=(30, 7)), rng.normal(size=(30, 7))
    gradients[rng.random((30, 7)) < 0.2] = 0
    plain, plus = formula_weights(states, gradients, 1e-6)
    np.testing.assert_allclose(cam_weights(gradients), plain)
    np.testing.assert_allclose(cam_plus_plus_weights(states, gradients, 1e-6), plus)


def test_cam_maps_equal_autograd(lvlm: Any, episode: Any) -> None:
    """Gradients taken by autograd through the model's own forward, not by the white-box layer."""
    seen = []
    handle = lvlm.layers[-1].register_forward_pre_hook(
        lambda m, a, k: seen.append(a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    score = lvlm.response_log_probs(episode, lvlm.model_inputs(episode)).sum()
    (gradient,) = torch.autograd.grad(score, seen)
    handle.remove()
    positions = list(episode.image_positions)
    h, g = seen[0][0, positions].detach().double().numpy(), gradient[0, positions].double().numpy()
    plain, plus = formula_weights(h, g, 1e-6)
    for method, parameters, weights in (
        (gradcam, CamParameters(), plain),
        (gradcam_plus_plus, CamPlusPlusParameters(), plus),
    ):
        attribution = method.function(lvlm, episode, parameters)
        expected = np.maximum(h @ weights, 0).reshape(episode.grid.rows, episode.grid.cols)
        assert expected.max() > 0
        np.testing.assert_allclose(attribution.heatmap, expected, atol=1e-4 * expected.max())
        assert attribution.extras["layer"] == len(lvlm.layers) - 1


def test_a_zero_gradient_is_an_error_not_a_map(lvlm: Any, episode: Any) -> None:
    last = len(lvlm.layers)
    _, gradients = whitebox.hidden_gradients(lvlm, episode, [last])[last]
    assert not gradients[list(episode.image_positions)].any()  # the released code's layer
    for method in (gradcam, gradcam_plus_plus):
        with pytest.raises(MethodError, match="exactly zero"):
            method.run(lvlm, episode, method.make_parameters({"layer": last}))
        with pytest.raises(MethodError, match="exactly zero"):
            method.run(lvlm, episode, method.make_parameters({"layer": -1}))


def test_the_layer_rule_goes_below_a_window_that_hides_the_image() -> None:
    lvlm = tiny_gemma(image_size=112, tokens=16)  # layers: sliding, full, sliding
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (84, 112), dtype=np.uint8))
    config = lvlm.model.config.get_text_config()
    config.sliding_window = 8
    for layer in lvlm.layers:
        if layer.self_attn.sliding_window:
            layer.self_attn.sliding_window = 8
    episode = lvlm.prepare(image, QUESTION + " Think step by step and answer with yes or no.", "Yes")
    attribution = gradcam.run(lvlm, episode)
    assert attribution.extras["layer"] == 1  # what enters the full layer, not what enters the last one
    with pytest.raises(MethodError, match="exactly zero"):
        gradcam.run(lvlm, episode, CamParameters(layer=2))


# -- integrated gradients -----------------------------------------------------------------------------------------


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


def _path(function: Any, derivative: Any, **options: Any) -> Any:
    calls = []

    def evaluate(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
        calls.append(len(places))
        return np.array([(derivative(places) * weights).sum()])

    out = integrate_path(evaluate, lambda a: float(function(a)), np.array([1.0]), **options)
    assert out.evaluations == sum(calls)
    return out


def test_a_polynomial_path_is_integrated_exactly() -> None:
    out = _path(lambda a: a**7, lambda a: 7 * a**6, steps=4, tolerance=1e-9, max_steps=4)
    assert out.gradient[0] == pytest.approx(1.0, abs=1e-12)
    assert (out.pieces, out.evaluations) == (1, 4)
    assert out.error < 1e-12


def test_a_sharp_bend_is_refined_where_it_is() -> None:
    def step(a: Any) -> Any:
        return 1 / (1 + np.exp(-(a - 0.3) * 400))

    def slope(a: Any) -> Any:
        return 400 * step(a) * (1 - step(a))

    coarse = _path(step, slope, steps=16, tolerance=0.01, max_steps=16)
    assert coarse.error > 0.05
    fine = _path(step, slope, steps=16, tolerance=0.01, max_steps=256)
    assert fine.error <= 0.01
    assert fine.evaluations < 200
    limited = _path(step, slope, steps=16, tolerance=1e-9, max_steps=50)
    assert limited.evaluations <= 50


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": 64, "max_steps": 32}, {"tolerance": 0.0}])
def test_impossible_parameters_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match="integrated_gradients"):
        integrated_gradients.make_parameters(bad)
