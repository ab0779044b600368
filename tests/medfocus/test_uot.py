"""The grid solver against golden plans, POT and what theory says."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

from medfocus.regions import mass_set
from medfocus.uot import (
    GridPlan,
    cost_scale,
    image_weights,
    solve_grid_uot,
    solve_grid_uot_by_pot,
    solve_uot_by_pot,
)
from medground_bench.core.errors import GeometryError


def picture(seed: int, size: int = 64) -> np.ndarray:
    return gaussian_filter(np.random.default_rng(seed).random((size, size)), size / 18)


def dense_cost(reference: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Supports (flat), squared distances between them, and their 90th percentile: all pairs, no shortcut."""
    height, width = reference.shape
    y, x = np.divmod(np.arange(height * width), width)
    a, b = reference.ravel() > 0, target.ravel() > 0
    squared = ((y[a][:, None] - y[b]) ** 2 + (x[a][:, None] - x[b]) ** 2).astype(float)
    return a, b, squared, float(np.percentile(squared, 90))


def formed(plan: GridPlan) -> np.ndarray:
    """The plan of the definition, (H*W, H*W)."""
    height, width = plan.shape
    y, x = np.divmod(np.arange(height * width), width)
    squared = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    return np.exp(plan.log_u.ravel()[:, None] + plan.log_v.ravel() - squared / (plan.scale * plan.epsilon))


def log_plan(reference: np.ndarray, target: np.ndarray, epsilon: float, marginal: float) -> np.ndarray:
    """Plain Sinkhorn on logarithms of the dense problem, float64, until nothing moves."""
    a, b, squared, scale = dense_cost(reference, target)
    exponent, damping = -squared / scale / epsilon, marginal / (marginal + epsilon)
    log_a, log_b = np.log(reference.ravel()[a]), np.log(target.ravel()[b])
    f, g = np.zeros(a.sum()), np.zeros(b.sum())
    for _ in range(200_000):
        before = f
        f = damping * (log_a - logsumexp(exponent + g, axis=1))
        g = damping * (log_b - logsumexp(exponent + f[:, None], axis=0))
        if np.abs(f - before).max() < 1e-10:
            break
    full = np.zeros((a.size, b.size))
    full[np.ix_(a, b)] = np.exp(f[:, None] + g + exponent)
    return full


def mean_target(plan: GridPlan) -> np.ndarray:
    """Mean target position (y, x) of every reference cell's mass, (2, H, W)."""
    height, width = plan.shape
    with np.errstate(invalid="ignore"):
        return plan.pull(np.mgrid[:height, :width]) / plan.row


def pot_plan(
    reference: np.ndarray, target: np.ndarray, epsilon: float, marginal: float, **options: float
) -> np.ndarray:
    unbalanced = pytest.importorskip("ot").unbalanced
    a, b, squared, scale = dense_cost(reference, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = unbalanced.sinkhorn_unbalanced(
            reference.ravel()[a], target.ravel()[b], squared / scale, epsilon, marginal, reg_type="entropy",
            **{"numItermax": 20_000, "stopThr": 1e-12, **options},
        )  # fmt: skip
    full = np.zeros((a.size, b.size))
    full[np.ix_(a, b)] = plan
    return full


class TestGolden:
    def test_sinkhorn_problem(self, shared_data: Path):
        pytest.importorskip("ot")
        cases = json.loads((shared_data / "golden/sinkhorn_uot.json").read_text())["cases"]
        assert len(cases) == 4
        for case in cases:
            want = case["converged"]
            plan, converged = solve_uot_by_pot(
                *(np.array(case[k]) for k in ("C", "a", "b")), case["epsilon"], case["lambda_marginal"]
            )
            assert converged
            np.testing.assert_allclose(plan.sum(1), want["row"], rtol=1e-8)
            np.testing.assert_allclose(plan.sum(0), want["col"], rtol=1e-8)
            np.testing.assert_allclose(plan.sum(), want["mass"], rtol=1e-8)
            np.testing.assert_allclose((plan * np.array(case["C"])).sum(), want["cost"], rtol=1e-8)
            if want["plan"] is not None:
                np.testing.assert_allclose(plan, want["plan"], rtol=1e-7, atol=1e-12)

    def test_transfer_on_a_grid(self, shared_data: Path):
        case = json.loads((shared_data / "golden/ot_transfer_ds1.json").read_text())
        first, second = (image_weights(np.array(case[key], float)) for key in ("img1", "img2"))
        assert ((first > 0).sum(), (second > 0).sum()) == (case["n_source"], case["n_target"])
        plan = solve_grid_uot(first, second, tolerance=1e-9)
        assert plan.converged
        assert plan.scale == case["cost_scale"]
        np.testing.assert_allclose(plan.mass, case["mass"], rtol=1e-7)
        np.testing.assert_allclose(plan.cost * plan.scale, case["cost"], rtol=1e-5)
        heat = plan.push(np.array(case["mask"]))
        np.testing.assert_allclose(heat, case["target_heatmap"], rtol=1e-5, atol=1e-12)
        np.testing.assert_array_equal(mass_set(heat, 0.75), np.array(case["binary_q075"], bool))


class TestAgainstPot:
    def test_default_setting_at_56(self):
        a, b = image_weights(picture(0, 224), 56), image_weights(picture(1, 224), 56)
        plan, dense = solve_grid_uot(a, b), pot_plan(a, b, 0.05, 0.1, stopThr=1e-9)
        np.testing.assert_allclose(plan.mass, dense.sum(), rtol=1e-6)
        masks = np.random.default_rng(2).random((3, 56, 56)) > 0.7
        expected = (masks.reshape(3, -1) @ dense).reshape(3, 56, 56)
        np.testing.assert_allclose(plan.push(masks), expected, rtol=1e-6, atol=1e-6 * expected.max())
        assert plan.solver == "kernel"

    @pytest.mark.parametrize("seed", range(10))
    def test_random_settings(self, seed: int):
        rng = np.random.default_rng(100 + seed)
        height, width = int(rng.integers(5, 15)), int(rng.integers(5, 15))
        a = image_weights(picture(seed)[:, :50])[:height, :width] * 40
        b = image_weights(picture(seed + 50)[:, 9:])[:height, :width] * 40
        epsilon, marginal = float(10 ** rng.uniform(-2, -0.5)), float(10 ** rng.uniform(-1.5, 0.3))
        plan, dense = solve_grid_uot(a, b, epsilon, marginal), pot_plan(a, b, epsilon, marginal)
        assert plan.converged
        np.testing.assert_allclose(formed(plan), dense, atol=1e-6 * dense.max())

    def test_small_epsilon_runs_on_logarithms(self):
        a, b = image_weights(picture(3), 12), image_weights(picture(4), 12)
        plan = solve_grid_uot(a, b, 0.002, 0.5)
        assert (plan.solver, plan.converged) == ("log", True)
        dense = pot_plan(a, b, 0.002, 0.5)
        np.testing.assert_allclose(formed(plan), dense, atol=1e-6 * dense.max())

    def test_the_product_solves_by_pot_too(self):
        pytest.importorskip("ot")
        a, b = image_weights(picture(5), 9), image_weights(picture(6), 9)
        ours, theirs = solve_grid_uot(a, b), solve_grid_uot_by_pot(a, b)
        assert theirs.converged
        assert theirs.scale == ours.scale
        masks = np.random.default_rng(0).random((3, 9, 9)) > 0.5
        np.testing.assert_allclose(theirs.push(masks), ours.push(masks), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose((theirs.mass, theirs.cost), (ours.mass, ours.cost), rtol=1e-6)
        blank = solve_grid_uot_by_pot(np.zeros((9, 9)), b)
        assert (blank.mass, blank.cost, blank.converged) == (0.0, 0.0, True)
        np.testing.assert_array_equal(blank.push(masks), 0)

    def test_supports_that_are_no_grid(self):
        pytest.importorskip("ot")
        rng = np.random.default_rng(0)
        one, two, a, b = rng.random((7, 3)), rng.random((5, 3)), rng.random(7), rng.random(5)
        cost = ((one[:, None] - two) ** 2).sum(-1)
        plan, converged = solve_uot_by_pot(cost, a, b, 0.1, 0.5)
        assert converged
        gradient = cost + 0.1 * np.log(plan)
        gradient += 0.5 * (np.log(plan.sum(1) / a)[:, None] + np.log(plan.sum(0) / b))
        np.testing.assert_allclose(gradient, 0, atol=1e-8)

    def test_where_pot_underflows_it_is_an_error(self):
        pytest.importorskip("ot")
        with pytest.raises(GeometryError, match="underflows"):
            solve_uot_by_pot(np.full((2, 2), 5.0), np.ones(2), np.ones(2), 1e-4)


class TestSmallEpsilon:
    """Where over-relaxation used to circle and the kernel underflows: the mass is that of plain log-domain Sinkhorn."""

    @pytest.mark.parametrize(("epsilon", "seed"), [(1e-3, 0), (1e-3, 1), (1e-4, 2)])
    def test_equals_plain_sinkhorn_on_logarithms(self, epsilon: float, seed: int):
        a, b = image_weights(picture(seed), 5), image_weights(picture(seed + 20), 5)
        plan, dense = solve_grid_uot(a, b, epsilon, 0.1), log_plan(a, b, epsilon, 0.1)
        assert (plan.solver, plan.converged) == ("log", True)
        np.testing.assert_allclose(formed(plan), dense, atol=1e-5 * dense.max())
        np.testing.assert_allclose(plan.mass, dense.sum(), rtol=1e-6)

    def test_equals_pot_where_pot_can(self):
        a, b = image_weights(picture(0), 7), image_weights(picture(1), 7)
        dense = pot_plan(a, b, 1e-4, 0.1, numItermax=100_000)
        np.testing.assert_allclose(solve_grid_uot(a, b, 1e-4, 0.1).mass, dense.sum(), rtol=1e-6)

    @pytest.mark.parametrize("marginal", [0.02, 0.1, 10.0])
    def test_the_mass_is_finite_and_settles(self, marginal: float):
        """Distributions far apart and of few cells: the mass is bounded, and close to that of the next epsilon."""
        grid = 14
        a, b = np.zeros((grid, grid)), np.zeros((grid, grid))
        a[:3, :4] = np.random.default_rng(0).random((3, 4))
        b[-5:, -2:] = np.random.default_rng(1).random((5, 2))
        a, b = a / a.sum(), b / b.sum()
        plans = [solve_grid_uot(a, b, epsilon, marginal) for epsilon in (1e-3, 3e-4, 1e-4)]
        assert all(plan.converged for plan in plans)
        assert 0 < plans[0].mass < 1.5
        assert plans[2].mass == pytest.approx(plans[1].mass, rel=0.2)


class TestOptimality:
    """The plan is the minimiser: its marginals satisfy the first-order conditions of the stated problem."""

    @pytest.mark.parametrize(("epsilon", "marginal"), [(0.05, 0.1), (0.01, 1.0), (0.5, 0.05)])
    def test_first_order_conditions(self, epsilon: float, marginal: float):
        a, b = image_weights(picture(7), 9), image_weights(picture(8), 9)
        plan = solve_grid_uot(a, b, epsilon, marginal, tolerance=1e-12)
        dense = formed(plan)
        on_a, on_b, squared, scale = dense_cost(a, b)
        inner = dense[np.ix_(on_a, on_b)]
        gradient = (
            squared / scale
            + epsilon * np.log(inner)
            + marginal * np.log(inner.sum(1) / a.ravel()[on_a])[:, None]
            + marginal * np.log(inner.sum(0) / b.ravel()[on_b])[None]
        )
        np.testing.assert_allclose(gradient, 0, atol=1e-8)

    def test_marginals_mass_and_cost_are_those_of_the_dense_plan(self):
        a, b = image_weights(picture(9), 8), image_weights(picture(10), 8)
        plan = solve_grid_uot(a, b)
        dense = formed(plan)
        np.testing.assert_allclose(plan.row.ravel(), dense.sum(1))
        np.testing.assert_allclose(plan.column.ravel(), dense.sum(0))
        _, _, squared, scale = dense_cost(np.ones_like(a), np.ones_like(b))
        np.testing.assert_allclose(plan.cost, (dense * squared).sum() / plan.scale, rtol=1e-9)
        assert scale > 0

    def test_onto_itself_the_plan_is_symmetric_and_centred(self):
        a = image_weights(picture(11), 16)
        plan = solve_grid_uot(a, a, 0.01, 10.0)
        dense = formed(plan)
        np.testing.assert_allclose(dense, dense.T, rtol=1e-6, atol=1e-15)
        np.testing.assert_allclose(plan.row, a, rtol=0.1, atol=1e-4)
        # Every reference cell's largest share stays where it is.
        cells = np.flatnonzero(a.ravel() > np.median(a))
        near = np.abs(mean_target(plan)[:, 4:-4, 4:-4] - np.mgrid[4:12, 4:12]).max()
        assert near < 1.0
        assert len(cells)

    def test_shifted_copy_is_found(self):
        blob = np.zeros((40, 40))
        blob[12:20, 10:18] = gaussian_filter(np.random.default_rng(0).random((8, 8)), 1) + 0.5
        moved = np.roll(blob, (6, 9), (0, 1))
        plan = solve_grid_uot(blob / blob.sum(), moved / moved.sum(), 0.005, 10.0)
        shift = mean_target(plan)[:, 12:20, 10:18] - np.mgrid[12:20, 10:18]
        np.testing.assert_allclose(shift[0], 6, atol=1.0)
        np.testing.assert_allclose(shift[1], 9, atol=1.0)
        np.testing.assert_allclose(plan.mass, 1.0, atol=0.1)

    def test_pull_is_the_adjoint_of_push(self):
        plan = solve_grid_uot(image_weights(picture(12), 10), image_weights(picture(13), 10))
        rng = np.random.default_rng(0)
        one, two = rng.standard_normal((2, 10, 10))
        np.testing.assert_allclose((plan.push(one) * two).sum(), (one * plan.pull(two)).sum(), rtol=1e-10)
        log = solve_grid_uot(image_weights(picture(12), 10), image_weights(picture(13), 10), solver="log")
        np.testing.assert_allclose(log.push(one), plan.push(one), rtol=1e-6, atol=1e-9)


class TestBatches:
    def test_batch_equals_one_by_one(self):
        references = np.stack([image_weights(picture(k), 14) for k in range(5)])
        target = image_weights(picture(9), 14)
        batch = solve_grid_uot(references, target)
        assert batch.shape == (5, 14, 14)
        singles = [solve_grid_uot(reference, target) for reference in references]
        np.testing.assert_allclose(batch.mass, [s.mass for s in singles], rtol=1e-7)
        np.testing.assert_allclose(batch.cost, [s.cost for s in singles], rtol=1e-6)
        assert batch.converged.all()
        masks = np.random.default_rng(0).random((3, 1, 14, 14)) > 0.5
        pushed = batch.push(masks)
        assert pushed.shape == (3, 5, 14, 14)
        np.testing.assert_allclose(pushed[:, 2], singles[2].push(masks[:, 0]), rtol=1e-6, atol=1e-12)

    def test_one_blank_item_leaves_the_others_alone(self):
        references = np.stack([image_weights(picture(0), 14), np.zeros((14, 14))])
        plan = solve_grid_uot(references, image_weights(picture(9), 14))
        assert plan.mass[1] == 0
        assert plan.iterations[1] == 0
        np.testing.assert_allclose(plan.mass[0], solve_grid_uot(references[0], image_weights(picture(9), 14)).mass)
        assert np.isfinite(plan.push(np.ones((14, 14)))).all()


class TestEdges:
    @pytest.mark.parametrize("solver", ["auto", "log"])
    def test_blank_image(self, solver: str):
        plan = solve_grid_uot(np.zeros((9, 9)), image_weights(picture(0), 9), solver=solver)
        assert (plan.mass, plan.converged, plan.iterations) == (0.0, True, 0)
        np.testing.assert_array_equal(plan.push(np.ones((9, 9))), 0)
        np.testing.assert_array_equal(formed(plan), 0)

    @pytest.mark.parametrize("value", [0.0, 7.0])
    def test_constant_image_has_no_weights(self, value: float):
        np.testing.assert_array_equal(image_weights(np.full((30, 20), value), 7), 0)

    def test_supports_that_do_not_meet(self):
        a, b = np.zeros((30, 30)), np.zeros((30, 30))
        a[:3, :3], b[-3:, -3:] = 1 / 9, 1 / 9
        for epsilon in (0.05, 1e-3):
            plan = solve_grid_uot(a, b, epsilon)
            assert plan.converged
            assert np.isfinite(plan.mass)
            pushed = plan.push(np.ones((30, 30)))
            assert np.isfinite(pushed).all()
            assert pushed[b == 0].sum() == 0

    def test_one_cell(self):
        plan = solve_grid_uot(np.ones((1, 1)), np.ones((1, 1)), 0.05, 0.1)
        # min eps T (log T - 1) + 2 lam (T log T - T + 1): log T (eps + 2 lam) = 0.
        np.testing.assert_allclose(plan.mass, 1.0)

    def test_sweeps_that_do_not_suffice_are_reported(self):
        plan = solve_grid_uot(image_weights(picture(0), 14), image_weights(picture(1), 14), 0.01, 5.0, max_iterations=2)
        assert not plan.converged
        assert plan.iterations == 2

    @pytest.mark.parametrize(
        ("a", "b", "options"),
        [
            (np.ones((3, 3)), np.ones((3, 4)), {}),
            (np.ones(3), np.ones(3), {}),
            (np.full((3, 3), np.nan), np.ones((3, 3)), {}),
            (-np.ones((3, 3)), np.ones((3, 3)), {}),
            (np.ones((3, 3)), np.ones((3, 3)), {"epsilon": 0.0}),
            (np.ones((3, 3)), np.ones((3, 3)), {"marginal": -1.0}),
            (np.ones((3, 3)), np.ones((3, 3)), {"solver": "magic"}),
        ],
    )
    def test_refusals(self, a: np.ndarray, b: np.ndarray, options: dict):
        with pytest.raises(GeometryError):
            solve_grid_uot(a, b, **options)

    def test_mask_of_another_grid(self):
        plan = solve_grid_uot(np.ones((3, 3)), np.ones((3, 3)))
        assert isinstance(plan, GridPlan)
        with pytest.raises(GeometryError, match="not on the plan's grid"):
            plan.push(np.ones((4, 4)))


class TestParts:
    @pytest.mark.parametrize("percent", [0.0, 13.0, 50.0, 90.0, 100.0])
    def test_percentile_is_exact(self, percent: float):
        rng = np.random.default_rng(int(percent))
        a, b = rng.random((11, 17)) > 0.6, rng.random((11, 17)) > 0.3
        y, x = np.divmod(np.arange(11 * 17), 17)
        squared = (y[a.ravel()][:, None] - y[b.ravel()]) ** 2 + (x[a.ravel()][:, None] - x[b.ravel()]) ** 2
        want = np.percentile(squared, percent)
        np.testing.assert_allclose(cost_scale(a, b, percent), want if want > 0 else 1.0, rtol=1e-12)

    def test_percentile_of_nothing(self):
        assert cost_scale(np.zeros((4, 4)), np.ones((4, 4))) == 1.0

    def test_weights_are_area_averages(self):
        image = np.arange(36, dtype=float).reshape(6, 6)
        weights = image_weights(image, 3, support=-1)
        blocks = image.reshape(3, 2, 3, 2).mean((1, 3)) / 35
        np.testing.assert_allclose(weights, blocks / blocks.sum())
        # 5 pixels on 2 cells: the middle one is shared.
        weights = image_weights(np.array([[0.0, 0, 1, 0, 0]] * 5), 2, support=-1)
        np.testing.assert_allclose(weights, 0.25)

    def test_support_excludes_the_dark(self):
        image = np.array([[0.0, 0.02, 0.5, 1.0]])
        np.testing.assert_allclose(image_weights(image), [[0, 0, 1 / 3, 2 / 3]])

    @pytest.mark.parametrize("image", [np.zeros((2, 2, 3)), np.zeros((0, 4)), np.array([[np.nan, 1.0]])])
    def test_what_is_not_an_image(self, image: np.ndarray):
        with pytest.raises(GeometryError):
            image_weights(image)
