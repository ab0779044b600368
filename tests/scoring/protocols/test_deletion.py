"""Deletion and insertion: the hand values of the additive game, and controls at chance."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.attribution.method import available_methods
from medground_bench.core.errors import ScoringError
from medground_bench.scoring.protocols.protocol import get_protocol
from medground_bench.scoring.protocols.result import joined_notes
from tests.baselines.kit import WEIGHTS
from tests.scoring.protocols.kit import SIDE, GameLvlm, World, additive, mean, quadrant_map, run, world

OPTIONS = {"fill": "black", "regions": "tiles:2x2", "steps": 4, "randoms": 3}


@pytest.fixture
def board(tmp_path: Path) -> World:
    return world(tmp_path, additive)


def test_hand_values(board: World) -> None:
    """1, 1/2, 1/4, 1/8, 0 by the trapezoid rule."""
    result = run(board, board.submit("right", heat=lambda r: quadrant_map(WEIGHTS)), "deletion", OPTIONS)
    assert mean(result, "deletion") == pytest.approx(0.34375, abs=1e-4)
    assert mean(result, "insertion") == pytest.approx(0.65625, abs=1e-4)
    assert mean(result, "difference") == pytest.approx(0.3125, abs=1e-4)
    assert mean(result, "highest") == pytest.approx(1.0)


def test_no_order_is_better(board: World) -> None:
    for k, order in enumerate(permutations(range(4))):
        heat = np.empty(4)
        heat[list(order)] = [4, 3, 2, 1]
        path = board.submit(f"order{k}", heat=lambda r, heat=heat: quadrant_map(heat))
        assert mean(run(board, path, "deletion", OPTIONS), "deletion") >= 0.34375 - 1e-4


def test_a_map_of_any_resolution_gives_the_same(board: World) -> None:
    fine = np.kron(np.asarray(WEIGHTS).reshape(2, 2), np.ones((SIDE // 2, SIDE // 2)))
    result = run(board, board.submit("fine", heat=lambda r: fine), "deletion", OPTIONS)
    assert mean(result, "deletion") == pytest.approx(0.34375, abs=1e-4)


def test_random_maps_have_no_skill(tmp_path: Path) -> None:
    board = world(tmp_path, additive, n=60)
    rng = np.random.default_rng(3)
    path = board.submit("random", heat=lambda r: rng.random((2, 2)))
    result = run(board, path, "deletion", {**OPTIONS, "randoms": 10})
    interval = result.find().values["skill"]  # type: ignore[union-attr]
    assert interval.low < 0 < interval.high
    assert mean(result, "deletion_random") == pytest.approx(0.5, abs=0.03)


def test_a_dead_answer_is_left_out(tmp_path: Path) -> None:
    board = world(tmp_path, lambda frame, question: 0.7)
    result = run(board, board.submit("right", heat=lambda r: quadrant_map(WEIGHTS)), "deletion", OPTIONS)
    assert result.skipped == {"the image hardly changes the answer's confidence": 8}
    assert result.find() is None


def test_sensitive_tokens_are_those_that_the_image_makes_likely(tmp_path: Path) -> None:
    """Of two tokens one follows the game and the other never changes: its own curve is that of the game, unscaled."""

    class Deaf(GameLvlm):
        def log_probs(self, episode: Any, images: Any, **more: Any) -> np.ndarray:
            out = super().log_probs(episode, images, **more)
            out[:, 1] = np.log(0.9)
            return out

    board = world(tmp_path, lambda frame, question: 0.2 + 0.6 * additive(frame, question))
    board.lvlm = Deaf(board.lvlm.game)
    result = run(board, board.submit("right", heat=lambda r: quadrant_map(WEIGHTS)), "deletion", OPTIONS)
    assert mean(result, "insertion_sensitive") == pytest.approx(0.2 + 0.6 * 0.65625, abs=1e-4)
    dull = world(tmp_path / "dull", lambda frame, question: 0.5 + 0.1 * additive(frame, question))
    result = run(dull, dull.submit("right", heat=lambda r: quadrant_map(WEIGHTS)), "deletion", OPTIONS)
    assert "insertion_sensitive" not in result.values


def test_a_method_made_with_the_fill_is_told(board: World) -> None:
    black = board.submit("made_with_black", heat=lambda r: quadrant_map(WEIGHTS), fill="black")
    assert run(board, black, "deletion", OPTIONS).note == (
        "made_with_black was made with the fill 'black' that judges it here."
    )
    board.root /= "blur"
    assert run(board, black, "deletion", {**OPTIONS, "fill": "mean"}).note == ""


def test_a_method_that_searches_for_the_curve_is_told(board: World) -> None:
    heat = lambda r: quadrant_map(WEIGHTS)  # noqa: E731
    assert run(board, board.submit("eagle", heat=heat), "deletion", OPTIONS).note == (
        "eagle searches for what this protocol rewards."
    )
    variant = board.submit("mine", heat=heat, variant_of="smdl", fill="black")
    assert run(board, variant, "deletion", OPTIONS).note == (
        "mine was made with the fill 'black' that judges it here. mine searches for what this protocol rewards."
    )
    assert set(get_protocol("deletion").optimised_by) <= set(available_methods())


def test_further_fills(board: World) -> None:
    """To the mean or the blur of a white image nothing changes: it has no skill there."""
    path = board.submit("right", heat=lambda r: quadrant_map(WEIGHTS))
    plain = run(board, path, "deletion", OPTIONS)
    assert not [name for name in plain.values if name.startswith("skill_")]
    board.root /= "also"
    result = run(board, path, "deletion", {**OPTIONS, "also": ["mean", "black"]})
    assert result.values["skill_black"].tolist() == result.values["skill"].tolist() == plain.values["skill"].tolist()
    assert "skill_mean" not in result.values
    with pytest.raises(ScoringError, match="fill must be one of"):
        get_protocol("deletion").make_parameters({"also": ["pink"]})


def test_notes_of_several_submissions_are_said_once() -> None:
    assert joined_notes(["", "Read it.", "Read it. A was made so.", "Read it.", "B was made so."]) == (
        "Read it. A was made so. B was made so."
    )
    assert joined_notes(["", ""]) == ""
