"""Against SALib, shap and saliency, by stored values (``goldens/make_packages.py`` made them)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats.qmc import Sobol

from baselines.gradient.guided_ig import guided_path
from baselines.gradient.xrai import grow_regions
from baselines.surrogate.kernel_shap import shapley_regression
from baselines.surrogate.sobol import jansen

COUNT, POINTS, SIDE = 5, 64, 16


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads((Path(__file__).parent / "goldens" / "packages.json").read_text())


def curved(x: np.ndarray) -> np.ndarray:
    """The game of the script."""
    x = np.asarray(x, float)
    return 3 * x[:, 0] + 2 * x[:, 1] * x[:, 2] + np.sin(3 * x[:, 3]) - x[:, 0] * x[:, 4] ** 2


def test_total_indices_are_those_of_salib(golden: Any) -> None:
    """But for the variance that they are shares of: here that of A."""
    expected = np.array(golden["sobol"]["ST"]) * golden["sobol"]["factor"]
    halves = Sobol(2 * COUNT, scramble=False).random(POINTS)
    np.testing.assert_allclose(jansen(curved, halves[:, :COUNT], halves[:, COUNT:])[0], expected, rtol=1e-9)


@pytest.mark.parametrize("explainer", ["exact", "kernel"])
def test_shapley_values_are_those_of_shap(golden: Any, explainer: str) -> None:
    found = shapley_regression(curved, COUNT, 2**COUNT, 0)
    np.testing.assert_allclose(found, golden["shapley"][explainer], atol=1e-8)


@pytest.mark.parametrize("how", ["0.25 0.02", "0.5 0.2", "0.25 1.0"])
def test_the_guided_path_is_that_of_saliency(golden: Any, how: str) -> None:
    weights, image = np.array(golden["weights"]), np.array(golden["image"])

    def gradient(x: np.ndarray) -> np.ndarray:
        return weights * (1 - np.tanh(weights * x) ** 2)

    fraction, band = map(float, how.split())
    found = guided_path(gradient, np.zeros_like(image), image, steps=20, fraction=fraction, band=band)
    np.testing.assert_allclose(found, golden["guided"][how], atol=1e-12)


@pytest.mark.parametrize("smallest", [1, 13])
def test_segments_cover_as_in_saliency(golden: Any, smallest: int) -> None:
    blocks = np.kron(np.arange(16).reshape(4, 4), np.ones((4, 4), int))
    stripes = np.repeat(np.arange(4), 4)[:, None] * np.ones((1, SIDE), int)
    segments = [blocks == k for k in range(16)] + [stripes == k for k in range(4)]
    found = grow_regions(np.array(golden["heat"]), segments, smallest)
    np.testing.assert_allclose(found, golden["covered"][str(smallest)], atol=1e-12)
