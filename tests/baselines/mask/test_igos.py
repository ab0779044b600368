"""Optimised masks: gradients against an explicit loop, penalties against differences, games."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from baselines.shared.chosen_tokens import keyword_weights  # noqa: E402
from baselines.shared.igos import IgosParameters, MaskProblem, descend, enlargement  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from tests.baselines.gradient.test_pixel_gradients import PIXELS, curved, score  # noqa: E402
from tests.baselines.kit import SoftPlayer, of_image  # noqa: E402

PLAIN: dict[str, Any] = {"size": 4, "points": 5, "l1": 0.0, "l2": 0.0, "l3": 0.0, "tokens": "all", "fill": "black"}


def problem(**options: Any) -> MaskProblem:
    player: Any = SoftPlayer(curved)
    return MaskProblem(player, of_image(PIXELS), IgosParameters(**{**PLAIN, **options}))


def interval_score(mask: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    up = enlargement(24, 4)
    shown = up @ mask @ up.T
    return float(np.mean([score(second + j / 5 * shown * (first - second)) for j in range(1, 6)]))


@pytest.mark.parametrize("roles", ["deletion", "insertion"])
def test_the_gradient_is_that_of_the_mean_score_on_the_way(roles: str) -> None:
    one = problem()
    frame, black = PIXELS.astype(float), np.zeros((24, 24))
    ends = (frame, black) if roles == "deletion" else (black, frame)
    mask = np.random.default_rng(0).random((4, 4))
    found = getattr(one, roles)(mask)
    for cell in ((0, 0), (1, 2), (3, 3)):
        step = np.zeros((4, 4))
        step[cell] = 1e-4
        expected = (interval_score(mask + step, *ends) - interval_score(mask - step, *ends)) / 2e-4
        assert found[cell] == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_penalties_are_gradients_of_area_squares_and_variation() -> None:
    one = problem(l1=1.0, l2=0.3, l3=2.0)
    image = one._small

    def penalty(mask: np.ndarray) -> float:
        total = np.abs(1 - mask).mean() + 0.3 * np.exp(-2.0) * ((1 - mask) ** 2).sum()
        for axis in (0, 1):
            near = np.exp(-((np.diff(image, axis=axis) / 0.01) ** 2))
            total += 2.0 * (np.diff(mask, axis=axis) ** 2 * near).sum() / mask.size
        return float(total)

    mask = np.random.default_rng(0).random((4, 4)) * 0.9
    found = one.penalty(mask, 2)
    for cell in ((0, 0), (2, 1), (3, 3)):
        step = np.zeros((4, 4))
        step[cell] = 1e-5
        assert found[cell] == pytest.approx((penalty(mask + step) - penalty(mask - step)) / 2e-5, rel=1e-5, abs=1e-8)


def test_bilinear_cells_add_up() -> None:
    np.testing.assert_allclose(enlargement(24, 4).sum(1), 1)
    np.testing.assert_allclose(enlargement(6, 6), np.eye(6))


def test_keywords_are_what_the_blur_costs() -> None:
    full = np.log([0.9, 0.8, 0.9])
    assert keyword_weights(full, np.log([0.1, 0.7, 0.2])).tolist() == [1, 0, 1]
    assert keyword_weights(full, np.log([0.85, 0.6, 0.89])).tolist() == [0, 1, 0]


def test_descent_reaches_the_least_square() -> None:
    goal = np.array([[0.2, 0.8]])
    (found,) = descend(lambda masks, i: [masks[0] - goal], [np.ones((1, 2))], 0.5, 60)
    np.testing.assert_allclose(found, goal, atol=1e-3)


@pytest.mark.parametrize("name", ["igos_plus", "igos_pp"])
def test_a_heavy_price_of_area_leaves_the_mask_whole(name: str) -> None:
    method = get_method(name)
    player: Any = SoftPlayer(curved)
    assert method.run(player, of_image(PIXELS), method.make_parameters({**PLAIN, "l1": 1e6})).degenerate
