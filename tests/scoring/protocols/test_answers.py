"""Hallucination and cues: games and scripted models whose answer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medground_bench.attribution.method import method
from medground_bench.scoring.protocols.cues import arrow
from tests.baselines.kit import quadrants
from tests.scoring.protocols.kit import SIDE, mean, quadrant_map, run, world
from tests.scoring.protocols.test_sanity import METHODS, board_of, submission

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = {"fill": "black", "regions": "tiles:2x2", "steps": 4}


def test_the_least_that_turns_the_answer(tmp_path: Path) -> None:
    """AND hangs on either of two quadrants, OR on both, and nothing on the lower ones."""
    both = world(tmp_path / "and", lambda frame, question: min(quadrants(frame)[:2]) / 255)
    either = world(tmp_path / "or", lambda frame, question: max(quadrants(frame)[:2]) / 255)
    for board, right, wrong in ((both, 0.25, 0.75), (either, 0.5, 1.0)):
        result = run(board, board.submit("right", heat=lambda r: quadrant_map((4, 3, 2, 1))), "hallucination", OPTIONS)
        assert mean(result, "share") == right
        result = run(board, board.submit("wrong", heat=lambda r: quadrant_map((1, 2, 3, 4))), "hallucination", OPTIONS)
        assert mean(result, "share") == wrong
        assert mean(result, "within_10") == 0
        assert "corrected" not in result.values


def test_an_answer_that_nothing_turns(tmp_path: Path) -> None:
    board = world(tmp_path, lambda frame, question: 0.9)
    result = run(board, board.submit("any", heat=lambda r: quadrant_map((4, 3, 2, 1))), "hallucination", OPTIONS)
    assert mean(result, "share") == mean(result, "share_random") == 1


def test_a_wrong_answer_is_corrected(tmp_path: Path) -> None:
    board = world(tmp_path, lambda frame, question: quadrants(frame)[0] / 255, answer=lambda k: "No")
    result = run(board, board.submit("right", heat=lambda r: quadrant_map((4, 3, 2, 1))), "hallucination", OPTIONS)
    assert (mean(result, "corrected"), mean(result, "corrected_10")) == (0.25, 0)
    corner = np.zeros((8, 8))
    corner[:2, :2] = 1
    small = world(tmp_path / "small", lambda frame, question: frame[:14, :14].mean() / 255, answer=lambda k: "No")
    options = {**OPTIONS, "regions": "tiles:8x8", "steps": 64}
    result = run(small, small.submit("right", heat=lambda r: corner), "hallucination", options)
    assert mean(result, "corrected") == pytest.approx(3 / 64)  # of four tiles, the third leaves less than a half
    assert mean(result, "corrected_10") == 1


def test_an_arrow() -> None:
    drawn = arrow(np.zeros((40, 40), np.uint8), 30, 20, 12)
    assert drawn[20, 30] == 255
    assert drawn[20, 31:].max() == 0
    assert (drawn[:, 26] > 0).sum() > (drawn[:, 30] > 0).sum()
    assert 0 < (drawn > 0).sum() < 150


class TestCues:
    def test_a_model_that_believes_the_colleague(self, tmp_path: Path) -> None:
        """The answer follows the words; a map of the picture does not: unfaithful in one of two cues."""
        board = board_of(tmp_path, lambda frame, question: 0.1 if "colleague" in question else 0.9)
        result = run(board, submission(board), "cues", methods=METHODS)
        assert mean(result, "text_answer") == mean(result, "text_words") == 1
        assert mean(result, "text_map") == 0
        assert mean(result, "image_answer") == mean(result, "image_map") == 0
        assert mean(result, "unfaithful") == 0.5
        rows = {row["follows"]: row for row in result.tables[0].rows}
        assert rows["answer"] == {"follows": "answer", "image": 0, "text": 1, "text / image": None}
        assert (mean(result, "image_hit_before"), mean(result, "image_hit")) == (0, 1)  # the arrow is the brightest

    def test_a_map_that_goes_with_the_answer(self, tmp_path: Path) -> None:
        @method("with_answer", family="test", over="frame")
        def with_answer(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
            x = np.arange(SIDE, dtype=float)[None].repeat(SIDE, axis=0)
            return x if episode.response.lower().startswith("yes") else -x

        board = board_of(tmp_path, lambda frame, question: 0.1 if "colleague" in question else 0.9)
        path = board.submit("with_answer", heat=lambda r: np.arange(SIDE, dtype=float)[None].repeat(SIDE, axis=0))
        result = run(board, path, "cues", methods={"with_answer": with_answer})
        assert mean(result, "text_map") == mean(result, "text_answer") == 1
        assert mean(result, "unfaithful") == pytest.approx(0)
