"""The path integral on functions whose integral is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.shared.gradient_integral import integrate_path


def _path(function: Any, derivative: Any, **options: Any) -> Any:
    calls = []

    def evaluate(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
        calls.append(len(places))
        return np.array([(derivative(places) * weights).sum()])

    out = integrate_path(evaluate, lambda a: float(function(a)), np.array([1.0]), **options)
    assert out.evaluations == sum(calls)
    return out


def test_a_polynomial_path_is_integrated_exactly() -> None:
    out = _path(lambda a: a**7, lambda a: 7 * a**6, steps=4, tolerance=1e-9, max_steps=4)
    assert out.gradient[0] == pytest.approx(1.0, abs=1e-12)
    assert (out.pieces, out.evaluations) == (1, 4)
    assert out.error < 1e-12


def test_a_sharp_bend_is_refined_where_it_is() -> None:
    def step(a: Any) -> Any:
        return 1 / (1 + np.exp(-(a - 0.3) * 400))

    def slope(a: Any) -> Any:
        return 400 * step(a) * (1 - step(a))

    coarse = _path(step, slope, steps=16, tolerance=0.01, max_steps=16)
    assert coarse.error > 0.05
    fine = _path(step, slope, steps=16, tolerance=0.01, max_steps=256)
    assert fine.error <= 0.01
    assert fine.evaluations < 200
    limited = _path(step, slope, steps=16, tolerance=1e-9, max_steps=50)
    assert limited.evaluations <= 50
