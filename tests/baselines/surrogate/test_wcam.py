"""Wavelets: the transform, where its bands lie, and a score that only the mean decides."""

from __future__ import annotations

from typing import Any

import numpy as np

from baselines.surrogate.wcam import haar, inverse_haar, spread_bands
from medground_bench.attribution.method import get_method
from tests.baselines.kit import Player, of_image


def test_the_transform_is_orthonormal_and_comes_back() -> None:
    image = np.random.default_rng(0).random((16, 24))
    coefficients = haar(image)
    np.testing.assert_allclose((coefficients**2).sum(), (image**2).sum())
    np.testing.assert_allclose(inverse_haar(coefficients), image, atol=1e-12)
    one = haar(np.array([[1.0, 2], [3, 4]]), levels=1)
    np.testing.assert_allclose(one, [[5, -1], [-2, 0]])  # mean, left less right, top less bottom, diagonal


def test_bands_go_back_to_their_place() -> None:
    indices = np.zeros((16, 16))
    indices[8 + 1, 8 + 6] = 2.0  # the finest diagonal: row 1, column 6 of 8
    indices[2, 0] = 4.0  # the coarsest details: the upper left quarter of the image
    heat, profile = spread_bands(indices)
    assert heat.shape == (8, 8)
    assert heat[1, 6] == 2.0
    np.testing.assert_allclose(heat[:4, :4], 4 / 16)
    np.testing.assert_allclose(heat.sum(), indices.sum())
    assert profile == [0.0, 4.0, 0.0, 2.0]


def test_a_score_of_the_mean_has_no_texture() -> None:
    pixels = np.random.default_rng(0).integers(60, 190, (64, 64), dtype=np.uint8)
    player: Any = Player(lambda image: float(image.mean() / 255))
    method = get_method("wcam")
    found = method.run(player, of_image(pixels), method.make_parameters({"points": 4}))
    coarse, *details = found.extras["scale_profile"]
    assert coarse > 50 * max(details)  # but for the cut at 0 and 255
