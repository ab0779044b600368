"""Surrogates and sampled games against enumeration, analytic indices and other packages."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pytest

from baselines.shared.games import RegionGame
from baselines.surrogate.hsic import dependence
from baselines.surrogate.kernel_shap import shapley_regression
from baselines.surrogate.lime import weighted_ridge
from baselines.surrogate.shap_kl import divergence_worth
from baselines.surrogate.sobol import jansen, points_within, sobol_points, total_indices
from medground_bench.attribution.method import get_method
from medground_bench.core.errors import MethodError
from tests.baselines.kit import ADDITIVE, Player, of_image, quadrants, white_episode


def random_game(count: int, seed: int) -> Any:
    table = np.random.default_rng(seed).standard_normal(2**count)
    return lambda sets: table[np.asarray(sets, int) @ 2 ** np.arange(count)]


def enumerate_shapley(worth: Any, count: int) -> np.ndarray:
    """The definition, subset by subset."""
    phi = np.zeros(count)
    for i in range(count):
        for size in range(count):
            for others in combinations([j for j in range(count) if j != i], size):
                weight = factorial(size) * factorial(count - size - 1) / factorial(count)
                sets = np.zeros((2, count), bool)
                sets[:, list(others)] = True
                sets[1, i] = True
                without, with_i = worth(sets)
                phi[i] += weight * (with_i - without)
    return phi


@pytest.mark.parametrize("count", [2, 5, 8])
def test_with_all_coalitions_the_regression_is_the_definition(count: int) -> None:
    worth = random_game(count, count)
    np.testing.assert_allclose(
        shapley_regression(worth, count, 2**count, 0), enumerate_shapley(worth, count), atol=1e-9
    )


def test_with_some_coalitions_it_is_near_and_adds_up() -> None:
    weights = np.random.default_rng(0).standard_normal(12)

    def worth(sets: np.ndarray) -> np.ndarray:
        return sets @ weights + 0.5 * (sets[:, 0] & sets[:, 1])

    phi = shapley_regression(worth, 12, 1024, 0)
    expected = weights + 0.25 * (np.arange(12) < 2)
    np.testing.assert_allclose(phi, expected, atol=0.05)
    np.testing.assert_allclose(phi.sum(), weights.sum() + 0.5, atol=1e-9)


def test_captum_says_the_same() -> None:
    captum = pytest.importorskip("captum.attr")
    torch = pytest.importorskip("torch")
    worth = random_game(4, 1)
    forward = lambda x: torch.tensor(worth(x.numpy() > 0.5))  # noqa: E731
    torch.manual_seed(0)
    theirs = captum.KernelShap(forward).attribute(torch.ones(1, 4), n_samples=4000)
    np.testing.assert_allclose(shapley_regression(worth, 4, 16, 0), theirs[0], atol=0.05)


def test_captum_s_lime_on_the_same_coalitions() -> None:
    """Its cosine kernel exp(-d^2 / (2 w^2)) is the square root of exp(-d^2 / w^2)."""
    captum, torch = pytest.importorskip("captum.attr"), pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    method, worth = get_method("lime"), random_game(4, 5)
    player: Any = Player(lambda image: float(worth(quadrants(image)[None] > 128)[0]))
    parameters = method.make_parameters({"regions": "tiles:2x2", "fill": "black", "budget": 64, "seed": 3})
    mine = quadrants(np.asarray(method.run(player, white_episode(), parameters).heatmap))
    drawn = np.random.default_rng(3).random((64, 4)) < 0.5
    drawn[0] = True

    def again(*_: Any, **__: Any) -> Any:
        yield from (torch.tensor(sets[None], dtype=torch.float64) for sets in drawn)

    theirs = captum.Lime(
        lambda x: torch.tensor(worth(x.numpy() > 0.5)),
        interpretable_model=SkLearnRidge(alpha=1.0),
        similarity_func=get_exp_kernel_similarity_function("cosine", kernel_width=0.25),
        perturb_func=again,
    ).attribute(torch.ones(1, 4), n_samples=len(drawn))
    np.testing.assert_allclose(mine, theirs[0], atol=1e-5)


def test_the_ridge_is_that_of_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    x, y, w = rng.random((50, 4)), rng.random(50), rng.random(50)
    design = np.hstack([x, np.ones((50, 1))])
    penalty = np.diag([2.0, 2, 2, 2, 0])
    full = np.linalg.solve(design.T @ (w[:, None] * design) + penalty, design.T @ (w * y))
    np.testing.assert_allclose(weighted_ridge(x, y, w, 2.0), full[:4], atol=1e-10)


def test_without_its_penalty_lime_is_exact_on_an_additive_score() -> None:
    method = get_method("lime")
    options = {"regions": "tiles:2x2", "fill": "black", "alpha": 0.0}
    heat = method.run(Player(ADDITIVE), white_episode(), method.make_parameters(options)).heatmap
    np.testing.assert_allclose(
        [heat[0, 0], heat[0, -1], heat[-1, 0], heat[-1, -1]], [0.5, 0.25, 0.125, 0.125], atol=1e-6
    )


def test_analytic_sobol_indices() -> None:
    weights = np.array([4, 2, 1, 1]) / 8
    np.testing.assert_allclose(total_indices(lambda z: z @ weights, 4, 1024), np.array([16, 4, 1, 1]) / 22, atol=0.01)
    np.testing.assert_allclose(total_indices(lambda z: z[:, 0] * z[:, 1], 3, 1024), [4 / 7, 4 / 7, 0], atol=0.02)
    assert not total_indices(lambda z: np.ones(len(z)), 3, 8).any()


def test_the_standard_error_of_indices_is_their_spread_over_sequences() -> None:
    weights = np.array([4, 2, 1, 1]) / 8
    runs = [jansen(lambda z: z @ weights, *sobol_points(4, 16, seed)) for seed in range(60)]
    indices, errors = (np.array(part) for part in zip(*runs, strict=True))
    # Points of a balanced sequence differ less from one another's mean than the bootstrap, which takes them as drawn.
    assert (indices.std(0) < 1.2 * errors.mean(0)).all()
    assert (errors.mean(0) < 6 * indices.std(0)).all()
    few = jansen(lambda z: z @ weights, *sobol_points(4, 256, 0))[1]
    assert (few < 0.5 * errors.mean(0)).all()


def test_signed_indices_tell_evidence_against() -> None:
    player: Any = Player(lambda image: float(quadrants(image) @ [3, -2, 1, 0]) / 255)
    method = get_method("sobol")
    heats = []
    for signed in (False, True):
        parameters = method.make_parameters({"regions": "tiles:2x2", "signed": signed})
        heats.append(quadrants(np.asarray(method.run(player, white_episode(), parameters).heatmap)))
    np.testing.assert_allclose(heats[1], heats[0] * [1, -1, 1, 0], atol=1e-12)
    assert (heats[0][:3] > 0).all()


@pytest.mark.parametrize("count", [10, 64])
def test_with_few_points_every_input_still_counts(count: int) -> None:
    """Unscrambled, A and B share columns of their first eight points, and what they share never changes."""
    for i in range(count):
        found = total_indices(lambda z, i=i: z[:, i], count, 8)
        assert found[i] > 0.03
        assert not np.delete(found, i).any()


def test_hsic_is_the_double_loop() -> None:
    rng = np.random.default_rng(0)
    masks, scores = rng.random((12, 3)) < 0.5, rng.standard_normal(12)
    pairs = [abs(a - b) for k, a in enumerate(scores) for b in scores[k + 1 :]]
    n, width = len(scores), float(np.median(pairs))
    centring = np.eye(n) - 1 / n
    kernel = np.array([[np.exp(-((a - b) ** 2) / (2 * width**2)) for b in scores] for a in scores])
    for i, found in enumerate(dependence(masks, scores)):
        cell = np.array([[0.5 - (float(a) - float(b)) ** 2 for b in masks[:, i]] for a in masks[:, i]])
        assert found == pytest.approx(np.trace(cell @ centring @ kernel @ centring) / n, abs=1e-12)


def test_a_cell_that_does_nothing_depends_no_more_than_shuffled_masks_do() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((300, 5)) < 0.5
    scores = masks[:, 0] * 1.0 + 0.3 * masks[:, 1]
    found = dependence(masks, scores)
    shuffled = [dependence(masks, rng.permutation(scores))[2] for _ in range(100)]
    assert found[2:].max() <= np.quantile(shuffled, 0.99)
    assert found[0] > found[1] > max(shuffled)


def test_the_divergence_by_hand() -> None:
    full = np.log([0.8, 0.2])
    worth = divergence_worth(np.log([[0.8, 0.2], [0.4, 0.1], [0.5, 0.5]]), full)
    np.testing.assert_allclose(worth, [0, 0, -(0.8 * np.log(1.6) + 0.2 * np.log(0.4))], atol=1e-12)


def test_shap_kl_looks_at_the_distribution_and_not_at_the_response() -> None:
    class Two(Player):
        """Says Yes by the left half and No by the right, each as a whole response."""

        def prepare(self, image: Any, question: str, response: str, side: Any) -> Any:
            return replace(white_episode(), response=response)

        def log_probs(self, episode: Any, images: Any, **_: Any) -> np.ndarray:
            half = images.shape[2] // 2
            part = images[:, :, :half] if episode.response == "Yes" else images[:, :, half:]
            return part.reshape(len(images), -1).mean(1)[:, None] / 255 * (3.0 if episode.response == "Yes" else 1.0)

    method = get_method("shap_kl")
    lvlm: Any = Two(ADDITIVE)
    parameters = method.make_parameters({"regions": "tiles:1x2"})
    one, other = (
        method.run(lvlm, replace(white_episode(), response=said), parameters).heatmap for said in ("Yes", "No")
    )
    np.testing.assert_array_equal(one, other)
    p = lambda left, right: np.array([np.exp(3 * left), np.exp(right)]) / (np.exp(3 * left) + np.exp(right))  # noqa: E731
    v = lambda a, b: -(p(1, 1) * np.log(p(1, 1) / p(a, b))).sum()  # noqa: E731
    left = (v(1, 0) - v(0, 0) + v(1, 1) - v(0, 1)) / 2
    np.testing.assert_allclose(one[0, 0], left, atol=1e-6)
    np.testing.assert_allclose(one[0, 0] + one[0, -1], -v(0, 0), atol=1e-6)


def test_a_coalition_is_scored_once_and_the_bars_stay() -> None:
    pixels = np.random.default_rng(0).integers(100, 256, (40, 40), dtype=np.uint8)
    player: Any = Player(ADDITIVE)
    labels = np.zeros((40, 40), int)
    labels[:, 20:], labels[:5] = 1, -1
    game = RegionGame(player, of_image(pixels), labels)
    game.values(np.array([[True, False], [True, False], [False, True]]))
    game.values(np.array([[True, False]]))
    assert player.images == 2
    (frame,) = game.frames(np.array([[False, True]]))
    assert (frame[:5] == pixels[:5]).all()
    assert (frame[5:, :20] == 0).all()
    assert (game.heat(np.array([1.0, 2.0]))[:5] == 0).all()


def test_the_anatomy_has_names() -> None:
    pytest.importorskip("medfocus")
    from medground_bench.sources.phantom import sample_phantom

    episode = of_image(sample_phantom(3, size=224).image)
    player: Any = Player(lambda image: float(image[:, :112].mean() / 255))
    found = get_method("shapley_anatomy").run(player, episode)
    assert player.images <= 256
    assert found.extras["exact"]
    assert {"right lung, upper third", "left lung, lower third", "heart and mediastinum"} <= set(found.concept_scores)
    assert found.concept_scores["right lung, middle third"] > 1e-3
    assert abs(found.concept_scores["left lung, middle third"]) < 1e-9
    gain = float(episode.frame_array[:, :112].mean() / 255)
    assert sum(found.concept_scores.values()) == pytest.approx(gain, abs=1e-6)


def test_points_are_what_the_budget_pays_for() -> None:
    assert points_within(0, 8, 64, "sobol") == 8
    assert points_within(520, 8, 64, "sobol") == 8
    assert [points_within(budget, 8, 64, "sobol") for budget in (519, 260, 259, 130)] == [4, 4, 2, 2]
    with pytest.raises(MethodError, match="budget=129 is less than the 130 passes of two points of 64 cells"):
        points_within(129, 8, 64, "sobol")
