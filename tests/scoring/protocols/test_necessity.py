"""Necessity and sufficiency: hand values of the additive game, and the causal test turned on submissions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.causal.editors.base import Editor, EditRequest
from medground_bench.lvlm.quarters import disconnected
from medground_bench.scoring.protocols.run import run_protocols
from tests.scoring.protocols.kit import SIDE, World, additive, mean, quadrant, run, world

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm
    from medground_bench.scoring.protocols.result import ProtocolResult


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


class TestTokens:
    @pytest.fixture
    def board(self, tiny_qwen: Lvlm, tmp_path: Path) -> World:
        return world(
            tmp_path,
            additive,
            n=2,
            image=lambda k: np.random.default_rng(k).integers(0, 255, (2 * SIDE, 2 * SIDE), dtype=np.uint8),
            boxes=lambda k: [quadrant(k, 2 * SIDE)],
            model=lambda k: tiny_qwen.key,
            id=lambda k: f"{tiny_qwen.key}/{k}",
        )

    def found(self, board: World, lvlm: Lvlm, boxes: Any) -> ProtocolResult:
        path = board.submit("some", boxes)
        text = (path / "submission.json").read_text().replace('"tiny_a"', f'"{lvlm.key}"')
        (path / "submission.json").write_text(text.replace(f'"frame_side": {SIDE}', f'"frame_side": {2 * SIDE}'))
        settings = {"necessity_tokens": {"draws": 3}}
        report = run_protocols(
            [path], board.folder, ["necessity_tokens"], board.root / "out", lvlm=lvlm, settings=settings, resamples=200
        )
        assert not report.errors, report.errors
        return report.results["some", "necessity_tokens"]

    def test_a_quarter_is_what_masking_the_whole_model_says(self, board: World, tiny_qwen: Lvlm) -> None:
        result = self.found(board, tiny_qwen, lambda r: r.boxes)
        for k, record in enumerate(board.folder):
            p = {}
            for said in ("Yes", "No"):
                episode = tiny_qwen.prepare(record.image, record.question, said, side=2 * SIDE)
                frame = episode.frame_array[None]
                p[said] = [np.exp(tiny_qwen.log_probs(episode, frame).mean())]
                for hidden in ([k], {0, 1, 2, 3} - {k}):
                    with disconnected(tiny_qwen, episode, hidden, tower=False):
                        p[said].append(np.exp(tiny_qwen.log_probs(episode, frame).mean()))
            whole, without, alone = p["Yes"]
            values = {name: result.values[name][k] for name in result.values}
            assert values["necessity"] == pytest.approx(whole - without, abs=1e-7)
            assert values["sufficiency"] == pytest.approx(whole - alone, abs=1e-7)
            assert values["turned"] == float(p["No"][1] > without)
            assert values["tokens"] == 0.25
            assert abs(values["necessity"]) > 1e-6
        assert result.values["necessity_evidence"] == pytest.approx(result.values["necessity"])
        assert result.count == {"passes": 2 * 2 * 7, "found": 0, "runs": 0}

    def test_all_and_nothing(self, board: World, tiny_qwen: Lvlm) -> None:
        result = self.found(board, tiny_qwen, lambda r: [[0, 0, 2 * SIDE, 2 * SIDE]])
        assert mean(result, "sufficiency") == pytest.approx(0, abs=1e-7)
        assert mean(result, "necessity_gain") == pytest.approx(0, abs=1e-7)
        board.root /= "nothing"
        result = self.found(board, tiny_qwen, lambda r: [])
        assert mean(result, "necessity") == pytest.approx(0, abs=1e-7)
        assert mean(result, "tokens") == 0

    def test_a_small_box_has_the_token_that_it_lies_in(self, board: World, tiny_qwen: Lvlm) -> None:
        result = self.found(board, tiny_qwen, lambda r: [[1.0, 1.0, 4.0, 4.0]])
        assert mean(result, "tokens") == pytest.approx(1 / 16)
