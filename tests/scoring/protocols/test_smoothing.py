"""Smoothing and layers: maps whose noise, and methods whose layer, decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.attribution.method import method
from medground_bench.core.errors import MethodError
from medground_bench.scoring.protocols.maps import averaged
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.scoring.protocols.smoothing import smoothed
from tests.scoring.protocols.kit import SIDE, World, mean, run, world
from tests.scoring.protocols.test_sanity import grain, seen, spot


@pytest.fixture
def board(tmp_path: Path) -> World:
    return world(tmp_path, seen, n=12, image=grain, boxes=lambda k: [[14.0, 14.0, 35.0, 35.0]])


def blob(strength: float, side: int = 8) -> Any:
    """The evidence's cells, each on or off by chance, under noise."""
    rng = np.random.default_rng(2)

    def heat(record: Any) -> np.ndarray:
        out = rng.random((8, 8))
        out[2:5, 2:5] += strength * rng.random((3, 3))
        return np.kron(out, np.ones((side // 8, side // 8)))

    return heat


def test_a_box_filter_by_hand() -> None:
    heat = np.zeros((4, 4))
    heat[0, 0] = 12
    assert smoothed(heat, 1).tolist() == heat.tolist()
    expected = np.zeros((4, 4))
    expected[0, 0], expected[0, 1], expected[1, 0], expected[1, 1] = 12 / 4, 12 / 6, 12 / 6, 12 / 9
    assert smoothed(heat, 3) == pytest.approx(expected)
    assert smoothed(np.full((5, 7), 3.0), 5) == pytest.approx(3.0)


def test_means_by_hand() -> None:
    heat = np.array([[1.0, 2, 3], [4, 5, 6]])
    assert averaged(heat, (1, 1)) == pytest.approx(3.5)
    assert averaged(heat, (1, 2)) == pytest.approx(np.array([[(5 + 7 / 2) / 3, (9 + 7 / 2) / 3]]))
    assert averaged(heat, (4, 6)) == pytest.approx(np.kron(heat, np.ones((2, 2))))


def test_noise_is_smoothed_away(board: World) -> None:
    result = run(board, board.submit("noisy", heat=blob(0.8)), "smoothing")
    assert mean(result, "auprc_1") < mean(result, "auprc_3") - 0.05
    assert mean(result, "gain") == pytest.approx(mean(result, "auprc_5") - mean(result, "auprc_1"))
    assert mean(result, "auprc_chance") == pytest.approx((21 / SIDE) ** 2, abs=1e-6)
    assert result.count["passes"] == result.count["runs"] == 0


def test_what_knows_nothing_wins_nothing(board: World) -> None:
    result = run(board, board.submit("random", heat=blob(0)), "smoothing")
    whole = result.find()
    assert whole is not None
    assert whole.values["gain"].low < 0 < whole.values["gain"].high


def test_maps_of_pixels_and_of_tokens_are_at_one_resolution(board: World) -> None:
    tokens = run(board, board.submit("tokens", heat=blob(1)), "smoothing")
    pixels = run(board, board.submit("pixels", heat=blob(1, SIDE)), "smoothing")
    for name in ("auprc_1", "auprc_5", "energy_3"):
        assert tokens.values[name] == pytest.approx(pixels.values[name], abs=1e-6)


@dataclass(frozen=True)
class Chosen:
    layer: int = 1


@method("layered", family="test", over="frame", parameters=Chosen)
def layered(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
    """Finds the spot in a middle layer, its mirror image in the first, and nothing in the last."""
    found = (episode.frame_array > 200).astype(float)
    return [found[:, ::-1], found, np.ones(found.shape)][parameters.layer]


@method("short", family="test", over="frame", parameters=Chosen)
def short(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
    if parameters.layer > 0:
        raise MethodError("it has no such layer")
    return (episode.frame_array > 200).astype(float)


class TestLayers:
    @pytest.fixture
    def board(self, tmp_path: Path) -> World:
        found = world(tmp_path, seen, n=6, image=grain, boxes=spot)
        found.lvlm.layers = [None] * 3
        return found

    def submitted(self, board: World, name: str) -> Path:
        return board.submit(name, heat=lambda r: (np.asarray(r.image) > 200).astype(float))

    def test_each_layer_has_its_score(self, board: World) -> None:
        result = run(board, self.submitted(board, "layered"), "layers", methods={"layered": layered})
        chance = mean(result, "auprc_chance")
        assert mean(result, "auprc") == mean(result, "auprc_middle") == pytest.approx(1)
        assert mean(result, "auprc_last") == pytest.approx(chance)
        assert mean(result, "auprc_first") < chance + 0.1
        assert mean(result, "spread") > 0.9
        assert mean(result, "degenerate") == pytest.approx(1 / 3)
        assert result.count["runs"] == 18

    def test_others_are_left_out_with_the_reason(self, board: World) -> None:
        def plain(lvlm: Any, episode: Any) -> np.ndarray:
            return episode.frame_array.astype(float)

        result = run(board, self.submitted(board, "plain"), "layers", methods={"plain": plain})
        assert result.skipped == {"the method reads no single layer": 6}
        result = run(board, self.submitted(board, "short"), "layers", methods={"short": short})
        assert result.skipped == {"the method reads fewer than two of the layers: it has no such layer": 6}


def test_gradcam_on_a_model_of_the_real_class(tiny_qwen: Any, tmp_path: Path) -> None:
    board = world(
        tmp_path,
        seen,
        n=2,
        image=lambda k: np.kron(grain(k), np.ones((2, 2), np.uint8)),
        model=lambda k: tiny_qwen.key,
        id=lambda k: f"{tiny_qwen.key}/{k}",
    )
    path = board.submit("gradcam", heat=lambda r: np.eye(8))
    text = (path / "submission.json").read_text().replace('"tiny_a"', f'"{tiny_qwen.key}"')
    (path / "submission.json").write_text(text.replace(f'"frame_side": {SIDE}', '"frame_side": 112'))
    report = run_protocols([path], board.folder, ["layers"], tmp_path / "out", lvlm=tiny_qwen, resamples=200)
    assert not report.errors, report.errors
    result = report.results["gradcam", "layers"]
    maps = {name: result.values[f"auprc_{name}"].tolist() for name in ("first", "last")}
    assert maps["first"] != maps["last"]
    assert result.count["runs"] == 6
