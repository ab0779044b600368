"""Transport of position and appearance: against the dense problem, and on edges it must follow."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus.lifted import LIMIT, lift, solve_lifted_uot
from medfocus.uot import solve_uot_by_pot


def test_lift_keeps_mass_and_places_it():
    contrast = np.array([[-5.0, -2.0, 0.0, 2.0]])
    lifted = lift(contrast, np.array([[1.0, 1.0, 1.0, 0.5]]), 5)
    np.testing.assert_allclose(lifted.sum(0), [[1, 1, 1, 0.5]])
    np.testing.assert_allclose(lifted[:, 0, 0], [1, 0, 0, 0, 0])
    np.testing.assert_allclose(lifted[:, 0, 2], [0, 0, 1, 0, 0])
    np.testing.assert_allclose(lift(np.array([[0.5]]), np.ones((1, 1)), 5)[:, 0, 0], [0, 0, 0.5, 0.5, 0])


def test_equals_the_dense_problem():
    rng = np.random.default_rng(0)
    bins, side, reach, tone, marginal = 4, 5, 1.5, 0.8, 1.0
    ones = np.ones((side, side))
    first = lift(rng.uniform(-1.9, 1.9, (side, side)), ones, bins)
    second = lift(rng.uniform(-1.9, 1.9, (side, side)), ones, bins)
    plan = solve_lifted_uot(first[None], second, reach=reach, tone=tone, marginal=marginal, tolerance=1e-6)
    assert plan.converged
    c, y, x = (v.ravel() for v in np.meshgrid(*(np.arange(n) for n in (bins, side, side)), indexing="ij"))
    tones = c * 2 * LIMIT / (bins - 1)
    cost = ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2) / reach**2 + (tones[:, None] - tones) ** 2 / tone**2
    a, b = first.ravel() > 0, second.ravel() > 0
    dense = np.zeros((a.size, b.size))
    dense[np.ix_(a, b)] = solve_uot_by_pot(cost[np.ix_(a, b)], first.ravel()[a], second.ravel()[b], 1.0, marginal)[0]
    region = rng.random((side, side)) > 0.5
    spread = np.broadcast_to(region, (bins, side, side)).ravel().astype(float)
    carried = (spread @ dense).reshape(bins, side, side).sum(0) / dense.sum(0).reshape(bins, side, side).sum(0)
    np.testing.assert_allclose(plan.labels(region[None, None].astype(np.float32))[0, 0], carried, rtol=2e-3, atol=1e-4)
    moves, mass = plan.moves()
    rows = dense.sum(1).reshape(bins, side, side).sum(0)
    np.testing.assert_allclose(mass[0], rows, rtol=2e-3)
    mean_y = (dense @ y).reshape(bins, side, side).sum(0) / rows
    np.testing.assert_allclose(moves[0, 0], mean_y - np.arange(side)[:, None], atol=2e-3)


def test_what_arrives_says_how_well_a_reference_matches():
    rng = np.random.default_rng(1)
    image, ones = rng.uniform(-1.5, 1.5, (30, 30)), np.ones((30, 30))
    same = lift(image, ones, 8)
    spoilt = np.where(np.arange(30) < 15, image, -np.sign(image) * 1.9)
    plan = solve_lifted_uot(np.stack([same, lift(spoilt, ones, 8)]), same, reach=1.0, tone=0.3, marginal=1.0)
    left, right = plan.arrived[..., :11].mean((1, 2)), plan.arrived[..., 19:].mean((1, 2))
    assert left[1] == pytest.approx(left[0], rel=0.03)
    assert right[1] < 0.7 * right[0]


def test_a_label_follows_the_edge_it_belongs_to():
    """Registration left the dark region two cells beside the target's: the label moves onto the target's edge."""
    contrast = np.full((24, 24), 1.0)
    reference, target = contrast.copy(), contrast.copy()
    reference[6:18, 5:13] = -1.0
    target[6:18, 7:15] = -1.0
    ones = np.ones((24, 24))
    plan = solve_lifted_uot(lift(reference, ones, 8)[None], lift(target, ones, 8), reach=1.5, tone=0.6, marginal=1.0)
    label = (reference < 0).astype(np.float32)
    moved = plan.labels(label[None, None])[0, 0] >= 0.5
    truth = target < 0
    before = (label.astype(bool) & truth).sum() / (label.astype(bool) | truth).sum()
    after = (moved & truth).sum() / (moved | truth).sum()
    assert before < 0.65
    assert after > 0.95


def test_a_small_region_is_carried_as_if_the_whole_grid_were():
    """Only the cells that its mass can reach are computed."""
    rng = np.random.default_rng(1)
    first, second = (lift(rng.uniform(-1.9, 1.9, (40, 40)), np.ones((40, 40)), 4) for _ in range(2))
    plan = solve_lifted_uot(first[None], second, reach=1.5, tone=0.8, marginal=1.0)
    region = np.zeros((40, 40), np.float32)
    region[20:24, 5:15] = 1
    tone, rows, columns = plan.kernels
    both = np.stack([region, np.ones_like(region)])[:, None]
    whole = np.einsum("bc,yz,xw,nczw->nbyx", tone, rows, columns, plan.u * both, optimize=True)
    want = (plan.v * whole[:1]).sum(1) / (plan.v * whole[1:]).sum(1)
    found = plan.labels(region[None, None])[:, 0]
    assert 0 < (found > 0).sum() < 40 * 40
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_no_region_and_no_mass():
    ones = np.ones((6, 6))
    plan = solve_lifted_uot(lift(ones, ones, 4)[None], lift(ones, 0 * ones, 4), reach=1.5, tone=0.6, marginal=1.0)
    assert plan.labels(np.zeros((1, 0, 6, 6), np.float32)).shape == (1, 0, 6, 6)
    labels = plan.labels(np.ones((1, 1, 6, 6), np.float32))
    assert np.isfinite(labels).all()
    assert labels.max() == 0
    moves, mass = plan.moves()
    assert mass.max() == 0
    assert np.isfinite(moves).all()
