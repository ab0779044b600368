"""Flip, side, shift, stability and modality: methods and models whose answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from medground_bench.attribution.method import method
from medground_bench.scoring.protocols.laterality import named_side, swap_sides
from medground_bench.scoring.protocols.shift import shifted
from medground_bench.submission import write_submission
from tests.scoring.folders import header
from tests.scoring.protocols.kit import SIDE, World, mean, run
from tests.scoring.protocols.test_sanity import METHODS, board_of, bright, run_again, submission

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm


@method("still", family="test", over="frame")
def still(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
    """One lopsided map for every image."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return (x + 0.1 * y).astype(float)


@dataclass(frozen=True)
class Seeded:
    seed: int = 0


@method("seeded", family="test", parameters=Seeded, over="frame")
def seeded(lvlm: Any, episode: Any, parameters: Seeded) -> np.ndarray:
    return np.random.default_rng(parameters.seed).random((8, 8))


ALL = {**METHODS, "still": still, "seeded": seeded}


def submit(board: World, name: str) -> Path:
    def heat(record: Any) -> np.ndarray:
        episode = board.lvlm.prepare(record.image, record.question, "Yes", side=SIDE)
        found = ALL[name]
        return np.asarray(found.function(board.lvlm, episode, found.make_parameters()))

    return board.submit(name, heat=heat)


def test_words_for_sides() -> None:
    text = "Left-sided opacity in the right lung; a copyright, leftover, LEFT."
    assert swap_sides(text) == "Right-sided opacity in the left lung; a copyright, leftover, RIGHT."
    assert swap_sides(swap_sides(text)) == text
    assert named_side("a left pleural effusion") == "left"
    assert named_side("Right-sided nodule") == "right"
    assert named_side("left and right") is None
    assert named_side("left, bilaterally") is None
    assert named_side("Yes") is None


class TestFlip:
    def test_a_map_of_the_picture_follows_it(self, tmp_path: Path) -> None:
        result = run(board := board_of(tmp_path), submit(board, "bright"), "flip", methods=ALL)
        assert mean(result, "equivariance") == pytest.approx(1)
        assert mean(result, "prior_pull") == 0
        assert mean(result, "model_inconsistent") == 0

    def test_a_prior_stays(self, tmp_path: Path) -> None:
        result = run(board := board_of(tmp_path), submit(board, "still"), "flip", methods=ALL)
        assert mean(result, "prior_pull") == 1
        assert mean(result, "equivariance") < 0

    def test_the_models_own_inconsistency_is_not_the_maps(self, tmp_path: Path) -> None:
        board = board_of(tmp_path, lambda frame, question: 0.9 if frame[:, : SIDE // 2].max() > 200 else 0.1)
        result = run(board, submit(board, "bright"), "flip", methods=ALL)
        assert mean(result, "model_inconsistent") == 1
        assert "equivariance" not in result.values


def test_the_images_left_is_the_patients_right(tmp_path: Path) -> None:
    board = board_of(tmp_path, attribute=lambda k: "right effusion" if k % 2 else "left effusion")
    result = run(board, submission(board), "side")  # the spot is on the image's left
    assert result.values["hit"].tolist() == [k % 2 for k in range(8)]
    board = board_of(tmp_path / "none")
    assert run(board, submission(board), "side").skipped == {"neither response nor finding names one side": 8}


class TestShift:
    def test_what_moves(self) -> None:
        assert shifted(np.arange(6).reshape(2, 3), 1).tolist() == [[0, 0, 1], [0, 0, 1]]

    def test_a_map_of_the_picture_moves_with_it(self, tmp_path: Path) -> None:
        result = run(board := board_of(tmp_path), submit(board, "bright"), "shift", methods=ALL)
        assert mean(result, "token") == pytest.approx(1)
        assert mean(result, "grid_artefact") == pytest.approx(0)

    def test_a_grid_shows_at_half_a_token(self, tmp_path: Path) -> None:
        @method("cells", family="test", over="frame")
        def cells(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
            return episode.frame_array.astype(float).reshape(8, 7, 8, 7).mean(axis=(1, 3))

        board = board_of(tmp_path)
        path = board.submit(
            "cells", heat=lambda r: cells.function(None, board.lvlm.prepare(r.image, "", "", SIDE), None)
        )
        result = run(board, path, "shift", methods={"cells": cells})
        assert mean(result, "token") == pytest.approx(1, abs=0.05)
        assert mean(result, "grid_artefact") > 0.1


class TestStability:
    def test_a_map_that_never_changes(self, tmp_path: Path) -> None:
        result = run(board := board_of(tmp_path), submit(board, "still"), "stability", methods=ALL)
        for name in ("kendall", "cosine", "top", "worst", "rerun"):
            assert mean(result, name) == pytest.approx(1, abs=1e-6)
        assert mean(result, "max_sensitivity") == pytest.approx(0, abs=1e-6)
        assert mean(result, "lipschitz") == pytest.approx(0, abs=1e-5)
        assert mean(result, "unchanged") == 1
        assert "seeds" not in result.values

    def test_the_image_as_a_map_changes_as_the_image_does(self, tmp_path: Path) -> None:
        result = run(board := board_of(tmp_path), submit(board, "bright"), "stability", methods=ALL)
        assert mean(result, "lipschitz") == pytest.approx(1, abs=1e-5)
        rows = {row["measure"]: row for row in result.tables[0].rows}
        assert set(rows) == {"kendall", "cosine", "top", "rerun"}
        for name, row in rows.items():
            assert row["mean"] == pytest.approx(mean(result, name))
            assert row["p5"] == pytest.approx(np.quantile(result.values[name], 0.05))

    def test_seeds(self, tmp_path: Path) -> None:
        result = run(board := board_of(tmp_path), submit(board, "seeded"), "stability", methods=ALL)
        assert mean(result, "rerun") == pytest.approx(1)
        assert abs(mean(result, "seeds")) < 0.3

    def test_another_patients_map_is_what_to_compare_with(self, tmp_path: Path) -> None:
        board = board_of(tmp_path)
        still = run(board, submit(board, "still"), "stability", methods=ALL)
        assert mean(still, "records") == pytest.approx(1)
        assert "precision" not in still.values  # a game has no weights
        rng = np.random.default_rng(0)
        other = run(board, board.submit("seeded", heat=lambda r: rng.random((8, 8))), "stability", methods=ALL)
        assert abs(mean(other, "records")) < 0.3

    def test_changes_that_move_the_answer_do_not_count(self, tmp_path: Path) -> None:
        board = board_of(tmp_path, lambda frame, question: 0.9 - 0.8 * float(frame[40:, 40:].std() > 15))
        still_there = run(board, submit(board, "bright"), "stability", methods=ALL)
        assert mean(still_there, "unchanged") == 1
        strict = board_of(tmp_path / "strict", lambda frame, question: float(frame.astype(int).sum() % 97) / 100 + 0.01)
        moved = run(strict, submit(strict, "bright"), "stability", methods=ALL)
        assert mean(moved, "unchanged") < 0.6


def test_modality(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    result = run(board, submission(board), "modality")
    assert mean(result, "drop") == pytest.approx(0.9)
    assert mean(result, "from_text") == 0
    assert mean(result, "token_drop") == pytest.approx(np.log(0.95 / 0.05))
    blind = board_of(tmp_path / "blind", lambda frame, question: 0.8)
    result = run(blind, submission(blind), "modality")
    assert mean(result, "drop") == 0
    assert mean(result, "from_text") == mean(result, "answer_kept") == 1


def test_the_images_share_is_what_the_submission_tells(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    told = [0.25, 0.75, None, "much", 1.5, 0, True, 0.5]
    rows = [
        {"id": r.id, "boxes": [], **({} if share is None else {"extras": {"image_share": share}})}
        for r, share in zip(board.folder, told, strict=True)
    ]
    path = write_submission(
        tmp_path / "shares", header(board.rows, method="shares", settings={"frame_side": SIDE}), rows
    )
    shares = run(board, path, "modality").values["image_share"]
    assert shares == pytest.approx(np.array([0.25, 0.75, np.nan, np.nan, np.nan, 0, np.nan, 0.5]), nan_ok=True)
    assert "image_share" not in run(board, submission(board), "modality").values


def test_the_method_is_run_with_the_submissions_own_settings(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    path = board.submit("seeded", heat=lambda r: seeded.function(None, None, Seeded(5)), seed=5)
    assert mean(run(board, path, "stability", methods=ALL), "rerun") == pytest.approx(1)
    assert bright.name == "bright"


def test_precision_tells_who_rounds(tiny_qwen: Lvlm, tmp_path: Path) -> None:
    """A map of the type's rounding is another one in another type; one of the pixels is not."""

    @method("rounding", family="test", over="frame")
    def rounding(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
        values = torch.linspace(0, 1, 401)[1:].to(lvlm.dtype).double()
        return np.asarray((values * 400).frac(), float).reshape(20, 20)

    for name, result in run_again(tiny_qwen, tmp_path, "stability", {"rounding": rounding, "bright": bright}):
        assert mean(result, "rerun") == pytest.approx(1, abs=1e-4)
        assert (mean(result, "precision") > 0.99) == (name == "bright")
