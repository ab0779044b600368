"""Infidelity, sensitivity-n and completeness on the additive game, and of maps that know nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.baselines.kit import WEIGHTS
from tests.scoring.protocols.kit import World, additive, mean, quadrant_map, run, world

OPTIONS = {"fill": "black", "regions": "tiles:2x2", "sets": 40, "sizes": (1, 2)}


@pytest.fixture
def board(tmp_path: Path) -> World:
    return world(tmp_path, additive, n=30)


def test_the_weights_explain_every_set(board: World) -> None:
    path = board.submit("right", heat=lambda r: 7 * quadrant_map(WEIGHTS))
    assert mean(run(board, path, "infidelity", OPTIONS), "infidelity") == pytest.approx(0, abs=1e-9)
    assert mean(run(board, path, "sensitivity_n", OPTIONS), "correlation") == pytest.approx(1)


def test_minus_the_weights(board: World) -> None:
    """The best scale undoes the sign of infidelity; the correlation keeps it."""
    path = board.submit("minus", heat=lambda r: -quadrant_map(WEIGHTS))
    assert mean(run(board, path, "sensitivity_n", OPTIONS), "correlation") == pytest.approx(-1)


def test_random_maps_rank_nothing(board: World) -> None:
    rng = np.random.default_rng(0)
    path = board.submit("random", heat=lambda r: rng.normal(size=(2, 2)))
    interval = run(board, path, "sensitivity_n", OPTIONS).find().values["correlation"]  # type: ignore[union-attr]
    assert interval.low < 0 < interval.high
    assert mean(run(board, path, "infidelity", OPTIONS), "infidelity") > 0.2


class TestCompleteness:
    def test_what_sums_up(self, tmp_path: Path) -> None:
        """Confidence 1 with the image and exp(-2) without: two tokens lose 4 nats."""
        board = world(tmp_path, lambda frame, question: float(np.exp(-2 * (1 - frame.mean() / 255))))
        right = board.submit("right", heat=lambda r: np.array([[2.0, 1.0], [1.5, -0.5]]), signed=True)
        assert mean(run(board, right, "completeness"), "residual") == pytest.approx(0, abs=1e-6)
        half = board.submit("half", heat=lambda r: np.array([[2.0, 1.0], [-0.5, -0.5]]), signed=True)
        assert mean(run(board, half, "completeness"), "residual") == pytest.approx(0.5, abs=1e-6)

    def test_unsigned_maps_promise_nothing(self, board: World) -> None:
        from medground_bench.scoring.protocols.run import run_protocols

        path = board.submit("unsigned", heat=lambda r: quadrant_map(WEIGHTS))
        report = run_protocols([path], board.folder, ["completeness"], board.root / "out", lvlm=board.lvlm)
        assert report.missing == ["completeness on unsigned: its heat maps are not signed (settings.signed)"]
        assert not report.results
