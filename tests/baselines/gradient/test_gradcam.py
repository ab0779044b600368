"""Grad-CAM and Grad-CAM++ by hand and by autograd, and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.gradient.gradcam import cam_weights, gradcam  # noqa: E402
from baselines.gradient.gradcam_plus_plus import (  # noqa: E402
    CamPlusPlusParameters,
    cam_plus_plus_weights,
    gradcam_plus_plus,
)
from baselines.shared.cam import CamParameters  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402
from medground_bench.core.schema import question  # noqa: E402
from medground_bench.lvlm import whitebox  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma  # noqa: E402


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
                plus[d] += g**2 / (2 * g**2 + total * g**3 + eps * g**2) * max(g, 0)
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


def test_the_size_of_the_gradient_does_not_matter() -> None:
    """(H, g) -> (k H, g / k) divides the weights by k, also where squared gradients are far below any absolute eps."""
    rng = np.random.default_rng(0)
    states, gradients = rng.normal(size=(30, 7)), rng.normal(size=(30, 7))
    weights = cam_plus_plus_weights(states, gradients, CamPlusPlusParameters().eps)
    for k in (1e-5, 1e5, 1e9):
        scaled = cam_plus_plus_weights(k * states, gradients / k, CamPlusPlusParameters().eps)
        np.testing.assert_allclose(scaled * k, weights, rtol=1e-9)
    # Without the curvature term alpha is 1/2, whatever g is.
    tiny = cam_plus_plus_weights(np.zeros((1, 1)), np.full((1, 1), 1e-5), CamPlusPlusParameters().eps)
    np.testing.assert_allclose(tiny, 0.5e-5, rtol=1e-6)


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
    episode = lvlm.prepare(image, question("cardiomegaly", "reason"), "Yes")
    attribution = gradcam.run(lvlm, episode)
    assert attribution.extras["layer"] == 1  # what enters the full layer, not what enters the last one
    with pytest.raises(MethodError, match="exactly zero"):
        gradcam.run(lvlm, episode, CamParameters(layer=2))
