"""Gradients of the frame's pixels: known answers, completeness, and Captum on the same function."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from baselines.gradient.blur_ig import blurred  # noqa: E402
from baselines.gradient.guided_ig import guided_path  # noqa: E402
from baselines.gradient.samp import greedy_path  # noqa: E402
from baselines.gradient.xrai import grow_regions  # noqa: E402
from baselines.shared.frames import reference_frames, straight_path  # noqa: E402
from medground_bench.attribution.fills import fill_frame  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402
from tests.baselines.kit import SoftPlayer, of_image  # noqa: E402

PIXELS = np.random.default_rng(0).integers(60, 256, (24, 24), dtype=np.uint8)
MATRIX = np.random.default_rng(1).standard_normal((24, 24))


def curved(image: Any) -> Any:
    """Smooth and not linear, every pixel with its own slope."""
    x = image / 255
    return torch.tanh((torch.as_tensor(MATRIX, dtype=x.dtype) * x).mean() * 8) + (x**2).mean()


def player() -> Any:
    return SoftPlayer(curved)


def score(image: np.ndarray) -> float:
    return float(curved(torch.as_tensor(np.asarray(image, np.float64))))


def run(name: str, **options: Any) -> Any:
    method = get_method(name)
    return method.run(player(), of_image(PIXELS), method.make_parameters(options))


def heat(name: str, **options: Any) -> np.ndarray:
    return np.asarray(run(name, **options).heatmap, float)


def captum_forward(x: Any) -> Any:
    return torch.stack([curved(one) for one in x])


def test_captum_says_the_same() -> None:
    attr = pytest.importorskip("captum.attr")
    x = torch.as_tensor(PIXELS.astype(np.float64))[None].requires_grad_(True)
    np.testing.assert_allclose(heat("saliency"), attr.Saliency(captum_forward).attribute(x)[0].detach(), rtol=1e-9)
    expected = attr.InputXGradient(captum_forward).attribute(x)[0].detach()
    np.testing.assert_allclose(heat("input_x_gradient"), expected, rtol=1e-9)
    integrated = attr.IntegratedGradients(captum_forward).attribute(x, n_steps=200, method="riemann_middle")[0]
    mine = straight_path(player(), of_image(PIXELS), np.zeros((24, 24)), 200)
    np.testing.assert_allclose(mine, integrated.detach(), rtol=1e-6)  # its nodes are float32


def test_smoothgrad_without_noise_is_saliency_and_with_it_is_a_mean() -> None:
    np.testing.assert_allclose(heat("smoothgrad", noise=0.0, samples=3), heat("saliency"), rtol=1e-12)
    rng, frame = np.random.default_rng(0), PIXELS.astype(float)
    gradients = []
    for _ in range(4):
        noisy = torch.as_tensor(frame + 0.15 * np.ptp(frame) * rng.standard_normal(frame.shape)).requires_grad_(True)
        (gradient,) = torch.autograd.grad(curved(noisy), noisy)
        gradients.append(gradient.numpy())
    np.testing.assert_allclose(heat("smoothgrad", samples=4), np.abs(np.mean(gradients, 0)), rtol=1e-9)
    np.testing.assert_allclose(heat("smoothgrad", samples=4, squared=True), np.mean(np.square(gradients), 0), rtol=1e-9)


def test_expected_gradients_of_one_black_reference_are_integrated() -> None:
    found = run("expected_gradients", references="black", samples=200)
    expected = straight_path(player(), of_image(PIXELS), np.zeros((24, 24)), 400)
    np.testing.assert_allclose(found.heatmap, expected, atol=0.02 * np.abs(expected).max())
    assert abs(found.extras["residual"]) < 0.02 * abs(found.extras["change"])


def test_normal_references_are_other_chests_in_the_same_place() -> None:
    episode = of_image(PIXELS)
    pool = reference_frames("phantom", episode, 3, 0)
    assert pool.shape == (3, 24, 24)
    assert not np.array_equal(pool[0], pool[1])
    np.testing.assert_array_equal(pool, reference_frames("phantom", episode, 3, 0))
    with pytest.raises(MethodError, match="no references"):
        reference_frames("nowhere", episode, 3, 0)


@pytest.mark.parametrize(
    ("name", "options"), [("guided_ig", {"steps": 100}), ("blur_ig", {"steps": 100, "sigma": 6.0})]
)
def test_paths_are_complete(name: str, options: dict[str, Any]) -> None:
    frame = PIXELS.astype(float)
    start = np.zeros_like(frame) if name == "guided_ig" else blurred(frame, (0, 0, 24, 24), 6.0)
    change = score(frame) - score(start)
    found = run(name, **options)
    total = np.asarray(found.heatmap).sum()
    assert total == pytest.approx(change, rel=0.03)
    assert found.extras["change"] == pytest.approx(change, rel=1e-4)
    assert found.extras["residual"] == pytest.approx(total - change, abs=1e-3 * abs(change))
    (left,) = found.extras["at_start"]  # two tokens share the score: the mean of their logarithms is half of it
    assert left == pytest.approx(np.exp(score(start) / 2), rel=1e-4)


def test_guided_without_a_band_is_the_straight_path() -> None:
    def gradient(x: np.ndarray) -> np.ndarray:
        return player().frame_gradients(None, x[None])[1][0]

    frame, steps = PIXELS.astype(float), 40
    mine = guided_path(gradient, np.zeros_like(frame), frame, steps=steps, fraction=0.25, band=0.0)
    left = np.mean([gradient(frame * t / steps) for t in range(steps)], axis=0) * frame  # slopes at the near ends
    np.testing.assert_allclose(mine, left, rtol=1e-9, atol=1e-12)


def test_guided_moves_small_gradients_first() -> None:
    """Two values, slopes 1 and 5: with half of the way to go and a wide band the first is all the way."""
    seen: list[np.ndarray] = []

    def gradient(x: np.ndarray) -> np.ndarray:
        seen.append(x.copy())
        return np.array([[1.0, 5.0]])

    total = guided_path(gradient, np.zeros((1, 2)), np.ones((1, 2)), steps=2, fraction=0.5, band=1.0)
    np.testing.assert_allclose(seen[1], [[1.0, 0.0]])
    np.testing.assert_allclose(total, [[1.0, 5.0]])


@pytest.mark.parametrize("rising", [True, False])
def test_both_greedy_paths_are_complete(rising: bool) -> None:
    def gradient(x: np.ndarray) -> np.ndarray:
        return player().frame_gradients(None, x[None])[1][0]

    frame = PIXELS.astype(float)
    start, end = (np.zeros_like(frame), frame) if rising else (frame, np.zeros_like(frame))
    found = greedy_path(gradient, start, end, 150, 0.5, rising=rising)
    assert found.sum() == pytest.approx(score(end) - score(start), rel=0.05)


def test_where_every_pixel_may_move_samp_is_the_straight_path() -> None:
    """Both ways of it: from black, which the falling path runs backwards, and from the blurred image."""
    episode = of_image(PIXELS)
    starts = [fill_frame(name, episode).astype(float) for name in ("black", "blur")]
    expected = sum(straight_path(player(), episode, start, 200) for start in starts)
    found = run("samp", steps=100, fraction=1.0)
    np.testing.assert_allclose(found.heatmap, expected, atol=2e-3 * np.abs(expected).max())
    assert np.abs(heat("samp", steps=100) - expected).max() > 0.1 * np.abs(expected).max()
    assert found.extras["change"] == pytest.approx(2 * score(PIXELS) - score(starts[0]) - score(starts[1]), rel=1e-4)
    assert abs(found.extras["residual"]) < 1e-3 * abs(found.extras["change"])


def test_a_greedy_path_takes_what_rises_most_first() -> None:
    places: list[np.ndarray] = []

    def gradient(x: np.ndarray) -> np.ndarray:
        places.append(x.copy())
        return np.array([[3.0, -1.0], [2.0, 1.0]])

    greedy_path(gradient, np.zeros((2, 2)), np.ones((2, 2)), 4, 1.0, rising=True)
    order = [int(np.argmax(b - a)) for a, b in itertools.pairwise(places)]
    assert order[:3] == [0, 2, 3]


def test_regions_by_hand() -> None:
    """Two segments of attribution 3 and 1 that overlap in the middle column, and a column of -2 in none."""
    values = np.tile([3.0, 3.0, 1.0, 1.0, -2.0], (4, 1))
    first, second = np.zeros((2, 4, 5), bool)
    first[:, :2], second[:, 1:4] = True, True
    np.testing.assert_array_equal(grow_regions(values, [second, first], 1)[0], [3, 3, 1, 1, -2])
    # With at least 9 pixels: 'second' (mean 5/3 of 12) goes first, 'first' would add only 4 and is dropped.
    found = grow_regions(values, [second, first & second, first], 9)
    np.testing.assert_allclose(found[0], [0.5, 5 / 3, 5 / 3, 5 / 3, 0.5])


def test_xrai_finds_the_bright_patch_that_counts() -> None:
    pixels = np.full((64, 64), 40, np.uint8)
    pixels[8:24, 8:24] = pixels[40:56, 40:56] = 220
    method = get_method("xrai")

    def patch(image: Any) -> Any:
        return image[8:24, 8:24].mean() / 255

    found = method.run(SoftPlayer(patch), of_image(pixels), method.make_parameters({"steps": 4}))  # type: ignore[arg-type]
    values = np.asarray(found.heatmap)
    assert values[12:20, 12:20].min() > 5 * values[44:52, 44:52].max()
    assert found.extras["segments"] >= 3
