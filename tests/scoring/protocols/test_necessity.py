"""Necessity and sufficiency: hand values of the additive game, and the causal test turned on submissions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.causal.editors.base import Editor, EditRequest
from medground_bench.scoring.protocols.run import run_protocols
from tests.scoring.protocols.kit import SIDE, World, additive, mean, quadrant, run, world


def half_white(k: int) -> np.ndarray:
    """White above, black below: the mean fill is 128, the additive game plays on the two upper quadrants."""
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[: SIDE // 2] = 255
    return pixels


@pytest.fixture
def board(tmp_path: Path) -> World:
    return world(tmp_path, additive, image=half_white)


def test_hand_values_of_the_additive_game(board: World) -> None:
    """p(x) = 6/8; without quadrant 1 its half weighs 128/255 of itself, alone the others do so."""
    result = run(board, board.submit("first", lambda record: [quadrant(0)]), "necessity")
    grey = 128 / 255
    assert mean(result, "area") == pytest.approx(0.25)
    assert mean(result, "necessity_mean") == pytest.approx(6 / 8 - (2 / 8 + grey * 4 / 8), abs=1e-6)
    assert mean(result, "sufficiency_mean") == pytest.approx(6 / 8 - (4 / 8 + grey * 4 / 8), abs=1e-6)
    assert mean(result, "necessity_evidence_mean") == pytest.approx(mean(result, "necessity_mean"))
    assert mean(result, "flip_mean") == 0  # 0.5 and a bit: still yes
    assert mean(result, "kept_mean") == 1


def test_nothing_reported_is_needed_by_nothing(board: World) -> None:
    result = run(board, board.submit("nothing"), "necessity")
    assert mean(result, "necessity_mean") == 0
    assert mean(result, "necessity_gain_mean") == 0
    assert mean(result, "area") == 0


def test_the_whole_image_gains_nothing_on_random_boxes(board: World) -> None:
    result = run(board, board.submit("whole", lambda record: [[0, 0, SIDE, SIDE]]), "necessity")
    assert mean(result, "necessity_gain_blur") == pytest.approx(0)
    assert mean(result, "sufficiency_blur") == pytest.approx(0)


def test_random_boxes_gain_nothing(tmp_path: Path) -> None:
    board = world(tmp_path, additive, n=60, image=half_white)
    rng = np.random.default_rng(5)

    def anywhere(record: Any) -> list[list[float]]:
        x, y = rng.uniform(0, SIDE - 20, 2)
        return [[x, y, x + 20, y + 20]]

    interval = run(board, board.submit("random", anywhere), "necessity").find().values["necessity_gain_mean"]
    assert interval.low < 0 < interval.high
    assert abs(interval.value) < 0.03


class Black(Editor):
    """An exact editor of a world in which what is white is the finding."""

    name = "black"
    exact = True

    def _edit(self, request: EditRequest) -> Any:
        pixels = np.array(request.image)
        pixels[request.mask] = 0
        return Image.fromarray(pixels)


def spot(k: int) -> np.ndarray:
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    x = 4 * k
    pixels[10:20, x : x + 10] = 255
    return pixels


def seen(frame: np.ndarray, question: str) -> float:
    return 0.9 if frame.sum() > 50 * 255 else 0.1


class TestEdited:
    @pytest.fixture
    def board(self, tmp_path: Path) -> World:
        return world(tmp_path, seen, image=spot, boxes=lambda k: [[4.0 * k, 10.0, 4.0 * k + 10, 20.0]])

    def test_the_evidence_itself_is_verified(self, board: World) -> None:
        result = run(board, board.submit("truth", lambda r: r.boxes), "necessity_edited", editor=Black())
        for name in ("verified", "flip", "kept", "flip_evidence"):
            assert mean(result, name) == 1.0
        assert mean(result, "necessity") == pytest.approx(0.8)
        assert mean(result, "flip_random") < 0.5

    def test_the_wrong_place_is_not(self, board: World) -> None:
        result = run(board, board.submit("wrong", lambda r: [[0, 30, 10, 40]]), "necessity_edited", editor=Black())
        assert mean(result, "verified") == mean(result, "flip") == mean(result, "kept") == 0.0
        assert mean(result, "flip_evidence") == 1.0

    def test_the_whole_image_is_no_better_than_random(self, board: World) -> None:
        path = board.submit("whole", lambda r: [[0, 0, SIDE, SIDE]])
        result = run(board, path, "necessity_edited", editor=Black())
        assert mean(result, "flip") == 1.0
        assert mean(result, "flip_gain") == 0.0

    def test_without_an_editor_it_says_so(self, board: World) -> None:
        path = board.submit("truth", lambda r: r.boxes)
        names = ["necessity_edited", "necessity"]
        report = run_protocols([path], board.folder, names, board.root / "out", lvlm=board.lvlm, resamples=200)
        assert report.missing == [
            "necessity_edited on truth: a counterfactual editor is needed (--editor)",
        ]
        assert list(report.results) == [("truth", "necessity")]
