"""Rank agreement: measures that are the truth, its opposite, or nothing to do with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medground_bench.core.errors import ScoringError
from medground_bench.scoring.protocols.meta import kendall, kendall_matrix, rank_agreement
from medground_bench.scoring.protocols.protocol import Measure
from medground_bench.scoring.protocols.result import ProtocolResult

METHODS = [f"m{k}" for k in range(8)]
TRUE = ("necessity_edited", "verified")


def result(protocol: str, measure: Measure, method: str, values: np.ndarray, **more: object) -> ProtocolResult:
    n = len(values)
    return ProtocolResult(
        protocol=protocol,
        asks="?",
        method=method,
        lvlm=str(more.get("lvlm", "a")),
        mode="direct",
        kind=str(more.get("kind", "method")),
        predictions="",
        dataset="d",
        measures=(measure,),
        ids=[str(k) for k in range(n)],
        clusters=np.arange(n) // 2,
        values={measure.name: values},
        skipped={},
        aggregates=[],
        count={"passes": 3 * n, "found": n, "runs": n},
    )


def world(noise: float = 0.0, lvlm: str = "a", shift: float = 0.0, seed: int = 0) -> list[ProtocolResult]:
    """Eight methods, each better than the one before; a measure that says so, the opposite, and one at random."""
    rng = np.random.default_rng(seed)
    out = []
    for k, method in enumerate(METHODS):
        kind = "control" if k == 0 else "method"
        truth = 0.1 * k + shift + noise * rng.normal(size=40)
        told = {
            "same": (Measure("x"), truth * 7),
            "falls": (Measure("x", better="low"), -truth),
            "wrong": (Measure("x"), -truth),
            "none": (Measure("x"), rng.normal(size=40)),
            "neither": (Measure("x", better=""), truth),
        }
        out.append(result(TRUE[0], Measure(TRUE[1]), method, truth, kind=kind, lvlm=lvlm))
        out += [result(name, m, method, values, kind=kind, lvlm=lvlm) for name, (m, values) in told.items()]
    return out


def test_kendall_equals_scipy() -> None:
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (20, 9)).astype(float), rng.integers(0, 5, (20, 9)).astype(float)
    expected = [kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert np.allclose(kendall(a, b), expected)
    assert np.isnan(kendall(np.ones((1, 4)), np.arange(4.0)[None])[0])


def test_who_agrees_with_the_truth() -> None:
    found = {a.protocol: a for a in rank_agreement(world(noise=0.05), truth=TRUE, resamples=200)}
    assert found["same"].tau.value == found["falls"].tau.value == 1
    assert found["wrong"].tau.value == -1
    assert found["none"].tau.low < 0 < found["none"].tau.high
    assert "neither" not in found
    assert TRUE[0] not in found
    assert (found["same"].methods, found["same"].strata) == (7, 1)
    assert (found["same"].passes, found["same"].runs) == (4, 1)
    assert next(iter(found)) in ("same", "falls")


def test_noise_widens_the_interval() -> None:
    """Two noisy views of one truth agree less surely than two sharp ones; the truth itself agrees however noisy."""
    widths = []
    for noise in (0.02, 1.0):
        views = world(noise=noise, seed=1)
        views += [replace(r, protocol="view") for r in world(noise=noise, seed=2) if r.protocol == TRUE[0]]
        found = {a.protocol: a for a in rank_agreement(views, truth=TRUE, resamples=200)}
        assert found["same"].tau.value == 1
        widths.append(found["view"].tau.high - found["view"].tau.low)
    assert widths[0] < widths[1]


def test_lvlms_are_not_pooled() -> None:
    """An LVLM on which everything scores higher changes no ranking of methods."""
    both = world(lvlm="a") + world(lvlm="b", shift=5.0, seed=1)
    found = {a.protocol: a for a in rank_agreement(both, truth=TRUE, resamples=100)}
    assert found["same"].tau.value == 1
    assert found["same"].strata == 2


def test_few_methods_have_no_ranking() -> None:
    few = [r for r in world() if r.method in METHODS[:4]]
    found = {a.protocol: a for a in rank_agreement(few, truth=TRUE, resamples=100)}
    assert np.isnan(found["same"].tau.value)  # three and a control
    assert found["same"].tau_controls.value == 1


def test_a_truth_that_nobody_has() -> None:
    with pytest.raises(ScoringError, match=r"no submission has scores\.iou"):
        rank_agreement(world())


def test_matrix() -> None:
    names, tau = kendall_matrix(world())
    assert names[:3] == ["necessity_edited.verified", "same.x", "falls.x"]
    assert np.allclose(np.diag(tau), 1)
    assert tau[1, names.index("wrong.x")] == -1
    assert np.allclose(tau, tau.T)
