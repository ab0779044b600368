"""Captum's classes by name: what they give is what our methods give, and what cannot work says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")

from baselines.shared.frames import straight_path
from medground_bench.attribution.method import available_methods, describe_methods, get_method
from medground_bench.core.errors import MethodError
from tests.baselines.gradient.test_pixel_gradients import PIXELS, curved
from tests.baselines.kit import WEIGHTS, SoftPlayer, of_image, quadrants, soft_additive, soft_dead, white_episode


def heat(name: str, player: Any, episode: Any, **options: Any) -> np.ndarray:
    method = get_method(name)
    return np.asarray(method.run(player, episode, method.make_parameters(options)).heatmap, float)


def test_gradient_classes_agree_with_ours() -> None:
    player, episode = SoftPlayer(curved), of_image(PIXELS)
    for theirs, ours in {"captum:Saliency": "saliency", "captum:InputXGradient": "input_x_gradient"}.items():
        np.testing.assert_allclose(heat(theirs, player, episode), heat(ours, player, episode), rtol=1e-4, atol=1e-9)
    found = heat("captum:IntegratedGradients", player, episode, n_steps=64, fill="black")
    expected = straight_path(player, episode, np.zeros((24, 24)), 200)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    assert get_method("captum:Saliency").signed is False
    assert get_method("captum:IntegratedGradients").needs == ("white_box", "gradients")


@pytest.mark.parametrize(
    ("name", "options", "area"),
    [
        ("FeatureAblation", {"regions": "tiles:2x2"}, 1),
        ("Occlusion", {"window": 28, "stride": 28}, 1),
        ("ShapleyValues", {"regions": "tiles:2x2"}, 1),
        ("ShapleyValueSampling", {"regions": "tiles:2x2", "n_samples": 4}, 1),
        ("GradientShap", {"references": "black", "n_samples": 8}, 28 * 28),
    ],
)
def test_the_additive_game(name: str, options: dict[str, Any], area: int) -> None:
    player: Any = SoftPlayer(soft_additive)
    found = quadrants(heat(f"captum:{name}", player, white_episode(), **options))
    np.testing.assert_allclose(found * area, WEIGHTS, atol=1e-3)
    method = get_method(f"captum:{name}")
    dead: Any = SoftPlayer(soft_dead)
    assert method.run(dead, white_episode(), method.make_parameters(options)).degenerate


def test_surrogates_run_where_their_solver_is_installed() -> None:
    pytest.importorskip("sklearn")
    player: Any = SoftPlayer(soft_additive)
    options = {"regions": "tiles:2x2", "n_samples": 400}
    np.testing.assert_allclose(
        quadrants(heat("captum:KernelShap", player, white_episode(), **options)), WEIGHTS, atol=0.02
    )
    first, second = (heat("captum:Lime", player, white_episode(), **options, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("DeepLift", "rules of its own"),
        ("LRP", "attention"),
        ("LayerGradCam", "one layer"),
        ("FeaturePermutation", "one"),
        ("NoiseTunnel", "wraps"),
    ],
)
def test_what_cannot_work_says_why(name: str, why: str) -> None:
    with pytest.raises(MethodError, match=f"cannot work here: .*{why}"):
        get_method(f"captum:{name}")


def test_names_and_parameters_are_checked() -> None:
    with pytest.raises(MethodError, match="no attribution class 'Nothing'"):
        get_method("captum:Nothing")
    with pytest.raises(MethodError, match="no provider"):
        get_method("capptum:Saliency")
    with pytest.raises(MethodError, match="no parameter n_step"):
        get_method("captum:IntegratedGradients").make_parameters({"n_step": 3})
    player: Any = SoftPlayer(curved)
    with pytest.raises(MethodError, match="refuses"):
        heat("captum:IntegratedGradients", player, of_image(PIXELS), method="by guess")
    assert not any(name.startswith("captum:") for name in available_methods())
    assert all(entry["error"] is None for entry in describe_methods() if entry["name"] == "saliency")
