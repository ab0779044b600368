"""The greedy order: the worked example, brute force, and its presets."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from baselines.search.smdl import effectiveness
from baselines.shared.search import order_map, search_regions
from medground_bench.attribution.method import get_method
from tests.baselines.kit import ADDITIVE, Player, white_episode


def example(sets: np.ndarray) -> np.ndarray:
    """p(S) = 0.1 + 0.5 [1 in S] + 0.3 [2 in S] + 0.1 [3 in S]; F = p(S) + 1 - p(rest)."""

    def p(chosen: np.ndarray) -> np.ndarray:
        return 0.1 + chosen @ np.array([0.5, 0.3, 0.1])

    return p(sets) + 1 - p(~sets)


@pytest.mark.parametrize("search", ["greedy", "fast", "bidirectional"])
def test_the_worked_example(search: str) -> None:
    order, scores = search_regions(example, 3, search)
    assert order == [0, 1, 2]
    np.testing.assert_allclose(scores, [1.1, 1.7, 1.9])
    base = float(example(np.zeros((1, 3), bool))[0])
    assert base == pytest.approx(0.1)
    for kind, expected in {"released": (1, 0.25, 0), "shifted": (1, 0.375, 0), "rank": (1, 2 / 3, 1 / 3)}.items():
        np.testing.assert_allclose(order_map(np.array(scores), base, kind), expected, atol=1e-12)


def test_redundant_regions_share_only_in_the_shifted_map() -> None:
    """AND of two of three: released maps give the second nothing, as they give the third."""

    def both(sets: np.ndarray) -> np.ndarray:
        def p(chosen: np.ndarray) -> np.ndarray:
            return (chosen[:, 0] & chosen[:, 1]).astype(float)

        return p(sets) + 1 - p(~sets)

    order, scores = search_regions(both, 3, "greedy")
    assert order[:2] == [0, 1]
    np.testing.assert_allclose(order_map(np.array(scores), 0.0, "shifted"), [1, 0.5, 0])
    np.testing.assert_allclose(order_map(np.array(scores), 0.0, "released"), [1, 0, 0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("search", ["greedy", "fast"])
def test_greedy_comes_near_the_best_of_all_orders(seed: int, search: str) -> None:
    """Coverage is monotone and submodular: every part of the greedy order has at least 1 - 1/e of the best set's."""
    covers = np.random.default_rng(seed).random((6, 30)) < 0.25

    def coverage(sets: np.ndarray) -> np.ndarray:
        return np.array([covers[chosen].any(0).sum() if chosen.any() else 0 for chosen in sets], float)

    order, scores = search_regions(coverage, 6, search)
    assert sorted(order) == list(range(6))
    for k in range(1, 7):
        sets = np.zeros((720, 6), bool)
        for row, chosen in zip(sets, permutations(range(6)), strict=True):
            row[list(chosen[:k])] = True
        assert scores[k - 1] >= (1 - 1 / np.e) * coverage(sets).max() - 1e-9


@pytest.mark.parametrize("search", ["greedy", "fast", "bidirectional"])
def test_an_additive_objective_is_sorted(search: str) -> None:
    weights = np.random.default_rng(3).permutation(np.arange(40.0))
    order, _ = search_regions(lambda sets: sets @ weights, 40, search)
    assert (np.diff(weights[order]) < 0).all()


def test_the_cost_is_the_declared_one() -> None:
    calls: list[int] = []

    def objective(sets: np.ndarray) -> np.ndarray:
        calls.append(2 * len(sets))
        return sets @ np.arange(64.0)

    for search, passes in {"greedy": 64 * 65, "fast": 1828}.items():
        calls.clear()
        search_regions(objective, 64, search)
        assert sum(calls) == passes


def test_a_budget_makes_fewer_regions() -> None:
    method = get_method("eagle")
    player: Any = Player(ADDITIVE)
    options = {"regions": "tiles:8x8", "search": "greedy", "budget": 100}
    found = method.run(player, white_episode(), method.make_parameters(options))
    assert found.extras["regions"] == 9
    assert player.images <= 100


def test_effectiveness_is_the_angle_to_the_nearest_other() -> None:
    features = np.array([[1.0, 0], [0, 1], [1, 1]])
    sets = np.array([[True, False, False], [True, True, False], [True, True, True]])
    np.testing.assert_allclose(effectiveness(sets, features), [0, 2 * 0.5, 3 * 0.25])


def test_smdl_without_its_reward_is_eagle() -> None:
    pytest.importorskip("torch")
    from PIL import Image

    from medground_bench.lvlm.testing import tiny_qwen

    lvlm = tiny_qwen()
    pixels = np.random.default_rng(0).integers(0, 256, (112, 112), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), "Is there evidence of x in the image?", "Yes", side=None)
    maps = []
    for name, more in (("eagle", {}), ("smdl", {"effectiveness": 0.0}), ("smdl", {"effectiveness": 100.0})):
        method = get_method(name)
        options = {"regions": "tiles:2x3", **more}
        maps.append(np.asarray(method.run(lvlm, episode, method.make_parameters(options)).heatmap))
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])
